"""Loads a script of examples/ or scripts/ as a module."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

REPO = Path(__file__).resolve().parents[2]


def load(path: str) -> ModuleType:
    """The module of a file; what lies beside it can be imported, as when it is run."""
    file = REPO / path
    spec = importlib.util.spec_from_file_location(f"script_{file.parent.name}_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
        for name in ("prepare", "report", "run"):  # examples have files of the same name
            sys.modules.pop(name, None)
    return module
