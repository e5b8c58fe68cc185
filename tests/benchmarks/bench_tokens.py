"""Token data into shuffled training batches: our source, litData, and a raw memmap.

The same documents everywhere (lognormal lengths, ids of a Zipf law, 2 bytes a token, each ends with an
end of text); sequences of 2,048 tokens in batches of 16 with ``input_ids`` and ``labels`` as int64, one
process, no loader workers, everything in the page cache.

* ours: a committed dataset through `trainer.sources.tokens`. It also makes positions and segments;
  "ours" has ``document_mask=false``, so that nothing of that depends on the documents, as nothing of
  the others' does; "ours_masked" is the default. Each shard was hashed in the first round.
* litData: `StreamingDataset(shuffle=True)` over 64 MB chunks. "litdata_documents" has documents as
  items, so that documents are shuffled as ours are, concatenated and cut here; "litdata_blocks" has its
  TokensLoader and StreamingDataLoader: fixed blocks of the unshuffled stream are shuffled.
* memmap: one file of all tokens, sequences at permuted places: no documents, no check, no source.
  "memmap" takes each sequence's inputs and labels by themselves, as nanoGPT's ``get_batch`` does;
  "memmap_once" reads each sequence once and converts whole batches, the fastest way found.

An epoch each, turn by turn, after a round that is not counted.

"index" is of 10 million documents of 1,000 tokens on average, 10^10 tokens, whose lengths are made up
in row groups of 7,003: seconds and megabytes of building the index and of packing it by best fit (the
memory is that above an interpreter with the modules loaded, mapped pages of the index included), and
the seconds from nothing open to the parts of 512 sequences anywhere in an epoch.

Run it as a script: ``python tests/benchmarks/bench_tokens.py [--runs 7] [--documents 250000]
[--cases reading index]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
LENGTH, BATCH = 2048, 16
VOCABULARY, EOS, MEAN = 50_257, 50_256, 600
GROUPS, GROUP_ROWS = 1428, 7003
CASES = ("reading", "index")
Read = Callable[[int], Iterator[int]]
"""Reads an epoch; yields the tokens of each batch."""


def documents(count: int) -> list[npt.NDArray[np.uint16]]:
    """Documents of some `MEAN` tokens, the end of text last."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEAN) - 0.5, 1, count).astype(np.int64), 2, 1 << 16)
    ids = rng.random(int(lengths.sum()))
    tokens = np.minimum(np.exp(ids * np.log(EOS)), EOS - 1).astype(np.uint16)
    ends = np.cumsum(lengths)
    tokens[ends - 1] = EOS
    return np.split(tokens, ends[:-1])


def prepare(count: int, folder: Path) -> None:
    """Write the documents as a committed dataset, litData's chunks, and one file."""
    import litdata
    import torch

    found = documents(count)
    commit_tokens(found, folder / "ours")
    np.concatenate(found).tofile(folder / "tokens.u16")

    def values(part: range) -> Iterator[torch.Tensor]:
        for i in part:
            yield torch.from_numpy(found[i])

    parts = [range(i, min(i + 1000, count)) for i in range(0, count, 1000)]
    blocks = litdata.TokensLoader(block_size=LENGTH + 1)
    litdata.optimize(
        fn=values, inputs=parts, output_dir=str(folder / "litdata_blocks"), num_workers=1,
        chunk_size=(LENGTH + 1) * 16_000, start_method="fork", item_loader=blocks, verbose=False,
    )  # fmt: skip
    litdata.optimize(
        fn=values, inputs=parts, output_dir=str(folder / "litdata_documents"), num_workers=1,
        chunk_bytes="64MB", start_method="fork", verbose=False,
    )  # fmt: skip


