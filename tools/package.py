"""The Python package as the tools use it: the installed one, or else that of src/python with build's library."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def use_package() -> None:
    """Before `import sinkref`. Processes that are started inherit it, with SINKREF_PROGRAM."""
    if importlib.util.find_spec("sinkref") is None:
        sys.path.insert(0, str(ROOT / "src" / "python"))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH")]))
        os.environ.setdefault("SINKREF_PYTHON_LIBRARY", str(ROOT / "build" / "src" / "python" / "libsinkref_python.so"))
    os.environ.setdefault("SINKREF_PROGRAM", str(ROOT / "build" / "sinkref"))
