#!/usr/bin/env bash
# Makes the virtual environment: setup.sh PYTHON VENV
set -euo pipefail
python="$1" venv="$2"

if ! command -v "$python" >/dev/null 2>&1; then
    python=python3
fi
if ! "$python" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' 2>/dev/null; then
    echo "Python 3.11 or 3.12 is needed. On Debian 12: apt-get install -y python3 python3-venv" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv
    else
        echo "Python's venv module is missing: sudo apt-get install -y python3-venv" >&2
        exit 1
    fi
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check uv==0.13.8
[ -n "${UV_FIND_LINKS:-}" ] || unset UV_FIND_LINKS
"$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" -c constraints.txt -e '.[test]'
echo "environment ready: $venv"