def commit_tokens(found: list[npt.NDArray[np.uint16]], root: Path) -> None:
    """Commit documents as token data, in the writer's own row groups and shards."""
    import pyarrow as pa

    from schemas import ids
    from schemas.commit import commit
    from schemas.ledger import Ledger
    from schemas.manifest import Manifest
    from schemas.storage import storage
    from schemas.text_schemas import TOKENS
    from schemas.writer import ShardWriter

    place, total = storage(root), 0
    with ShardWriter(place, TOKENS) as writer:
        for start in range(0, len(found), 5000):
            part = found[start : start + 5000]
            table = pa.table(
                {
                    "doc_id": ids.id_array(
                        ids.id128(b"%d" % (start + i)) for i in range(len(part))
                    ),
                    "split": ["train"] * len(part),
                    "source": ["made"] * len(part),
                    "tokens": [tokens.tobytes() for tokens in part],
                    "length": pa.array([len(tokens) for tokens in part], pa.int32()),
                }
            )
            total += ids.id_sum(table["doc_id"])
            writer.write(table)
        shards = writer.close()
    ledger = Ledger()
    for kind, reason in (("created", "generated"), ("out", "")):
        ledger.add("document", kind, reason, len(found), total % (1 << 128))
    config = {"tokens": {"bytes": 2, "vocabulary": VOCABULARY, "eos": EOS}}
    schema = {"name": TOKENS.name, "version": TOKENS.version}
    commit(place, Manifest(schema=schema, counts=ledger.rows(), config=config), shards)


def ours(folder: Path, document_mask: bool) -> Read:
    """Ours."""
    from trainer.sources.tokens import Settings, Tokens

    settings = Settings(
        path=str(folder / "ours"), sequence_length=LENGTH, document_mask=document_mask
    )
    source = Tokens(settings, seed=0)

    def read(epoch: int) -> Iterator[int]:
        end = source.samples(1)
        for first in range(0, end, BATCH):
            positions = np.arange(first, min(first + BATCH, end)) + epoch * end
            yield source.batch(positions)["labels"].numel()

    return read


def by_litdata_blocks(folder: Path) -> Read:
    """LitData: blocks of T + 1 tokens as its loader gives them."""
    import litdata

    def read(epoch: int) -> Iterator[int]:
        dataset = litdata.StreamingDataset(
            str(folder / "litdata_blocks"), shuffle=True, seed=epoch,
            item_loader=litdata.TokensLoader(block_size=LENGTH + 1),
        )  # fmt: skip
        for whole in litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0):
            inputs, labels = whole[:, :-1].long(), whole[:, 1:].long()
            yield max(inputs.numel(), labels.numel())

    return read


def by_litdata_documents(folder: Path) -> Read:
    """LitData: documents one after the other, cut when there are enough for a batch."""
    import litdata
    import torch

    def read(epoch: int) -> Iterator[int]:
        dataset = litdata.StreamingDataset(
            str(folder / "litdata_documents"), shuffle=True, seed=epoch
        )
        waiting, tokens = [], 0
        for document in dataset:
            waiting.append(document)
            tokens += len(document)
            if tokens > BATCH * LENGTH:
                stream = torch.cat(waiting)
                inputs = stream[: BATCH * LENGTH].view(BATCH, LENGTH).long()
                labels = stream[1 : BATCH * LENGTH + 1].view(BATCH, LENGTH).long()
                yield max(inputs.numel(), labels.numel())
                waiting, tokens = [stream[BATCH * LENGTH :]], tokens - BATCH * LENGTH

    return read


