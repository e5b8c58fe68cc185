"""Loaded by every Python process whose path begins here: installs the fault that was asked for.

Only once the storage is imported, so that processes without storage stay as they are.
"""

import importlib.abc
import importlib.machinery
import os
import sys


class _AfterImport(importlib.abc.MetaPathFinder):
    """Patches the storage right after its module was executed."""

    def find_spec(self, name, path=None, target=None):
        if name != "schemas.storage":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def patched(module):
            execute(module)
            sys.modules[name] = module
            from tests.faults import inject

            inject.install_from_environment()

        spec.loader.exec_module = patched
        return spec


if os.environ.get("HEADRACE_TEST_FAULT"):
    sys.meta_path.insert(0, _AfterImport())
