#!/bin/sh
# Installs what poetry.lock says, and prints what Poetry says of it only if that fails.
#   tools/poetry_install.sh [OPTIONS OF poetry install]
set -eu
# Compiled here: where the environment says to write no bytecode, every start would compile anew.
log=$(tools/with_pip_settings.sh .poetry/bin/poetry install --compile --no-interaction --no-ansi "$@" 2>&1) || {
    # Each download that fails says the same.
    printf '%s\n' "$log" | awk 'NF && !seen[$0]++' | tail -n 12 >&2
    echo "Poetry could not install the packages; it says above why" >&2
    exit 1
}
