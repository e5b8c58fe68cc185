"""Loaded by the interpreter where this folder is on PYTHONPATH: the claim `fake` is known by name."""

from trainer.claims import CLAIMS

CLAIMS["fake"] = "tests.trainer.claims.fake_claim"
