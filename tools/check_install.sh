#!/usr/bin/env bash
# tools/check_install.sh: installs sinkref into a temporary folder and builds tools/hello_sink.cpp against it by
# pkg-config and by CMake's find_package, and against the sources as a meson subproject. All three must say
# the same, and the installed program must find the tiny model.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

fail() { echo "check_install.sh: $*" >&2; exit 1; }
quietly() { "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; fail "failed: $*"; }; }

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
command -v cmake >/dev/null ||
  quietly "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cmake

[ -x "$root/build/sinkref" ] || fail "build/sinkref is missing: run tools/setup.sh first"
# The prefix is another one than the build was set up for: nothing may depend on where it lies.
quietly env DESTDIR="$work/stage" meson install -C "$root/build" --no-rebuild
mv "$work/stage$(meson introspect "$root/build" --buildoptions |
  python3 -c 'import json, sys; print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == "prefix"))')" "$prefix"
cd "$work"
"$prefix/bin/sinkref" info --json > info.json 2> note || fail "the installed program does not run"
grep -q "$prefix/share/sinkref/tiny_llama3" note || fail "the installed program does not find its own tiny model"
[ -z "$(grep -rhoE '#include "[^"]*"' "$prefix/include" | grep -v '"sinkref/')" ] ||
  fail "an installed header includes one that is not installed"

mkdir pkgconfig cmake subproject
export PKG_CONFIG_PATH
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name sinkref.pc)")
flags=$(pkg-config --cflags --libs sinkref)
case $flags in *boost*) fail "the library asks for Boost" ;; esac
# shellcheck disable=SC2086
quietly "${CXX:-c++}" -std=c++20 "$root/tools/hello_sink.cpp" $flags -o pkgconfig/hello_sink
unset PKG_CONFIG_PATH

cat > cmake/CMakeLists.txt <<CMAKE
cmake_minimum_required(VERSION 3.16)
project(hello CXX)
find_package(sinkref 0.1 REQUIRED)
add_executable(hello_sink $root/tools/hello_sink.cpp)
target_link_libraries(hello_sink PRIVATE sinkref::sinkref)
CMAKE
quietly cmake -S cmake -B cmake/build -DCMAKE_PREFIX_PATH="$prefix"
quietly cmake --build cmake/build

# Without optimisation, which compiles faster and gives the same bits.
mkdir -p subproject/subprojects
ln -s "$root" subproject/subprojects/sinkref
cp "$root/tools/hello_sink.cpp" subproject
cat > subproject/meson.build <<'MESON'
project('hello', 'cpp', default_options: ['cpp_std=c++20', 'buildtype=plain'])
executable('hello_sink', 'hello_sink.cpp', dependencies: dependency('sinkref', fallback: 'sinkref'))
MESON
quietly meson setup subproject/build subproject
! grep -qiE 'boost|catch2' subproject/build/meson-logs/meson-log.txt || fail "the subproject looks for Boost or Catch2"
quietly ninja -C subproject/build

for hello in pkgconfig/hello_sink cmake/build/hello_sink subproject/build/hello_sink; do
  "$hello" "$prefix/share/sinkref/tiny_llama3" > out || fail "$hello does not run"
  [ -f expected ] || cp out expected
  cmp -s out expected || fail "$hello prints something else than pkgconfig/hello_sink"
done
cat expected
