"""The contrastive loss: a worked example, open_clip's formula, and ranks against one process."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.config import RunConfig
from trainer.objectives.contrastive import Contrastive, Settings, build
from trainer.protocols import Parts


def features(n: int, d: int, seed: int) -> dict[str, torch.Tensor]:
    """Unit features and a scale, float64, as leaves of a graph."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in ("image", "text"):
        values = rng.normal(size=(n, d))
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        made[name] = torch.tensor(values, requires_grad=True)
    made["scale"] = torch.tensor(14.0, dtype=torch.float64, requires_grad=True)
    return made


def part(whole: dict[str, torch.Tensor], rank: int, ranks: int) -> tuple[dict, int]:
    n = len(whole["image"]) // ranks
    rows = slice(rank * n, (rank + 1) * n)
    return {"image": whole["image"][rows], "text": whole["text"][rows], "scale": whole["scale"]}, (
        rank * n
    )


def gradients(loss: torch.Tensor, of: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(loss, list(of.values()))
    return dict(zip(of, found, strict=True))


def test_worked_example() -> None:
    """Two pairs, worked by hand at scale 2.

    Images to texts: rows of logits [2, 1.2] and [0, 1.6]; texts to images: [2, 0] and [1.2, 1.6].
    """
    made = {
        "image": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "text": torch.tensor([[1.0, 0.0], [0.6, 0.8]]),
        "scale": torch.tensor(2.0),
    }
    by_image = math.log(1 + math.exp(-0.8)) + math.log(1 + math.exp(-1.6))
    by_text = math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-0.4))
    found = Contrastive().components(made, made, 0)
    assert set(found) == {"contrastive"}
    assert found["contrastive"].item() == pytest.approx((by_image + by_text) / 2, rel=1e-6)
    assert found["contrastive"].item() == pytest.approx(0.597476, abs=1e-5)


def test_is_the_published_formula() -> None:
    """open_clip's loss in NumPy: the mean of two cross-entropies over the N x N logits."""
    made = features(24, 16, seed=1)
    image, text = (made[name].detach().numpy() for name in ("image", "text"))
    logits = 14.0 * image @ text.T

    def cross_entropy(rows: np.ndarray) -> float:
        top = rows.max(1, keepdims=True)
        log_sum = np.log(np.exp(rows - top).sum(1)) + top[:, 0]
        return float(np.mean(log_sum - np.diag(rows)))

    reference = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
    found = Contrastive().components(made, made, 0)["contrastive"].item() / 24
    assert found == pytest.approx(reference, rel=1e-12)


@pytest.mark.parametrize("ranks", [2, 4, 12])
def test_ranks_agree_with_one_process(ranks: int) -> None:
    made = features(24, 16, seed=2)
    objective = Contrastive()
    whole = objective.components(made, made, 0)["contrastive"]
    parts = [
        objective.components(local, made, offset)["contrastive"]
        for local, offset in (part(made, rank, ranks) for rank in range(ranks))
    ]
    total = torch.stack(parts).sum()
    assert total.item() == pytest.approx(whole.item(), rel=1e-12)
    expected, found = gradients(whole, made), gradients(total, made)
    for name in made:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-13)


def test_a_rank_alone_is_not_the_whole() -> None:
    """The gradient needs what the other ranks' rows say of this rank's features."""
    made = features(24, 16, seed=2)
    objective = Contrastive()
    local, offset = part(made, 1, 2)
    fixed = {name: tensor.detach() for name, tensor in made.items()}
    alone = objective.components(local, fixed, offset)["contrastive"]
    whole = objective.components(made, made, 0)["contrastive"]
    apart = gradients(alone, {"image": made["image"]})["image"][offset:]
    together = gradients(whole, {"image": made["image"]})["image"][offset:]
    assert (apart - together).norm() > 0.1 * together.norm()


def test_representations_are_unit_rows_in_fp32() -> None:
    class Model(torch.nn.Module):
        def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> dict:
            rows = torch.arange(1.0, 13.0, dtype=torch.bfloat16).reshape(3, 4)
            return {"image": rows, "text": -rows, "logit_scale": torch.tensor(math.log(50.0))}

    batch = {"pixel_values": torch.zeros(3, 3, 8, 8), "input_ids": torch.zeros(3, 4).long()}
    objective = Contrastive()
    assert objective.counts(batch) == {"contrastive": 3}
    found = objective.represent(Model(), batch)
    assert found["scale"].item() == pytest.approx(50.0)
    for name in ("image", "text"):
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].norm(dim=1), torch.ones(3))


def test_is_global_and_has_no_settings() -> None:
    config = RunConfig.model_validate(
        {
            "recipe": "x",
            "output": "x",
            "model": {},
            "data": {},
            "objective": {},
            "length": {"steps": 1},
        }
    )
    objective = build(Settings(), config, Parts())
    assert objective.additive is False and objective.weights == {"contrastive": 1.0}
