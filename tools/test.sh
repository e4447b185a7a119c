#!/usr/bin/env bash
# Sets up, builds and runs every test. Ends with one line "N passed, M failed".
#
#   tools/test.sh          the C++ tests, those of what reads files, the kernels, the forward pass, hooks
#                          and the patch again under AddressSanitizer and UBSan, with the checks of
#                          sinkref/check.h on, every golden file held against transformers as it runs here,
#                          threads under ThreadSanitizer, and a minute of arbitrary bytes for each reader
#                          (FUZZ_SECONDS, two readers at a time)
#   tools/test.sh --full   all C++ tests under the sanitizers, and the goldens' whole pool of runs
#
# Where CI is set, warnings are errors.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
passed=0
failed=0

# check NAME COMMAND…: one line of the count.
check() {
  local name=$1
  shift
  echo "== $name"
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name"; fi
}

# run_tests PROGRAM FILTER…: adds Catch2's test cases to the count.
run_tests() {
  local program=$1 log
  shift
  log=$(mktemp)
  echo "== $program $*"
  "$program" "$@" 2>&1 | tee "$log"
  local status=${PIPESTATUS[0]} cases good
  if cases=$(grep -oP 'All tests passed \(.* in \K[0-9]+(?= test case)' "$log"); then
    good=$cases
  else
    cases=$(grep -oP '^test cases: +\K[0-9]+' "$log" || echo 0)
    good=$(grep -oP '^test cases:.*\| +\K[0-9]+(?= passed)' "$log" || echo 0)
  fi
  rm -f "$log"
  # A crash or an empty run must not count as nothing.
  if [ "$cases" -eq 0 ] || { [ "$status" -ne 0 ] && [ "$cases" -eq "$good" ]; }; then
    failed=$((failed + 1))
  fi
  passed=$((passed + good))
  failed=$((failed + cases - good))
}

# sanitized TARGET: builds one of the test programs in build-asan.
sanitized() {
  [ -f build-asan/build.ninja ] ||
    meson setup build-asan -Db_sanitize=address,undefined -Db_lundef=false \
      -Doptimization=1 -Dchecks=true ${CI:+-Dwerror=true} || return 1
  ninja -C build-asan "tests/$1"
}

# threaded: what runs in several threads under ThreadSanitizer, but for fork(), which that does not know.
# GCC warns of std::string's operator+ at this level where there is nothing (PR 105329).
threaded() {
  [ -f build-tsan/build.ninja ] ||
    meson setup build-tsan -Db_sanitize=thread -Db_lundef=false -Doptimization=1 || return 1
  ninja -C build-tsan tests/threaded_tests && TSAN_OPTIONS=halt_on_error=1 build-tsan/tests/threaded_tests '~[fork]'
}

export CCACHE_SLOPPINESS=pch_defines,time_macros  # see tools/setup.sh
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
full=no
[ "${1:-}" != --full ] || full=yes
python=build/venv/bin/python

tools/setup.sh --python || exit 1
ninja -C build tests/sinkref_tests || exit 1
tools/get_smollm2.sh models || exit 1
tools/get_tokenizers.sh models || exit 1
run_tests build/tests/sinkref_tests
check "the installed library: pkg-config, CMake, a meson subproject" tools/check_install.sh
check "recorded RoPE frequencies against PyTorch" $python tools/reference/record_rope.py --check
check "the golden tool against an independent float64 forward" $python tools/check/test_hf_golden.py
check "the patch of tools/guide/patch.md on Hugging Face, prefill and decode" $python tools/check/check_patch.py
check "a report on the tiny model, its page and figures" sh -c '
  rm -rf build/tiny-report &&
  build/sinkref report --model reference_outputs/tiny_llama1 --tokens 5,17,5x20,9,9,11 --repeats 40 \
    --golden reference_outputs/tiny_llama1/golden_prompt.safetensors --out build/tiny-report &&
  python3 tools/check/check_findings.py build/tiny-report &&
  build/venv/bin/python tools/check/check_page.py build/tiny-report &&
  build/venv/bin/python tools/figures.py build/tiny-report --only attention_first'
