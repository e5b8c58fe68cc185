"""The shipped stamps: whole, small, licensed, and found where they are said to lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from curation.pool import stamps
from curation.pool.config import LANGUAGE_SHARES
from curation.pool.labels import concepts, label_of
from curation.pool.phrases import COLOURS, PHRASES
from curation.pool.phrases_more import MORE_PHRASES
from schemas.errors import InputError, UsageError

CORE = ("en", "fr", "es", "it", "pt", "nl", "pl", "id", "sv", "ja", "zh", "th", "de", "ru")


def test_every_stamp_has_a_picture_and_captions() -> None:
    loaded = stamps.load()
    assert len(loaded.stamps) == 327
    assert len(loaded.concepts) > 250
    for stamp in loaded.stamps:
        assert set(CORE) <= set(stamp.captions) == set(stamp.names), stamp.id
        assert all(stamp.names.values()), stamp.id
        picture = loaded.picture(stamp.id)
        assert picture.mode == "RGBA"
        assert 28 <= max(picture.size) <= 160
        low, high = picture.getchannel("A").getextrema()
        assert low == 0, f"{stamp.id} has no transparent pixel"
        assert high > 200, f"{stamp.id} has no opaque pixel"


def test_data_is_small_and_says_where_it_is_from() -> None:
    files = [path for path in stamps.folder().rglob("*") if path.is_file()]
    assert all(path.stat().st_size < 1_000_000 for path in files)
    assert sum(path.stat().st_size for path in files) < 4_500_000
    source = (stamps.folder() / "SOURCE.md").read_text()
    for words in ("327 cut-out pictures", "tuxpaint-stamps-default", "Bill Kendrick", "GPL-2.txt"):
        assert words in source
    assert "GNU GENERAL PUBLIC LICENSE" in (stamps.folder() / "GPL-2.txt").read_text()


def test_every_language_has_wording_for_every_colour() -> None:
    phrases = {**PHRASES, **MORE_PHRASES}
    assert set(phrases) == set(LANGUAGE_SHARES)
    assert abs(sum(LANGUAGE_SHARES.values()) - 1) < 1e-9
    for language, one in phrases.items():
        assert len(set(one.colours)) == len(COLOURS), language
        assert "{}" in one.background, language
        assert not set(one.test) & {*one.describe, *one.shop, *one.generic}, language


def test_labels() -> None:
    classes = concepts()
    assert [c.number for c in classes] == list(range(len(classes)))
    banana = next(c for c in classes if c.name == "banana")
    assert banana.names["fr"] == "banane"
    assert banana.names["ja"] == "バナナ"
    for stamp in banana.stamps:
        assert label_of(f"generated://pool/1/2/{stamp}") == banana.number
    with pytest.raises(InputError, match="no stamp 'x'"):
        label_of("generated://pool/1/2/x")


def test_stamps_of_an_installation_without_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = stamps.folder()
    monkeypatch.setattr(stamps, "_CHECKOUT", tmp_path / "nowhere")
    monkeypatch.delenv("HEADRACE_ASSETS", raising=False)
    with pytest.raises(UsageError, match=r"input=generated: no stamps found .*HEADRACE_ASSETS"):
        stamps.folder()
    shutil.copytree(shipped, tmp_path / "assets" / "stamps")
    monkeypatch.setenv("HEADRACE_ASSETS", str(tmp_path / "assets"))
    assert stamps.StampSet(stamps.folder()).digest == stamps.StampSet(shipped).digest


def test_damaged_stamps_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "stamps"
    shutil.copytree(stamps.folder(), whole)
    (whole / "images-0.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"cannot be read .*restore data/stamps"):
        stamps.StampSet(whole)
    (whole / "images-0.parquet").unlink()
    with pytest.raises(InputError, match="no picture for"):
        stamps.StampSet(whole)
    with pytest.raises(InputError, match="cannot be read"):
        stamps.StampSet(tmp_path / "empty")
