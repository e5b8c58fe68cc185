"""`trainer logits`: what a teacher says of each token, kept, and found again beside packed sequences."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from schemas.dataset import open_dataset
from schemas.errors import HeadraceError, InputError, UsageError
from tests.trainer import real_tokens
from trainer.cli import main
from trainer.config import load
from trainer.engine.parts import build
from trainer.evaluation import progress
from trainer.models import decoder_model
from trainer.protocols import Parts, Place
from trainer.teacher import caching

CONTEXT = 32


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return real_tokens.dataset(tmp_path_factory.mktemp("tokens"), 60)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tokens: Path) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    shape = {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "vocab_size": real_tokens.VOCABULARY,
    }
    model = decoder_model.new("llama", shape, 5)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)  # far from a uniform distribution
    model.save_pretrained(folder)
    return folder


def table(place: Path) -> list[dict[str, Any]]:
    return [row for one in open_dataset(str(place)).tables() for row in one.to_pylist()]


def command(teacher: Path, tokens: Path, output: Path, *more: str) -> int:
    words = (f"path={tokens}", f"output={output}", f"context={CONTEXT}", *more)
    return main(["logits", str(teacher), *words])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, teacher: Path, tokens: Path) -> Path:
    output = tmp_path_factory.mktemp("logits") / "whole"
    assert command(teacher, tokens, output, f"top_k={real_tokens.VOCABULARY}") == 0
    return output


def parts(tokens: Path, objective: dict[str, Any], *more: str) -> Parts:
    words = real_tokens.words(tokens, tokens.parent / "run", 2, *more)
    config = load(words[0], words[1:])
    return build(config.model_copy(update={"objective": objective}), Place())


def from_logits(tokens: Path, output: Path, *more: str, **settings: Any) -> Parts:
    return parts(tokens, {"name": "distillation", "logits": str(output), **settings}, *more)


def test_rows_are_what_the_library_says_of_each_document(
    teacher: Path, tokens: Path, tmp_path: Path
) -> None:
    """Documents alone, in pieces of the context; the first k and the mass of the others."""
    assert command(teacher, tokens, tmp_path / "top", "top_k=8", "temperature=2") == 0
    rows = table(tmp_path / "top")
    texts = {r["doc_id"]: r for r in table(tokens)}
    model = transformers.LlamaForCausalLM.from_pretrained(teacher).eval()
    assert sum(r["length"] for r in rows) == sum(
        r["length"] for r in texts.values() if r["split"] == "train"
    )
    assert {r["start"] for r in rows} >= {0, CONTEXT}
    for row in rows[:20]:
        ids = np.frombuffer(texts[row["doc_id"]]["tokens"], "<u2").astype(np.int64)
        ids = ids[row["start"] :][: row["length"]]
        with torch.no_grad():
            wanted = (model(torch.from_numpy(ids)[None]).logits[0] / 2).log_softmax(-1)
        kept = np.frombuffer(row["log_probs"], "<f4").reshape(-1, 8)
        names = np.frombuffer(row["ids"], "<u2").reshape(-1, 8)
        theirs = wanted.sort(-1, descending=True).values[:, :8].numpy()
        np.testing.assert_allclose(kept, theirs, atol=2e-5)
        here = wanted.gather(-1, torch.from_numpy(names.astype(np.int64))).numpy()
        np.testing.assert_allclose(kept, here, atol=2e-5)
        rest = np.exp(np.frombuffer(row["tail"], "<f4"))
        np.testing.assert_allclose(rest, 1 - np.exp(theirs).sum(-1), atol=1e-5)


@pytest.mark.parametrize("packing", ["best_fit", "concatenate"])
def test_batches_have_the_answers_to_their_own_tokens(
    packing: str, teacher: Path, tokens: Path, whole: Path
) -> None:
    """A live teacher reads the same of what begins a document, in any packing."""
    length = 32 if packing == "best_fit" else 64
    of = from_logits(tokens, whole, f"data.packing={packing}", f"data.sequence_length={length}")
    assert of.source is not None
    batch = of.source.batch(np.arange(60))
    live = decoder_model.from_folder(str(teacher), {}).eval()
    with torch.no_grad():
        wanted = live.lm_head(live.hidden(batch["input_ids"], batch["position_ids"]))
    found = torch.empty_like(wanted).scatter_(
        -1, batch["teacher_ids"].long(), batch["teacher_log_probs"]
    )
    # The first document of a sequence may be the rest of one that concatenation cut.
    begun = batch["segments"] >= (0 if packing == "best_fit" else 1)
    same = begun & (batch["position_ids"] < CONTEXT)
    assert same.sum() > 100
    torch.testing.assert_close(found[same], wanted.log_softmax(-1)[same], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kept_and_live_answers_teach_the_same(
    temperature: float, teacher: Path, tokens: Path, whole: Path
) -> None:
    settings = {"temperature": temperature, "alpha": 0.7}
    live = {"name": "distillation", "teacher": str(teacher), **settings}
    found = []
    for of in (
        parts(tokens, live, "data.packing=best_fit"),
        from_logits(tokens, whole, "data.packing=best_fit", **settings),
    ):
        assert of.source is not None and of.objective is not None
        objective: Any = of.objective
        sums = objective.components(of.model, of.source.batch(np.arange(8)))
        sum(objective.weights[name] * value for name, value in sums.items()).backward()
        gradients = [p.grad for p in of.model.parameters()]
        found.append((objective.weights, {n: v.item() for n, v in sums.items()}, gradients))
    assert found[0][0] == found[1][0]
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)
    for a, b in zip(found[0][2], found[1][2], strict=True):
        assert (a - b).norm() <= 1e-4 * a.norm()


def test_a_stopped_command_goes_on_and_shares_make_the_same(
    teacher: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "UNIT_BYTES", 20_000)
    assert command(teacher, tokens, tmp_path / "one", "top_k=8") == 0
    digest = open_dataset(str(tmp_path / "one")).manifest.digest
    original, asked = caching._Teacher.unit, []

    def unit(self: Any, first: int, end: int) -> Any:
        asked.append(first)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return original(self, first, end)

    monkeypatch.setattr(caching._Teacher, "unit", unit)
    stopped = tmp_path / "stopped"
    assert command(teacher, tokens, stopped, "top_k=8") == 130
    before = asked[:2]
    assert command(teacher, tokens, stopped, "top_k=8") == 0
    assert not set(before) & set(asked[3:]), "finished units are not made again"
    assert open_dataset(str(stopped)).manifest.digest == digest
    shared = tmp_path / "shared"
    assert command(teacher, tokens, shared, "top_k=8", "share=1/2") == 0
    assert not (shared / "manifest.json").exists()
    assert command(teacher, tokens, shared, "top_k=8", "share=0/2") == 0
    assert open_dataset(str(shared)).manifest.digest == digest


def test_a_run_is_no_teacher_and_the_error_names_the_export(
    tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert command(tmp_path / "run", tokens, tmp_path / "never") == 3
    wanted = f"`trainer export {tmp_path / 'run'} --to FOLDER`"
    assert wanted in capsys.readouterr().err
    with pytest.raises(InputError, match=r"objective.teacher=.*trainer export .* --to FOLDER"):
        parts(tokens, {"name": "distillation", "teacher": str(tmp_path / "run")})


def test_progress_is_told_within_a_unit(
    teacher: Path,
    tokens: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One unit of many windows: as many lines as there was time for, up to all tokens."""
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    units: list[int] = []
    original = caching._Teacher.unit

    def unit(self: Any, first: int, end: int) -> Any:
        units.append(first)
        return original(self, first, end)

    monkeypatch.setattr(caching._Teacher, "unit", unit)
    assert command(teacher, tokens, tmp_path / "told", "top_k=8", f"batch={CONTEXT}") == 0
    rows = table(tmp_path / "told")
    total = sum(row["length"] for row in rows)
    lines = [s for s in capsys.readouterr().err.splitlines() if s.startswith("tokens: ")]
    assert units == [0] and len(lines) == len(rows) > 10
    assert lines[0].startswith(f"tokens: {CONTEXT} of {total:,}, ") and lines[0].endswith("s left")
    assert lines[-1].startswith(f"tokens: {total:,} of {total:,}, ")


