"""Exports: what img2dataset, webdataset and open_clip read is what the dataset holds."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.export import HEAD, ExportOptions, export
from curation.metaclip2.dedup import deduplicate
from curation.metaclip2.explode import explode
from curation.pool.config import PoolConfig
from curation.pool.generate import generate
from curation.pool.render import render_images
from dataflows.cli import main
from schemas.commit import commit
from schemas.dataset import Dataset, open_dataset
from schemas.errors import ConflictError, InputError, IntegrityError, UsageError
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.manifest import Manifest
from schemas.storage import storage
from schemas.table_schemas import SCHEMAS
from schemas.writer import ShardWriter

LICENCE = "stamps: GPL-2.0-or-later"


def commit_rows(place: str, schema: str, rows: pa.Table, shard_rows: int = 40) -> Dataset:
    """Commit rows in several shards of small row groups."""
    root, spec = storage(place), SCHEMAS[schema]
    shards = []
    for start in range(0, rows.num_rows, shard_rows):
        with ShardWriter(root, spec) as writer:
            writer.write(spec.validate(rows.slice(start, shard_rows)))
        shards += writer.close()
    ledger = Ledger()
    total = id_sum(rows[spec.id_column]) if spec.id_column else 0
    ledger.add(spec.unit, "created", "generated", rows.num_rows, total)
    ledger.add(spec.unit, "out", "", rows.num_rows, total)
    head = {"name": spec.name, "version": spec.version}
    commit(root, Manifest(schema=head, counts=ledger.rows(), licence=[LICENCE]), shards)
    return open_dataset(root)


def curated_rows(images: bool = True) -> pa.Table:
    records = generate(13, 0, 110, PoolConfig(split="train"))
    pool = deduplicate(explode(records, 0, 0).table).table.sort_by(
        [("image_id", "ascending"), ("pair_id", "ascending")]
    )
    n = pool.num_rows
    columns = {
        **{name: pool[name] for name in pool.column_names},
        "language": pa.array(["en"] * n),
        "metadata": pa.array(["en"] * n),
        "entries": pa.array([[1, 2]] * n, pa.list_(pa.uint32())),
        "image_texts": pa.array(np.ones(n, np.int32)),
        "keep_probability": pa.array(np.linspace(0.1, 1, n)),
    }
    if images:
        columns["image"] = render_images(pool["url"], 32)
    return pa.table(columns)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return curated_rows()


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, rows: pa.Table) -> Dataset:
    return commit_rows(str(tmp_path_factory.mktemp("data") / "curated"), "curated", rows)


def contents(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_webdataset_reads_every_pair(curated: Dataset, rows: pa.Table, tmp_path: Path) -> None:
    import webdataset

    done = export(curated, tmp_path / "wds", ExportOptions("webdataset", rows_per_file=50))
    assert done.fresh
    tars = sorted((tmp_path / "wds").glob("*.tar"))
    assert len(tars) == -(-rows.num_rows // 50) > 2
    samples = list(
        webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False)
        .decode("pil")
        .to_tuple("__key__", "jpg", "txt", "json")
    )
    assert len(samples) == rows.num_rows
    for row, (key, image, text, facts) in zip(rows.to_pylist(), samples, strict=True):
        assert key == row["pair_id"].hex()
        assert text == row["text"] == facts["caption"]
        assert facts["url"] == row["url"]
        assert facts["keep_probability"] == row["keep_probability"]
        with Image.open(io.BytesIO(row["image"]["bytes"])) as original:
            assert np.array_equal(np.asarray(image), np.asarray(original))


def test_open_clip_finds_its_samples_and_sizes(curated: Dataset, tmp_path: Path) -> None:
    """The steps of open_clip's loader: sizes.json, then image and text by extension."""
    import webdataset

    out = tmp_path / "wds"
    export(curated, out, ExportOptions("webdataset", rows_per_file=64))
    sizes = json.loads((out / "sizes.json").read_text())
    assert sum(sizes.values()) == len(curated)
    for name, size in sizes.items():
        loaded = (
            webdataset.WebDataset(str(out / name), shardshuffle=False)
            .select(lambda sample: "txt" in sample and ("png" in sample or "jpg" in sample))
            .rename(image="jpg;png;jpeg;webp", text="txt")
        )
        assert sum(1 for sample in loaded if sample["image"] and sample["text"] is not None) == size


def test_url_text_holds_every_pair(curated: Dataset, rows: pa.Table, tmp_path: Path) -> None:
    export(curated, tmp_path / "urls", ExportOptions("img2dataset", rows_per_file=64))
    files = sorted((tmp_path / "urls").glob("*.parquet"))
    assert len(files) > 1
    table = pa.concat_tables([pq.read_table(file) for file in files])
    assert table["url"].to_pylist() == rows["url"].to_pylist()
    assert table["caption"].to_pylist() == rows["text"].to_pylist()
    assert table["pair_id"].to_pylist() == [value.hex() for value in rows["pair_id"].to_pylist()]
    assert table["keep_probability"].to_pylist() == rows["keep_probability"].to_pylist()
    laion = ExportOptions("url-text", url_column="URL", caption_column="TEXT")
    export(curated, tmp_path / "laion", laion)
    assert pq.read_schema(tmp_path / "laion/00000.parquet").names[:2] == ["URL", "TEXT"]


