"""Decoders: published sizes, seeded weights, documents that do not see one another, positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from schemas.errors import InputError, UsageError
from schemas.settings import build as settings_of
from trainer.config import RunConfig
from trainer.engine.deepspeed import parameter_groups
from trainer.models import decoder, decoder_model
from trainer.protocols import Parts

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
}
GPT2 = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 61}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("tiny", LLAMA),
    "gpt2": ("gpt2-tiny", GPT2),
}


def config(seed: int = 0) -> RunConfig:
    tree = {"recipe": "llama-tiny", "output": "run", "model": {}, "data": {}, "objective": {}}
    return RunConfig.model_validate({**tree, "length": {"steps": 1}, "seed": seed})


def built(seed: int = 0, parts: Parts | None = None, **settings: Any) -> Any:
    return decoder.build(
        settings_of(decoder.Settings, settings, "decoder"), config(seed), parts or Parts()
    )


def small(family: str, seed: int = 0, **more: Any) -> Any:
    size, shape = SHAPES[family]
    return built(seed, size=size, shape=shape, **more)


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ("880m", 876_553_728),  # Multi-Token Attention, table 8
        ("gpt2-69m", 69.4e6),  # CoCoMix, appendix A: the next-token baselines
        ("gpt2-386m", 386.3e6),
        ("gpt2-1.38b", 1373.4e6),
    ],
)
def test_published_parameter_counts(size: str, published: float) -> None:
    with torch.device("meta"):
        model = built(size=size)
    count = sum(p.numel() for p in model.parameters())
    assert count == published or round(count / 1e5) * 1e5 == published


def test_sizes_have_the_papers_widths() -> None:
    """Multi-Token Attention, table 7: width, layers, heads, and the width of a head."""
    sizes = decoder.SIZES
    found = [
        (s.width, s.layers, s.heads, s.width // s.heads)
        for s in (sizes["300m"], sizes["550m"], sizes["880m"], sizes["1b"])
    ]
    assert found == [
        (1024, 20, 16, 64),
        (1280, 24, 10, 128),
        (1536, 24, 16, 96),
        (2048, 24, 16, 128),
    ]


@pytest.mark.parametrize("family", SHAPES)
def test_weights_are_a_function_of_seed_and_name(family: str) -> None:
    one, same, other = small(family).state_dict(), small(family), small(family, seed=1).state_dict()
    torch.manual_seed(9)
    for name, weight in same.state_dict().items():
        assert torch.equal(weight, one[name])
        assert weight.isfinite().all()
        if weight.ndim > 1:
            assert not torch.equal(weight, other[name])
    # A parameter's spread: embeddings 0.02, inputs d^-0.5, outputs into the stream (2 L d)^-0.5.
    found = {name: p.std().item() for name, p in same.named_parameters() if p.ndim > 1}
    for name, std in found.items():
        if any(part in name for part in ("embed", "wte", "wpe")):
            wanted = 0.02
        else:
            into = any(part in name for part in ("o_proj", "down_proj", "c_proj"))
            wanted = 32**-0.5 * (0.5 if into else 1)
        assert std == pytest.approx(wanted, rel=0.1), name


@pytest.mark.parametrize("family", SHAPES)
def test_no_decay_on_norms_biases_and_what_is_named(family: str) -> None:
    model = small(family, no_decay=["*embed_tokens*", "*wte*"][slice(family == "gpt2", None)][:1])
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, spared = ([names[id(p)] for p in g["params"]] for g in parameter_groups(model, 0.1))
    assert decayed and all("norm" not in n and "ln_" not in n and "bias" not in n for n in decayed)
    assert any("embed_tokens" in n or "wte" in n for n in spared)
    with pytest.raises(UsageError, match=r"nothing\.weight"):
        small(family, no_decay=["nothing.weight"])


def packed(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 61, (1, sum(lengths)), generator=random)
    return ids, torch.cat([torch.arange(n) for n in lengths])[None]


def logits(model: Any, ids: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    return model.lm_head(model.hidden(ids, positions))


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("lengths", [[7, 1, 9, 4], [1, 1, 19], [21], [64, 40, 56]])
def test_documents_do_not_see_one_another(family: str, lengths: list[int]) -> None:
    model = small(family).eval()
    ids, positions = packed(lengths)
    with torch.no_grad():
        before = logits(model, ids, positions)
        start = 0
        for length in lengths:
            other = ids.clone()
            inside = torch.zeros(ids.shape[1], dtype=torch.bool)
            inside[start : start + length] = True
            other[0, inside] = (other[0, inside] + 5) % 61
            after = logits(model, other, positions)
            assert torch.equal(after[0, ~inside], before[0, ~inside])
            assert not torch.equal(after[0, inside], before[0, inside])
            start += length


@pytest.mark.parametrize("family", SHAPES)
def test_packed_equals_unpacked(family: str) -> None:
    """Logits and gradients of documents in one sequence and of each alone, by the library's own forward."""
    model, lengths = small(family).eval(), [7, 1, 30, 12]
    ids, positions = packed(lengths)
    targets = ids.roll(-1, 1)
    ends = torch.tensor(lengths).cumsum(0) - 1
    targets[0, ends] = -100
    model(input_ids=ids, position_ids=positions, targets=targets)["loss"].sum().backward()
    mine = {name: p.grad.clone() for name, p in model.named_parameters()}
    together = logits(model, ids, positions).detach()
    model.zero_grad()
    alone = []
    for part, target in zip(ids.split(lengths, 1), targets.split(lengths, 1), strict=True):
        found = model(input_ids=part).logits
        alone.append(found.detach())
        cross_entropy(found[0], target[0], reduction="sum").backward()
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_without_positions_a_sequence_is_one_document() -> None:
    model = small("llama").eval()
    ids, _ = packed([20])
    with torch.no_grad():
        torch.testing.assert_close(logits(model, ids, None), model(input_ids=ids).logits)


