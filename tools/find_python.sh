#!/bin/sh
# Prints a Python that this project runs on (3.11 or 3.12, able to make virtual environments).
set -u
for python in ${PYTHON:-} python3 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
        if ! "$python" -c 'import ensurepip' 2>/dev/null; then
            echo "$python cannot make virtual environments: install python3-venv (Debian, Ubuntu)" >&2
            continue
        fi
        command -v "$python"
        exit 0
    fi
done
echo "no usable Python 3.11 or 3.12 found; install one, or name it: make PYTHON=/path/to/python" >&2
exit 1
