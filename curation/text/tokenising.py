"""Documents to token ids with any ``tokenizers`` file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import InputError, UsageError
from schemas.ids import id_sum
from schemas.ledger import Ledger
from schemas.step import Outcome
from schemas.text_schemas import TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLOB = "tokenizer.json"
BATCH_BYTES = 2**20
"""Text that is encoded at once: encodings take some hundred times the memory of their ids."""

_RARE = ({*range(0x20), 0x7F} - {0x09, 0x0A, 0x0D}) | {0xF1, 0xF2}
"""Control characters but tab and line ends, and the first bytes of planes without any character."""

_NEVER = {0xC0, 0xC1, *range(0xF5, 0x100)}  # bytes that no UTF-8 text has

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>")
"""Tokens that end a text, where no tokenizer_config.json says which does; best first."""


@dataclass(frozen=True)
class Facts:
    """What decides how ids are stored: bytes of one id, the number of ids, the end-of-text id."""

    bytes: int
    vocabulary: int
    eos: int | None

    def to_json(self) -> dict[str, Any]:
        """As manifests hold them (``config.tokens``)."""
        return {"bytes": self.bytes, "vocabulary": self.vocabulary, "eos": self.eos}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored ids: little-endian."""
        return np.dtype(f"<u{self.bytes}")


def width(vocabulary: int) -> int:
    """Bytes of an id: 2 if all fit, else 4."""
    return 2 if vocabulary <= 2**16 else 4


