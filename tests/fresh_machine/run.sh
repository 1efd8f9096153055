#!/usr/bin/env bash
# The README's two commands on a machine that has nothing of this one: a fresh Debian in a folder.
#
#   tests/fresh_machine/run.sh [--release NAME] [--wheels FOLDER] [--no-tests] [--write]
#
#   --release NAME    trixie (default, Python 3.13), bookworm (3.11), forky (3.14)
#   --wheels FOLDER   PyTorch's CPU wheels, where its index of them cannot be reached from here
#   --no-tests        only `make finetune`, not `make test`
#   --write           put the figures into the README's requirements
#
# `make finetune` as root, then as an ordinary user whose folder has spaces and umlauts, then as both
# without network; `make test` as root, and `make test-quick` as the other, without network again.
# Needs root, debootstrap, Debian's packages and a package index, 25 GB of disk and 40 minutes; pip and
# apt are configured as on this host, without its local wheels.
set -euo pipefail
cd "$(dirname "$0")/../.."

release=trixie wheels='' tests=1 write=''
while [ $# -gt 0 ]; do
  case $1 in
    --release) release=$2; shift ;;
    --wheels) wheels=$(cd "$2" && pwd); shift ;;
    --no-tests) tests='' ;;
    --write) write=1 ;;
    *) sed -n '4,8s/^# *//p' "$0"; exit 2 ;;
  esac
  shift
done
for need in debootstrap unshare ip; do
  command -v "$need" >/dev/null || { echo "$need is missing: apt-get install $need" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "needs root, to make a machine of its own" >&2; exit 2; }

work=$(mktemp -d "${TMPDIR:-/tmp}/fresh-machine-XXXXXX")
root=$work/root
# In its own mount namespace all mounts below the folder go with the last process.
trap 'rm -rf --one-file-system "$work"' EXIT
say() { printf '\n== %s\n' "$*"; }

say "Debian $release"
mirror=$(awk '$1 == "URIs:" {print $2; exit} $1 == "deb" {print $2; exit}' \
  /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)
script=/usr/share/debootstrap/scripts/$release
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid  # a release newer than this debootstrap
debootstrap --variant=minbase --include=python3,python3-venv,git,make,ca-certificates \
  "$release" "$root" "${mirror:-http://deb.debian.org/debian}" "$script" >"$work/debootstrap.log" ||
  { tail -n 5 "$work/debootstrap.log" >&2; exit 1; }

cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
grep -ls Acquire /etc/apt/apt.conf.d/* | xargs -r cp -t "$root/etc/apt/apt.conf.d/"
{
  echo '[global]'
  python3 -m pip config list | sed -n "s/^global\.\(cert\|index-url\|proxy\|trusted-host\)='\(.*\)'$/\1 = \2/p"
  [ -z "$wheels" ] || echo 'find-links = /opt/torch-wheels'
} >"$root/etc/pip.conf"
[ -z "$wheels" ] || { mkdir "$root/opt/torch-wheels"; cp "$wheels"/torch-*.whl "$root/opt/torch-wheels/"; }
git clone --quiet --bare . "$root/srv/project.git"
git config --file "$root/etc/gitconfig" safe.directory /srv/project.git  # root's, cloned by others
commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain)" ] || echo "note: what is not committed is not tested"

# enter USER yes|no COMMAND: a shell of that user in the machine, with or without network.
enter() {
  local user=$1 online=$2 command=$3 network=() home
  [ "$online" = yes ] || network=(--net)
  home=$(awk -F: -v user="$user" '$1 == user {print $6}' "$root/etc/passwd")
  unshare --mount --pid --fork --kill-child "${network[@]}" bash -c '
    mount --bind "$1" "$1"; cd "$1"
    mount -t proc proc proc; mount --rbind /dev dev; mount --rbind /sys sys
    ip link set lo up  # a network namespace of its own begins with nothing
    exec chroot --userspec="$2" . /usr/bin/env -i HOME="$3" USER="$2" LANG=C.UTF-8 TERM=dumb \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -euo pipefail -c "$4"
  ' bash "$root" "$user" "$home" "$command"
}
# timed NAME COMMAND...: its seconds go into the variable NAME.
timed() {
  local name=$1 started=$SECONDS; shift
  "$@"
  printf -v "$name" '%s' $((SECONDS - started))
}
received() { local sum=0 n; for n in /sys/class/net/*; do [ "${n##*/}" = lo ] || sum=$((sum + $(cat "$n/statistics/rx_bytes"))); done; echo $sum; }
disk() { du -s -B1 "$@" | awk '{sum += $1} END {print sum}'; }
gb() { awk -v bytes="$1" 'BEGIN {printf "%.1f GB", bytes / 1e9}'; }
minutes() { awk -v seconds="$1" 'BEGIN {printf "%d min %02d s", seconds / 60, seconds % 60}'; }

