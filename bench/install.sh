#!/usr/bin/env bash
# Installs what the bench measures against: nginx, webhook and skopeo as Debian packages, FastAPI and uvicorn from PyPI
# in an environment of their own below the build folder.
set -euo pipefail
here=$(dirname "$0")
"$here/../tests/install.sh" nginx webhook python3-venv util-linux

venv=${CARGO_TARGET_DIR:-$here/../target}/bench-venv
if ! "$venv/bin/python" -c 'import fastapi, uvicorn' 2>/dev/null; then
  echo "installing fastapi and uvicorn in $venv" >&2
  mkdir -p "$(dirname "$venv")"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check fastapi==0.165.0 uvicorn==0.54.0
fi