def test_what_does_not_fit_is_refused(
    teacher: Path,
    tokens: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = real_tokens.dataset(tmp_path / "other", 40)
    digests = [open_dataset(str(place)).manifest.digest[:12] for place in (tokens, other)]
    with pytest.raises(UsageError, match=f"{digests[0]}.*{digests[1]}.*trainer logits"):
        from_logits(other, whole)
    few = tmp_path / "few"
    assert command(teacher, tokens, few, "top_k=8") == 0
    with pytest.raises(UsageError, match=r"temperature=2: .* top 8 of 384"):
        from_logits(tokens, few, temperature=2.0)
    with pytest.raises(UsageError, match="document_mask=false"):
        from_logits(tokens, few, "data.document_mask=false")
    with pytest.raises(UsageError, match=r"split train, and data.split=validation"):
        from_logits(tokens, few, "data.split=validation")
    with pytest.raises(HeadraceError, match="is tokens, not logits"):
        from_logits(tokens, tokens)
    capsys.readouterr()
    assert command(teacher, tokens, few, "top_k=9") == 4
    assert "holds another dataset" in capsys.readouterr().err
    assert command(teacher, tokens, tmp_path / "much", "top_k=385") == 2
    assert "384" in capsys.readouterr().err
    damaged = tmp_path / "damaged"
    shutil.copytree(few, damaged)
    (shard,) = (damaged / "data").iterdir()
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    of = from_logits(tokens, damaged)
    assert of.source is not None
    with pytest.raises(HeadraceError, match=r"checksum|digest|SHA-256"):
        of.source.batch(np.arange(2))
