"""Contamination: documents that share text with an evaluation set.

The rule is that of GPT-3 (2005.14165, appendix C) and of lm-evaluation-harness: a document is
contaminated by an evaluation set if it has an n-gram of 13 words in common with one of its texts, both
lower-cased and without punctuation (``kernels.minhash.words`` says exactly how; a character of a script
without spaces counts as half a word). Evaluation texts of fewer words:

* at least ``least_words`` (8, the least n that GPT-3 used): if all their words occur in the document
  one after the other;
* fewer: if the document consists of these words and nothing else. Anything more would drop each
  document that has a short answer ("Paris") in it.

``share`` asks for more than one n-gram: that share of the distinct n-grams of one evaluation text (0.7
with ``words=8`` is the rule of PaLM, 2204.02311). Differs from GPT-3: whole documents are found, not the
200 characters around; n-grams that many documents have (forms of address, licences) are not excepted, so
evaluation texts should be given without their prompt's fixed parts.

N-grams are looked up by 64-bit hashes; the words of what is reported are compared, so that a collision
can report nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.id_sets import Indices, Words
from kernels.minhash import UNICODE_VERSION, finding, words_of
from schemas.errors import InputError, UsageError
from schemas.text_schemas import CONTAMINATION

FORMAT = 1
KINDS = 3


@dataclass(frozen=True)
class ContaminationOptions:
    """``words`` of an n-gram, the least number of words of an evaluation text that is looked for inside
    documents, and the least share of a text's n-grams (0: one is enough)."""

    words: int = 13
    least_words: int = 8
    share: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.least_words <= self.words <= 64:
            raise UsageError(
                f"contamination.least_words={self.least_words} and contamination.words={self.words}: "
                "give 1 <= least_words <= words <= 64"
            )
        if not 0 <= self.share <= 1:
            raise UsageError(f"contamination.share={self.share}: a share is 0 to 1")

    def to_json(self) -> dict[str, Any]:
        """As JSON values; ``from_json`` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ContaminationOptions:
        """Read what ``to_json`` wrote."""
        return cls(**raw)


class Entries(NamedTuple):
    """What is looked for, by the kinds of ``finding.overlaps``: entries of kind k are
    bounds[k]:bounds[k + 1] of the arrays.

    keys uint64, ascending in each kind; for short texts counts and hashes of all their words; begins
    and ends of the text in the pool. The owners of entry e are owners[owned[e]:owned[e + 1]]: sets, or
    with a share evaluation texts; sizes[o] is the number of entries of owner o, sets[o] its set.
    """

    bounds: Indices
    keys: Words
    counts: Indices
    hashes: Words
    begins: Indices
    ends: Indices
    owned: Indices
    owners: Indices
    sizes: Indices
    sets: Indices
    pool: npt.NDArray[np.uint8]


class ContaminationIndex:
    """N-grams of evaluation sets. Built once, written to a file, mapped by workers."""

    def __init__(self, names: list[str], options: ContaminationOptions, entries: Entries) -> None:
        self.names = names
        self.options = options
        self.entries = entries
        parts = [slice(*entries.bounds[k : k + 2]) for k in range(KINDS)]
        self._lookups = [finding.Lookup(entries.keys[part]) for part in parts]
        self._short = parts[1]

    @classmethod
    def build(
        cls, sets: Mapping[str, pa.Array | pa.ChunkedArray], options: ContaminationOptions
    ) -> ContaminationIndex:
        """Index the texts of evaluation sets by name; nulls and texts without words count for nothing.

        Raises UsageError if there is no set, InputError for a set without words or a column that is
        no text. About 60 bytes a distinct n-gram, and the texts.
        """
        if not sets:
            raise UsageError("no evaluation sets: name some, or leave decontamination out")
        names = sorted(sets)
        columns = [_texts(name, sets[name]) for name in names]
        texts: Any = pa.concat_arrays(columns)
        set_of_text = np.repeat(np.arange(len(names)), [len(column) for column in columns])
        found = finding.gram_places(texts, options.words)
        sizes = np.diff(found.offsets)
        for number, name in enumerate(names):
            if not sizes[set_of_text == number].any():
                raise InputError(f"the evaluation set {name!r} has no words: check its text column")
        kinds, keys = _kinds(texts, found, options)
        text_of = np.repeat(np.arange(len(texts)), sizes)
        owner_of = text_of if options.share else set_of_text[text_of]
        set_of = set_of_text if options.share else np.arange(len(names))
        data, starts, ends = finding.buffers(texts)
        pool = data[starts[0] : ends[-1]].copy()
        places = found.places + (starts - starts[0])[text_of][:, None]
        entries = _entries(found, kinds, keys, owner_of, set_of, places, text_of, pool)
        return cls(names, options, entries)

    def find(self, table: pa.Table) -> pa.Table:
        """CONTAMINATION rows of a table with doc_id, file, position, text, in the table's order.

        One row for each contaminated document and evaluation set, with the first n-gram (normalised)
        of the document that is in the set.
        """
        entries = self.entries
        texts = table["text"]
        hits = finding.overlaps(
            texts,
            self.options.words,
            self._lookups[0],
            self.options.least_words,
            self._lookups[1],
            entries.counts[self._short],
            entries.hashes[self._short],
            self._lookups[2],
        )
        row, entry = hits[:, 0], entries.bounds[hits[:, 1]] + hits[:, 2]
        # The first hit of each document and entry.
        order = np.lexsort((hits[:, 3], entry, row))
        order = order[_changes(row[order], entry[order])]
        row, entry, places = row[order], entry[order], hits[order, 3:]
        owners, at = _expand(entries.owned, entries.owners, entry)
        row, entry, places = row[at], entry[at], places[at]
        if self.options.share:
            enough = self._enough(row, owners)
            row, entry, places, owners = row[enough], entry[enough], places[enough], owners[enough]
        return self._rows(table, row, entry, entries.sets[owners], places)

    def _enough(self, row: Indices, owners: Indices) -> npt.NDArray[np.bool_]:
        """Which hits are of an evaluation text of whose n-grams the document has the share."""
        order = np.lexsort((owners, row))
        begins = _changes(row[order], owners[order])
        run = np.cumsum(begins) - 1
        counts = np.bincount(run, minlength=0)
        enough = np.empty(len(row), bool)
        enough[order] = counts[run] >= self.options.share * self.entries.sizes[owners[order]]
        return enough

    def _rows(
        self, table: pa.Table, row: Indices, entry: Indices, sets: Indices, places: Indices
    ) -> pa.Table:
        """Of each document and set the first hit whose words are those of the entry."""
        order = np.lexsort((entry, places[:, 0], sets, row))
        kept: list[int] = []
        grams: list[str] = []
        done = (-1, -1)
        for i in order:
            if (row[i], sets[i]) == done:
                continue
            raw = table["text"][int(row[i])].as_py().encode()
            gram = words_of(raw[places[i, 0] : places[i, 1]].decode())
            known = self.entries.pool[self.entries.begins[entry[i]] : self.entries.ends[entry[i]]]
            if gram == words_of(known.tobytes().decode()):
                done = (row[i], sets[i])
                kept.append(i)
                grams.append(" ".join(gram))
        names = [self.names[number] for number in sets[kept]]
        out = table.select(["doc_id", "file", "position"]).take(pa.array(row[kept], pa.int64()))
        out = out.append_column("evaluation", pa.array(names, pa.string()))
        return CONTAMINATION.validate(out.append_column("ngram", pa.array(grams, pa.string())))

    def write(self, path: Path) -> None:
        """Write one Arrow file, equal for equal sets, that ``open`` maps."""
        told = {"format": FORMAT, "unicode": UNICODE_VERSION, "sets": self.names}
        told["options"] = self.options.to_json()
        columns = {
            name: pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
            for name, values in self.entries._asdict().items()
        }
        table = pa.table(columns).replace_schema_metadata({"contamination": json.dumps(told)})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def open(cls, path: Path) -> ContaminationIndex:
        """Map what ``write`` wrote. Raises InputError if it is of another version."""
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        told = json.loads((table.schema.metadata or {}).get(b"contamination", b"{}"))
        found, wanted = (told.get("format"), told.get("unicode")), (FORMAT, UNICODE_VERSION)
        if found != wanted:
            raise InputError(
                f"{path}: an index of format and Unicode version {found}, this program makes {wanted}: "
                "build it again"
            )
        arrays = [table[name].chunk(0).values.to_numpy() for name in Entries._fields]
        options = ContaminationOptions.from_json(told["options"])
        return cls(told["sets"], options, Entries(*arrays))


def _texts(name: str, column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One large_string array without nulls."""
    try:
        whole: Any = column.cast(pa.large_string())
    except pa.ArrowException as error:
        raise InputError(f"the evaluation set {name!r} has no texts: {error}") from error
    whole = whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
    return whole.drop_null()


