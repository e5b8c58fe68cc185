"""Two modules of img2dataset, loaded without the package, which brings torch and its own main."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import types

from schemas.errors import UsageError

_lock = threading.Lock()


def img2dataset(module: str) -> types.ModuleType:
    """``img2dataset.MODULE`` without running ``img2dataset/__init__.py``. Raises UsageError."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for its newest version
    with _lock:
        if "img2dataset" in sys.modules:
            return importlib.import_module(f"img2dataset.{module}")
        spec = importlib.util.find_spec("img2dataset")
        if spec is None or spec.submodule_search_locations is None:
            raise UsageError("fetching needs img2dataset: pip install 'headrace[fetch]'")
        bare = types.ModuleType("img2dataset")
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules["img2dataset"] = bare
        try:
            return importlib.import_module(f"img2dataset.{module}")
        finally:
            # Whoever imports the package later gets the real one.
            del sys.modules["img2dataset"]
