"""Captions, URLs and names as a stranger would write them to break a page that shows them."""

from __future__ import annotations

from typing import Any

from tests.dataflows.report.build import Plan, png
from tests.page.texts import (
    ARABIC,
    ARABIC_BRAND,
    CHINESE,
    CONTROLS,
    ENTITY,
    HANDLER,
    HEBREW,
    JAPANESE,
    LONG_WORD,
    NUL,
    OVERRIDE,
    SCRIPT,
    SVG,
    TEMPLATE,
    TOO_LONG,
    TOWER,
)

SHOWN = (SCRIPT, HANDLER, SVG, ENTITY, TEMPLATE, ARABIC, ARABIC_BRAND, HEBREW, JAPANESE, CHINESE,
         OVERRIDE, CONTROLS, TOWER, LONG_WORD)  # fmt: skip
"""Captions of which each has an entry that is rare in its language, so every draw keeps it."""

ENTRIES = {
    "en": ["a", "black", "cat", "mat", "dog", "tabby", "poodle", "beagle", "siamese", "terrier",
           "spaniel", "corgi", "mastiff", "garden", "the", "on", "in", "red", "collie", "labrador",
           "horse", "cow", "goat", "hen", "owl", "never seen", "<b>bold</b>", "photo of"],
    "ar": ["قطة", "حذاء", "كرسي"],
    "he": ["חתול", "כיסא"],
    "ja": ["猫", "椅子"],
    "zh": ["小狗", "花园"],
}  # fmt: skip

ANIMALS = ("cat", "dog", "horse", "cow", "goat", "hen", "owl")
URL = 'https://example.org/"><script>window.owned=1</script>/{}.jpg?q=\u202egpj'
COLOURS = ("#3b6ea5", "#a5583b", "#5d8a3a", "#8a3a7d", "#c2a136")


def hostile_plan(plain: int = 96, **changes: Any) -> Plan:
    """The captions above and plain ones, `plain` of the most common kind, so that a head exists."""
    records: list[dict[str, Any]] = []
    for number, caption in enumerate((*SHOWN, NUL, TOO_LONG)):
        picture = png(COLOURS[number % 5])
        records.append({"url": URL.format(number), "texts": [("alt", caption)], "image": picture})
    records[3]["image"] = b"<svg onload=alert(1)>" * 5  # not an image
    animals = [name for rank, name in enumerate(ANIMALS, 1) for _ in range(plain // rank)]
    for number, animal in enumerate(animals):
        texts = [("alt", f"a {animal} is on the mat in the garden {number}")]
        if number % 5 == 0:
            texts.append(("title", f"this is a photo of the red {animal} in a garden {number}"))
        if number % 11 == 0:
            texts.append(("title", texts[0][1]))  # said twice
        if number == 7:
            texts.append(("data-image-title", "a <b>bold</b> hen is on the mat in the garden"))
        url = f"https://example.org/plain/{number}.jpg"
        records.append({"url": url, "texts": texts, "image": png(COLOURS[number % 5])})
    for number, text in enumerate(
        (
            "Η μαύρη γάτα κάθεται στην καρέκλα",
            "Чёрная кошка сидит на стуле",
            "  ",
            "zqx vlk wrp",
            "",
        )
    ):
        url = f"https://example.org/other/{number}.jpg"
        records.append({"url": url, "texts": [("alt", text)]})
    settings: dict[str, Any] = {
        "p": 0.06,
        "warnings": ["<script>window.owned=1</script> the pool is written by hand"],
        "licence": ["none <img src=x onerror=window.owned=1>"],
        "command": "dataflows run metaclip2 input='<script>window.owned=1</script>' p=0.06",
        "inputs": [
            {
                "path": "data/<script>window.owned=1</script>\u202e.parquet",
                "bytes": 1234,
                "checksum": "sha256:00ff",
            }
        ],
    }
    return Plan(records, ENTRIES, **{**settings, **changes})
