"""webdataset tars, read as the webdataset library reads them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from curation.ingest import IngestOptions
from tests.bad_input.making import picture, sample, tar
from tests.curation.ingest.reading import whole


def test_img2dataset(tmp_path: Path) -> None:
    members = [m for n in range(20) for m in sample(f"{n:09d}", n, f"dog {n}", similarity=n / 10)]
    path = tar(tmp_path / "00000.tar", members)
    read = whole(path, score="similarity")
    assert read.texts() == [[("txt", f"dog {n}")] for n in range(20)]
    assert read.table["url"].to_pylist() == [f"http://example.org/{n:09d}.jpg" for n in range(20)]
    assert read.table["image"].to_pylist()[3] == {
        "bytes": picture("JPEG", seed=3), "path": "000000003.jpg",
    }  # fmt: skip
    assert read.table["score"].to_pylist()[7] == 0.7


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_as_webdataset_reads_it(tmp_path: Path, form: int) -> None:
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "a.tar"
    names = ["a", "b.c", "dir/a", "dir/a/deep", "ünï", "x" * 90, "d" * 60 + "/" + "n" * 60]
    if form != tarfile.USTAR_FORMAT:
        names.append("long/" * 40 + "name")
    with tarfile.open(path, "w", format=form) as archive:
        for seed, name in enumerate(names):
            for extension, data in (
                ("JPG", picture("JPEG", seed=seed)), ("txt", name.encode()), ("seg.png", b"mask"),
                ("cls", b"3"),
            ):  # fmt: skip
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    expected = [
        (s["__key__"], s["jpg"], s["txt"].decode())
        for s in webdataset.WebDataset(str(path), shardshuffle=False)
        if "jpg" in s
    ]
    read = whole(path, id="__key__")
    found = [
        (row["image"]["path"].rpartition(".")[0], row["image"]["bytes"], row["texts"][0]["text"])
        for row in read.table.to_pylist()
    ]
    assert found == expected
    assert len(found) == len(names) - 1  # "b.c" is key b with extension c.jpg


def test_captions_in_json(tmp_path: Path) -> None:
    members = [
        ("a.png", picture()), ("a.json", json.dumps({"caption": "a", "alt": ["b", "c"]}).encode()),
        ("b.png", picture(seed=1)), ("b.json", b'{"alt": "d"}'),
    ]  # fmt: skip
    path = tar(tmp_path / "a.tar", members)
    assert whole(path).texts() == [[("caption", "a")]]
    assert whole(path, text="alt,caption").texts() == [
        [("alt", "b"), ("alt", "c"), ("caption", "a")], [("alt", "d")],
    ]  # fmt: skip


def test_json_in_txt(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [("a.png", picture()), ("a.txt", b'{"en": "dog"}')])
    assert whole(path, text_format="json").texts() == [[("en", "dog")]]


def test_compressed_and_limited(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [m for n in range(10) for m in sample(f"s{n}", n)])
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    plain, other = whole(path), whole(packed)
    assert plain.table.equals(other.table)
    assert whole(path, IngestOptions(limit=4)).table["position"].to_pylist() == [0, 1, 2, 3]


def test_a_url_without_image_is_a_record(tmp_path: Path) -> None:
    members = [m for m in sample("a") if not m[0].endswith(".jpg")]
    read = whole(tar(tmp_path / "a.tar", members))
    assert read.table["url"].to_pylist() == ["http://example.org/a.jpg"]
    assert read.table["image"].to_pylist() == [None]
