#!/usr/bin/env python3
"""Runs every notebook of tools/notebooks and compares what it prints with what is committed.

    python tools/check/check_notebooks.py [--write] [NAME.ipynb …]

A cell that raises fails, so do a notebook's own assertions of its key numbers; so do text that differs from the
committed output, a missing output, and a file of more than 300 kB. Figures are not compared. --write stores the
outputs instead. The package is the installed one, or else that of build/src/python.
Exit: 0 all hold, 1 something does not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tools"))
from package import use_package  # noqa: E402

NOTEBOOKS = ROOT / "tools" / "notebooks"
LARGEST = 300_000
SECONDS_PER_CELL = 1200


def texts(cell: nbformat.NotebookNode) -> str:
    """What a cell prints and gives, but for figures. How a kernel cuts what is printed into pieces is chance."""
    found = ""
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            found += output.text
        elif "image/png" not in output.get("data", {}):
            found += output.data.get("text/plain", "")
    return found


def check(path: Path, write: bool) -> list[str]:
    committed = nbformat.read(path, as_version=4)
    ran = nbformat.read(path, as_version=4)
    try:
        NotebookClient(ran, timeout=SECONDS_PER_CELL, kernel_name="python3", record_timing=False,
                       resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    except CellExecutionError as error:
        return [f"{path.name}: {str(error).strip()}"]
    if write:
        nbformat.write(ran, path)
        committed = ran
    wrong = []
    if path.stat().st_size > LARGEST:
        wrong.append(f"{path.name}: {path.stat().st_size} bytes, expected at most {LARGEST}; draw smaller figures")
    for number, (before, after) in enumerate(zip(committed.cells, ran.cells)):
        if before.cell_type == "code" and texts(before) != texts(after):
            wrong.append(f"{path.name}, cell {number}: committed {texts(before)!r}, now {texts(after)!r}; "
                         "see why, then store it with --write")
    return wrong


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="store the outputs")
    parser.add_argument("names", nargs="*", help="these alone")
    args = parser.parse_args(argv)
    use_package()
    paths = [NOTEBOOKS / name for name in args.names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    if not paths:
        print(f"check_notebooks: {NOTEBOOKS} has no notebook", file=sys.stderr)
        return 1
    wrong = []
    for path in paths:
        problems = check(path, args.write)
        wrong += problems
        print(f"{path.name}: {'ok' if not problems else 'FAILED'}", flush=True)
    for problem in wrong:
        print("FAIL " + problem)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
