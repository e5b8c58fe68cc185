"""MinHash signatures against datasketch and rensa, and the scan for contamination, on one pinned thread.

signatures  million shingles a second, from the same 64-bit hashes to signatures of 112 slots, each
            library by its quickest way: datasketch by `update_batch` on lists of ready 32-bit hashes with
            its permutations made once, rensa by `digest_matrix_from_flat_token_hashes` on the same array
            as ours. Shingles are those of real texts: summaries (Wikipedia), pages (five summaries each,
            about the length of a web page) and articles (WikiText), and sets of 20 to 5,000 random hashes.
            `rensa_rho` is rensa's sampling sketch, which does not look at all shingles and is given for
            comparison: its error is in the next section.
error       root mean square error of the estimated Jaccard similarity over pairs of sets with known
            similarity, 0.05 to 0.95; the ratio is ours to datasketch's.
text        MB of raw UTF-8 a second, from texts to signatures. Peers get 5-grams of `lower().split()` made in
            Python, as their documentation does it; datasketch hashes them with SHA-1, its default.
contamination  MB a second through `ContaminationIndex.find`, documents without hits, against a set of
            13-grams in Python.

One JSON line a case, median and range of alternating runs; ratios are run by run, seconds those of the
processor, which other load disturbs less. Needs the shared data, datasketch and rensa. Run:
``python -m tests.benchmarks.bench_minhash [--only NAMES]``.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"  # before rensa starts its threads

import numpy as np
import pyarrow as pa

from curation.text.contamination import ContaminationIndex, ContaminationOptions
from kernels import minhash
from tests.support import shared_folder

SLOTS = 112
LIMITS = {"datasketch": 10.0, "rensa": 2.0, "rmse": 1.1}
RUNS = 7
SHINGLES = 2_000_000
SLOW_SHARE = 20
"""datasketch gets every so manieth document; its rate is per shingle all the same."""


def spread(values: list[float]) -> dict[str, Any]:
    """Median and range, rounded."""
    low, high = round(min(values), 3), round(max(values), 3)
    return {"median": round(statistics.median(values), 3), "range": [low, high]}


def seconds(action: Callable[[], Any]) -> float:
    """Processor seconds, without the garbage collector, which would slow the peers."""
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        action()
        return time.process_time() - start
    finally:
        gc.enable()


def alternating(actions: dict[str, tuple[float, Callable[[], Any]]]) -> dict[str, list[float]]:
    """Amount a second of each action, (amount, action), for each run; all take turns."""
    for _, action in actions.values():
        action()
    rates: dict[str, list[float]] = {name: [] for name in actions}
    for run in range(RUNS):
        for name in list(actions)[:: -1 if run % 2 else 1]:
            amount, action = actions[name]
            rates[name].append(amount / seconds(action))
    return rates


def ratios(rates: dict[str, list[float]], scale: float) -> dict[str, Any]:
    """Rates, and ours to each peer's in the same run."""
    peers = [name for name in rates if name != "ours"]
    return {
        "ratio": {
            name: spread([a / b for a, b in zip(rates["ours"], rates[name], strict=True)])
            for name in peers
        },
        "rate": {name: spread([v / scale for v in values]) for name, values in rates.items()},
    }


class Texts:
    """Real texts of three lengths."""

    @cached_property
    def summaries(self) -> list[str]:
        """Summaries of Wikipedia articles in three languages."""
        folder = shared_folder("data", "HEADRACE_DATA") / "wikipedia-vital"
        found = []
        for path in sorted(folder.glob("summaries_*.jsonl.gz")):
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                found += [json.loads(line)["extract"] for line in lines]
        return found

    @cached_property
    def pages(self) -> list[str]:
        """Five summaries each."""
        whole = self.summaries
        return ["\n\n".join(whole[i : i + 5]) for i in range(0, len(whole), 5)]

    @cached_property
    def articles(self) -> list[str]:
        """Articles of WikiText-2's validation split."""
        path = shared_folder("data", "HEADRACE_DATA") / "wikitext-2/valid.txt.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return re.split(r"\n = [^=\n]+ = \n", file.read())[1:]


