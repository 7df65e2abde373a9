"""Altair, imported where there may be no home folder."""

import importlib
import os
import pathlib
import tempfile
from types import ModuleType


def _imported() -> ModuleType:
    try:
        pathlib.Path.home()
    except RuntimeError:
        # Altair asks for one when it is imported; a container's user has none.
        os.environ["HOME"] = tempfile.gettempdir()
        try:
            return importlib.import_module("altair")
        finally:
            del os.environ["HOME"]
    return importlib.import_module("altair")


alt = _imported()
