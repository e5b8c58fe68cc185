"""Object stores through fsspec: one conditional request makes an object, whole or not at all."""

# ruff: noqa: D102 (the methods are documented by schemas.storage.Backend)

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from schemas.errors import HeadraceError, StorageError, UsageError

CONDITIONAL = ("s3", "s3a", "gs", "gcs", "memory")
"""Protocols whose fsspec file system refuses, in one request, to overwrite an object."""

_PART_BYTES = 32 << 20
_CONFLICT_RETRIES = 6
_memory_lock = threading.Lock()


def _local_scratch() -> str:
    return f"{tempfile.gettempdir()}/headrace-{os.getuid()}/tmp"


def _refused(error: BaseException | None) -> bool:
    """Whether the store refused a precondition, even if giving back the upload failed then."""
    while error is not None:
        if isinstance(error, FileExistsError) or "PreconditionFailed" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class RemoteBackend:
    """An fsspec file system; the methods named ``do_*`` are its primitive operations.

    S3: a PUT, or the completion of a multipart upload, carries ``If-None-Match: *``. GCS: the
    upload carries ``ifGenerationMatch=0``. Both make the object visible in one step, so a writer
    that dies leaves nothing but, on S3, the parts of an unfinished upload; those are invisible
    but billed until the bucket's lifecycle rule (AbortIncompleteMultipartUpload) removes them.
    """

    def __init__(self, protocol: str, options: dict[str, Any]) -> None:
        self.protocol = protocol
        self.options = options
        self._fs: Any = None

    @property
    def fs(self) -> Any:
        """The fsspec file system, without a listing cache (it would hide other writers)."""
        if self._fs is None:
            import fsspec

            options = dict(self.options)
            if self.protocol in ("s3", "s3a", "gs", "gcs"):
                options.setdefault("use_listings_cache", False)
                # The plain JSON API: its precondition is the one that is documented and tested.
                os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            try:
                self._fs = fsspec.filesystem(self.protocol, **options)
            except (ValueError, ImportError) as error:
                raise UsageError(
                    f"cannot use {self.protocol}:// ({error}); known are local paths, s3:// "
                    "(needs s3fs), gs:// (needs gcsfs) and other fsspec protocols"
                ) from error
        return self._fs

    def read_bytes(self, path: str) -> bytes:
        with self._translated("read", path):
            return bytes(self.do_get(path))

    def open_input(self, path: str) -> BinaryIO:
        with self._translated("open", path):
            return self.fs.open(path, "rb", block_size=4 << 20, cache_type="readahead")

    def size(self, path: str) -> int:
        with self._translated("look up", path):
            info = self.fs.info(path)
        if info["type"] != "file":
            raise FileNotFoundError(path)
        return int(info["size"])

    def create(self, path: str, data: bytes) -> bool:
        self._require_conditional()
        return self._once("create", path, lambda: self.do_put(path, data, True))

    def create_from_file(self, path: str, source: Path, *, consume: bool) -> bool:
        self._require_conditional()
        created = False
        # Asking first saves an upload, and is the only guard on a store without preconditions.
        if not self._exists(path):
            created = self._once("create", path, lambda: self.do_put_file(path, str(source)))
        if consume:
            source.unlink(missing_ok=True)
        return created

    def replace(self, path: str, data: bytes) -> None:
        with self._translated("write", path):
            self.do_put(path, data, False)

    def delete(self, path: str) -> None:
        with self._translated("delete", path), contextlib.suppress(FileNotFoundError):
            self.do_delete(path)

    def list(self, path: str) -> list[str]:
        with self._translated("list", path):
            try:
                names = self.fs.find(path)
            except FileNotFoundError:
                return []
        root = self.fs._strip_protocol(path)
        return [path + name[len(root) :] for name in names if name != root]

    def fetch(self, path: str, target: Path) -> None:
        with self._translated("fetch", path):
            self.size(path)
            self.fs.get_file(self.fs._strip_protocol(path), str(target))

    def scratch(self, path: str) -> Path:
        from schemas.storage_local import LocalBackend

        return LocalBackend().scratch(_local_scratch())

    def clean(self, path: str) -> None:
        """Nothing lies in the store before it is whole; local scratch files are swept."""
        from schemas.storage_local import LocalBackend

        LocalBackend().clean(_local_scratch())

    # -- primitive operations --------------------------------------------------------------

    def do_get(self, path: str) -> bytes:
        return self.fs.cat_file(path)

    def do_put(self, path: str, data: bytes, exclusive: bool) -> None:
        if self.protocol == "memory":
            with _memory_lock:
                self.fs.pipe_file(path, data, mode="create" if exclusive else "overwrite")
            return
        self.fs.pipe_file(path, data, mode="create" if exclusive else "overwrite")

    def do_put_file(self, path: str, source: str) -> None:
        if self.protocol == "memory":
            self.do_put(path, Path(source).read_bytes(), True)
            return
        extra: dict[str, Any] = {"chunksize": _PART_BYTES}
        if self.protocol in ("s3", "s3a"):
            extra["max_concurrency"] = 2
        self.fs.put_file(source, path, mode="create", **extra)

    def do_delete(self, path: str) -> None:
        self.fs.rm_file(path)

    # -- helpers ---------------------------------------------------------------------------

    def _exists(self, path: str) -> bool:
        try:
            self.size(path)
        except FileNotFoundError:
            return False
        return True

    def _require_conditional(self) -> None:
        if self.protocol not in CONDITIONAL:
            raise UsageError(
                f"{self.protocol}:// has no exclusive create, so nothing can be committed there; "
                "use a local path, s3:// or gs://"
            )

    def _once(self, doing: str, path: str, put: Any) -> bool:
        """Run a conditional request; False if the object exists; retry while two collide."""
        for attempt in range(_CONFLICT_RETRIES):
            try:
                with self._translated(doing, path):
                    put()
                return True
            except FileExistsError:
                return False
            except FileNotFoundError as error:
                raise StorageError(
                    f"cannot {doing} {path}: {error}; create the bucket or correct its name"
                ) from error
            except StorageError as error:
                # S3 answers 409 while another conditional request on the key is in flight.
                if "ConditionalRequestConflict" not in str(error):
                    raise
                time.sleep(0.1 * 2**attempt)
        raise StorageError(f"cannot {doing} {path}: other writers keep colliding; run it again")

    @contextlib.contextmanager
    def _translated(self, doing: str, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError, HeadraceError):
            raise
        except Exception as error:
            if _refused(error):
                raise FileExistsError(path) from error
            detail = str(error).splitlines()[0] if str(error) else ""
            raise StorageError(
                f"cannot {doing} {path}: {type(error).__name__} {detail}; check the credentials, "
                "the endpoint and that the bucket exists"
            ) from error