@pytest.mark.parametrize("kind", ["url-text", "webdataset"])
def test_bytes_do_not_depend_on_shards(
    curated: Dataset, rows: pa.Table, tmp_path: Path, kind: str
) -> None:
    other = commit_rows(str(tmp_path / "curated"), "curated", rows, shard_rows=7)
    for name, source in (("one", curated), ("two", other)):
        export(source, tmp_path / name, ExportOptions(kind, rows_per_file=33))
    one, two = (contents(tmp_path / name) for name in ("one", "two"))
    files = {name for name in one if name != HEAD}
    assert {name: one[name] for name in files} == {name: two[name] for name in files}
    if kind == "webdataset":
        with tarfile.open(tmp_path / "one/00000.tar") as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)


def test_head_says_what_the_export_is(curated: Dataset, rows: pa.Table, tmp_path: Path) -> None:
    export(curated, tmp_path / "out", ExportOptions("url-text"))
    head = json.loads((tmp_path / "out" / HEAD).read_text())
    assert head["dataset"]["digest"] == curated.manifest.digest
    assert head["rows"] == rows.num_rows
    assert head["licence"] == [LICENCE]
    assert set(contents(tmp_path / "out")) == {HEAD, "00000.parquet"}


@pytest.mark.parametrize("kind", ["url-text", "webdataset"])
def test_a_killed_export_is_not_there_and_is_continued(
    curated: Dataset, tmp_path: Path, kind: str
) -> None:
    options = ExportOptions(kind, rows_per_file=30)
    export(curated, tmp_path / "whole", options)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    program = (
        "import os, sys; from curation.export import ExportOptions, export; "
        f"export({curated.storage.url!r}, sys.argv[1], ExportOptions({kind!r}, rows_per_file=30), "
        "lambda done, files: done == int(sys.argv[2]) and os._exit(9))"
    )
    for files in (1, 3):
        done = subprocess.run([sys.executable, "-c", program, out, str(files)], check=False)
        assert done.returncode == 9
        assert not out.exists()
        assert len([p for p in partial.iterdir() if p.is_file()]) == files
    written = {path.name: path.stat().st_mtime_ns for path in partial.glob("0*")}
    (partial / "00002.orphan").write_bytes(b"")
    (partial / ".export/files/00001.json").write_text("{")  # torn: this file is written again
    (partial / "00002.orphan").unlink()
    assert export(curated, out, options).fresh
    assert contents(out) == contents(tmp_path / "whole")
    kept = {
        path.name for path in out.glob("0*") if path.stat().st_mtime_ns == written.get(path.name)
    }
    assert len(kept) == 2
    assert not partial.exists()


def test_the_same_command_again_finds_the_export(curated: Dataset, tmp_path: Path) -> None:
    options = ExportOptions("webdataset", rows_per_file=50)
    first = export(curated, tmp_path / "out", options)
    again = export(curated, tmp_path / "out", options)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.head == first.head
    tar = tmp_path / "out/00001.tar"
    tar.write_bytes(tar.read_bytes()[:-100])
    with pytest.raises(IntegrityError, match=r"00001.tar has \d+ bytes, export.json says"):
        export(curated, tmp_path / "out", options)
    (tmp_path / "out" / HEAD).write_text("{")
    with pytest.raises(IntegrityError, match=r"export.json is damaged; delete"):
        export(curated, tmp_path / "out", options)


def test_other_exports_and_files_are_not_overwritten(curated: Dataset, tmp_path: Path) -> None:
    export(curated, tmp_path / "out", ExportOptions("url-text"))
    with pytest.raises(ConflictError, match="holds another export: options there is"):
        export(curated, tmp_path / "out", ExportOptions("url-text", rows_per_file=9))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="exists and is not an export"):
        export(curated, tmp_path / "mine", ExportOptions("url-text"))
    with pytest.raises(KeyboardInterrupt):
        export(curated, tmp_path / "new", ExportOptions("url-text", rows_per_file=9), interrupt)
    with pytest.raises(ConflictError, match=r"new.partial holds an unfinished export of another"):
        export(curated, tmp_path / "new", ExportOptions("url-text", rows_per_file=10))


def interrupt(done: int, files: int) -> None:
    raise KeyboardInterrupt


