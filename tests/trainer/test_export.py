"""An export loads by `AutoModel` and `AutoProcessor`, with the run's own features."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from curation.pool.render import render
from schemas.dataset import open_dataset
from schemas.errors import ConflictError
from tests.support import ROOT
from tests.trainer.evaluation.plain import Plain
from tests.trainer.evaluation.runs import LICENCE, curated, trained
from trainer import export as exporting
from trainer.cli import main
from trainer.evaluation import loading, registry
from trainer.sources.pictures import decode

CAPTIONS = [
    "a dog on a red background",
    "Zwei Katzen; schöne Grüße",
    "犬の写真です。",
    "นกสีแดงบนพื้นหลังสีเขียว",
    "صورة كلب على خلفية حمراء",
    "हिन्दी में एक चित्र",
    "한국어 설명",
    "собака на синем фоне",
    "the end </s> stands inside, and <pad> and <s> too",
    "</s>",
    "",
    "words " * 60,
    "line\nbreaks\tand  double  spaces 👩‍👩‍👧",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    return trained(root / "run", curated(root / "curated"))


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    return exporting.export(str(run))


def test_features_are_the_runs_own(run: Path, exported: Path) -> None:
    loaded, plain = loading.of_run(run), Plain(exported)
    pictures = [
        render(f"generated://pool/0/{k}/animals/birds/penguin", 96) for k in range(0, 60, 6)
    ]
    own = loaded.image_features(map(decode, pictures), len(pictures))
    np.testing.assert_allclose(own, [plain.image(one) for one in pictures], atol=1e-5)
    own = loaded.text_features(CAPTIONS)
    np.testing.assert_allclose(own, [plain.text(text) for text in CAPTIONS], atol=1e-5)
    # No two of these captions are alike to the model, so the comparison says something.
    assert np.sort((own @ own.T)[np.triu_indices(len(own), 1)])[-1] < 0.9999


def test_a_run_loads_after_another_model_of_the_library(run: Path) -> None:
    """The library's first model leaves its package another object than the one imported before."""
    code = (
        "import sys; from transformers import AutoModel, BertConfig; "
        "AutoModel.from_config(BertConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=1, "
        "intermediate_size=8, vocab_size=9)); "
        "from trainer.evaluation.loading import load; load(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.spec("metaclip2", 29)
def test_token_ids_are_those_of_training(run: Path, exported: Path) -> None:
    from transformers import AutoTokenizer

    from trainer.tokenizer import encode

    loaded = loading.of_run(run)
    ids, mask = encode(loaded.tokenizer, CAPTIONS, loaded.context)
    theirs = AutoTokenizer.from_pretrained(exported)
    found = theirs(CAPTIONS, padding="max_length", truncation=True, return_tensors="np")
    np.testing.assert_array_equal(found["input_ids"], ids)
    np.testing.assert_array_equal(found["attention_mask"], mask)
    assert ((ids == 2).sum(1) == 1).all()  # one end token, though some texts say </s>
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.model_max_length) == (1, 2, 24)


def test_it_loads_as_the_librarys_own_classes(exported: Path) -> None:
    plain = Plain(exported)
    for part in (plain.model, plain.processor, plain.processor.image_processor):
        assert type(part).__module__.startswith("transformers.")
    assert type(plain.processor.image_processor).__name__ == "CLIPImageProcessorPil"
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["MetaClip2Model"] and "auto_map" not in config
    assert {file.name for file in exported.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    modes = {file.stat().st_mode for file in exported.iterdir()}
    assert len(modes) == 1, "some files are for their owner alone"


@pytest.mark.parametrize(("trained_to", "wanted"), [(5.0, math.log(100)), (-1.0, 0.0), (3.5, 3.5)])
def test_the_scale_is_within_its_bounds(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_to: float, wanted: float
) -> None:
    """Training clamps it in the forward pass; the library's classes use what is in the file."""
    loaded = loading.of_run(run)
    loaded.model.logit_scale.fill_(trained_to)
    monkeypatch.setattr(exporting, "load", lambda run, step: loaded)
    folder = exporting.export(str(run), str(tmp_path / "export"))
    written = load_file(folder / "model.safetensors")["logit_scale"]
    assert float(written) == pytest.approx(wanted, rel=1e-6)


def test_the_export_scores_as_the_run_does(run: Path, exported: Path) -> None:
    settings = {"path": str(run.parent / "curated"), "least": 5}
    of_run = registry.evaluate(loading.load(run), "retrieval", settings)
    of_export = registry.evaluate(loading.load(exported), "retrieval", settings)
    assert of_run.pop("model")["kind"] == "run"
    assert of_export.pop("model")["kind"] == "transformers"
    assert of_run == of_export


def test_the_card_says_what_it_was_made_from(run: Path, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    described = json.loads((run / "run.json").read_text())
    digest = open_dataset(run.parent / "curated").manifest.digest
    assert digest == described["data"]["digest"]
    for stated in (digest, LICENCE, "step-00000002", "| seed | 7 |", "| recipe | metaclip2-tiny |"):
        assert stated in card
    assert r"generated \*pictures\*" in card  # a warning of the dataset, as text
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_a_card_without_its_dataset_says_so(run: Path) -> None:
    from trainer.export_card import card

    loaded, described = loading.of_run(run), loading.read_run(run)
    for data, why in [
        ({"location": str(run / "gone"), "digest": "1f"}, "not a committed dataset"),
        (
            {"location": str(run.parent / "curated"), "digest": "1f"},
            "another dataset is at its place",
        ),
        ({"digest": "1f"}, "does not say where"),
    ]:
        text = card({**described, "data": data}, loaded)
        assert "`1f`" in text and why in text and LICENCE not in text


def test_an_export_replaces_nothing_but_an_export(
    run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing(folder: Path) -> set[str]:
        return {file.name for file in folder.iterdir()}

    with pytest.raises(ConflictError, match="give --replace"):
        exporting.export(str(run), str(exported))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(ConflictError, match="no former export"):
        exporting.export(str(run), str(mine), replace=True)
    assert listing(mine) == {"thesis.tex"}

    place = tmp_path / "place"
    exporting.export(str(run), str(place))
    (place / "README.md").write_text("old")

    def fails(*_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "card", fails)
        with pytest.raises(KeyboardInterrupt):
            exporting.export(str(run), str(place), replace=True)
        with pytest.raises(KeyboardInterrupt):
            exporting.export(str(run), str(tmp_path / "new"))
    assert (place / "README.md").read_text() == "old"
    assert listing(tmp_path) == {"mine", "place"}, "an interrupted export left something"
    exporting.export(str(run), str(place), replace=True)
    assert "step-00000002" in (place / "README.md").read_text()
    assert listing(tmp_path) == {"mine", "place"}


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "clip"
    assert main(["export", str(run), "--to", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert main(["export", str(run), "--to", str(target)]) == 4
    assert "--replace" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none")]) == 3
    assert "not a run of `trainer launch`" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "s3://bucket/clip"]) == 2
    assert "local folder" in capsys.readouterr().err
