"""webdataset tars with hostile headers, bad samples and damage."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.command import Ran, ingest
from tests.bad_input.making import picture, sample, tar

Members = list[tuple[str, bytes]]
INFO = json.dumps({"url": "http://example.org/x.jpg", "caption": "a dog"}).encode()

# name: (members of one bad sample, reason, what the error says)
SAMPLES: dict[str, tuple[Members, str, str]] = {
    "no image": ([("b.jpg", b"<html>"), ("b.txt", b"dog")], "not_an_image", "no image format"),
    "empty image": ([("b.jpg", b""), ("b.txt", b"dog")], "no_url_no_image", "columns.image"),
    "text only": ([("b.txt", b"dog")], "no_url_no_image", "columns.image"),
    "latin-1 caption": (
        [("b.jpg", picture("JPEG")), ("b.txt", b"caf\xe9")],
        "bad_utf8",
        "text 'txt' is not valid UTF-8",
    ),
    "cut JSON": (
        [("b.jpg", picture("JPEG")), ("b.txt", b"dog"), ("b.json", b'{"url": ')],
        "bad_record",
        "b.json is not valid JSON",
    ),
    "JSON array": (
        [("b.jpg", picture("JPEG")), ("b.txt", b"dog"), ("b.json", b"[]")],
        "bad_record",
        "b.json is no JSON object",
    ),
    "too large an image": (
        [("b.jpg", picture("JPEG") + bytes(60_000)), ("b.txt", b"dog")],
        "image_too_large",
        "b.jpg has",
    ),
    "too long a caption": (
        [("b.jpg", picture("JPEG")), ("b.txt", b"x" * 60_000)],
        "bad_record",
        "b.txt has 60000 bytes",
    ),
}


@pytest.fixture(scope="module")
def ran(place: Path) -> Ran:
    members: Members = []
    for number, (bad, _, _) in enumerate(SAMPLES.values()):
        members += [*sample(f"good{number}", number), *bad]
    path = tar(place / "00000.tar", members)
    return ingest(path, place / "out", "max_record_bytes=50000", "images.max_bytes=50000")


@pytest.mark.parametrize("name", SAMPLES)
def test_dead_letter_names_row_and_reason(ran: Ran, name: str) -> None:
    _, reason, message = SAMPLES[name]
    letter = ran.letter(2 * list(SAMPLES).index(name) + 1)
    assert letter["reason"] == reason, letter["error"]
    assert message in letter["error"]


def test_the_samples_between_them_stay(ran: Ran) -> None:
    assert ran.positions == list(range(0, 2 * len(SAMPLES), 2))


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def packed(count: int) -> list[bytes]:
    """Samples as blocks of bytes, without the archive's end."""
    found = []
    for n in range(count):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in sample(f"s{n}", n):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            size = archive.offset
        found.append(out.getvalue()[:size])
    return found


def cut(samples: list[bytes]) -> bytes:
    return b"".join(samples)[:-512]


def cut_in_header(samples: list[bytes]) -> bytes:
    return b"".join(samples) + header("x.jpg", 10)[:100]


def zeroed_header(samples: list[bytes]) -> bytes:
    return b"".join([*samples[:3], b"\xff" * 512 + samples[3][512:], *samples[4:]])


def huge_member(samples: list[bytes]) -> bytes:
    return b"".join(samples) + header("x.jpg", 2**40)


def negative_size(samples: list[bytes]) -> bytes:
    block = bytearray(header("x.jpg", 0))
    block[124:136] = b"\xff" * 12  # base-256: -1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return b"".join([*samples[:3], bytes(block), *samples[3:]])


def huge_pax(samples: list[bytes]) -> bytes:
    return b"".join([*samples[:3], header("x", 2**21, b"x") + bytes(2**21), *samples[3:]])


def gzip_cut(samples: list[bytes]) -> bytes:
    return gzip.compress(b"".join(samples))[:-100]


# name: (what happens to six samples, least number of samples kept, what the error says)
DAMAGE: dict[str, tuple[Callable[[list[bytes]], bytes], int, str]] = {
    "cut": (cut, 6, "the archive ends early"),
    "cut in a header": (cut_in_header, 6, "ends within a header"),
    "garbage for a header": (zeroed_header, 5, "no header of a member"),
    "a member of a terabyte": (huge_member, 6, "the archive ends early"),
    "a negative size": (negative_size, 6, "no header of a member"),
    "an extended header of 2 MB": (huge_pax, 6, "an extended header of 2097152 bytes"),
    "compressed and cut": (gzip_cut, 4, "the gzip stream cannot be read past byte"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_dead_letter(tmp_path: Path, name: str) -> None:
    damage, least, message = DAMAGE[name]
    path = tmp_path / "00000.tar"
    path.write_bytes(damage(packed(6)))
    ran = ingest(path, tmp_path / "out")
    found = [letter for letter in ran.letters if message in letter["error"]]
    assert len(found) == 1, ran.letters
    assert found[0]["reason"] == "bad_record"
    assert len(ran.positions) >= least
    assert len(ran.positions) + len(ran.letters) == len({*ran.positions}) + len(ran.letters)


def test_names_are_never_paths(tmp_path: Path) -> None:
    members: Members = []
    for key in ("../../escape", "/etc/passwd", "a/../../b", "c:\\x", "x" * 300, "naïve 日本"):
        members += sample(key)
    links = tmp_path / "links.tar"
    tar(links, members)
    with tarfile.open(links, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("evil.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    before = {path for path in tmp_path.parent.rglob("*") if "out" not in path.parts}
    ran = ingest(links, tmp_path / "out")
    assert len(ran.positions) == 6
    assert ran.letters == []
    after = {path for path in tmp_path.parent.rglob("*") if "out" not in path.parts}
    assert {p for p in after - before if "/out/" not in str(p)} <= {tmp_path / "out"}


def test_an_extended_size_cannot_make_a_member_negative(tmp_path: Path) -> None:
    record = b"17 size=-1000000\n"
    body = header("x", len(record), b"x") + record.ljust(512, b"\0")
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(packed(2)) + body + b"".join(packed(1)))
    assert len(ingest(path, tmp_path / "out").positions) == 3


def test_sparse_members_are_passed_over(tmp_path: Path) -> None:
    block = bytearray(header("x.jpg", 512, b"S"))
    block[386:398] = b"%011o\0" % 0
    block[483:495] = b"%011o\0" % 2**32
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = tmp_path / "a.tar"
    path.write_bytes(packed(1)[0] + bytes(block) + struct.pack("512x") + packed(2)[1])
    assert ingest(path, tmp_path / "out").positions == [0, 1]
