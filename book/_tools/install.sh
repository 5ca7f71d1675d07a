#!/usr/bin/env bash
# Creates a virtual environment and installs the locked packages and this project into it.
set -euo pipefail
venv=${1:?usage: install.sh VENV}

find_python() {
  local name
  for name in python3.11 python3.12 python3.13 python3.14 python3 python; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "No Python 3.11 or newer with the venv module was found." >&2
  echo "Tried python3.11 to python3.14, python3 and python on your PATH." >&2
  echo "Install one (on Debian or Ubuntu: apt install python3 python3-venv) and try again." >&2
  return 1
}

if [ ! -x "$venv/bin/python" ]; then
  python=$(find_python)
  echo "Creating $venv with $($python --version)"
  "$python" -m venv "$venv"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off
pip=("$venv/bin/python" -m pip install --quiet)
echo "Installing $(grep -c == requirements.lock) packages from requirements.lock (two to five minutes the first time)"
# torch first: the other packages then find it there and ask no other index for it.
torch=$(grep '^torch==' requirements.lock)
if [ -n "${TORCH_INDEX:-}" ]; then
  "${pip[@]}" --index-url "$TORCH_INDEX" "$torch"
else
  "${pip[@]}" "$torch"
fi
"${pip[@]}" -r requirements.lock
"${pip[@]}" --no-deps --editable .
echo "Installed into $venv"
