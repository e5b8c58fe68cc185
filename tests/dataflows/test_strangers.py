"""What somebody tries who has read no manual: wrong words, odd places, empty results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import polars
import pytest

from dataflows.cli import main
from schemas.dataset import open_dataset

SPANISH = (
    "El perro blanco corre por la calle con la mujer",
    "Una casa grande y bonita cerca del mar",
    "La mesa y la silla de la cocina vieja",
)
ENGLISH = ("The dog sleeps in the house", "A red bicycle in the garden", "A horse near the river")
UNKNOWN = ("qzxv wvbk", "Кошка спит на диване в доме", "xqz")
STAGES = ("automata", "matches", "counts", "sample", "balance", "matched", "curated")


def texts(file: Path, lines: Iterable[str], **more: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        {"url": f"http://host.example/{number}.jpg", "text": text, **more}
        for number, text in enumerate(lines)
    )
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts(tmp_path_factory.mktemp("english") / "english.jsonl", ENGLISH * 10)


@pytest.fixture(scope="module")
def records(english: Path) -> Path:
    assert main(["run", "ingest", f"input={english}", f"output={english.parent / 'run'}"]) == 0
    return english.parent / "run" / "records"


def run(*words: str) -> int:
    return main(["run", "metaclip2", *words])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("p=0", 2, "p=0: Input should be greater than 0"),
        ("p=2", 2, "p=2: Input should be less than or equal to 1"),
        ("p=much", 2, "p='much'"),
        ("", 2, "give exactly one of p="),
        ("p=0.06 t_en=5", 2, "give exactly one of p="),
        ("p=0.06 p=0.1", 2, "p is given twice"),
        ("p=0.06 metdata=x", 2, "metdata: unknown setting of metaclip2; did you mean metadata?"),
        ("p=0.06 columns.txt=x", 2, "did you mean columns.text?"),
        ("p=0.06 columns=caption", 2, "columns is a group of settings; give columns.url"),
        ("p=0.06 seed=-1", 2, "seed=-1"),
        ("p=0.06 mode=images", 2, "'image' or 'text'"),
        ("p=0.06 --limit 0", 2, "limit=0"),
        ("p=0.06 --workers 0", 2, "--workers 0: must lie between 1 and 1024"),
        ("p=0.06 --runner direct", 2, "choose one of inprocess"),
        ("p=0.06 --replac", 2, "Did you mean '--replace'?"),
        ("p=0.06 now", 2, "'now': settings are given as key=value"),
        ("p=0.06 metadata={place}/absent", 3, "not a committed dataset"),
        ("p=0.06 metadata={records}", 3, "holds a dataset of kind records"),
        ("p=0.06 metadata={english}", 3, "is a file, and a committed dataset is needed"),
        ("p=0.06 valid={metadata}", 3, "has no column image_id"),
        ("p=0.06 evaluation={metadata}", 3, "one of kind records is needed"),
        ("p=0.06 input={metadata}", 3, "input={metadata} holds a dataset of kind metadata"),
        ("p=0.06 input={run}", 2, "is the output of a run; give its records: {run}/records"),
        ("p=0.06 input={place}/absent.parquet", 3, "no such file"),
        ("p=0.06 input={place}/*.nothing", 3, "matches no file"),
        ("p=0.06 input=", 2, "input= is empty"),
        ("p=0.06 input={english},{records}", 2, "not a committed dataset, while"),
        ("p=0.06 input=generated,{english}", 2, "input=generated stands alone"),
        ("p=0.06 input={english} columns.text=caption", 3, "caption"),
        ("p=0.06 output={english}/out", 6, "a file stands where a directory is needed"),
        ("p=0.06 output=", 2, "the path is empty"),
        ("p=0.06 input={place} output={place}/out", 2, "lies inside input="),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    words: str,
    code: int,
    said: str,
    records: Path,
    english: Path,
    small_metadata: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {
        "records": records,
        "run": records.parent,
        "english": english,
        "metadata": small_metadata,
        "place": english.parent,
    }
    output = tmp_path / "out"
    given = [word.format(**places) for word in words.split()]
    names = {word.partition("=")[0] for word in given}
    rest = {"input": records, "metadata": small_metadata, "output": output}
    given += [f"{name}={value}" for name, value in rest.items() if name not in names]
    capsys.readouterr()
    assert run(*given) == code
    err = capsys.readouterr().err
    assert said.format(**places) in err
    assert "Traceback" not in err
    assert not list(output.rglob("manifest.json"))


def test_plan_before_between_and_after(
    records: Path, small_metadata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["metaclip2", f"input={records}", f"metadata={small_metadata}"]
    output = tmp_path / "out"

    def plan(*more: str) -> dict[str, list[str]]:
        capsys.readouterr()
        assert main(["plan", *words, f"output={output}", *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[0]: line.split(maxsplit=3)[1:] for line in lines}

    assert {name: line[0] for name, line in plan("p=0.06").items()} == {
        "pool": "due",
        "automata": "due",
        **dict.fromkeys(STAGES[1:], "waits"),
    }
    assert not output.exists()
    assert main(["run", *words, f"output={output}", "p=0.06"]) == 0
    assert {line[0] for line in plan("p=0.06").values()} == {"finished"}
    later = plan("p=0.1")
    assert later["balance"][0] == "due"
    assert later["balance"][2] == "p was 0.06, is 0.1"
    assert [later[name][0] for name in ("matches", "matched")] == ["finished", "waits"]
    assert run(*words[1:], f"output={output}", "p=0.1") == 4
    assert "p was 0.06, is 0.1" in capsys.readouterr().err


def test_places_with_spaces_commas_and_other_scripts(
    small_metadata: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Relative and absolute, with and without a slash at its end: it is one place."""
    home = tmp_path / "Ordner mit ü, 猫 & 'quotes'"
    source = texts(home / "text, one=1#2.jsonl", ENGLISH * 5)
    monkeypatch.chdir(home)
    first = [f"input={source.name}", f"metadata={small_metadata}", "p=0.06"]
    assert run(*first, "output=aus gabe/") == 0
    digest = open_dataset(home / "aus gabe" / "curated").manifest.digest
    monkeypatch.chdir(tmp_path)
    for output in (home / "aus gabe", f"{home.name}/./aus gabe//"):
        capsys.readouterr()
        words = [f"input={source}", f"metadata={small_metadata}", "p=0.06", f"output={output}"]
        assert run(*words) == 0
        said = capsys.readouterr().err
        assert said.count(": finished, ") == 9
    assert open_dataset(home / "aus gabe" / "curated").manifest.digest == digest
    assert main(["report", str(home / "aus gabe")]) == 0
    assert main(["verify", str(home / "aus gabe")]) == 0
    assert polars.read_parquet(home / "aus gabe" / "curated" / "data" / "*.parquet").height > 0


