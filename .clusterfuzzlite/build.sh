#!/bin/bash -eu
# Every reader of tests/fuzz as a program of its own, with its seeds and words, in $OUT.

# The libraries of the distribution are of libstdc++.
export CXXFLAGS="${CXXFLAGS//-stdlib=libc++/}"
# Without sanitizers: it makes the seeds that are traces.
CXXFLAGS= CFLAGS= meson setup plain --buildtype=release && ninja -C plain sinkref
meson setup fuzzing --buildtype=plain -Dfuzz=-fsanitize=fuzzer
ninja -C fuzzing tests/fuzz_readers
SINKREF=plain/sinkref python3 tests/fuzz/make_corpus.py seeds

mkdir -p "$OUT/lib" "$OUT/reference_outputs"
cp -r reference_outputs/tiny_llama3 reference_outputs/tiny_sentencepiece "$OUT/reference_outputs/"
# The image that runs them has none of these.
ldd fuzzing/tests/fuzz_readers | grep -oE '/\S*lib(sentencepiece|hwy|pcre2-8|protobuf[a-z-]*|absl_[a-z_]*|crypto|z|stdc\+\+)\.so\S*' |
  xargs -I{} cp -L {} "$OUT/lib/"
patchelf --set-rpath '$ORIGIN/lib' fuzzing/tests/fuzz_readers
for reader in $(fuzzing/tests/fuzz_readers 2>/dev/null); do
  cp fuzzing/tests/fuzz_readers "$OUT/fuzz_$reader"
  zip -jq "$OUT/fuzz_${reader}_seed_corpus.zip" "seeds/$reader"/*
  [ ! -s "seeds/$reader.dict" ] || cp "seeds/$reader.dict" "$OUT/fuzz_$reader.dict"
  printf '[libfuzzer]\ntimeout = 5\nrss_limit_mb = 1024\nmax_len = 1000000\nclose_fd_mask = 3\n' > "$OUT/fuzz_$reader.options"
done