here=/root/llm-engineering-finetuning
say "root: make finetune"
before=$(received)
timed setup enter root yes "git clone --quiet /srv/project.git $here && cd $here && make setup"
fetched=$(($(received) - before))
timed finetune enter root yes "cd $here && make finetune"
used=$(disk "$root$here")
kept=$(disk "$root/root" | awk -v used="$used" '{print $1 - used}')
python=$(enter root yes "$here/.venv/bin/python -c 'import platform; print(platform.python_version())'")
torch=$(enter root yes "$here/.venv/bin/python -c 'import torch; print(torch.__version__)'" 2>/dev/null)
memory=$(enter root yes "sed -n 's/.*\"peak_memory_bytes\": \([0-9]*\).*/\1/p' $here/outputs/latest/metrics.json")

name=$(sed -n 's/^PRETTY_NAME="Debian GNU\/Linux \([^"]*\)"/Debian \1/p' "$root/etc/os-release")
case $torch in *+cpu) build=CPU ;; *) build=CUDA ;; esac
# row TESTED: the line of the README's table, its figures so far.
row() {
  row="| $name | $python | $torch ($build) | $(gb "$fetched") | $(minutes "$setup") | $(gb "$used") + $(gb "$kept") | $(minutes "$finetune"), $(gb "$memory") | $1 | $(date +%F), $commit |"
  echo "$row"
}
row 'not yet run'

say "an ordinary user, in a folder with spaces and umlauts: make finetune"
enter root yes "useradd --create-home alice"
there='/home/alice/Für alle Fälle/llm-engineering-finetuning'
enter alice yes "mkdir -p '${there%/*}' && git clone --quiet /srv/project.git '$there' && cd '$there' && make finetune"

say "the same two without network"
enter root no "cd $here && make finetune"
enter alice no "cd '$there' && make finetune && .venv/bin/python tools/run.py --finetune --no-cache"
tested='not run'
if [ -n "$tests" ]; then
  say "root: make test, with what Debian brings for it"
  enter root yes "apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium cron >/dev/null"
  enter root yes "cd $here && make setup-sagemaker"
  timed seconds enter root yes "cd $here && make test"
  tested=$(minutes "$seconds")
  say "an ordinary user without network: make test-quick"
  enter alice no "cd '$there' && make test-quick"
fi

row "$tested"
say "passed"
if [ -n "$write" ]; then
  python3 - "$name" "$build" "$row" <<'PYTHON'
import pathlib, re, sys

name, build, row = sys.argv[1:]
readme = pathlib.Path("README.md")
text = readme.read_text(encoding="utf-8")
head, table, tail = re.split(r"(?<=<!-- fresh machines -->\n)(.*?)(?=<!-- end -->)", text, flags=re.S)
same = re.compile(rf"^\| {re.escape(name)} \|.*\({build}\).*\n", flags=re.M)
table = same.sub("", table) + row + "\n"
readme.write_text(head + table + tail, encoding="utf-8")
PYTHON
fi
