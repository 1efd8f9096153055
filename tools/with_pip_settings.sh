#!/bin/sh
# Runs a command with pip's package index, proxy and certificates, which Poetry does not look for.
# Where pip is told of no certificates these are the system's: they know a company's proxy, and
# neither Poetry nor an older pip asks for them.
set -eu
python=.poetry/bin/python
setting() { "$python" -m pip config get "global.$1" 2>/dev/null; }

index=${PIP_INDEX_URL:-$(setting index-url ||
    "$python" -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)')}
export POETRY_PYPI_MIRROR_URL="$index"

proxy=${PIP_PROXY:-$(setting proxy || true)}
[ -z "$proxy" ] || export HTTPS_PROXY="${HTTPS_PROXY:-$proxy}" HTTP_PROXY="${HTTP_PROXY:-$proxy}"

certificates=${PIP_CERT:-$(setting cert || true)}
for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    [ -n "$certificates" ] || [ ! -f "$file" ] || certificates=$file
done
[ -z "$certificates" ] ||
    export PIP_CERT="$certificates" REQUESTS_CA_BUNDLE="${REQUESTS_CA_BUNDLE:-$certificates}"

exec "$@"
