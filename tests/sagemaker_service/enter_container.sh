#!/bin/sh
# Usage: enter_container.sh FOLDER PREFIX [HIDDEN...] -- COMMAND...
# Runs in new mount and PID namespaces: nothing mounted here is seen outside.
# FOLDER/ml becomes /opt/ml; PREFIX, the interpreter's environment, gets a writable layer that
# ends with the job; each HIDDEN folder is empty but for PREFIX.
set -eu
folder=$1 prefix=$2
shift 2
stash=$folder/stash

mkdir -p "$stash"
mount -t tmpfs tmpfs "$stash"
mkdir "$stash/upper" "$stash/work" "$stash/prefix" "$stash/opt"

# Where no overlay can be made, the environment is read-only: pip fails, and spoils nothing.
if ! mount -t overlay overlay \
    -o "lowerdir=$prefix,upperdir=$stash/upper,workdir=$stash/work" "$stash/prefix" 2>/dev/null
then
    mount --bind "$prefix" "$stash/prefix"
    mount -o remount,bind,ro "$stash/prefix"
fi
while [ "$1" != -- ]; do
    mount -t tmpfs tmpfs "$1"
    shift
done
shift
mkdir -p "$prefix"
mount --bind "$stash/prefix" "$prefix"

mount --rbind /opt "$stash/opt"
mount -t tmpfs tmpfs /opt
for entry in "$stash"/opt/*; do
    name=${entry##*/}
    if [ -d "$entry" ] && [ "$name" != ml ]; then
        mkdir "/opt/$name"
        mount --rbind "$entry" "/opt/$name"
    fi
done
mkdir /opt/ml
mount --bind "$folder/ml" /opt/ml

mount --bind "$folder/hosts" /etc/hosts

cd /
exec "$@"
