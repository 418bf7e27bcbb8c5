#!/usr/bin/env bash
# rdb-corpus.sh [SERVER...]: makes tests/corpus/rdb/SERVER.rdb anew with each server named, or with all at hand.
# Servers are folders with bin/redis-cli and bin/up under $REDIS_SERVERS. Commands that a server does not know are left out.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
servers=${REDIS_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/redis-servers}
[ $# -gt 0 ] || set -- $(ls "$servers")
port=${RDB_CORPUS_PORT:-24611}
for name in "$@"; do
  bin=$servers/$name/bin
  args=()
  case $name in redis-5.0|redis-6.*) ;; *) args+=(--enable-debug-command yes) ;; esac
  case $name in redis-6.0) args+=(--maxmemory-policy allkeys-lru) ;; redis-7.0) args+=(--maxmemory-policy allkeys-lfu) ;; esac
  read -r pid dir < <("$bin/up" "$port" "${args[@]}")
  "$bin/redis-cli" -p "$port" <"$here/corpus/rdb/populate.txt" >"$dir/replies" 2>&1
  "$bin/redis-cli" -p "$port" SAVE >>"$dir/replies"
  cp "$dir/dump.rdb" "$here/corpus/rdb/$name.rdb"
  kill "$pid"
  while kill -0 "$pid" 2>/dev/null; do read -r -t 0.05 <> <(:) || :; done
  printf '%s: %s bytes, %s errors\n' "$name" "$(stat -c %s "$here/corpus/rdb/$name.rdb")" "$(grep -ciE '^\(?err|unknown|^ERR' "$dir/replies" || :)"
  rm -rf "$dir"
done
