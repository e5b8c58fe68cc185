"""Records of long work, and when they no longer speak of the checkout."""

from __future__ import annotations

from pathlib import Path

from schemas import records


def test_a_record_is_stale_when_a_source_changes(tmp_path: Path) -> None:
    source = tmp_path / "code" / "a.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    path = records.write(
        tmp_path / "records",
        "long",
        command="run it",
        seeds=[1, 2],
        values={"n": 5},
        seconds=700,
        sources=["code/*.py"],
        root=tmp_path,
    )
    record = records.load(path.parent, "long")
    assert (record.values, record.seeds, record.seconds) == ({"n": 5}, [1, 2], 700)
    assert records.stale(record, tmp_path) is None
    source.write_text("x = 2\n")
    assert "stale" in str(records.stale(record, tmp_path))
    assert "run `run it` again" in str(records.stale(record, tmp_path))
    source.write_text("x = 1\n")
    (tmp_path / "code" / "b.py").write_text("")
    assert records.stale(record, tmp_path) is not None
