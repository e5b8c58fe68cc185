"""Where a teacher lies: a folder of `transformers`."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import InputError


def folder_of(teacher: str, setting: str) -> str:
    """Return a teacher's folder with ``~`` expanded.

    InputError for the directory of a run, which has checkpoints in a format of its own; ``setting`` is
    how the error calls the teacher.
    """
    folder = Path(teacher).expanduser()
    if (folder / "run.json").exists() and not (folder / "config.json").exists():
        raise InputError(
            f"{setting}{teacher}: a run of `trainer launch`, and a teacher is a folder of transformers: "
            f"make one by `trainer export {teacher} --to FOLDER`, and give that FOLDER"
        )
    return str(folder)
