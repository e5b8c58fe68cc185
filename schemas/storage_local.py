"""Local disk: exclusive creates by temporary file, fsync, hard link and fsync of the directory."""

# ruff: noqa: D102 (the methods are documented by schemas.storage.Backend)

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from schemas.errors import StorageError

_FIXES = {
    errno.ENOSPC: "the disk is full: free space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free space and run the same command again",
    errno.EACCES: "permission is missing: check owner and mode of the directory",
    errno.EPERM: "the operation is not permitted: check owner and mode of the directory",
    errno.EROFS: "the file system is read-only: choose another output",
    errno.ENOTDIR: "a file stands where a directory is needed: remove it or choose another path",
    errno.EISDIR: "a directory stands where a file is needed: remove it or choose another path",
    errno.EXDEV: "the parts of a dataset must lie on one file system",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one",
    errno.EMFILE: "too many open files: raise `ulimit -n`",
    errno.EIO: "the disk reports an I/O error: check the device",
    errno.EOPNOTSUPP: "the file system has no hard links, which commits need: choose another",
}
_STALE_SECONDS = 24 * 3600


@contextlib.contextmanager
def translated(doing: str, path: str | Path) -> Iterator[None]:
    """Turn OSError into StorageError; absent and existing files pass unchanged."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError as error:
        fix = _FIXES.get(error.errno or 0, "check the path and its file system")
        raise StorageError(f"cannot {doing} {path}: {error.strerror or error}; {fix}") from error


@contextlib.contextmanager
def _reading(doing: str, path: str) -> Iterator[None]:
    """Like ``translated``; a path below a file is absent, as it is on object stores."""
    with translated(doing, path):
        try:
            yield
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


class LocalBackend:
    """The local file system; the methods named ``do_*`` are its primitive operations."""

    def read_bytes(self, path: str) -> bytes:
        with _reading("read", path):
            return self.do_read(path)

    def open_input(self, path: str) -> BinaryIO:
        with _reading("open", path):
            return open(path, "rb")

    def size(self, path: str) -> int:
        with _reading("look up", path):
            status = os.stat(path)
        if os.path.isdir(path):
            raise FileNotFoundError(errno.ENOENT, "is a directory", path)
        return status.st_size

    def create(self, path: str, data: bytes) -> bool:
        with translated("create", path):
            if os.path.lexists(path):
                return self._existing(path)
            temporary = self._write_temporary(path, data)
            return self._link(temporary, path)

    def create_from_file(self, path: str, source: Path, *, consume: bool) -> bool:
        with translated("create", path):
            if os.path.lexists(path):
                if consume:
                    self.do_unlink(str(source))
                return self._existing(path)
            temporary = str(source) if consume else self._copy_temporary(path, source)
            with open(temporary, "rb") as file:
                self.do_sync_file(file.fileno(), temporary)
            return self._link(temporary, path)

    def replace(self, path: str, data: bytes) -> None:
        with translated("write", path):
            temporary = self._write_temporary(path, data)
            self._make_parents(path)
            self.do_rename(temporary, path)
            self.do_sync_dir(os.path.dirname(path))

    def delete(self, path: str) -> None:
        with translated("delete", path), contextlib.suppress(FileNotFoundError):
            self.do_unlink(path)

    def list(self, path: str) -> list[str]:
        found: list[str] = []
        with translated("list", path):
            for folder, _, files in os.walk(path):
                found += [os.path.join(folder, name) for name in files]
        return found

    def fetch(self, path: str, target: Path) -> None:
        with _reading("copy", path):
            shutil.copyfile(path, target)

    def scratch(self, path: str) -> Path:
        with translated("create", path):
            self._make_dirs(path)
        return Path(path) / _temporary_name()

    def clean(self, path: str) -> None:
        with translated("clean", path):
            names = os.listdir(path) if os.path.isdir(path) else []
            for name in names:
                full = os.path.join(path, name)
                if _is_stale(full):
                    self.delete(full)

    # -- steps of a create -----------------------------------------------------------------

    def _existing(self, path: str) -> bool:
        # Its writer may have died before the directory was synced; the caller relies on it.
        self.do_sync_dir(os.path.dirname(path))
        return False

    def _write_temporary(self, path: str, data: bytes) -> str:
        temporary = self._temporary_for(path)
        with open(temporary, "xb", buffering=0) as file:
            self.do_write(file, data, temporary)
            self.do_sync_file(file.fileno(), temporary)
        return temporary

    def _copy_temporary(self, path: str, source: Path) -> str:
        temporary = self._temporary_for(path)
        with open(source, "rb") as reader, open(temporary, "xb", buffering=0) as file:
            while block := reader.read(8 << 20):
                self.do_write(file, block, temporary)
        return temporary

    def _link(self, temporary: str, path: str) -> bool:
        self._make_parents(path)
        try:
            self.do_link(temporary, path)
        except FileExistsError:
            created = False
        else:
            created = True
        self.do_sync_dir(os.path.dirname(path))
        with contextlib.suppress(FileNotFoundError):
            self.do_unlink(temporary)
        return created

    def _temporary_for(self, path: str) -> str:
        folder = temporary_folder(path)
        self._make_dirs(folder)
        return os.path.join(folder, _temporary_name())

    def _make_parents(self, path: str) -> None:
        self._make_dirs(os.path.dirname(path))

    def _make_dirs(self, folder: str) -> None:
        if os.path.isdir(folder):
            return
        parent = os.path.dirname(folder)
        self._make_dirs(parent)
        try:
            self.do_make_dir(folder)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", folder) from None
        except FileNotFoundError:  # its parent is there: a file system that holds no such thing
            raise PermissionError(errno.EPERM, "Cannot make a directory here", folder) from None
        self.do_sync_dir(parent)

    # -- primitive operations --------------------------------------------------------------

    def do_read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def do_write(self, file: BinaryIO, data: bytes | memoryview, path: str) -> None:
        """Write all of ``data`` to an unbuffered file."""
        view = memoryview(data).cast("B")
        while view:
            view = view[file.write(view) or 0 :]

    def do_sync_file(self, descriptor: int, path: str) -> None:
        os.fsync(descriptor)

    def do_link(self, source: str, path: str) -> None:
        os.link(source, path)

    def do_rename(self, source: str, path: str) -> None:
        os.replace(source, path)

    def do_unlink(self, path: str) -> None:
        os.unlink(path)

    def do_make_dir(self, path: str) -> None:
        os.mkdir(path)

    def do_sync_dir(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary_folder(path: str) -> str:
    """Return where the temporary file of ``path`` lies: same dataset, never in ``data/``."""
    head, mark, _ = path.rpartition("/.headrace/")
    if mark:
        return f"{head}/.headrace/tmp"
    folder = os.path.dirname(path)
    if os.path.basename(folder) == "data":
        folder = os.path.dirname(folder)
    return os.path.join(folder, ".headrace", "tmp")


def _temporary_name() -> str:
    return f"{socket.gethostname()}+{os.getpid()}+{secrets.token_hex(8)}.tmp"


def _is_stale(path: str) -> bool:
    """Whether the temporary file's writer is dead (same host), or it is older than a day."""
    host, _, rest = os.path.basename(path).partition("+")
    pid = rest.partition("+")[0]
    if host == socket.gethostname() and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
    try:
        return time.time() - os.stat(path).st_mtime > _STALE_SECONDS
    except FileNotFoundError:
        return False