class Peers:
    """The other libraries on rows of ready hashes."""

    def __init__(self) -> None:
        import datasketch
        import rensa

        self.datasketch, self.rensa = datasketch, rensa
        self.permutations = datasketch.MinHash(SLOTS).permutations

    def by_datasketch(self, rows: list[list[int]]) -> list[Any]:
        """Signatures of lists of 32-bit hashes."""
        found = []
        for row in rows:
            one = self.datasketch.MinHash(
                SLOTS, permutations=self.permutations, scheme="affine32", hashfunc=_same
            )
            one.update_batch(row)
            found.append(one.hashvalues)
        return found

    def by_rensa(self, flat: np.ndarray, offsets: np.ndarray) -> Any:
        """Its matrix of signatures."""
        return self.rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, SLOTS, 1)

    def by_rho(self, flat: np.ndarray, offsets: np.ndarray) -> Any:
        """Its matrix of sampled sketches."""
        return self.rensa.RMinHash.digest_matrix_from_flat_token_hashes_rho(flat, offsets, SLOTS, 1)


def _same(value: int) -> int:
    return value


def signatures(texts: Texts, peers: Peers) -> Iterator[dict[str, Any]]:
    """Ready hashes to signatures."""
    rng = np.random.default_rng(1)
    cases: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in ("summaries", "pages", "articles"):
        flat, offsets = minhash.shingles(pa.array(getattr(texts, name)))
        again = -(-SHINGLES // len(flat))  # the same texts, till there is enough to measure
        sizes = np.tile(np.diff(offsets), again)
        cases[name] = np.tile(flat, again), np.concatenate([[0], np.cumsum(sizes)])
    for size in (20, 100, 300, 1000, 5000):
        count = SHINGLES // size
        flat = rng.integers(0, 2**64, count * size, dtype=np.uint64)
        cases[f"random {size}"] = flat, np.arange(count + 1) * size
    for name, (flat, offsets) in cases.items():
        bounds = list(pairwise(offsets.tolist()))[::SLOW_SHARE]
        rows = [(flat[a:b] & np.uint64(0xFFFFFFFF)).tolist() for a, b in bounds]
        theirs = offsets.astype(np.uint64)
        total = len(flat)
        rates = alternating(
            {
                "ours": (total, lambda f=flat, o=offsets: minhash.sketch(f, o, SLOTS)),
                "datasketch": (sum(map(len, rows)), lambda r=rows: peers.by_datasketch(r)),
                "rensa": (total, lambda f=flat, o=theirs: peers.by_rensa(f, o)),
                "rensa_rho": (total, lambda f=flat, o=theirs: peers.by_rho(f, o)),
            }
        )
        yield {
            "case": f"signatures, {name}",
            "shingles_a_set": round(total / (len(offsets) - 1)),
            **ratios(rates, 1e6),
            "unit": "million shingles/s",
            "limits": {name: LIMITS[name] for name in ("datasketch", "rensa")},
        }


def error(texts: Texts, peers: Peers) -> Iterator[dict[str, Any]]:
    """Estimates of known similarities."""
    rng = np.random.default_rng(2)
    whole: dict[str, list[np.ndarray]] = {}
    for size in (20, 100, 300, 1000):
        sets, truth = [], []
        for similarity in np.linspace(0.05, 0.95, 19):
            common = round(2 * size * similarity / (1 + similarity))
            for _ in range(60):
                drawn = rng.integers(0, 2**64, 2 * size - common, dtype=np.uint64)
                sets += [drawn[:size], drawn[size - common :]]
                truth.append(common / len(drawn))
        flat, offsets = np.concatenate(sets), np.arange(len(sets) + 1) * size
        theirs = offsets.astype(np.uint64)
        low = [(row & np.uint64(0xFFFFFFFF)).tolist() for row in sets]
        found = {
            "ours": minhash.sketch(flat, offsets, SLOTS),
            "datasketch": np.array(peers.by_datasketch(low)),
            "rensa": np.array(peers.by_rensa(flat, theirs).to_rows()),
            "rensa_rho": np.array(peers.by_rho(flat, theirs).to_rows()),
        }
        errors = {
            name: (rows[::2] == rows[1::2]).mean(axis=1) - np.array(truth)
            for name, rows in found.items()
        }
        for name, values in errors.items():
            whole.setdefault(name, []).append(values)
        yield _errors(f"error, sets of {size}", errors)
    yield _errors("error, all", {name: np.concatenate(v) for name, v in whole.items()})


def _errors(case: str, errors: dict[str, np.ndarray]) -> dict[str, Any]:
    rmse = {name: float(np.sqrt((values**2).mean())) for name, values in errors.items()}
    return {
        "case": case,
        "pairs": len(errors["ours"]),
        "rmse": {name: round(value, 5) for name, value in rmse.items()},
        "bias": {name: round(float(values.mean()), 5) for name, values in errors.items()},
        "ratio": round(rmse["ours"] / rmse["datasketch"], 3),
        "limit": LIMITS["rmse"],
    }


def _grams(text: str, n: int) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


def text(texts: Texts, peers: Peers) -> Iterator[dict[str, Any]]:
    """Raw texts to signatures."""

    def plain(some: list[str]) -> None:
        for one in some:
            sketch = peers.datasketch.MinHash(
                SLOTS, permutations=peers.permutations, scheme="affine32"
            )
            sketch.update_batch([gram.encode() for gram in _grams(one, 5)])

    def by_rensa(some: list[str]) -> None:
        grams = [_grams(one, 5) for one in some]
        peers.rensa.RMinHash.digest_matrix_from_token_sets(grams, SLOTS, 1)

    for name in ("summaries", "pages", "articles"):
        all_texts = getattr(texts, name) * (4 if name == "articles" else 1)
        some = all_texts[::SLOW_SHARE]
        column = pa.array(all_texts)
        total, part = _megabytes(all_texts), _megabytes(some)
        rates = alternating(
            {
                "ours": (total, lambda c=column: minhash.signatures(c, slots=SLOTS)),
                "datasketch": (part, lambda s=some: plain(s)),
                "rensa": (part, lambda s=some: by_rensa(s)),
            }
        )
        told = {"case": f"text, {name}", "megabytes": round(total, 1), "unit": "MB/s"}
        yield told | ratios(rates, 1.0)


def _megabytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def contamination(texts: Texts, peers: Peers) -> Iterator[dict[str, Any]]:
    """Documents through an index of n-grams, without hits."""
    known, documents = texts.pages[::2], texts.articles
    index = ContaminationIndex.build({"known": pa.array(known)}, ContaminationOptions())
    grams = {gram for one in known for gram in _grams(one, 13)}
    count = len(documents)
    table = pa.table(
        {
            "doc_id": pa.array([b"%016d" % i for i in range(count)], pa.binary(16)),
            "file": pa.array(np.zeros(count, np.int32)),
            "position": pa.array(np.arange(count)),
            "text": documents,
        }
    )
    some = documents[:: SLOW_SHARE // 4]
    rates = alternating(
        {
            "ours": (_megabytes(documents), lambda: index.find(table)),
            "python": (
                _megabytes(some),
                lambda: [not grams.isdisjoint(_grams(t, 13)) for t in some],
            ),
        }
    )
    told = {"case": "contamination", "ngrams": len(grams), "hits": index.find(table).num_rows}
    yield told | {"unit": "MB/s"} | ratios(rates, 1.0)


SECTIONS = {
    "signatures": signatures,
    "error": error,
    "text": text,
    "contamination": contamination,
}


def main(argv: list[str] | None = None) -> int:
    """Print one JSON line for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by commas")
    args = parser.parse_args(argv)
    wanted = args.only.split(",")
    if unknown := [name for name in wanted if name not in SECTIONS]:
        parser.error(f"--only {unknown[0]}: known sections are {', '.join(SECTIONS)}")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    texts, peers = Texts(), Peers()
    for name in wanted:
        for row in SECTIONS[name](texts, peers):
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
