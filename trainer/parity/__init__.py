"""Proof that what should not change a run does not: ranks, ZeRO stages, accumulation, packing."""
