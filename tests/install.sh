#!/usr/bin/env bash
# Installs the Debian packages that the tests and the demo start, if any is missing; says nothing otherwise.
# Works as root, and as a user with sudo. No service is left running: the tests start their own, on free
# loopback ports and in temporary directories. Further packages may be named: the bench needs more.
set -euo pipefail

# python3-venv is where Helm and the validators of the chart go; gcc and libc6-dev compile the bundled SQLite and the TLS provider; the others are the real programs tests talk to.
packages=(docker-registry skopeo prometheus prometheus-alertmanager jq curl openssl apache2-utils python3-venv gcc libc6-dev ca-certificates "$@")

if ! command -v dpkg-query >/dev/null; then
  commands=(docker-registry skopeo prometheus prometheus-alertmanager jq curl openssl htpasswd python3 gcc)
  absent=()
  for command in "${commands[@]}"; do command -v "$command" >/dev/null || absent+=("$command"); done
  [ ${#absent[@]} -eq 0 ] && exit 0
  echo "error: this is no Debian, so install these yourself and put them on the PATH: ${absent[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)" in
    "install ok installed") ;;
    *) missing+=("$package") ;;
  esac
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "error: ${missing[*]} must be installed: run this as root, or install sudo" >&2
    exit 1
  }
  as_root=(sudo)
fi

echo "installing ${missing[*]}" >&2

# Debian starts services at installation unless this file says no (101); ours goes away afterwards, another's stays.
guard=/usr/sbin/policy-rc.d
if [ ! -e "$guard" ]; then
  trap '"${as_root[@]}" rm -f "$guard"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$guard" >/dev/null
  "${as_root[@]}" chmod 0755 "$guard"
fi

log=$(mktemp)
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >"$log" 2>&1 </dev/null; }
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; }; then
  cat "$log" >&2
  echo "error: apt-get could not install ${missing[*]}: see its output above" >&2
  rm -f "$log"
  exit 1
fi
rm -f "$log"
