"""Cut the shipped stamps and captions from Debian's tuxpaint-stamps-default package.

Usage, with the package unpacked (``dpkg-deb -x tuxpaint-stamps-default_*.deb DIR``)::

    python data/stamps/build.py DIR/usr/share/tuxpaint/stamps data/stamps

A stamp is taken if it has a transparent PNG that is not tiny, an English caption of at most five
words, and captions in all of `CORE`. Nothing is drawn at random, so the same package gives the
same rows. Runs in half a minute on one core.
"""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CORE = ("en", "fr", "es", "it", "pt", "nl", "pl", "id", "sv", "ja", "zh", "th", "de", "ru")
EXTRA = ("ar", "ko", "tr", "uk", "vi", "cs", "el", "hu")
LOCALES = {"zh_CN": "zh"}
SIDE = 160  # longest side of a shipped stamp, pixels
FILE_BYTES = 900_000  # of image bytes in one Parquet file
SKIPPED_FOLDERS = ("symbols/", "town/roadsigns/", "military/vehicles/", "military/ammunition/")
SKIPPED = {
    "household/dishes/glass": "almost wholly transparent",
    "seasonal/newyears/fireworks": "almost wholly transparent",
    "sports/rugby_goal_posts": "almost wholly transparent",
    "vehicles/emergency/sedan_police": "emblems to put on another stamp",
    "animals/birds/cartoon/tux": "a mascot's name",
    "animals/fish/bluegroper": "a proper name",
    "animals/mammals/bears/toys/edward_bear": "a proper name",
    "vehicles/flight/cartoon/eddieCopter": "a proper name",
    "vehicles/flight/planes/cartoon/plane": "a proper name",
    "food/vegetables/broccoli": "a request, not a name",
    "naturalforces/explosion": "an exclamation",
    "naturalforces/fire": "an exclamation",
    "people/fireman240a": "the same picture as military/fireman240a",
    "town/cartoon/docks": "a phrase, not a name",
    "town/houses/cartoon/cave_entrance": "a request, not a name",
    "vehicles/locomotive/cartoon/tanker": "a sentence, not a name",
    "space/planets/3_earth": "two sentences",
    "seasonal/halloween/grave-b": "one of many gravestones",
    "seasonal/halloween/grave-c": "one of many gravestones",
    "seasonal/halloween/grave-d": "one of many gravestones",
    "seasonal/halloween/grave-e": "one of many gravestones",
    "seasonal/halloween/grave-f": "one of many gravestones",
    "seasonal/halloween/grave-g": "one of many gravestones",
    "seasonal/halloween/grave-h": "one of many gravestones",
    "seasonal/halloween/grave-i": "one of many gravestones",
}
ARTICLES = {
    "en": r"(?:an?|the|our|some) ",
    "fr": r"(?:une?|des|du|de la|les?|la) |l['’]",
    "es": r"(?:un[ao]?s?|el|l[ao]s?) ",
    "it": r"(?:una?|uno|del|della|dei|delle|il|la|lo|gli|le|i) |(?:un|l)['’]",
    "pt": r"(?:uma?|uns|umas|os?|as?) ",
    "nl": r"(?:een|de|het) ",
    "de": r"(?:eine?n?|der|die|das) ",
    "sv": r"(?:en|ett) ",
    "zh": r"一[只个條条座头匹朵把辆架棵艘块张顶件双杯片颗根面间栋所道支台口副串枚位瓶盏对]",
    "vi": r"(?:một|con|quả|cái) ",
    "tr": r"bir ",
    "el": r"(?:ένας|ένα|μία|μια|ο|η|το) ",
    "hu": r"(?:egy|az?) ",
}


def read_captions(path: Path) -> dict[str, str]:
    """Captions by language tag; the first line of a stamp's text file is English."""
    first, *rest = path.read_text(encoding="utf-8").split("\n")
    captions = {"en": first.strip()}
    for line in rest:
        found = re.match(r"([A-Za-z_@]+)\.utf8=(.*)$", line)
        if found and found[2].strip():
            captions[LOCALES.get(found[1], found[1])] = found[2].strip()
    return {key: captions[key] for key in CORE + EXTRA if key in captions}


def name_of(caption: str, language: str) -> str:
    """The caption without its leading article and closing punctuation: "A frog." -> "frog"."""
    bare = re.sub(r"[(（][^()（）]*[)）]|^[\s.!。！]+|[\s.!。！]+$", "", caption).strip(" .!。！")
    bare = re.sub(r"\s+", " ", bare)
    article = ARTICLES.get(language)
    short = re.sub(rf"^(?:{article})", "", bare, flags=re.IGNORECASE) if article else bare
    if short == bare and language not in ("de",) and short[:1].isupper() and short[1:].islower():
        short = short[0].lower() + short[1:]
    return short.strip() or bare


def cut(path: Path) -> bytes:
    """A stamp scaled to `SIDE`, cropped to what is visible, as WebP with its alpha channel."""
    image = Image.open(path).convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    image = image.crop(box)
    scale = SIDE / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88, alpha_quality=90, method=6)
    return buffer.getvalue()


def wanted(stamp: str, path: Path, captions: dict[str, str]) -> bool:
    """Whether a stamp is shipped (see the module's text)."""
    if stamp.startswith(SKIPPED_FOLDERS) or stamp in SKIPPED or stamp.endswith("_mirror"):
        return False
    with Image.open(path) as image:
        if max(image.size) < 60 or min(image.size) < 28:
            return False
        if image.convert("RGBA").getchannel("A").getextrema()[0] > 0:
            return False  # no transparent pixel: a sign or a card, not a cut-out
    return len(captions["en"].split()) <= 5 and all(key in captions for key in CORE)


def main(source: Path, target: Path) -> None:
    """Write captions.jsonl and images-N.parquet under `target`."""
    rows: list[tuple[str, bytes]] = []
    lines: list[str] = []
    for path in sorted(source.rglob("*.png")):
        stamp = path.relative_to(source).with_suffix("").as_posix()
        text = path.with_suffix(".txt")
        if not text.exists():
            continue
        captions = read_captions(text)
        if not wanted(stamp, path, captions):
            continue
        names = {key: name_of(value, key) for key, value in captions.items()}
        line = {"id": stamp, "concept": names["en"], "captions": captions, "names": names}
        lines.append(json.dumps(line, ensure_ascii=False))
        rows.append((stamp, cut(path)))
    (target / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for old in target.glob("images-*.parquet"):
        old.unlink()
    start = number = 0
    while start < len(rows):
        stop, size = start, 0
        while stop < len(rows) and size + len(rows[stop][1]) <= FILE_BYTES:
            size += len(rows[stop][1])
            stop += 1
        part = rows[start:stop]
        table = pa.table(
            {
                "id": pa.array([row[0] for row in part]),
                "image": pa.array([row[1] for row in part], pa.binary()),
            }
        )
        pq.write_table(table, target / f"images-{number}.parquet", compression="none")
        start, number = stop, number + 1
    print(f"{len(rows)} stamps, {sum(len(row[1]) for row in rows)} image bytes, {number} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
