"""What was promised of text to tokens, and of the trainer of language models."""

from __future__ import annotations

from acceptance.metaclip2 import INSTALL, REQUIRE, check
from acceptance.registry import Command, Limit, Line, System

MODEL = (
    Line(
        "1.text",
        "one command from raw texts to a trained Llama, a sample and the table of bits per byte, in 15 "
        "minutes; the Llama is below the 5-gram model and xz",
        (
            Command(("make", "text"), timeout=1800),
            check("trained_text", "text/llama"),
        ),
        (
            Limit("seconds", "<=", 900),
            Limit("faults", "==", 0),
            Limit("over_best", "<", 1.0),
        ),
        needs=("1.test",),
    ),
    Line(
        "2.export-text",
        "the saved model loads with AutoModelForCausalLM and gives the run's logits",
        (
            Command(("{trainer}", "export", "text/llama", "--to", "{work}/text-hf")),
            check("exported_text", "text/llama", "{work}/text-hf"),
        ),
        (Limit("faults", "==", 0),),
        needs=("1.text",),
    ),
)

TEXT = System(
    "text",
    (*INSTALL[1:3], *MODEL),
    require=REQUIRE,
)