def _kinds(
    texts: pa.Array, found: finding.Grams, options: ContaminationOptions
) -> tuple[Indices, Words]:
    """The kind of each n-gram, and its key: of a short text the hash of its first words."""
    kinds = np.zeros(len(found.hashes), np.int64)
    keys = found.hashes.copy()
    alone = np.flatnonzero(found.counts)
    if len(alone):
        starts = finding.gram_places(texts.take(pa.array(alone)), options.least_words)
        at, first = found.offsets[alone], starts.offsets[:-1]
        tiny = starts.counts > 0
        kinds[at] = np.where(tiny, 2, 1)
        keys[at] = starts.hashes[first]
    return kinds, keys


def _entries(
    found: finding.Grams,
    kinds: Indices,
    keys: Words,
    owner_of: Indices,
    set_of: Indices,
    places: Indices,
    text_of: Indices,
    pool: npt.NDArray[np.uint8],
) -> Entries:
    """Distinct n-grams and their owners, from all n-grams of all texts."""
    order = np.lexsort((owner_of, found.hashes, keys, kinds))
    kinds, keys, hashes = kinds[order], keys[order], found.hashes[order]
    owner_of = owner_of[order]
    fresh = _changes(kinds, keys, hashes)
    pairs = fresh | _changes(owner_of)
    entry = np.cumsum(fresh) - 1
    first = order[fresh]
    owners = owner_of[pairs]
    return Entries(
        bounds=np.searchsorted(kinds[fresh], np.arange(KINDS + 1)),
        keys=keys[fresh],
        counts=found.counts[text_of[first]],
        hashes=hashes[fresh],
        begins=places[first, 0],
        ends=places[first, 1],
        owned=np.searchsorted(entry[pairs], np.arange(len(first) + 1)),
        owners=owners,
        sizes=np.bincount(owners, minlength=len(set_of)),
        sets=set_of,
        pool=pool,
    )


def _changes(*keys: npt.NDArray) -> npt.NDArray[np.bool_]:
    """bool[n]: where a row differs from the one before in any of the keys."""
    begins = np.zeros(len(keys[0]), bool)
    begins[:1] = True
    for key in keys:
        begins[1:] |= key[1:] != key[:-1]
    return begins


def _expand(offsets: Indices, values: Indices, rows: Indices) -> tuple[Indices, Indices]:
    """Values of lists at ``rows``, and for each the position in ``rows`` that it belongs to."""
    counts = offsets[rows + 1] - offsets[rows]
    at = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    return values[offsets[rows][at] + within], at