def load_tokenizer(data: bytes, where: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without truncation and padding. Raises InputError."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises plain Exception
        raise InputError(
            f"{where} is not a tokenizer that this version of `tokenizers` reads "
            f"({str(error).splitlines()[0]:.200}): give a tokenizer.json, as `transformers` saves it"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenizer_file(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """A tokenizer.json, given by itself or by its directory, and the tokenizer_config.json beside it.

    Raises InputError naming the path.
    """
    given = Path(path).expanduser()
    file = given / BLOB if given.is_dir() else given
    if not file.is_file():
        raise InputError(
            f"tokenizer={path}: there is no file {file}; give a tokenizer.json, the directory that "
            "holds one, or tokenizer=train"
        )
    beside = file.parent / "tokenizer_config.json"
    if not beside.is_file():
        return file, {}
    try:
        config = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{beside} is not JSON: {error}") from None
    return file, config if isinstance(config, dict) else {}


def special(config: Mapping[str, Any], name: str) -> str | None:
    """A special token of a tokenizer_config.json, which holds it as text or as an object."""
    found = config.get(name)
    if isinstance(found, Mapping):
        found = found.get("content")
    return found if isinstance(found, str) else None


def facts_of(
    tokenizer: Tokenizer, eos: str | None, config: Mapping[str, Any], append_eos: bool
) -> Facts:
    """Facts of a tokenizer; ``eos`` is the end-of-text token that the user named.

    Raises UsageError for a token that it does not know, and where none is found but needed.
    """
    known = tokenizer.get_vocab(with_added_tokens=True)
    if not known:
        raise UsageError("the tokenizer has no vocabulary: give one that was trained")
    name = eos or special(config, "eos_token") or next((end for end in ENDS if end in known), None)
    if name is not None and name not in known:
        raise UsageError(f"eos={name}: the tokenizer has no such token; name one that it has")
    if name is None and append_eos:
        raise UsageError(
            f"the tokenizer has none of {', '.join(ENDS)}: name its end-of-text token with "
            "eos=TOKEN, or give append_eos=false"
        )
    vocabulary = max(known.values()) + 1
    return Facts(width(vocabulary), vocabulary, None if name is None else known[name])


def check_complete(tokenizer: Tokenizer, where: str) -> None:
    """Raise InputError if the tokenizer has no ids for some texts: it would leave parts of them out, or
    fail in the middle of the data.

    Each byte of UTF-8 is looked up where texts are split into bytes; of other tokenizers a character
    that no vocabulary has is encoded, which an unknown token or bytes must stand for. Published tokenizers
    lack some control characters and bytes of empty planes: texts that have those are left out (`tokenise`).
    """
    model = json.loads(tokenizer.to_str())
    probe = "\U000e0ffe"  # a code point that is not assigned: no text taught it to anyone
    try:
        found = tokenizer.encode(probe, add_special_tokens=False).ids
    except Exception as error:  # the library raises plain Exception
        raise InputError(
            f"{where} cannot encode a character that it does not know ({error!s:.200}): give one with "
            "an unknown token, or one that falls back to bytes"
        ) from None
    if _splits_bytes(model):
        missing = [f"0x{byte:02X}" for byte in unknown_bytes(tokenizer) if byte not in _RARE]
        if missing:
            raise InputError(
                f"{where} has no id for {len(missing)} of the bytes of UTF-8 ({', '.join(missing[:5])}) and "
                "no unknown token: parts of texts would be lost; give one whose vocabulary has every byte"
            )
    elif not found and model.get("normalizer") is None:
        raise InputError(
            f"{where} leaves out characters that it does not know: parts of texts would be lost; give one "
            "with an unknown token, or one that falls back to bytes"
        )


def unknown_bytes(tokenizer: Tokenizer) -> list[int]:
    """Return the bytes of UTF-8 for which a byte-level tokenizer has neither an id nor an unknown token."""
    if not _splits_bytes(json.loads(tokenizer.to_str())):
        return []
    known = tokenizer.get_vocab(with_added_tokens=True)
    return [byte for byte, letter in _letters().items() if letter not in known]


def _splits_bytes(model: Mapping[str, Any]) -> bool:
    """Whether texts are split into bytes, none of which an unknown token stands for."""
    byte_level = "ByteLevel" in json.dumps(model.get("pre_tokenizer"))
    return byte_level and not model["model"].get("unk_token")


def _letters() -> dict[int, str]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's): itself if it can be
    seen, else the next letter from U+0100 on. Bytes that no UTF-8 has are left out."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    found = {byte: chr(byte if byte in seen else next(others)) for byte in range(0x100)}
    return {byte: letter for byte, letter in found.items() if byte not in _NEVER}


def digest_of(data: bytes) -> str:
    """SHA-256 (hex) of a tokenizer.json: by it manifests name tokenizers."""
    return hashlib.sha256(data).hexdigest()


def tokenise(
    documents: pa.Table,
    tokenizer: Tokenizer,
    facts: Facts,
    *,
    append_eos: bool = True,
    parse_special: bool = False,
    unknown: Sequence[int] = (),
) -> Outcome:
    """TOKENS rows of DOCUMENTS rows, in their order.

    No token is added but the end of text, and that not twice. Special tokens in a text are
    spelled out like any text, so that no document can forge an end; with ``parse_special``, for
    rendered conversations, they are what they say. The tokenizer's own setting is changed. Documents
    with an ``unknown`` byte (of `unknown_bytes`) are rejected.
    """
    tokenizer.encode_special_tokens = not parse_special
    ledger = Ledger()
    ledger.add("document", "in", "", documents.num_rows, id_sum(documents["doc_id"]))
    documents = _with_known_bytes(documents, unknown, ledger)
    rows = documents.num_rows
    cells: list[bytes] = []
    lengths = np.zeros(rows, np.int64)
    end = np.array([facts.eos] if append_eos else [], facts.dtype)
    row = 0
    dtype = facts.dtype
    for encodings in _encoded(tokenizer, documents["text"]):
        for encoding in encodings:
            ids = np.array(encoding.ids, dtype)
            if append_eos and not (len(ids) and ids[-1] == facts.eos):
                ids = np.concatenate([ids, end])
            lengths[row] = len(ids)
            cells.append(ids.tobytes())
            row += 1
    table = TOKENS.validate(
        pa.table(
            {
                "doc_id": documents["doc_id"],
                "split": documents["split"],
                "source": documents["source"],
                "tokens": pa.array(cells, pa.binary()),
                "length": pa.array(lengths.astype(np.int32)),
                "file": documents["file"],
                "position": documents["position"],
            }
        )
    )
    if not lengths.all():
        empty = pa.array(lengths == 0)
        gone = table.filter(empty)["doc_id"]
        ledger.add("document", "rejected", "no_tokens", len(gone), id_sum(gone))
        table = table.filter(pc.invert(empty))
    ledger.add("document", "out", "", table.num_rows, id_sum(table["doc_id"]))
    return Outcome(table, ledger, stats=statistics(table))


def _with_known_bytes(documents: pa.Table, unknown: Sequence[int], ledger: Ledger) -> pa.Table:
    if not unknown:
        return documents
    pattern = "[" + "".join(f"\\x{byte:02x}" for byte in unknown) + "]"
    # As bytes: in a string, the pattern's numbers would be code points.
    bad = pc.match_substring_regex(documents["text"].cast(pa.binary()), pattern)
    gone = documents.filter(bad)["doc_id"]
    if len(gone):
        ledger.add("document", "rejected", "unknown_character", len(gone), id_sum(gone))
    return documents.filter(pc.invert(bad))


def _encoded(tokenizer: Tokenizer, texts: pa.ChunkedArray) -> Iterator[list[Any]]:
    """Encodings of texts, batch by batch; the next batch is encoded while one is taken up, which
    keeps all cores at work: encoding holds no lock of the interpreter."""

    def encode(batch: list[str]) -> list[Any]:
        return tokenizer.encode_batch_fast(batch, add_special_tokens=False)

    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for batch in _batches(texts):
            after = pool.submit(encode, batch)
            if waiting is not None:
                yield waiting.result()
            waiting = after
        if waiting is not None:
            yield waiting.result()


def _batches(texts: pa.ChunkedArray) -> Iterator[list[str]]:
    """Runs of texts of about :data:`BATCH_BYTES`, or one text."""
    sizes = pc.binary_length(texts).to_numpy()
    values = texts.to_pylist()
    first, total = 0, 0
    for row, size in enumerate(sizes.tolist()):
        if total and total + size > BATCH_BYTES:
            yield values[first:row]
            first, total = row, 0
        total += size
    if values[first:]:
        yield values[first:]


def statistics(table: pa.Table) -> dict[str, Any]:
    """What the manifest says of TOKENS rows: tokens and documents by split, lengths by the log2 of
    their bucket's lower bound, tokens by source. Numbers add up over tables."""
    lengths = table["length"].to_numpy().astype(np.int64)
    stats: dict[str, Any] = {"tokens": {}, "documents": {}, "lengths": {}, "sources": {}}
    splits = table["split"].combine_chunks()
    for split in ("train", "validation"):
        mine = pc.equal(splits, split).to_numpy(zero_copy_only=False)
        stats["tokens"][split] = int(lengths[mine].sum())
        stats["documents"][split] = int(mine.sum())
    buckets = np.floor(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    for bucket, count in zip(*np.unique(buckets, return_counts=True), strict=True):
        stats["lengths"][f"{bucket:02d}"] = int(count)
    sums = table.select(["source", "length"]).group_by("source").aggregate([("length", "sum")])
    for source in sums.to_pylist():
        stats["sources"][source["source"]] = source["length_sum"]
    return stats
