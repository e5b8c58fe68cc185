"""The model itself: features, pooling, the bounded scale, weights from a seed, checkpoints of others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from schemas.errors import InputError, UsageError
from tests.trainer.models.making import a_config, a_model, a_tokenizer
from trainer.models import clip
from trainer.models.metaclip2 import Settings, build
from trainer.objectives.contrastive import Contrastive
from trainer.protocols import Parts
from trainer.tokenizer import encode, train

IDS = torch.tensor([[0, 50, 60, 2, 1, 1], [0, 70, 2, 1, 1, 1], [0, 80, 90, 100, 110, 2]])
MASK = (IDS != 1).long()


def pixels(n: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(3))


def old_clip(end: int, tokens: int = 300) -> transformers.CLIPModel:
    torch.manual_seed(0)
    text = {
        "vocab_size": tokens,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "eos_token_id": end,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return transformers.CLIPModel(config).eval()


# -- features ------------------------------------------------------------------------------


def test_is_the_model_of_transformers(tmp_path: Path) -> None:
    """Features, loss and the saved folder are those of `transformers`' own class."""
    model = a_model().eval()
    model.save_pretrained(tmp_path)
    theirs = transformers.AutoModel.from_pretrained(tmp_path).eval()
    assert type(theirs) is transformers.MetaClip2Model
    assert theirs.config.architectures == ["MetaClip2Model"]
    images = pixels()
    with torch.no_grad():
        reference = theirs(
            input_ids=IDS, pixel_values=images, attention_mask=MASK, return_loss=True
        )
        batch = {"pixel_values": images, "input_ids": IDS}
        found = Contrastive().represent(model, batch)
        loss = Contrastive().components(found, found, 0)["contrastive"] / 3
    torch.testing.assert_close(found["image"], reference.image_embeds)
    torch.testing.assert_close(found["text"], reference.text_embeds)
    assert loss.item() == pytest.approx(reference.loss.item(), rel=1e-6)


# -- where the text feature is taken -------------------------------------------------------


@pytest.mark.spec("metaclip2", 29)
def test_feature_is_taken_at_the_first_end_token() -> None:
    """Nothing after the first id 2 counts, and rows stay in step with the images."""
    model = a_model().eval()
    twice = torch.tensor([[0, 250, 2, 299, 2, 1], [0, 80, 90, 100, 110, 2]])
    until = torch.tensor([[0, 250, 2]])
    with torch.no_grad():
        found = model(pixels(2), twice)["text"]
        alone = model(pixels(1), until)["text"]
        hidden = model.text_model(input_ids=twice).last_hidden_state
        by_hand = model.text_projection(hidden[torch.arange(2), torch.tensor([2, 5])])
    assert found.shape[0] == 2
    torch.testing.assert_close(found[:1], alone)
    torch.testing.assert_close(found, by_hand)


@pytest.mark.spec("metaclip2", 29)
def test_end_token_written_in_a_text_moves_nothing() -> None:
    tokenizer = a_tokenizer()
    texts = ["a red </s> square", "</s>", "a red square", "</s></s> a <s> b <pad>"]
    ids, mask = encode(tokenizer, texts, 77)
    assert ids.shape == (4, 77)
    assert ((ids == 2).sum(1) == 1).all(), "one end token a row"
    assert ((ids == 2).argmax(1) == mask.sum(1) - 1).all(), "after everything the text says"
    assert ids[1, 1:4].tolist() != ids[2, 1:4].tolist() and 2 not in ids[1, 1:3]


@pytest.mark.spec("metaclip2", 29)
def test_truncation_at_77_keeps_an_end_token() -> None:
    ids, mask = encode(a_tokenizer(), ["square " * 200, "square " * 70, "a"], 77)
    assert ids.shape == (3, 77)
    assert ids[0, 76] == 2 and mask[0].all() and ((ids == 2).sum(1) == 1).all()
    model = a_model(context=77).eval()
    with torch.no_grad():
        assert model(pixels(3), torch.from_numpy(ids))["text"].shape == (3, 128)


@pytest.mark.spec("metaclip2", 29)
def test_legacy_pooling_of_clip_is_not_taken_over(tmp_path: Path) -> None:
    """CLIPModel with end token 2 pools at the largest id: a word, for XLM-V's tokens."""
    theirs = old_clip(end=2)
    theirs.save_pretrained(tmp_path)
    ids = torch.tensor([[0, 250, 60, 2, 1]])
    with torch.no_grad():
        hidden = theirs.text_model(input_ids=ids).last_hidden_state[0]
        wrong = theirs.get_text_features(input_ids=ids).pooler_output[0]
        torch.testing.assert_close(wrong, theirs.text_projection(hidden[1]))
        right = theirs.text_projection(hidden[3])
    model = build(Settings(init_from=str(tmp_path)), a_config(), Parts(tokenizer=a_tokenizer()))
    with torch.no_grad():
        found = model.eval()(pixels(1), ids)["text"][0]
    torch.testing.assert_close(found, right)


