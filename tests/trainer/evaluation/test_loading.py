"""Loading models of `transformers`: the same features as the library's own, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from schemas.errors import InputError
from tests.support import ROOT
from tests.trainer.evaluation.conftest import TEXTS
from tests.trainer.evaluation.plain import Plain
from tests.trainer.evaluation.token_data import corpus, trained
from trainer import export as exporting
from trainer.evaluation.loading import Loaded, image_processor, load, quiet

CAPTIONS = [*TEXTS, "the end </s> is not here", "", "a very long caption " * 9]


def features_agree(loaded: Loaded, plain: Plain, picture: Callable[[int], bytes]) -> None:
    data = [picture(k) for k in range(6)]
    pixels = (np.asarray(Image.open(io.BytesIO(one))) for one in data)
    images = loaded.image_features(pixels, len(data))
    np.testing.assert_allclose(images, [plain.image(one) for one in data], atol=1e-5)
    texts = loaded.text_features(CAPTIONS)
    np.testing.assert_allclose(texts, [plain.text(text) for text in CAPTIONS], atol=1e-5)
    for found in (images, texts):
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        assert np.abs(found[0] - found[1]).max() > 1e-3


def test_metaclip2_has_the_librarys_features(
    loaded: Loaded, plain: Plain, picture: Callable[[int], bytes]
) -> None:
    assert type(plain.model).__module__.startswith("transformers.models.metaclip_2")
    features_agree(loaded, plain, picture)


@pytest.fixture(scope="module")
def openai_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLIPModel as OpenAI's checkpoints are configured: end token 2 stated, the last id meant."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("openai")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    start, end = "<|startoftext|>", "<|endoftext|>"
    made.add_special_tokens([start, end])
    special = [(name, made.token_to_id(name)) for name in (start, end)]
    made.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=special
    )
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    tower |= {"num_hidden_layers": 2, "projection_dim": 16}
    text = {"vocab_size": made.get_vocab_size(), "max_position_embeddings": 20, "eos_token_id": 2}
    vision = {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=16)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        model_max_length=20,
        split_special_tokens=True,
    )
    with quiet():
        CLIPModel(config).save_pretrained(folder)
        CLIPProcessor(image_processor(32), tokenizer).save_pretrained(folder)
    return folder


def test_openai_clip_has_the_librarys_features(
    openai_folder: Path, picture: Callable[[int], bytes]
) -> None:
    plain = Plain(openai_folder)
    assert type(plain.model).__name__ == "CLIPModel"
    features_agree(load(openai_folder, batch=4), plain, picture)


def test_features_do_not_depend_on_the_batch(
    clip_folder: Path, loaded: Loaded, picture: Callable[[int], bytes]
) -> None:
    alone = load(clip_folder, batch=1)
    np.testing.assert_allclose(
        alone.text_features(CAPTIONS), loaded.text_features(CAPTIONS), atol=1e-5
    )
    twice = loaded.text_features([CAPTIONS[0], CAPTIONS[1], CAPTIONS[0]])
    assert (twice[0] == twice[2]).all()  # equal texts, equal bits


def test_clip_with_end_token_2_is_pooled_at_it(tmp_path: Path, clip_folder: Path) -> None:
    """CLIPModel takes a 2 in its configuration for the largest id, a word of tokens like XLM-V's."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path / "model"
    shutil.copytree(clip_folder, folder)
    old = json.loads((folder / "config.json").read_text())
    parts = {key: old[key] for key in ("text_config", "vision_config")}
    for value in parts.values():
        value.pop("model_type")
    with quiet():
        model = CLIPModel(CLIPConfig(**parts, projection_dim=16)).eval()
        model.load_state_dict(load_file(folder / "model.safetensors"))
        model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "clip"
    found = load(folder)
    ids = [0, *found.tokenizer.encode(CAPTIONS[0], add_special_tokens=False).ids, 2]
    assert max(ids[:-1]) > 2
    with torch.no_grad():
        hidden = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        wanted = torch.nn.functional.normalize(model.text_projection(hidden), dim=0)
    np.testing.assert_allclose(found.text_features(CAPTIONS[:1])[0], wanted, atol=1e-5)


def test_features_that_are_no_numbers_are_refused(tmp_path: Path, clip_folder: Path) -> None:
    """All comparisons with NaN are false: without a check the right item would rank first."""
    folder = tmp_path / "model"
    shutil.copytree(clip_folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights["text_projection.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="features are not finite"):
        load(folder).text_features(CAPTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f), "neither a run of `trainer launch`"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "type bert"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda f: (f / "processor_config.json").unlink(), "an image processor cannot be loaded"),
        (lambda f: end_token(f, 4), "texts end with token 2, but the model looks for 4"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    tmp_path: Path, clip_folder: Path, change: Callable[[Path], Any], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(clip_folder, folder)
    change(folder)
    with pytest.raises(InputError, match=message):
        load(folder)


def end_token(folder: Path, number: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = number
    (folder / "config.json").write_text(json.dumps(config))


def test_pickled_weights_are_refused(tmp_path: Path, clip_folder: Path) -> None:
    """A pickle runs code when it is read."""
    import torch

    folder = tmp_path / "model"
    shutil.copytree(clip_folder, folder)
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load(folder)


def test_no_code_of_a_folder_runs_even_if_the_terminal_says_yes(tmp_path: Path) -> None:
    """The library asks on the terminal, before it imports a tokenizer's own program."""
    run = trained(tmp_path / "run", corpus(tmp_path), "length.steps=1", "evaluate=null")
    folder = exporting.export(str(run), str(tmp_path / "model"))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Foo: ...\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Foo", "auto_map": {"AutoTokenizer": ["evil.Foo", "evil.Foo"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "trainer", "generate", str(folder), "prompt=the", "tokens=2"]
    done = subprocess.run(
        command, cwd=ROOT, input="y\n" * 5, capture_output=True, text=True, timeout=120
    )
    assert not (tmp_path / "ran").exists()
    assert "Traceback" not in done.stderr and "[y/N]" not in done.stdout, done
    assert done.returncode == 0 or "cannot be loaded" in done.stderr, done


def test_a_run_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is not what `trainer launch` writes"):
        load(tmp_path)
