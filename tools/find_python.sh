#!/bin/sh
# Prints a Python that this project runs on: the one that $PYTHON names, else the first of the
# system's and of uv's. Where there is none, prints one line that says what to do, which begins
# with "set-up:".
set -u
right='import sys; v = sys.version_info[:3]; sys.exit(not (3, 11) <= v < (3, 15) or v == (3, 14, 1))'
if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    set -- python3 python3.14 python3.13 python3.12 python3.11 \
        "$(uv python find --no-project '>=3.11,<3.15,!=3.14.1' 2>/dev/null)"
fi
seen=
for python in "$@"; do
    version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null) || continue
    [ -n "$version" ] || continue
    if ! "$python" -c "$right"; then
        seen="$python is $version: this project needs"
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        seen="$python cannot make virtual environments: install python3-venv (Debian, Ubuntu), or take another"
    else
        "$python" -c 'import sys; print(sys.executable)'
        exit 0
    fi
done
echo "set-up: ${seen:-${PYTHON:-python3} is not there: install} Python 3.11 to 3.14 (3.14.1 excepted);" \
    "name one by make PYTHON=/path/to/python, or let uv bring one: uv python install 3.13"
exit 1
