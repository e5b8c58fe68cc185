"""The automaton file: same bytes for the same entries, refused when damaged; exact under collisions."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kernels.matching import Automaton, build
from kernels.matching.builder import MAX_ENTRY
from kernels.matching.layout import FORMAT_VERSION
from kernels.matching.scan import MIX_1, MIX_2
from schemas.errors import HeadraceError, InputError, IntegrityError, StorageError, UsageError
from tests.kernels.matching import automaton, compare, split, texts_and_entries

ENTRIES = ["dog", "hot dog", "犬", "antidisestablishmentarianism", "hot dog stand on fire"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    build(ENTRIES, mode="repaired", path=tmp_path / "a")
    return tmp_path / "a"


def test_same_entries_same_bytes(tmp_path: Path) -> None:
    _, entries = texts_and_entries(seed=1, n_texts=50, n_entries=400)
    for mode in ("repaired", "official"):
        for name in ("a", "b"):
            build(entries, mode=mode, path=tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_fingerprint_covers_entries_order_mode_and_spacing(tmp_path: Path) -> None:
    variants = [
        automaton(tmp_path, ENTRIES, "repaired"),
        automaton(tmp_path, ENTRIES, "official"),
        automaton(tmp_path, ENTRIES, "official", "always"),
        automaton(tmp_path, ENTRIES[::-1], "repaired"),
        automaton(tmp_path, ENTRIES[:-1], "repaired"),
        automaton(tmp_path, ["dogh", "ot dog", *ENTRIES[2:]], "repaired"),
    ]
    fingerprints = [v.fingerprint for v in variants]
    assert len(set(fingerprints)) == len(fingerprints)
    assert automaton(tmp_path, ENTRIES, "repaired").fingerprint == fingerprints[0]
    assert (variants[1].mode, variants[1].size) == ("official", 5)


def test_ids_are_positions_and_collapsed_ids_are_told(tmp_path: Path) -> None:
    """Duplicates never shift ids: the released code counted the keys instead (9.2, item 11)."""
    entries = ["", "dog", " dog", "hot  dog", "hot dog", "\t", "cat"]
    path = tmp_path / "a"
    assert build(entries, mode="repaired", path=path) == [0, 2, 4, 5]
    matcher = Automaton.open(path)
    assert matcher.size == 7
    assert split(matcher.match(pa.array(["a hot dog, a cat"])), [0]) == [[1, 3, 6]]
    assert build(["dog", "", "dog", " dog"], mode="official", path=path) == [1, 2]


def test_every_truncation_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in [*range(0, 2000, 7), *range(2000, len(whole), 1 + len(whole) // 50)]:
        path.write_bytes(whole[:size])
        with pytest.raises(HeadraceError, match=r"not an automaton file|damaged|expected|checksum"):
            Automaton.open(path)
    path.write_bytes(whole + b"\0" * 64)
    with pytest.raises(IntegrityError, match="expected"):
        Automaton.open(path)


def test_every_changed_byte_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for at in [*range(400), *range(400, len(whole), 1 + len(whole) // 300)]:
        broken = bytearray(whole)
        broken[at] ^= 1 << at % 8
        path.write_bytes(broken)
        with pytest.raises(HeadraceError):
            Automaton.open(path)


def test_another_format_version_is_refused(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[8:12] = struct.pack("<I", FORMAT_VERSION + 1)
    path.write_bytes(whole)
    told = f"format {FORMAT_VERSION + 1}, this program reads format {FORMAT_VERSION}"
    with pytest.raises(InputError, match=told):
        Automaton.open(path)


def test_what_is_no_automaton_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("dog\n" * 100)
    with pytest.raises(InputError, match="not an automaton file"):
        Automaton.open(tmp_path / "text")
    with pytest.raises(InputError, match="cannot be read"):
        Automaton.open(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be read"):
        Automaton.open(tmp_path)


def test_entries_that_cannot_be_built(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(InputError, match="entry 1 is null"):
        build(["dog", None], mode="repaired", path=path)  # type: ignore[list-item]
    with pytest.raises(InputError, match="UTF-8"):
        build(["dog", "\ud800"], mode="repaired", path=path)
    with pytest.raises(InputError, match="text"):
        build(["dog", 7], mode="repaired", path=path)  # type: ignore[list-item]
    with pytest.raises(InputError, match=f"entry 1 has {MAX_ENTRY + 1} bytes; the limit is"):
        build(["dog", "x" * (MAX_ENTRY + 1)], mode="repaired", path=path)
    with pytest.raises(UsageError, match="choose one of repaired, official"):
        build(["dog"], mode="fixed", path=path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="choose one of isolating, always"):
        build(["dog"], mode="official", spacing="never", path=path)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="no such folder"):
        build(["dog"], mode="repaired", path=tmp_path / "absent/a")
    assert not path.exists()


def test_a_failed_build_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(InputError):
        build(["dog", "\ud800"], mode="repaired", path=path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a"]


def mixed(value: np.ndarray) -> np.ndarray:
    """`scan.mix` on arrays."""
    value = (value ^ (value >> np.uint64(32))) * MIX_1
    value = (value ^ (value >> np.uint64(29))) * MIX_2
    return value ^ (value >> np.uint64(32))


def colliding_words() -> tuple[str, str]:
    """Two words of 16 letters whose tokens have the same 63-bit key under seed 0.

    A token's key mixes its first and last 8 bytes in turn: for any other first half there is one
    last half that gives the same key; first halves are tried until that one is made of letters.
    """
    rng = np.random.default_rng(0)
    letters = np.frombuffer(
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", np.uint8
    )
    first, last = (np.frombuffer(w, np.uint64)[0] for w in (b"headrace", b"millpond"))
    length = np.uint64(16)
    while True:
        tried = rng.choice(letters, (200_000, 8)).view(np.uint64)[:, 0]
        wanted = mixed(np.array([length ^ first]))[0] ^ mixed(length ^ tried) ^ last
        good = np.isin(wanted.view(np.uint8).reshape(-1, 8), letters).all(axis=1)
        if good.any():
            found = tried[good][0].tobytes() + wanted[good][0].tobytes()
            return "headracemillpond", found.decode()


def test_a_word_that_only_shares_an_entrys_hash_does_not_match(tmp_path: Path) -> None:
    known, other = colliding_words()
    assert known != other
    matcher = automaton(tmp_path, [known, f"{known} dog"], "repaired")
    assert matcher.seed == 0
    texts = [known, other, f"{other} dog", f"{known} dog"]
    assert split(matcher.match(pa.array(texts)), texts) == [[0], [], [], [0, 1]]


def test_entries_that_share_a_hash_take_another_seed(tmp_path: Path) -> None:
    known, other = colliding_words()
    matcher = automaton(tmp_path, [known, other], "repaired")
    assert matcher.seed == 1
    assert compare(tmp_path, [known, other], [known, other, f"{other} {known}"], "repaired") == 4


def test_building_and_opening_many_entries(tmp_path: Path) -> None:
    entries = [f"entry{i % 9973} number{i}" for i in range(200_000)]
    build(entries[:10], mode="repaired", path=tmp_path / "warm")
    start = time.process_time()
    assert build(entries, mode="repaired", path=tmp_path / "a") == []
    built = time.process_time()
    matcher = Automaton.open(tmp_path / "a")
    opened = time.process_time()
    assert built - start < 5
    assert opened - built < 0.1
    texts = ["entry7 number7", "entry8 number7", "an entry27, entry27 number199487!"]
    assert split(matcher.match(pa.array(texts)), texts) == [[7], [], [199_487]]
