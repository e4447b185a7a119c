"""The program: `python -m sinkref COMMAND ...`, and the script `sinkref`."""

import os
import sys

from ._errors import InputError
from ._program import program


def main() -> None:
    try:
        path = program()
    except InputError as error:
        sys.exit(f"sinkref: {error}")
    os.execv(path, ["sinkref", *sys.argv[1:]])


if __name__ == "__main__":
    main()
