"""The program: `python -m sinkref COMMAND ...`, and the script `sinkref`."""

import os
import sys
from pathlib import Path


def main() -> None:
    program = Path(__file__).parent / "bin" / "sinkref"
    if not program.exists():
        sys.exit(f"sinkref: {program} is missing; install the wheel")
    sys.stdout.flush()
    os.execv(program, ["sinkref", *sys.argv[1:]])


if __name__ == "__main__":
    main()
