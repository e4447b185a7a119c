#!/usr/bin/env bash
# Feeds arbitrary bytes to every reader (tests/fuzz/fuzz.cpp) under libFuzzer, AddressSanitizer and UBSan. A finding
# is an exception other than InputError, a sanitizer's report, more than 5 s or more than 1 GB.
#
#   tools/fuzz.sh                      a minute of each, two at a time, as tools/test.sh does (FUZZ_SECONDS: another time)
#   tools/fuzz.sh HOURS [READER…]      so long in all, shared out among all readers or these; what has been learned
#                                      stays in build-fuzz/corpus
#
# A finding's input lies in build-fuzz/found; build-fuzz/fuzz_READER FILE runs it again.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
build=build-fuzz
jobs=${FUZZ_JOBS:-2}

fail() { echo "fuzz.sh: $*" >&2; exit 1; }

case ${1:-} in -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
tools/setup.sh --fuzz || fail "cannot be set up"
[ -f $build/build.ninja ] ||
  CXX=clang++ meson setup $build -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=1 \
    -Dfuzz=-fsanitize=fuzzer || fail "meson setup failed"
ninja -C $build tests/fuzz_readers || fail "does not build"

all=$($build/tests/fuzz_readers 2>/dev/null)
hours=${1:-}
shift
readers=${*:-$all}
count=$(wc -w <<< "$readers")
seconds=${FUZZ_SECONDS:-60}
[ -z "$hours" ] || seconds=$(awk "BEGIN { print int(3600 * $hours * $jobs / $count) }")
python3 tests/fuzz/make_corpus.py $build/seeds || fail "no corpus"
mkdir -p $build/found $build/log

# halt_on_error: UBSan would go on. The quarantine would count as the reader's memory.
export ASAN_OPTIONS=quarantine_size_mb=8:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TMPDIR=${TMPDIR:-$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)}

# fuzz READER: its row of the table; 1 if anything was found.
fuzz() {
  local reader=$1 log=$build/log/$1 status executions words=()
  ln -sf tests/fuzz_readers "$build/fuzz_$reader"
  mkdir -p "$build/corpus/$reader"
  [ ! -s "$build/seeds/$reader.dict" ] || words=("-dict=$build/seeds/$reader.dict")
  "$build/fuzz_$reader" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=1000000 -close_fd_mask=3 \
    -print_final_stats=1 -artifact_prefix="$build/found/$reader-" ${words[@]+"${words[@]}"} \
    "$build/corpus/$reader" "$build/seeds/$reader" 2> "$log"
  status=$?
  executions=$(grep -oP 'stat::number_of_executed_units: +\K[0-9]+' "$log" || echo 0)
  printf '%-20s %10s executions %6s s   %s\n' "$reader" "$executions" "$seconds" \
    "$([ $status -eq 0 ] && echo nothing found || echo "FOUND: see $log")"
  # The end of the log names the fault; a small input comes along, as where this runs may be gone tomorrow.
  [ $status -eq 0 ] || { grep -v '^#' "$log" | cut -c1-300 | tail -n 40
    find $build/found -name "$reader-*" -size -12k -exec sh -c 'echo "$1"; gzip -9 < "$1" | base64 -w 0; echo' _ {} \; ; }
  # Neither a crash nor a reader that was not run passes.
  [ $status -eq 0 ] && [ "$executions" -gt 0 ]
}
export -f fuzz
export build seconds
# shellcheck disable=SC2086  # the readers are words
printf '%s\n' $readers | xargs -P "$jobs" -I{} bash -c 'fuzz {}'
