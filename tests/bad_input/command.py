"""Runs the real command in this process and reads what it committed."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataflows.cli import main
from schemas.dataset import open_dataset
from schemas.ledger import Ledger
from schemas.storage import storage
from schemas.verify import verify


@dataclass
class Ran:
    """Exit code, what was said, and the committed datasets of one run."""

    code: int
    said: str
    output: Path
    records: pa.Table | None = None
    letters: list[dict[str, Any]] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)

    @property
    def positions(self) -> list[int]:
        """Positions of the records kept, in order."""
        assert self.records is not None, self.said
        return self.records.column("position").to_pylist()

    def letter(self, position: int) -> dict[str, Any]:
        """The one dead letter of a position."""
        (found,) = [row for row in self.letters if row["position"] == position]
        return found


def dataflows(*argv: str) -> tuple[int, str]:
    """Exit code and standard error of a command; no traceback may be in it."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(list(argv))
    assert "Traceback" not in said.getvalue()
    return code, said.getvalue()


def rows_of(dataset: Path) -> pa.Table:
    """All rows of a committed dataset."""
    return pa.concat_tables(open_dataset(str(dataset)).tables())


def ingest(source: Path | str, output: Path, *settings: str) -> Ran:
    """`dataflows run ingest`, with the checks that hold for every run that commits."""
    code, said = dataflows("run", "ingest", f"input={source}", f"output={output}", *settings)
    ran = Ran(code, said, output)
    if code != 0:
        assert not (output / "records" / "manifest.json").exists()
        return ran
    records = output / "records"
    ran.records = rows_of(records)
    manifest = open_dataset(str(records)).manifest
    ledger = Ledger.from_json(manifest.counts)
    ledger.check(out={"record": ran.records.num_rows})
    for row in ledger.rows():
        if row["kind"] == "rejected":
            ran.rejected[row["reason"]] = row["count"]
    assert verify(storage(str(records))) == []
    letters = output / "records.dead_letters"
    if letters.exists():
        assert verify(storage(str(letters))) == []
        ran.letters = rows_of(letters).to_pylist()
    for letter in ran.letters:  # each can be opened for a replay
        assert pa.ipc.open_stream(letter["row"]).read_all().num_rows == 1
    return ran
