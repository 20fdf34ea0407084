#!/usr/bin/env bash
# Shows the driver called as kubelet calls it: init, mount, write, read back, look in the store,
# unmount. Without more it uses s3fs and a store on loopback; with BUCKET, URL, AK_ID and AK_SECRET
# set, ossfs and that bucket. OSSFS names another program than ossfs or s3fs in PATH: an ossfs.
#
# usage: demo.sh DRIVER S3_STORE   (root; run by `make demo`)
set -euo pipefail

driver=$(realpath "$1")
store=$(realpath "$2")
[ "$(id -u)" = 0 ] || { echo "demo: root is needed, for mounting"; exit 1; }
[ -c /dev/fuse ] || { echo "demo: /dev/fuse is missing: modprobe fuse"; exit 1; }

work=$(mktemp -d /tmp/oss-demo.XXXXXX)
target="$work/pods/0f5c1a52/volumes/alicloud~oss/data"
store_pid=

clean_up() {
  status=$?
  trap - EXIT
  trap '' INT TERM
  [ ! -d "$target" ] || "$driver" unmount "$target" >/dev/null
  [ -z "$store_pid" ] || { kill "$store_pid" && wait "$store_pid"; } 2>/dev/null || true
  if mountpoint -q "$target"; then
    echo "demo: $target is still mounted, $work is left"
    exit 1
  fi
  rm -rf --one-file-system "$work"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

ossfs=ossfs
more=
if [ -n "${BUCKET:-}" ]; then
  : "${URL:?}" "${AK_ID:?}" "${AK_SECRET:?}"
  say "Using the bucket $BUCKET at $URL, and ${OSSFS:-ossfs}."
  ossfs=${OSSFS:-ossfs}
else
  say "Starting a store on loopback, and using ${OSSFS:-s3fs in the place of ossfs}."
  BUCKET=docker AK_ID=demo AK_SECRET=demo-secret ossfs=${OSSFS:-s3fs}
  more=" -o use_path_request_style"
  mkfifo "$work/url"
  "$store" --bucket "$BUCKET" --key "$AK_ID:$AK_SECRET" --log >"$work/url" 2>"$work/store.log" &
  store_pid=$!
  read -r URL <"$work/url"
  echo "The store serves the bucket $BUCKET at $URL."
fi

cat >"$work/config.json" <<CONFIG
{"ossfs": "$ossfs", "stateDir": "$work/state", "logFile": "$work/log/oss.log"}
CONFIG
export OSS_FLEXVOLUME_CONFIG="$work/config.json"

options() { # $1: the secret, or stars to show
  printf '{"bucket":"%s","url":"%s","akId":"%s","akSecret":"%s","otherOpts":"-o max_stat_cache_size=0 -o allow_other%s","kubernetes.io/readwrite":"rw"}' \
    "$BUCKET" "$URL" "$AK_ID" "$1" "$more"
}

call() { # the call as shown, then the arguments
  printf '$ oss %s\n' "$1"
  shift
  answer=$("$driver" "$@" 2>&1)
  printf '%s\n' "$answer"
  case $answer in '{"status":"Success"'*) ;; *) exit 1 ;; esac
}

say "kubelet finds the driver and asks what it can do:"
call init init

say "A Pod starts: kubelet makes the directory and has the bucket mounted there:"
mkdir -p "$target"
call "mount $target '$(options '***')'" mount "$target" "$(options "$AK_SECRET")"
findmnt -o TARGET,FSTYPE,OPTIONS "$target"

say "The Pod writes a file and reads it back:"
name="hello-from-a-pod-$$.txt"
(set -x && date -u >"$target/$name" && cat "$target/$name")
written=$(cat "$target/$name")

say "The Pod ends: kubelet has the bucket unmounted and removes the directory:"
call "unmount $target" unmount "$target"
rmdir "$target"

say "The object is in the store; another Pod finds it:"
if [ -n "$store_pid" ]; then
  grep -F "PUT /$BUCKET/$name" "$work/store.log" | tail -n 1
fi
target="$work/pods/77d0e3c4/volumes/alicloud~oss/data"
mkdir -p "$target"
call "mount $target '…'" mount "$target" "$(options "$AK_SECRET")"
(set -x && cat "$target/$name")
[ "$(cat "$target/$name")" = "$written" ]
rm "$target/$name"
call "unmount $target" unmount "$target"

say "What the driver's log says:"
cat "$work/log/oss.log"
if grep -F "$work" /proc/self/mountinfo || pgrep -af "$work/state" || [ -n "$(ls -A "$work/state/volumes")" ]; then
  echo "demo: something of the volumes is left"
  exit 1
fi
say "Nothing is left: no mount, no process, no key."