def by_memmap(folder: Path, once: bool) -> Read:
    """One file of tokens."""
    import torch

    tokens = np.memmap(folder / "tokens.u16", np.uint16, "r")
    sequences = (len(tokens) - 1) // LENGTH

    def stacked(places: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        if once:
            whole = np.stack([tokens[at : at + LENGTH + 1] for at in places])
            inputs, labels = whole[:, :-1].astype(np.int64), whole[:, 1:].astype(np.int64)
            return torch.from_numpy(inputs), torch.from_numpy(labels)
        parts = [
            [torch.from_numpy(tokens[at : at + LENGTH].astype(np.int64)) for at in starts]
            for starts in (places, [at + 1 for at in places])
        ]
        return torch.stack(parts[0]), torch.stack(parts[1])

    def read(epoch: int) -> Iterator[int]:
        order = np.random.default_rng(epoch).permutation(sequences) * LENGTH
        for first in range(0, sequences, BATCH):
            inputs, labels = stacked(order[first : first + BATCH].tolist())
            yield max(inputs.numel(), labels.numel())

    return read


def rate(read: Read, epoch: int) -> float:
    """Millions of tokens a second of one epoch."""
    start = time.perf_counter()
    tokens = sum(read(epoch))
    return tokens / (time.perf_counter() - start) / 1e6


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def reading(runs: int, count: int, folder: Path) -> dict[str, Any]:
    """Ratios of our rate to each peer's, and millions of tokens a second."""
    prepare(count, folder)
    ways = {
        "ours": ours(folder, False),
        "ours_masked": ours(folder, True),
        "litdata_documents": by_litdata_documents(folder),
        "litdata_blocks": by_litdata_blocks(folder),
        "memmap": by_memmap(folder, False),
        "memmap_once": by_memmap(folder, True),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, read in ways.items():
            found = rate(read, run)
            if run:  # the first round is not warm
                rates[name].append(found)
    line: dict[str, Any] = {"case": "reading"}
    for mine in ("ours", "ours_masked"):
        for peer in ("litdata_documents", "litdata_blocks", "memmap", "memmap_once"):
            pairs = zip(rates[mine], rates[peer], strict=True)
            line[f"{mine}/{peer}"] = spread([a / b for a, b in pairs])
    line["mtok_per_s"] = {name: round(statistics.median(found)) for name, found in rates.items()}
    return line


def made_up() -> Iterator[Any]:
    """Row groups of 10^10 tokens in all, one document in 200 held out."""
    from trainer.packing.lengths import RowGroup

    rng = np.random.default_rng(0)
    codes = (np.arange(GROUP_ROWS) % 200 == 0).astype(np.uint8)
    for number in range(GROUPS):
        lengths = np.minimum(rng.exponential(1000, GROUP_ROWS) + 1, 1 << 20).astype(np.int32)
        yield RowGroup(number // 20, number % 20, lengths, codes)


def highest_memory() -> int:
    """Most resident memory of this process so far, in KB; that of getrusage has its parent's too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def index_step(step: str, folder: Path) -> dict[str, Any]:
    """One step of the index's case, in a process of its own."""
    from trainer.packing.best_fit import BestFit
    from trainer.packing.concatenate import Concatenated
    from trainer.packing.lengths import Lengths, build

    os.environ["HEADRACE_CACHE"] = str(folder)
    before = highest_memory()
    start = time.perf_counter()
    lengths = folder / "lengths"
    if step == "build":
        lengths.mkdir()
        build(lengths, made_up(), ["train", "validation"])
    else:
        way = BestFit if "fit" in step else Concatenated
        packing: Any = way(Lengths.opened(lengths), 0, "digest", 0, LENGTH, 8)
        if step != "fit":
            first = packing.sequences // 3
            packing.parts(2, np.arange(first, first + 512))
    seconds = time.perf_counter() - start
    line = {"seconds": round(seconds, 3), "memory_mb": round((highest_memory() - before) / 1024)}
    if step == "fit":
        line["padding_percent"] = round(100 * packing.padding / packing.sequences / LENGTH, 4)
    return line


def index(folder: Path) -> dict[str, Any]:
    """Seconds and memory of each step, and the bytes on disk."""
    line: dict[str, Any] = {"case": "index", "documents": GROUPS * GROUP_ROWS}
    for step in ("build", "fit", "seek", "seek_fit"):
        command = [sys.executable, __file__, "--one", step, str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        line[step] = json.loads(done.stdout.splitlines()[-1])
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        line[step]["disk_mb"] = round(size / 1e6)
    return line


def main() -> None:
    """Print one JSON line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--documents", type=int, default=250_000)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--one", nargs=2, metavar=("STEP", "FOLDER"))
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    if args.one:
        print(json.dumps(index_step(args.one[0], Path(args.one[1]))))
        return
    root = Path(tempfile.mkdtemp(prefix="bench-tokens-"))
    os.environ["HEADRACE_CACHE"] = str(root / "cache")
    try:
        if "reading" in args.cases:
            print(json.dumps(reading(args.runs, args.documents, root)), flush=True)
        if "index" in args.cases:
            (root / "index").mkdir()
            print(json.dumps(index(root / "index")), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
