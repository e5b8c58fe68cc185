"""What training refuses, through the real commands: ``python -m tests.trainer.bad_input``.

Each case is a command that must end with its exit code, without a traceback, and name the value and the
fix; checkpoints of the run must be what they were, and usable after. Prints one JSON object: cases,
faults, and what was skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from schemas.storage import storage
from tests.schemas import samples
from tests.trainer import real_tokens
from tests.trainer.commands_in_children import Ended, in_child, mount, own_mounts, prepare, trainer
from tests.trainer.launching.killed_runs import losses
from tests.trainer.packing import making

STEPS, EVERY = 6, 2
LAST, BEFORE = f"step-{STEPS:08}", f"step-{STEPS - EVERY:08}"


class Cases:
    """The cases, on copies of one good run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.faults: list[str] = []
        self.skipped: list[str] = []
        self.data = real_tokens.dataset(folder, 60)
        self.good = folder / "good"
        self.expect("a good run", trainer(*self.words(self.good)), 0)
        if self.faults:
            raise SystemExit(self.faults[0])
        self.losses = losses(self.good)

    def words(self, output: Path, *more: str, data: Path | None = None) -> list[str]:
        """`launch` of the good run, or with other settings."""
        every = f"checkpoint.every={EVERY}"
        return ["launch", *real_tokens.words(data or self.data, output, STEPS, every, *more)]

    def copy(self, name: str) -> Path:
        """A copy of the good run, whose settings say so."""
        to = shutil.copytree(self.good, self.folder / name)
        path = to / "run.json"
        path.write_text(path.read_text().replace(str(self.good), str(to)))
        return to

    def expect(self, name: str, ended: Ended, code: int, *says: str) -> None:
        """Note a fault unless a command ended so, in words that have all of `says`."""
        self.count += 1
        end = ended.said[-600:]
        if ended.code != code:
            self.faults.append(f"{name}: exit code {ended.code} instead of {code}: {end}")
        if "Traceback" in ended.said:
            self.faults.append(f"{name}: a traceback: {end}")
        if missing := [word for word in says if word not in ended.said]:
            self.faults.append(f"{name}: does not say {missing}: {end}")

    def refused(
        self, name: str, words: list[str], code: int, *says: str, run: Path | None = None
    ) -> None:
        """A command that is refused, and leaves the run's checkpoints as they are."""
        before = _files(run / "checkpoints") if run else {}
        self.expect(name, trainer(*words), code, "trainer: error: ", *says)
        if run and _files(run / "checkpoints") != before:
            self.faults.append(f"{name}: the checkpoints changed")

    def usable(self, name: str, run: Path) -> None:
        """The run's last good checkpoint writes a text."""
        text = trainer("generate", run, "prompt=The king", "tokens=4", "seed=1")
        self.expect(f"{name}: the last good checkpoint", text, 0, "The king")

    def continued(self, name: str, run: Path) -> None:
        """The run goes on from the checkpoint before its last, as it would have."""
        self.expect(f"{name}: continued", trainer(*self.words(run)), 0)
        if losses(run)[-EVERY:] != self.losses[-EVERY:]:
            self.faults.append(f"{name}: the continued run is another")

    # -- data ------------------------------------------------------------------------------

    def tokens_out_of_range(self) -> None:
        texts = making.texts([20] * 30)
        data = making.made(self.folder / "beyond", texts, vocabulary=590, width=2)
        at = Path(data.storage.url)
        words = self.words(self.folder / "r1", "model.shape.vocab_size=590", data=at)
        document = texts[29].doc_id.hex()
        self.refused("an id beyond", words, 5, "token 590", "ends at 589", document)
        words = self.words(self.folder / "r2", "model.shape.vocab_size=100")
        self.refused("a smaller model", words, 2, "vocabulary of 384", "tokenise the data")

    def tokenizers(self) -> None:
        other = self.folder / "other.json"
        text = (self.good / "tokenizer.json").read_text()
        other.write_text(text.replace('"<|endoftext|>"', '"<|end|>"'))
        words = self.words(self.folder / "r3", f"tokenizer={other}")
        self.refused("another tokenizer", words, 2, "tokenizer", "tokenizer={name: data}")
        odd = making.made(self.folder / "odd", making.texts([40] * 30), width=2, vocabulary=2)
        mix = [{"path": p, "weight": 1} for p in (str(self.data), odd.storage.url)]
        words = self.words(self.folder / "r4", "data.path=null", f"data.mix={json.dumps(mix)}")
        self.refused("a mixture of two", words, 2, "another tokenizer", "tokenise both by one")
        words = ["eval", str(self.good), "bits", f"data={odd.storage.url}"]
        self.refused("scores of other tokens", words, 2, "tokenizer", odd.storage.url)

    def schemas(self) -> None:
        pool = self.folder / "pool"
        samples.committed(storage(pool))
        words = self.words(self.folder / "r5", data=pool)
        self.refused("another schema", words, 3, "is pool, not tokens", "dataflows run tokens")
        swapped = shutil.copytree(self.data, self.folder / "swapped")
        (shard,) = (swapped / "data").iterdir()
        shutil.copy(next((pool / "data").iterdir()), shard)
        words = self.words(self.folder / "r6", data=swapped)
        self.refused("a swapped shard", words, 5, shard.name)
        words = self.words(self.folder / "r7", data=self.folder / "nothing")
        self.refused("no dataset", words, 3, "nothing", "manifest.json")

    def changed_manifest(self) -> None:
        run, place = self.copy("changed"), self.folder / "place"
        shutil.copytree(self.data, place)
        path = run / "run.json"
        path.write_text(path.read_text().replace(str(self.data), str(place)))
        self.expect("data at a copy", trainer(*self.words(run, data=place)), 0)
        shutil.rmtree(place)
        shutil.move(real_tokens.dataset(self.folder / "anew", 50), place)
        words = self.words(run, data=place)
        self.refused("other documents", words, 4, "holds a run on dataset", "output=", run=run)
        self.usable("other documents", run)
        head = place / "manifest.json"
        head.write_text(head.read_text().replace('"rows": 50', '"rows": 51'))
        self.refused("an edited manifest", words, 5, str(place), "edited", run=run)

    def lengths(self) -> None:
        words = self.words(self.folder / "r8", "data.sequence_length=65")
        says = ("data.sequence_length=65", "64 positions", "data.sequence_length=64 at most")
        self.refused("a sequence beyond the positions", words, 2, *says)
        words = ["generate", str(self.good), f"prompt={'long ' * 99}", "tokens=4"]
        says = ("tokens leave no room in the 64", "give a shorter one")
        self.refused("a prompt beyond the positions", words, 2, *says)

    def documents(self) -> None:
        empty = making.made(self.folder / "empty", making.texts([0, 0]), width=2, vocabulary=2)
        words = self.words(self.folder / "r9", data=Path(empty.storage.url))
        self.refused("only empty documents", words, 2, "no tokens at all")
        long = "".join(real_tokens.passages(200)) * 200
        texts = ["", long[: 10 * 2**20], "x"]
        tokenizer = real_tokens.trained_bpe(real_tokens.passages(60), real_tokens.VOCABULARY)
        split = list(zip(["train"] * 3, texts, strict=True))
        data = real_tokens.token_data(
            self.folder / "long", split, tokenizer, self.folder / "longer"
        )
        run = self.folder / "r10"
        self.expect("a document of 10 MB", trainer(*self.words(run, data=data)), 0)
        if len(losses(run)) != STEPS or not np.isfinite([loss for _, loss in losses(run)]).all():
            self.faults.append("a document of 10 MB: it did not train")

    # -- checkpoints -----------------------------------------------------------------------

    def other_models(self) -> None:
        run = self.copy("other-model")
        words = self.words(run, "model.shape.num_hidden_layers=1")
        says = ("model.shape.num_hidden_layers=2", "num_hidden_layers=1", "another output=")
        self.refused("other settings", words, 4, *says, run=run)
        path = run / "run.json"
        path.write_text(
            path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 1')
        )
        says = ("a checkpoint of another model", "model.layers.1", "another output=")
        self.refused("a checkpoint of another model", words, 2, *says, run=run)
        words = ["generate", str(run), "prompt=a"]
        self.refused("a text of another model", words, 3, LAST, "model.layers.1", "bring", run=run)

    def truncated(self) -> None:
        for name, pattern, says in (
            ("truncated", "masters-*", "bytes, the manifest says"),
            ("no-manifest", "manifest.json", "is no manifest"),
        ):
            run = self.copy(name)
            path = next((run / "checkpoints" / LAST).glob(pattern))
            os.truncate(path, path.stat().st_size // 2)
            where = str(run / "checkpoints" / LAST)
            for words in (
                self.words(run),
                ["generate", str(run), "prompt=The"],
                ["eval", str(run), "bits", "xz=false", "ngram=0"],
            ):
                self.refused(f"{name}, {words[0]}", words, 5, where, says, run=run)
            shutil.rmtree(run / "checkpoints" / LAST)
            self.usable(name, run)
            self.continued(name, run)

    def full_disk(self) -> None:
        """A disk that has room for two checkpoints and no third."""
        run = self.folder / "full"
        run.mkdir()
        size = sum(p.stat().st_size for p in (self.good / "checkpoints" / LAST).iterdir())

        def work() -> int:
            own_mounts()
            mount(run, f"{(5 * size // 2) >> 10}k")
            words = self.words(run)
            before = trainer(*words)
            at = run / "checkpoints"
            kept = sorted(p.name for p in at.iterdir() if p.name.startswith("step"))
            self.expect("a full disk", before, 6, "the disk is full", "free space", str(at))
            if kept != [f"step-{EVERY:08}", BEFORE]:
                self.faults.append(f"a full disk: it left {kept}")
            self.usable("a full disk", run)
            mount(run, "50m", again=True)
            self.continued("a full disk", run)
            print(json.dumps({"count": self.count, "faults": self.faults}))
            return 0

        if os.geteuid():
            self.skipped.append("a full disk: to mount one needs root")
            return
        told = in_child(work)
        try:
            found = json.loads(told.said.splitlines()[-1])
        except (ValueError, IndexError):
            self.faults.append(f"a full disk: {told.said[-600:]}")
            return
        self.count, self.faults = found["count"], found["faults"]


def _files(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


SUBJECTS: tuple[Callable[[Cases], None], ...] = (
    *(Cases.tokens_out_of_range, Cases.tokenizers, Cases.schemas, Cases.changed_manifest),
    *(Cases.lengths, Cases.documents, Cases.other_models, Cases.truncated, Cases.full_disk),
)


def main(names: list[str]) -> int:
    begun = time.monotonic()
    prepare()
    with tempfile.TemporaryDirectory(prefix="bad-input-") as folder:
        os.environ["HEADRACE_CACHE"] = f"{folder}/cache"
        cases = Cases(Path(folder))
        for subject in SUBJECTS:
            if not names or subject.__name__ in names:
                subject(cases)
                print(f"{cases.count} cases, {subject.__name__}", file=sys.stderr, flush=True)
    found = {"cases": cases.count, "faults": cases.faults, "skipped": cases.skipped}
    print(json.dumps({**found, "seconds": round(time.monotonic() - begun, 1)}))
    return 1 if cases.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