def test_missing_images_are_refused_or_counted(rows: pa.Table, tmp_path: Path) -> None:
    images = rows["image"].to_pylist()
    images[3], images[70] = None, {"bytes": None, "path": "a.jpg"}
    at = rows.column_names.index("image")
    broken = rows.set_column(at, "image", pa.array(images, rows.schema.field("image").type))
    dataset = commit_rows(str(tmp_path / "curated"), "curated", broken)
    pair = rows["pair_id"][3].as_py().hex()
    with pytest.raises(InputError, match=f"pair {pair} has no image bytes.*--skip-missing"):
        export(dataset, tmp_path / "out", ExportOptions("webdataset"))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()  # what the message advises is not in its way
    options = ExportOptions("webdataset", skip_missing=True)
    head = export(dataset, tmp_path / "out", options).head
    assert head["skipped"] == {"no_image": 2}
    assert head["rows"] == rows.num_rows - 2


def test_datasets_that_cannot_be_exported(rows: pa.Table, tmp_path: Path) -> None:
    pool = rows.select(SCHEMAS["pool"].arrow.names)
    dataset = commit_rows(str(tmp_path / "pool"), "pool", pool)
    with pytest.raises(InputError, match="is a dataset of pool, which holds no images"):
        export(dataset, tmp_path / "out", ExportOptions("webdataset"))
    assert export(dataset, tmp_path / "out", ExportOptions("url-text")).head["rows"] == len(pool)
    without = pool.set_column(2, "url", pa.nulls(len(pool), pa.string()))
    bare = commit_rows(str(tmp_path / "bare"), "pool", without)
    with pytest.raises(InputError, match="has no URL, so the export would lack it"):
        export(bare, tmp_path / "none", ExportOptions("url-text"))
    records = commit_rows(str(tmp_path / "records"), "records", generate(1, 0, 5))
    with pytest.raises(InputError, match="is a dataset of records; export reads pairs"):
        export(records, tmp_path / "none", ExportOptions("url-text"))
    with pytest.raises(InputError, match="is not a committed dataset"):
        export(tmp_path / "absent", tmp_path / "none", ExportOptions("url-text"))


def test_an_unknown_image_format_is_named(rows: pa.Table, tmp_path: Path) -> None:
    images = rows["image"].to_pylist()
    images[0] = {"bytes": b"<svg></svg>", "path": None}
    at = rows.column_names.index("image")
    odd = rows.set_column(at, "image", pa.array(images, rows.schema.field("image").type))
    dataset = commit_rows(str(tmp_path / "curated"), "curated", odd)
    with pytest.raises(InputError, match="starts with b'<svg></s', which is no image format"):
        export(dataset, tmp_path / "out", ExportOptions("webdataset"))


def test_an_empty_dataset_gives_an_empty_export(rows: pa.Table, tmp_path: Path) -> None:
    dataset = commit_rows(str(tmp_path / "curated"), "curated", rows.slice(0, 0))
    for kind in ("url-text", "webdataset"):
        assert export(dataset, tmp_path / kind, ExportOptions(kind)).head["rows"] == 0
    assert pq.read_table(tmp_path / "url-text/00000.parquet").num_rows == 0
    with tarfile.open(tmp_path / "webdataset/00000.tar") as tar:
        assert tar.getnames() == []


def test_export_to_an_object_store(curated: Dataset, tmp_path: Path) -> None:
    place, options = f"memory://export-{os.getpid()}", ExportOptions("webdataset", rows_per_file=60)
    with pytest.raises(KeyboardInterrupt):
        export(curated, place, options, interrupt)
    assert not storage(place).exists(HEAD)
    assert export(curated, place, options).fresh
    export(curated, tmp_path / "local", options)
    local = contents(tmp_path / "local")
    assert set(storage(place).list()) == set(local)
    assert all(storage(place).read_bytes(name) == data for name, data in local.items())
    assert not export(curated, place, options).fresh
    storage(f"{place}-used").create("a.txt", b"")
    with pytest.raises(UsageError, match=r"holds a.txt and is not an export"):
        export(curated, f"{place}-used", options)


def test_command(curated: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    words = ["export", curated.storage.url, "--format", "webdataset", "--output", out]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"exported {len(curated)} pairs in 1 files to {out}" in printed
    assert f"note: {LICENCE}" in printed
    assert main(words) == 0
    assert "was exported already" in capsys.readouterr().out
    cases = [
        (["--format", "csv"], 2, "--format csv is unknown; use one of img2dataset, url-text"),
        (["--format", "url-text", "--rows-per-file", "0"], 2, "--rows-per-file 0 is not between"),
        (["--format", "url-text", "--url-column", "score"], 2, "clash with each other"),
        (["--format", "url-text"], 4, "holds another export"),
    ]
    for extra, code, message in cases:
        assert main(["export", curated.storage.url, "--output", out, *extra]) == code
        assert message in capsys.readouterr().err


def test_addresses_that_a_downloader_must_not_open_are_not_exported() -> None:
    import re

    from curation.export_files import _FETCHABLE

    urls = ["https://a.b/c.jpg", "HTTP://a.b", "generated://pool/0/1/x"]
    bad = ["file:///etc/passwd", "ftp://a.b", "/etc/passwd", "javascript:x", "", " http://a.b"]
    assert all(re.match(_FETCHABLE, url) for url in urls)
    assert not any(re.match(_FETCHABLE, url) for url in bad)
