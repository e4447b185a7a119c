#!/usr/bin/env bash
# Installs what is missing and builds build/sinkref, the program alone: tools/test.sh builds its tests.
# Run it as often as you like: what is there is left alone, and no network is used if nothing is missing.
#
#   tools/setup.sh            system packages (Debian/Ubuntu), meson setup, ninja
#   tools/setup.sh --packages the system packages alone
#   tools/setup.sh --python   also build/venv with tools/requirements.txt, for the goldens, figures and notebooks
#   tools/setup.sh --engines  also build/venv-engines with llama.cpp and TransformerLens, to compare with
#                             (compiles llama.cpp for this processor: some ten minutes)
#   tools/setup.sh --eval     also build/venv-eval with lm-eval and Ray
#   tools/setup.sh --fuzz     also clang with its sanitizers and libFuzzer
#
# Where CI is set, warnings are errors, and ccache is installed, which meson then compiles through.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
venv=$build/venv
packages=(meson ninja-build pkg-config g++ libhwy-dev libsentencepiece-dev
  catch2 libopenblas0 nlohmann-json3-dev libpcre2-dev libssl-dev zlib1g-dev libflint-dev libflint-arb-dev python3-venv python3-pip)

[ -z "${CI:-}" ] || packages+=(ccache)
# What ccache has to be told to work with precompiled headers: that no source asks for the time or defines
# what they read.
export CCACHE_SLOPPINESS=pch_defines,time_macros

fail() { echo "setup.sh: $*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  elif command -v sudo >/dev/null; then
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  else
    fail "root or sudo is needed to run: $*"
  fi
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    echo "setup.sh: not Debian or Ubuntu; your system must provide: ${packages[*]}" >&2
    return
  fi
  local missing=() package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "setup.sh: installing ${missing[*]}"
  as_root apt-get update -qq || fail "apt-get update failed; still missing: ${missing[*]}"
  as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get install failed; still missing: ${missing[*]}"
}

# One line that changes on a terminal, elsewhere one for every tenth; whatever a compiler says is shown.
build_sinkref() {
  local said
  if [ ! -f "$build/build.ninja" ]; then
    said=$(meson setup "$build" "$root" ${CI:+-Dwerror=true} 2>&1) || fail "meson setup failed: $said"
  fi
  export NINJA_STATUS='[%p, %es] '
  if [ -t 1 ]; then
    ninja -C "$build" sinkref
  else
    ninja -C "$build" sinkref | awk -F'[[%]' '
      !/^\[ *[0-9]+%/ { print; fflush(); next }
      int($2 / 10) > tenth { tenth = int($2 / 10); print "setup.sh: building, " tenth "0 %"; fflush() }'
  fi
}

install_python() {
  local wanted stamp=$venv/requirements.sha256
  wanted=$(sha256sum "$root/tools/requirements.txt" | cut -d' ' -f1)
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
  echo "setup.sh: installing tools/requirements.txt into build/venv (PyTorch is large)"
  [ -x "$venv/bin/pip" ] || python3 -m venv "$venv" || fail "python3 -m venv failed"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$root/tools/requirements.txt" ||
    fail "pip could not install tools/requirements.txt"
  echo "$wanted" > "$stamp"
}

# The packages of build/venv, and those of tools/requirements-NAME.txt on top of them in build/venv-NAME.
install_on_top() {
  local name=$1 own=$build/venv-$1 site wanted
  wanted=$(cat "$root/tools/requirements.txt" "$root/tools/requirements-$name.txt" | sha256sum | cut -d' ' -f1)
  if [ -f "$own/requirements.sha256" ] && [ "$(cat "$own/requirements.sha256")" = "$wanted" ]; then return; fi
  echo "setup.sh: installing tools/requirements-$name.txt into build/venv-$name"
  [ -x "$own/bin/python" ] || python3 -m venv "$own" || fail "python3 -m venv failed"
  site=$("$own/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/shared.pth"
  "$own/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/tools/requirements-$name.txt" ||
    fail "pip could not install tools/requirements-$name.txt"
  echo "$wanted" > "$own/requirements.sha256"
}

python=no
only_packages=no
on_top=()
for argument in "$@"; do
  case $argument in
    --packages) only_packages=yes ;;
    --python) python=yes ;;
    --fuzz) packages+=(clang libclang-rt-dev) ;;
    --engines | --eval) python=yes on_top+=("${argument#--}") ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown argument $argument, see --help" ;;
  esac
done

# Chromium opens the page of sinkref report for tools/check/check_page.py and draws for tools/figures.py;
# Ubuntu has it as a snap only, to be installed by hand.
if [ "$python" = yes ] && grep -q '^ID=debian' /etc/os-release 2>/dev/null; then
  packages+=(chromium fonts-dejavu-core)
fi
install_packages
[ "$only_packages" = no ] || exit 0
build_sinkref
[ "$python" = no ] || install_python
for name in ${on_top[@]+"${on_top[@]}"}; do install_on_top "$name"; done
