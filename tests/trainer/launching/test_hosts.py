"""Hostfiles, against DeepSpeed's own reading of them, and how ranks are spread."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import UsageError
from trainer.launching.hosts import Host, read_hostfile, spread

GOOD = "# two racks\nnode-b slots=4\n\n  node-a.example   slots=8\n10.0.0.7 slots=1\n"


def written(folder: Path, text: str) -> str:
    path = folder / "hosts"
    path.write_text(text)
    return str(path)


def test_a_hostfile_means_what_it_means_to_deepspeed(tmp_path: Path) -> None:
    from deepspeed.launcher.runner import fetch_hostfile

    path = written(tmp_path, GOOD)
    found = read_hostfile(path)
    assert found == dict(fetch_hostfile(path)) == {"node-b": 4, "node-a.example": 8, "10.0.0.7": 1}
    assert list(found) == list(fetch_hostfile(path)), "ranks follow the file's order"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a slots=2\nb slots=2\na slots=1\n", r"line 3: a is named twice"),
        ("a slots=2\nb slots=0\n", r"line 2: b has slots=0: give 1 or more"),
        ("a slots=-1\n", r"line 1: a has slots=-1"),
        ("a slots=two\n", r"line 1: 'a slots=two' is not of the form `host slots=N`"),
        ("a\n", r"line 1: 'a' is not of the form"),
        ("-oProxyCommand=x slots=1\n", r"line 1: '-oProxyCommand=x' is not a host's name"),
        ("# nobody\n", r"no host in it"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_hostfile(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--hostfile .*none: No such file or directory"):
        read_hostfile(str(tmp_path / "none"))


def test_ranks_fill_hosts_in_order() -> None:
    slots = {"a": 2, "b": 4, "c": 1}
    assert spread(slots, None) == [Host("a", 0, 2), Host("b", 2, 4), Host("c", 6, 1)]
    assert spread(slots, 5) == [Host("a", 0, 2), Host("b", 2, 3)]
    assert spread(slots, 1) == [Host("a", 0, 1)]
    with pytest.raises(UsageError, match=r"--ranks 8: the hosts have 7 slots \(a 2, b 4, c 1\)"):
        spread(slots, 8)
