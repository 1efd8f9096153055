#!/bin/sh
# Prints the package index that pip uses: the user's configured one, else pip's own default.
set -eu
"$1" -m pip config get global.index-url 2>/dev/null ||
    "$1" -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)'