def test_a_limit_beyond_the_input_takes_it_all(
    records: Path, small_metadata: Path, tmp_path: Path
) -> None:
    words = [f"input={records}", f"metadata={small_metadata}", "p=0.06"]
    assert run(*words, f"output={tmp_path / 'out'}", "--limit", "1000000") == 0
    pool = open_dataset(tmp_path / "out" / "pool").manifest
    assert pool.ledger.count("record", "in") == len(open_dataset(records)) == 30


def test_one_language_without_english(
    small_metadata: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = texts(tmp_path / "spanish.jsonl", SPANISH * 20)
    words = [f"input={source}", f"metadata={small_metadata}"]
    output = f"output={tmp_path / 'out'}"
    assert run(*words, output, "p=0.06") == 0
    balance = open_dataset(tmp_path / "out" / "balance").manifest
    assert set(balance.stats["languages"]) == {"es"}
    assert "No text matched any entry of en, ja, th" in capsys.readouterr().err
    assert len(open_dataset(tmp_path / "out" / "curated")) > 0
    for wanted in ("t_en=3", "threshold=shared"):
        more = () if wanted.startswith("t_en") else ("p=0.06",)
        assert run(*words, output, wanted, *more, "--replace") == 2
        said = capsys.readouterr().err
        assert f"{wanted} needs matched texts of 'en', and there are none" in said
        assert "Traceback" not in said


@pytest.mark.spec("metaclip2", 5)
@pytest.mark.parametrize("lines", [UNKNOWN * 5, (" ", "\t") * 5], ids=["unmatched", "blank"])
def test_when_nothing_is_left_the_run_ends_well_and_says_so(
    lines: tuple[str, ...],
    small_metadata: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = texts(tmp_path / "none.jsonl", lines)
    words = [f"input={source}", f"metadata={small_metadata}", "p=0.06"]
    assert run(*words, f"output={tmp_path / 'out'}") == 0
    assert "No text matched any entry of en, es, ja, th" in capsys.readouterr().err
    for stage in STAGES[1:]:
        assert len(open_dataset(tmp_path / "out" / stage)) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    assert main(["verify", str(tmp_path / "out")]) == 0
