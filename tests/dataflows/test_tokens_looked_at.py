"""A run of `tokens` looked at: why, report (in a browser too), replay of its dead letters, verify."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from curation.text.documents import document_ids
from dataflows.cli import main
from dataflows.report.render import report
from schemas.ledger import Ledger
from tests.bad_input.command import dataflows
from tests.dataflows.report import hostile
from tests.dataflows.token_runs import corpus, dataset, prose, rows, run
from tests.page.browser import WIDTHS, browsing, check_inert, check_inside, check_quiet

LIMIT = 3_000
EXAM = prose(9_001)
LONG = " ".join(prose(seed) for seed in range(500, 510))
CORPUS = corpus()
BAD = {
    json.dumps({"text": LONG}).encode(): "document_too_long",
    json.dumps({"text": "x" * (LIMIT + 1)}).encode(): "document_too_long",
    json.dumps({"text": "a\0b"}).encode(): "nul_in_text",
    b'{"text": "do': "bad_record",
}
SHORT = "three words here"
HOSTILE = [
    f"{text} {prose(n)}"
    for n, text in enumerate((hostile.SCRIPT, hostile.HANDLER, hostile.SVG, hostile.HEBREW), 800)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Duplicates, a contaminated document, hostile texts and sources, bad lines. Not to be changed."""
    pytest.MonkeyPatch().setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    folder = tmp_path_factory.mktemp("looked")
    texts = [*CORPUS.texts, f"So it began. {EXAM}", SHORT, *HOSTILE]
    lines = [json.dumps({"text": text, "from": "<b>bold</b>"}).encode() for text in texts]
    (folder / "pool").mkdir()
    (folder / "pool/pool.jsonl").write_bytes(b"\n".join([*lines, *BAD]))
    (folder / "exam.jsonl").write_text(json.dumps({"text": EXAM}))
    settings = ["tokenizer=train", "vocabulary=320", "validation=0.2", "rules.min_words=10"]
    settings += [f"decontaminate.exam={folder}/exam.jsonl", "on_contamination=drop"]
    settings += [f"max_document_bytes={LIMIT}", "columns.source=from"]
    run(f"input={folder}/pool", f"output={folder}/out", *settings)
    return folder / "out"


