"""The index on disk: right, small, built once by one of many, and quick at 10^10 tokens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import IntegrityError, StorageError, UsageError
from tests.support import ROOT
from tests.trainer.packing import making
from trainer.packing import cache as indexes
from trainer.packing import lengths
from trainer.packing.concatenate import Concatenated
from trainer.packing.lengths import Lengths, RowGroup

GROUPS, ROWS = 1428, 7003


def test_the_index_has_the_lengths_and_splits_of_all_rows(tmp_path: Path) -> None:
    sizes = [3, 0, 5, 9, 1, 4, 4, 0, 2, 8] * 6
    texts = making.texts(sizes, validation=4)
    data = making.made(tmp_path / "d", texts)
    found = Lengths.of(data)
    assert found.lengths.tolist() == sizes
    assert [found.splits[c] for c in found.codes] == [t.split for t in texts]
    assert found.first[-1] == len(sizes) and len(found.shard) > 8
    for split in ("train", "validation"):
        code = found.code(split, "d")
        docs = found.of_groups(np.arange(len(found.shard)), code)
        wanted = [i for i, t in enumerate(texts) if t.split == split and len(t.tokens)]
        assert (found.first[docs.group] + docs.row).tolist() == wanted
        assert docs.length.tolist() == [sizes[i] for i in wanted]
        assert found.tokens[:, code].sum() == sum(sizes[i] for i in wanted)


def test_an_index_is_built_once_and_whole(cache: Path, tmp_path: Path) -> None:
    data = making.made(tmp_path / "d", making.texts([5] * 40))
    Lengths.of(data)
    (entry,) = [p for p in cache.iterdir() if p.is_dir()]
    times = {p.name: p.stat().st_mtime_ns for p in entry.iterdir()}
    Lengths.of(data)
    assert {p.name: p.stat().st_mtime_ns for p in entry.iterdir()} == times
    other = making.made(tmp_path / "e", making.texts([6] * 40))
    assert Lengths.of(other).lengths.tolist() == [6] * 40


def test_of_many_processes_one_builds(cache: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from trainer.packing.cache import built\n"
        "def build(folder):\n"
        "    open(sys.argv[1], 'a').write('x')\n"
        "    (folder / 'one').write_text('1'); time.sleep(0.5); (folder / 'two').write_text('2')\n"
        "place = built('kind', {'a': 1}, build)\n"
        "print(sorted(p.name for p in place.iterdir()))\n"
    )
    log = tmp_path / "built"
    command = [sys.executable, "-c", code, str(log)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [rank.communicate(timeout=60)[0] for rank in ranks] == ["['one', 'two']\n"] * 3
    assert log.read_text() == "x"


def test_what_a_killed_builder_left_is_removed(cache: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "half").write_text("")
        os.rename(folder, folder.with_name(f"{folder.name}-left"))
        raise KeyboardInterrupt

    def whole(folder: Path) -> None:
        (folder / "all").write_text("")

    with pytest.raises(KeyboardInterrupt):
        indexes.built("kind", {"a": 2}, killed)
    assert len([p for p in cache.iterdir() if p.is_dir()]) == 1
    found = indexes.built("kind", {"a": 2}, whole)
    assert [p.name for p in found.iterdir()] == ["all"]
    assert [p for p in cache.iterdir() if p.is_dir()] == [found]


def test_a_cache_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set HEADRACE_CACHE"):
        indexes.built("kind", {}, lambda folder: None)


def test_lengths_that_contradict_the_manifest_are_refused(tmp_path: Path) -> None:
    stats = {"tokens": {"train": 201, "validation": 0}}
    data = making.made(tmp_path / "d", making.texts([5] * 40), stats=stats)
    with pytest.raises(IntegrityError, match="200 tokens, its manifest says 201"):
        Lengths.of(data)


def test_a_split_without_tokens_names_those_that_have_some(tmp_path: Path) -> None:
    data = making.made(tmp_path / "d", making.texts([5] * 4))
    with pytest.raises(
        UsageError, match=r"split=validation: .* no token of that split; it has train"
    ):
        Lengths.of(data).code("validation", "d")


def made_up() -> Iterator[RowGroup]:
    """10 million documents of 1,000 tokens on average, in row groups of 7,003."""
    rng = np.random.default_rng(0)
    codes = np.zeros(ROWS, np.uint8)
    codes[::200] = 1
    for number in range(GROUPS):
        sizes = np.minimum(rng.exponential(1000, ROWS) + 1, 1 << 20).astype(np.int32)
        yield RowGroup(number // 20, number % 20, sizes, codes)


def test_ten_billion_tokens_are_indexed_in_little_and_found_at_once(tmp_path: Path) -> None:
    lengths.build(tmp_path, made_up(), ["train", "validation"])
    size = sum(p.stat().st_size for p in tmp_path.iterdir())
    assert size < 5.1 * GROUPS * ROWS
    start = time.process_time()
    index = Lengths.opened(tmp_path)
    of = Concatenated(index, 0, "digest", 1, 2048, 8)
    assert index.lengths.sum(dtype=np.int64) > 10**10 > 0.9 * of.sequences * 2048
    begun = time.process_time() - start
    for epoch, sequence in ((0, of.sequences - 512), (3, of.sequences // 2)):
        start = time.process_time()
        parts = of.parts(epoch, np.arange(sequence, sequence + 512))
        assert begun + time.process_time() - start < 1
        assert parts.length.sum() == 512 * 2049