check "a report on SmolLM2 against Hugging Face, and its page" sh -c '
  rm -rf build/smollm2-report &&
  build/sinkref report --model models/SmolLM2-135M-Instruct.Q4_1.gguf --word the --word dust \
    --repeats 130 --out build/smollm2-report &&
  build/venv/bin/python tools/check/check_report.py build/smollm2-report models/SmolLM2-135M-Instruct.Q4_1.gguf &&
  python3 tools/check/check_findings.py build/smollm2-report &&
  build/venv/bin/python tools/check/check_page.py build/smollm2-report'
check "the first attention layer against Hugging Face in float64" \
  $python tools/check/check_first_layer.py reference_outputs/tiny_llama2 --tokens 5,17,9,9,11 --repeats 40
check "planted rows of the paper's table are found, and nothing where nothing was planted" \
  $python tools/check/test_planted.py
check "threads, forward pass, hooks and eval under ThreadSanitizer" threaded
check "arbitrary bytes for every reader, under sanitizers" tools/fuzz.sh
check "trace, report and eval killed at random moments" \
  python3 tools/check/test_kills.py $([ $full = no ] || echo --full)
check "random inputs are read as transformers reads them, or refused" $python tools/check/test_readers.py
check "the Python package against the program" sh -c '
  meson configure build -Dpython=enabled && ninja -C build src/python/libsinkref_python.so &&
  SINKREF_TEST_MODEL=models/SmolLM2-135M-Instruct.Q4_1.gguf build/venv/bin/python tools/check/test_python.py'
check "every notebook runs, and prints what is committed" $python tools/check/check_notebooks.py
check "eval: kills, shards, bad input" python3 tools/check/test_eval.py
check "every document: its commands, options, links and quoted output" python3 tools/check/check_documents.py
check "certificates: the independent checker, flipped bits, claims, SmolLM2" $python tools/check/test_certify.py
check "seeded faults are found and named" $python tools/check/test_verify_faults.py
check "Hugging Face, TransformerLens and llama.cpp agree within rounding" sh -c '
  tools/setup.sh --engines && build/venv-engines/bin/python tools/check/test_verify_engines.py --engines'
check "the same bits from another compiler, and a changed bit is caught" tools/check/invariance.sh
if [ $full = yes ]; then
  check "the first attention layer of SmolLM2 against Hugging Face in float64" \
    $python tools/check/check_first_layer.py models/SmolLM2-135M-Instruct.Q4_1.gguf
  check "planted rows with other seeds, and their goldens" $python tools/check/test_planted.py --full
  check "the patch of tools/guide/patch.md on TransformerLens" \
    build/venv-engines/bin/python tools/check/check_patch.py --transformer-lens
  check "30 prompts for every engine, and SmolLM2" \
    build/venv-engines/bin/python tools/check/test_verify_engines.py --engines --full
  check "the same bits from every compiler and from ARM" tools/check/invariance.sh --full
  check "golden files and their whole pool against transformers" $python tools/check/check_goldens.py --pool
  check "eval: Ray, and tasks of the real lm-eval" sh -c '
    tools/setup.sh --eval && build/venv-eval/bin/python tools/check/test_eval.py --ray &&
    build/venv-eval/bin/python tools/check/test_eval.py --lm-eval'
  check "all tests built with sanitizers" sanitized sinkref_tests
  # SmolLM2 under the sanitizers takes minutes and shows nothing the tiny models do not.
  run_tests build-asan/tests/sinkref_tests '~[smollm2]'
else
  check "golden files against transformers" $python tools/check/check_goldens.py
  check "the tests of files, kernels, forward pass and hooks built with sanitizers" sanitized sanitized_tests
  run_tests build-asan/tests/sanitized_tests '~[smollm2]'
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