def test_the_mask_by_pairs() -> None:
    positions = torch.tensor([[0, 1, 0, 0, 1, 2], [3, 4, 5, 0, 1, 0]])
    found = decoder_model.document_mask(positions)
    documents = [[0, 0, 1, 2, 2, 2], [0, 0, 0, 1, 1, 2]]
    for row in range(2):
        for query in range(6):
            for key in range(6):
                seen = key <= query and documents[row][query] == documents[row][key]
                assert found[row, 0, query, key] == seen


def test_the_librarys_loss_and_ours_agree() -> None:
    model = small("llama")
    ids, _ = packed([30])
    theirs = model(input_ids=ids, labels=ids).loss
    targets = torch.cat([ids[:, 1:], torch.full((1, 1), -100)], 1)
    ours = model(input_ids=ids, targets=targets, rows=4)["loss"].sum() / 29
    torch.testing.assert_close(ours, theirs)


def test_nothing_waits_for_the_device_in_a_masked_forward() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    waits = []

    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if "_local_scalar_dense" in str(function) or "nonzero" in str(function):
                waits.append(str(function))
            return function(*args, **(kwargs or {}))

    model = small("llama")
    ids, positions = packed([12, 8])
    with Waits():
        model(input_ids=ids, position_ids=positions, targets=ids)["loss"].sum().backward()
    assert not waits


def test_rotary_frequencies_stay_exact_in_bf16() -> None:
    model, exact = small("llama"), small("llama").model.rotary_emb.inv_freq
    model.bfloat16()
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(model.model.rotary_emb.inv_freq, exact)
    assert not torch.equal(exact.bfloat16().float(), exact)


def test_activation_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for on in (False, True):
        model = small("llama", gradient_checkpointing=on)
        ids, positions = packed([9, 11])
        model(input_ids=ids, position_ids=positions, targets=ids)["loss"].sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert model.model.layers[0].gradient_checkpointing


@pytest.mark.parametrize("family", SHAPES)
def test_a_checkpoint_is_taken_over(family: str, tmp_path: Path) -> None:
    kind = getattr(transformers, type(small(family)).__name__)
    model = small(family, seed=4).eval()
    model.save_pretrained(tmp_path)
    ids, _ = packed([20])
    with torch.no_grad():
        plain = kind.from_pretrained(tmp_path).eval()(input_ids=ids).logits
        ours = built(init_from=str(tmp_path)).eval()
        torch.testing.assert_close(logits(ours, ids, None), plain, rtol=1e-5, atol=1e-5)
    assert ours.lm_head.weight is ours.get_input_embeddings().weight
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        built(init_from=str(tmp_path))