# -- the scale -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "gradient", "seen", "passed"),
    [
        (3.0, -1.0, 3.0, -1.0),
        (3.0, 1.0, 3.0, 1.0),
        (5.0, -1.0, math.log(100), 0.0),  # descent would go further up
        (5.0, 1.0, math.log(100), 1.0),
        (-0.1, 1.0, 0.0, 0.0),
        (-0.1, -1.0, 0.0, -1.0),
    ],
)
def test_scale_is_bounded(value: float, gradient: float, seen: float, passed: float) -> None:
    scale = torch.tensor(value, requires_grad=True)
    found = clip.Bounded.apply(scale, *clip.LOGIT_SCALE_BOUNDS)
    assert found.item() == pytest.approx(seen)
    found.backward(torch.tensor(gradient))
    assert scale.grad is not None and scale.grad.item() == passed


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_scale_follows_one_that_is_clamped_after_each_step(name: str) -> None:
    """Pushed beyond the bound for 500 steps, then back: held at it, and off it again as soon."""

    def walk(bound: Callable[[torch.Tensor], torch.Tensor], after: bool = False) -> list[float]:
        scale = torch.nn.Parameter(torch.tensor(4.4))
        kinds = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
        optimizer = kinds[name]([scale], lr=2e-3, weight_decay=0.0)
        seen = []
        for step in range(600):
            wanted = 6.0 if step < 500 else 4.0  # a parabola whose lowest point moves
            used = bound(scale)
            optimizer.zero_grad()
            ((used - wanted) ** 2).backward()
            optimizer.step()
            if after:
                with torch.no_grad():
                    scale.clamp_(low, high)
            seen.append(used.item())
        return seen

    low, high = clip.LOGIT_SCALE_BOUNDS
    ours = walk(lambda scale: clip.Bounded.apply(scale, low, high))
    theirs = walk(lambda scale: scale * 1, after=True)
    naive = walk(lambda scale: scale.clamp(low, high))

    def left(seen: list[float]) -> int:
        return next((i for i in range(500, 600) if seen[i] < high - 1e-3), 600)

    assert max(ours) <= high + 1e-6 and ours[499] == pytest.approx(high)
    assert left(naive) == 600, "a plain clamp has no gradient to come back by"
    assert abs(left(ours) - left(theirs)) <= 10 and ours[-1] < high - 0.05
    if name == "sgd":
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 0.01


# -- new weights ---------------------------------------------------------------------------


def test_weights_are_a_function_of_seed_and_name() -> None:
    torch.manual_seed(1)
    one = a_model(seed=5).state_dict()
    torch.manual_seed(2)
    same, other = a_model(seed=5).state_dict(), a_model(seed=6).state_dict()
    larger = a_model(seed=5, tokens=400).state_dict()
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one[name], other[name])
    assert torch.equal(one[name], larger[name])
    assert not torch.equal(one[name], one[name.replace("layers.0", "layers.1")])


def test_spreads_are_those_of_openai_clip() -> None:
    """Its `initialize_parameters`, for a text tower of width 128 and 2 layers; torch's defaults."""
    weights = dict(a_model(tokens=5000).named_parameters())
    text, vision = "text_model.encoder.layers.1.", "vision_model.encoder.layers.1."
    expected = {
        "text_model.embeddings.token_embedding.weight": 0.02,
        "text_model.embeddings.position_embedding.weight": 0.01,
        f"{text}self_attn.q_proj.weight": 128**-0.5,
        f"{text}self_attn.out_proj.weight": 128**-0.5 * 4**-0.5,
        f"{text}mlp.fc1.weight": 256**-0.5,
        f"{text}mlp.fc2.weight": 128**-0.5 * 4**-0.5,
        "text_projection.weight": 128**-0.5,
        "visual_projection.weight": 192**-0.5,
        f"{vision}self_attn.v_proj.weight": (2 / (192 + 3 * 192)) ** 0.5,
        f"{vision}mlp.fc2.weight": (1 / (3 * 768)) ** 0.5,
        "vision_model.embeddings.patch_embedding.weight": (1 / (3 * 3 * 16 * 16)) ** 0.5,
    }
    for name, std in expected.items():
        assert weights[name].std().item() == pytest.approx(std, rel=0.06), name
    assert all((p == 0).all() for n, p in weights.items() if n.endswith("bias"))
    assert all((p == 1).all() for n, p in weights.items() if "norm" in n and n.endswith("weight"))


