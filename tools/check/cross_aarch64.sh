#!/usr/bin/env bash
# Builds sinkref for 64-bit ARM (the NEON kernels) in build/aarch64 and leaves build/aarch64/sinkref.sh,
# which runs it under qemu-user. Debian's arm64 libraries are unpacked into build/aarch64/sysroot:
# nothing of another architecture is installed on this machine.
#
#   tools/check/cross_aarch64.sh              builds
#   tools/check/cross_aarch64.sh --prepare    installs and writes build/aarch64/cross.ini, and no more
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/build/aarch64
sysroot=$here/sysroot
libraries=(libc6 libc6-dev linux-libc-dev libgcc-s1 libstdc++6 libhwy1 libhwy-dev libpcre2-8-0 libpcre2-dev
  libsentencepiece0 libsentencepiece-dev libssl3 libssl-dev nlohmann-json3-dev catch2 zlib1g zlib1g-dev)
tools=(g++-aarch64-linux-gnu qemu-user-static)

fail() { echo "cross_aarch64.sh: $*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then env DEBIAN_FRONTEND=noninteractive "$@"
  else sudo env DEBIAN_FRONTEND=noninteractive "$@"; fi
}

install_tools() {
  if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64-static >/dev/null; then return; fi
  as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends "${tools[@]}" >/dev/null ||
    fail "apt-get could not install ${tools[*]}"
}

# apt-get with lists and a state of its own, for arm64.
apt_arm64() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists="$here/apt/lists" \
    -o Dir::State::status="$here/apt/status" -o Dir::Cache="$here/apt/cache" -o APT::Sandbox::User=root "$@"
}

unpack_libraries() {
  local stamp=$sysroot/.complete
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "${libraries[*]}" ]; then return; fi
  rm -rf "$sysroot"
  mkdir -p "$sysroot" "$here"/apt/lists/partial "$here"/apt/cache/archives/partial "$here"/apt/packages
  : > "$here/apt/status"
  apt_arm64 update || fail "apt-get update failed for arm64"
  (cd "$here/apt/packages" && apt_arm64 download "${libraries[@]}") || fail "apt-get could not fetch the arm64 libraries"
  local package
  for package in "$here"/apt/packages/*.deb; do dpkg -x "$package" "$sysroot"; done
  rm -f "$sysroot"/usr/lib/aarch64-linux-gnu/lib{c,m}.a  # for whom static libraries are preferred: not glibc's
  rm -rf "$here/apt"
  echo "${libraries[*]}" > "$stamp"
}

write_cross_file() {
  local lib=$sysroot/usr/lib/aarch64-linux-gnu
  cat > "$here/cross.ini" <<INI
[binaries]
cpp = 'aarch64-linux-gnu-g++'
ar = 'aarch64-linux-gnu-ar'
strip = 'aarch64-linux-gnu-strip'
pkgconfig = 'pkg-config'
[built-in options]
cpp_args = ['-idirafter', '$sysroot/usr/include', '-idirafter', '$sysroot/usr/include/aarch64-linux-gnu']
cpp_link_args = ['-Wl,--sysroot=$sysroot', '-L$lib', '-Wl,-rpath-link,$lib:$sysroot/lib/aarch64-linux-gnu']
[properties]
sys_root = '$sysroot'
pkg_config_libdir = '$lib/pkgconfig:$sysroot/usr/share/pkgconfig'
[host_machine]
system = 'linux'
cpu_family = 'aarch64'
cpu = 'aarch64'
endian = 'little'
INI
  cat > "$here/sinkref.sh" <<SH
#!/bin/sh
exec qemu-aarch64-static -L "$sysroot" -E LD_LIBRARY_PATH="$lib" "$here/meson/sinkref" "\$@"
SH
  chmod +x "$here/sinkref.sh"
}

install_tools
mkdir -p "$here"
unpack_libraries
write_cross_file
[ "${1:-}" != --prepare ] || exit 0
[ -f "$here/meson/build.ninja" ] || meson setup "$here/meson" "$root" --cross-file "$here/cross.ini" >"$here/setup.log" ||
  fail "meson setup failed, see $here/setup.log"
ninja -C "$here/meson" sinkref
"$here/sinkref.sh" --version