def test_the_context_is_extended(tmp_path: Path) -> None:
    small("llama", context=32, rope_theta=1e4).save_pretrained(tmp_path)
    longer = {"rope_type": "linear", "factor": 2.0}
    model = built(init_from=str(tmp_path), context=64, rope_scaling=longer)
    assert model.config.max_position_embeddings == 64
    before = built(init_from=str(tmp_path)).model.rotary_emb
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, before.inv_freq / 2)
    other = built(init_from=str(tmp_path), context=64, rope_theta=5e5).model.rotary_emb
    wanted = 5e5 ** -(torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(other.inv_freq, wanted)
    yarn = built(
        init_from=str(tmp_path), context=64, rope_scaling={"rope_type": "yarn", "factor": 2.0}
    )
    assert yarn.config.rope_parameters["original_max_position_embeddings"] == 32
    yarn.save_pretrained(tmp_path / "yarn")
    again = transformers.AutoConfig.from_pretrained(tmp_path / "yarn")
    assert again.rope_parameters == yarn.config.rope_parameters


def test_an_extended_checkpoint_remembers_what_it_was_trained_with(tmp_path: Path) -> None:
    """Against the library's own frequencies for a Llama 3 whose first length was 16."""
    scaled = {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    made = {**scaled, "original_max_position_embeddings": 16}
    small("llama", context=32, rope_theta=1e4, rope_scaling=made).save_pretrained(tmp_path)
    model = built(
        init_from=str(tmp_path), context=64, rope_scaling={"rope_type": "llama3", "factor": 4.0}
    )
    rope = model.config.rope_parameters
    assert rope["original_max_position_embeddings"] == 16 and rope["low_freq_factor"] == 1.0
    wanted = transformers.AutoConfig.from_pretrained(tmp_path)
    wanted.rope_parameters = {**wanted.rope_parameters, "factor": 4.0}
    library = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(wanted)
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, library.inv_freq)
    linear = built(
        init_from=str(tmp_path), context=64, rope_scaling={"rope_type": "linear", "factor": 4.0}
    )
    assert set(linear.config.rope_parameters) == {"rope_type", "rope_theta", "factor"}


@pytest.mark.parametrize("family", SHAPES)
def test_dropout_of_a_checkpoint_is_its_own_or_the_one_given(family: str, tmp_path: Path) -> None:
    model = small(family, dropout=0.25)
    model.save_pretrained(tmp_path)
    names = ("attention_dropout",) if family == "llama" else ("resid_pdrop", "attn_pdrop")
    for given, wanted in ((None, 0.25), (0.0, 0.0), (0.5, 0.5)):
        changed = {} if given is None else {"dropout": given}
        config = built(init_from=str(tmp_path), **changed).config
        assert [getattr(config, name) for name in names] == [wanted] * len(names)


def test_too_long_a_sequence_is_refused() -> None:
    model = small("llama", context=16)
    with pytest.raises(UsageError, match=r"17 tokens is longer than the 16 positions.*context="):
        model(input_ids=torch.zeros(1, 17, dtype=torch.int64), targets=torch.zeros(1, 17).long())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "exactly one"),
        ({"size": "tiny", "init_from": "x"}, "exactly one"),
        ({"size": "gpt2-tiny", "rope_theta": 5.0}, "learned positions"),
        ({"init_from": "x", "shape": LLAMA}, "model.shape"),
        ({"init_from": "nowhere"}, "no readable config.json"),
        ({"size": "tiny", "shape": LLAMA | {"hidden_sizes": 3}}, "Did you mean 'hidden_size'"),
        ({"size": "tiny", "shape": LLAMA | {"num_attention_heads": 5}}, "not a multiple"),
        ({"size": "tiny", "shape": LLAMA, "rope_scaling": {"rope_type": "new"}}, "rope_type=new"),
        ({"size": "tiny", "shape": LLAMA, "rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"size": "tiny", "rope_scaling": {"rope_type": "dynamic"}}, "dynamic changes nothing"),
        ({"size": "tiny"}, "vocabulary is its tokenizer's"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, InputError), match=said):
        built(**settings)


def test_learned_positions_are_not_extended(tmp_path: Path) -> None:
    small("gpt2").save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="512 positions of the GPT-2"):
        built(init_from=str(tmp_path), context=1024)