def test_only_matrices_and_embeddings_decay() -> None:
    """open_clip's rule, in its own names: ndim < 2, or bn, ln, bias or logit_scale in the name."""
    model = a_model()

    def excluded(name: str, ndim: int) -> bool:
        name = name.replace("layer_norm", "ln_").replace("layernorm", "ln_")
        name = name.replace("layrnorm", "ln_")
        return ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))

    expected = {name for name, p in model.named_parameters() if excluded(name, p.ndim)}
    assert model.no_decay() == expected
    decayed = set(dict(model.named_parameters())) - expected
    assert "vision_model.embeddings.position_embedding.weight" in decayed
    assert "vision_model.embeddings.class_embedding" in expected


# -- checkpoints of others -----------------------------------------------------------------


@pytest.mark.parametrize("end", [2, 299], ids=["openai's legacy configuration", "end token named"])
def test_clip_checkpoint(tmp_path: Path, end: int) -> None:
    theirs = old_clip(end)
    theirs.save_pretrained(tmp_path)
    ids = torch.tensor([[298, 50, 299, 299, 299], [298, 60, 70, 80, 299]])
    found = clip.from_folder(str(tmp_path)).eval()(pixels(2), ids)
    with torch.no_grad():
        reference = theirs(input_ids=ids, pixel_values=pixels(2))
    torch.testing.assert_close(torch.nn.functional.normalize(found["text"]), reference.text_embeds)
    torch.testing.assert_close(
        torch.nn.functional.normalize(found["image"]), reference.image_embeds
    )
    assert found["logit_scale"].item() == pytest.approx(theirs.logit_scale.item())


def test_metaclip2_checkpoint_in_bf16(tmp_path: Path) -> None:
    theirs = a_model(seed=9).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path)
    model = build(Settings(init_from=str(tmp_path)), a_config(), Parts(tokenizer=a_tokenizer()))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name, value in theirs.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.float()), name


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no readable config\.json"):
        clip.from_folder(str(tmp_path / "nothing"))
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="type bert; give one of type clip or metaclip_2"):
        clip.from_folder(str(tmp_path))


def test_incomplete_checkpoints_are_refused(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["visual_projection.weight"]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 weights .*visual_projection"):
        clip.from_folder(str(tmp_path))
    file.write_bytes(b"not weights")
    with pytest.raises(InputError, match="cannot be loaded"):
        clip.from_folder(str(tmp_path))
    file.unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        clip.from_folder(str(tmp_path))


def test_larger_tokenizer_than_the_model_knows(tmp_path: Path) -> None:
    a_model().save_pretrained(tmp_path)
    many = train([" ".join(f"w{i}" for i in range(300))], 400)
    with pytest.raises(UsageError, match=r"has \d+ tokens, but the model .* knows 300"):
        build(Settings(init_from=str(tmp_path)), a_config(), Parts(tokenizer=many))


# -- learning ------------------------------------------------------------------------------


def test_tiny_learns_pairs() -> None:
    """Coloured quadrants and their captions: from ln N at the start to a third of it."""
    torch.set_num_threads(1)
    colours = {"red": (1, -1, -1), "green": (-1, 1, -1), "blue": (-1, -1, 1), "grey": (0, 0, 0)}
    pairs = list(itertools.product(colours, repeat=3))
    images = torch.zeros(64, 3, 32, 32)
    for i, words in enumerate(pairs):
        for q, word in enumerate(words):
            x, y = 16 * (q % 2), 16 * (q // 2)
            images[i, :, y : y + 16, x : x + 16] = torch.tensor(colours[word]).view(3, 1, 1)
    texts = [f"{a} then {b} above {c}" for a, b, c in pairs]
    tokenizer = train(texts, 320)
    ids = torch.from_numpy(encode(tokenizer, texts, 12)[0])
    settings = Settings(size="tiny", image=32, context=12)
    model = build(settings, a_config(), Parts(tokenizer=tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), 5e-4, (0.9, 0.95), 1e-6, weight_decay=0.1)
    objective, losses = Contrastive(), []
    for _ in range(20):
        found = objective.represent(model, {"pixel_values": images, "input_ids": ids})
        loss = objective.components(found, found, 0)["contrastive"] / len(pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(64), abs=0.7)
    assert losses[-1] < math.log(64) / 3, losses
