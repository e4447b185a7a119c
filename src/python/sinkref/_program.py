"""The program, which comes along: the commands that measure, with their JSON as results."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List

from ._errors import InputError, InternalError


def program() -> Path:
    """Of the package, or the one that SINKREF_PROGRAM names."""
    path = Path(os.environ.get("SINKREF_PROGRAM") or Path(__file__).parent / "bin" / "sinkref")
    if not path.exists():
        raise InputError(f"{path}: the program is missing, expected it in the package; install the wheel, or set "
                         "SINKREF_PROGRAM")
    return path


class Results(Dict[str, Any]):
    """A command's JSON: `r.sink_layers[0].norm_first` is `r["sink_layers"][0]["norm_first"]`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}, expected one of {sorted(self)}") from None


def arguments(options: Dict[str, Any]) -> List[str]:
    """repeats=100 as --repeats 100, patch_site="gate" as --patch-site gate, force=True as --force."""
    given: List[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        given.append("--" + name.replace("_", "-"))
        if value is True:
            continue
        given += [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]
    return given


def command(name: str, model: str, options: Dict[str, Any]) -> Results:
    """Runs a command of the program. What it finds fault with (verify) is a result, bad input an InputError."""
    done = subprocess.run([program(), name, "--model", model, "--json", *arguments(options)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
    errors = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode in (0, 1) and done.stdout:
        return json.loads(done.stdout, object_hook=Results)
    last = errors.splitlines()[-1] if errors else f"ended with {done.returncode}"
    message = last[len("sinkref: "):] if last.startswith("sinkref: ") else last
    raise InputError(message) if done.returncode == 2 else InternalError(f"{name}: {message}")
