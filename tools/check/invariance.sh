#!/usr/bin/env bash
# One set of bits from every compiler, optimisation and architecture: builds the program anew and
# compares whole traces of the tiny models (every hook, a batch of unequal lengths) byte for byte with
# those of build/sinkref --kernel spec.
#
#   tools/check/invariance.sh          clang++ -O1, and a model with one weight moved by one ulp, which must
#                                be caught
#   tools/check/invariance.sh --full   also g++ and clang++ with -O1, -O2 and -O3 -march=native, 64-bit ARM
#                                under qemu-user, and a build whose sums run in blocks of another
#                                length, which must be caught
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/build/invariance
models=(tiny_llama1 tiny_llama2 tiny_llama3 tiny_mistral)
failures=0
mkdir -p "$work"
echo '[[1,5,9,200,31,44,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,77,12,90,261],[3],[1,40,9,221,18,6]]' > "$work/tokens.json"

fail() { echo "invariance.sh: $*" >&2; exit 1; }

# digest PROGRAM MODEL OPTION…: the SHA-256 of a whole trace.
digest() {
  local program=$1 model=$2 trace
  shift 2
  trace=$(mktemp "$work/trace.XXXXXX")
  "$program" trace --model "$model" --tokens-file "$work/tokens.json" --hooks '*' --out "$trace" --force "$@" \
    2>"$work/message" || { cat "$work/message" >&2; rm -f "$trace"; return 1; }
  sha256sum < "$trace" | cut -d' ' -f1
  rm -f "$trace"
}

# compare NAME PROGRAM: every model, all at once and in small steps, against the expected digests.
compare() {
  local name=$1 program=$2 model how found same=0
  local ways=("--threads 2" "--chunk 7 --threads 3" "--chunk 1 --threads 1" "--kernel spec")
  for model in "${models[@]}"; do
    for how in "${ways[@]}"; do
      # shellcheck disable=SC2086  # the options are words
      found=$(digest "$program" "$root/reference_outputs/$model" $how) || fail "$name does not run $model"
      if [ "$found" = "${expected[$model]}" ]; then same=$((same + 1)); else
        echo "  $name: other bits for $model with $how"
      fi
    done
  done
  echo "$name: $same of $((${#models[@]} * ${#ways[@]})) traces are byte-identical"
  [ "$same" -eq $((${#models[@]} * ${#ways[@]})) ]
}

must_be_same() { compare "$@" || failures=$((failures + 1)); }
must_be_caught() {
  if compare "$@"; then
    echo "FAILED: $1 should have been caught"
    failures=$((failures + 1))
  fi
}

# build FOLDER COMPILER FLAGS [SOURCE]: a plain build with nothing but these optimisations.
build() {
  local folder=$work/$1
  [ -f "$folder/build.ninja" ] ||
    CXX=$2 CXXFLAGS=$3 meson setup "$folder" "${4:-$root}" --buildtype=plain > "$folder.log" 2>&1 || return 1
  ninja -C "$folder" sinkref > "$folder.log" 2>&1 || { tail -20 "$folder.log" >&2; return 1; }
}

variant() {
  build "$1" "$2" "$3" || fail "$2 $3 does not build sinkref, see $work/$1.log"
  must_be_same "$2 $3" "$work/$1/sinkref"
}

one_ulp_is_caught() {
  local model=$work/perturbed
  rm -rf "$model" && cp -r "$root/reference_outputs/tiny_llama1" "$model" || fail "cannot copy a model"
  python3 - "$model/model.safetensors" <<'PYTHON' || fail "cannot perturb a weight"
import json, struct, sys

with open(sys.argv[1], "r+b") as file:
    size = struct.unpack("<Q", file.read(8))[0]
    tensor = json.loads(file.read(size))["model.norm.weight"]
    width = {"F32": 4, "F16": 2, "BF16": 2}[tensor["dtype"]]
    # The lowest bit of its first number. (One of v_proj would do as well if its sums did not round it
    # away, as they may.)
    at = 8 + size + tensor["data_offsets"][0]
    file.seek(at)
    low = file.read(1)[0]
    file.seek(at)
    file.write(bytes([low ^ 1]))
PYTHON
  # The model's own hash stands in the file: compare the numbers alone, from the logits' fingerprint.
  local plain moved
  plain=$("$root/build/sinkref" trace --model "$root/reference_outputs/tiny_llama1" --tokens-file "$work/tokens.json" \
    --out "$work/t" --force --json | sed -n 's/.*"fingerprint": ".*-\(.*\)".*/\1/p')
  moved=$("$root/build/sinkref" trace --model "$model" --tokens-file "$work/tokens.json" --out "$work/t" --force --json |
    sed -n 's/.*"fingerprint": ".*-\(.*\)".*/\1/p')
  rm -f "$work/t"
  [ -n "$plain" ] && [ -n "$moved" ] || fail "no fingerprint was printed"
  if [ "$plain" = "$moved" ]; then
    echo "FAILED: one ulp in one weight was not caught"
    failures=$((failures + 1))
  else
    echo "one ulp in one weight: caught"
  fi
}

other_order_is_caught() {
  local copy=$work/other-order-source
  rm -rf "$copy" && mkdir -p "$copy" || fail "cannot make $copy"
  cp -r "$root/meson.build" "$root/meson_options.txt" "$root/include" "$root/src" "$root/tests" "$copy"
  sed -i 's/chain_block = 32;/chain_block = 16;/' "$copy/include/sinkref/number.h"
  ! cmp -s "$copy/include/sinkref/number.h" "$root/include/sinkref/number.h" || fail "the order was not changed"
  build other-order g++ -O2 "$copy" || fail "the build with another order failed, see $work/other-order.log"
  must_be_caught "sums in blocks of another length" "$work/other-order/sinkref"
}

full=no
case ${1:-} in
  '') ;;
  --full) full=yes ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
[ -x "$root/build/sinkref" ] || fail "build/sinkref is missing; tools/setup.sh builds it"
declare -A expected
for model in "${models[@]}"; do
  expected[$model]=$(digest "$root/build/sinkref" "$root/reference_outputs/$model" --kernel spec --threads 1) ||
    fail "build/sinkref does not run $model"
done
must_be_same "build/sinkref" "$root/build/sinkref"
one_ulp_is_caught
if ! command -v clang++ >/dev/null; then
  echo "invariance.sh: installing clang"
  if [ "$(id -u)" -eq 0 ]; then as=(); else as=(sudo); fi
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends clang >/dev/null' ||
    fail "clang could not be installed"
fi
variant clang-O1 clang++ -O1
if [ "$full" = yes ]; then
  for compiler in g++ clang++; do
    for flags in -O1 -O2 -O3 "-O3 -march=native"; do
      [ "$compiler $flags" = "clang++ -O1" ] || variant "${compiler%++}${flags// /}" "$compiler" "$flags"
    done
  done
  "$root/tools/check/cross_aarch64.sh" > "$work/aarch64.log" 2>&1 || fail "the ARM build failed, see $work/aarch64.log"
  must_be_same "aarch64 (NEON, qemu-user)" "$root/build/aarch64/sinkref.sh"
  other_order_is_caught
fi
[ "$failures" -eq 0 ]