def why(output: Path, name: str) -> tuple[int, str]:
    """Exit code, and what is printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["why", str(output), name])
    assert "Traceback" not in said.getvalue()
    return code, said.getvalue()


def identity(text: str) -> str:
    return document_ids([text.encode()])[0].as_py().hex()


def grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(*(words[i:] for i in range(5)), strict=False))


# -- why ---------------------------------------------------------------------------------------


def test_why_a_duplicate_went_and_how_alike_the_two_are(made: Path) -> None:
    gone = {row["doc_id"]: row for row in rows(made, "duplicates").to_pylist()}
    assert {row["how"] for row in gone.values()} == {"exact", "near"}
    for one, other in [CORPUS.exact[0], CORPUS.near[0]]:
        dropped, stayed = (one, other) if bytes.fromhex(identity(one)) in gone else (other, one)
        how = gone[bytes.fromhex(identity(dropped))]["how"]
        code, said = why(made, identity(dropped))
        assert code == 0 and f"not kept: duplicate_{how} (duplicates)" in said
        assert f"of document {identity(stayed)}" in said
        both = grams(dropped) & grams(stayed)
        jaccard = len(both) / len(grams(dropped) | grams(stayed))
        assert f"Jaccard similarity {jaccard:.3f} of their 5-grams" in said
        said = why(made, identity(stayed))[1]
        assert "kept for 1 duplicate of it" in said and "=> kept" in said


def test_why_finds_the_tokens_of_a_document(made: Path) -> None:
    text = CORPUS.distinct[100]
    code, said = why(made, identity(text))
    assert code == 0
    number, row = re.search(
        r"shard (\d+) \(data/\w+\.parquet, row group 0, row (\d+)\)", said
    ).groups()  # type: ignore[union-attr]
    found = dataset(made).read_shard(int(number)).slice(int(row), 1).to_pylist()[0]
    assert found["doc_id"].hex() == identity(text)
    assert f"{found['length']} tokens, split {found['split']}" in said
    drawn, sign, share = re.search(r"its number (\S+) (<|>=) (\S+)", said).groups()  # type: ignore[union-attr]
    assert (float(drawn) < float(share)) == (sign == "<") == (found["split"] == "validation")


def test_why_a_document_is_contaminated_or_rejected(made: Path) -> None:
    said = why(made, identity(f"So it began. {EXAM}"))[1]
    shared = re.search(r'shares "([^"]*)" with exam', said)
    assert shared and len(shared[1].split()) == 13 and shared[1] in EXAM
    assert "not kept: contaminated" in said
    code, said = why(made, identity(SHORT))  # in no dataset: the input is read again
    assert code == 0 and "words 3, minimum 10 [min_words]" in said
    for letter in rows(made, "documents.dead_letters").to_pylist():
        code, said = why(made, f"pool.jsonl:{letter['position']}")
        assert code == 0 and f"not kept: {letter['reason']} (documents)" in said
        assert letter["error"] in said


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("f" * 32, 3, "is nowhere in the input"),
        ("f" * 31, 2, "give a document's id (32 hex digits"),
        ("f" * 31, 2, "the byte at which its record begins in the decompressed file (JSONL, text)"),
        ("pool.jsonl:7", 3, "is nowhere in the input"),
        ("pool.jsonl:7", 3, "or its row (Parquet), counted from 0"),
        ("other.jsonl:7", 3, "other.jsonl is no input of the run"),
    ],
)
def test_why_says_what_it_cannot_find(made: Path, name: str, code: int, message: str) -> None:
    found, said = why(made, name)
    assert found == code and message in said


# -- report ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report(str(made)), encoding="utf-8")
    return path


def test_the_page_counts_what_a_recount_counts(made: Path, page: Path) -> None:
    text = page.read_text()
    tokens = rows(made)
    train = [row["length"] for row in tokens.to_pylist() if row["split"] == "train"]
    assert f"{sum(train):,} tokens in {len(train):,} documents of train" in text
    lines = len(CORPUS.texts) + 2 + len(HOSTILE) + len(BAD)
    assert f"Of {lines:,} documents, {tokens.num_rows:,} (" in text
    assert "✗" not in text and "✓" in text
    assert "1 document shares 13 words in a row" in text and "(1 with exam)" in text
    for bucket, count in zip(
        *np.unique(np.log2(tokens["length"]).astype(int), return_counts=True), strict=True
    ):
        low, high = 2**bucket, 2 ** (bucket + 1) - 1
        assert re.search(
            rf"{low:,} to {high:,}</bdi>.*?data-label=\"Documents\">{count:,}<", text, re.S
        )
    assert "No filter for illegal or adult images" not in text  # of pictures, not of texts
    assert text == report(str(made))


def test_hostile_texts_are_shown_and_inert(page: Path, tmp_path: Path) -> None:
    text = page.read_text()
    assert "<script" not in text and "<b>bold</b>" not in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text and "Content-Security-Policy" in text
    with browsing(tmp_path) as browser:
        for width in WIDTHS:
            check_quiet(browser, page, width, "light")
            check_inside(browser, page, width)
        check_inert(browser, page)


def test_a_run_that_ended_early_has_a_page(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "documents", tmp_path / "documents")
    assert "they have not been tokenised here" in report(str(tmp_path))


# -- replay ------------------------------------------------------------------------------------


def test_replayed_letters_are_read_again_under_other_limits(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(made, output)
    before = dataset(output, "documents").manifest
    code, said = dataflows("replay", str(output / "documents"), "max_document_bytes=1000000")
    assert code == 0, said
    assert f"{before.rows:,} rows before, {before.rows + 1:,} now, 2 dead letters left" in said
    after = dataset(output, "documents").manifest
    ledger, old = Ledger.from_json(after.counts), Ledger.from_json(before.counts)
    ledger.check(out={"document": after.rows})
    assert ledger.count("document", "in") == old.count("document", "in")
    assert ledger.count("document", "rejected", "document_too_long") == 0
    # One word is too few for the run's own rules: no dead letter, but counted.
    few = (found.count("document", "rejected", "min_words") for found in (ledger, old))
    assert [*few] == [2, 1]
    text = LONG.encode()
    assert sum(after.stats["bytes"].values()) == sum(before.stats["bytes"].values()) + len(text)
    whole = {row["doc_id"]: row["text"] for row in rows(output, "documents").to_pylist()}
    assert whole[bytes.fromhex(identity(LONG))] == LONG
    left = rows(output, "documents.dead_letters")["reason"].to_pylist()
    assert sorted(left) == ["bad_record", "nul_in_text"]
    code, said = dataflows("verify", str(output))
    assert code == 0, said
    code, said = dataflows("replay", str(output / "documents"), "max_document_bytes=1000000")
    assert code == 0 and "nothing changed" in said


def test_what_cannot_be_replayed_is_named(made: Path, tmp_path: Path) -> None:
    code, said = dataflows("replay", str(made / "documents"), "filters=gopher")
    assert code == 2 and "filters: not a setting of replaying documents" in said
    code, said = dataflows("replay", str(made / "documents"), "max_document_bytes=0")
    assert code == 2 and "max_document_bytes=0" in said
    output = tmp_path / "out"
    shutil.copytree(made, output)
    pool = made.parent / "pool/pool.jsonl"
    kept = pool.read_bytes()
    pool.write_bytes(kept + b"\n{}")
    try:
        code, said = dataflows("replay", str(output / "documents"))
    finally:
        pool.write_bytes(kept)
    assert code == 3 and "is not what it was when it was pinned" in said
