#!/usr/bin/env bash
# Makes the README's pictures from the real program: assets/screenshots/*.svg.
# Needs tmux, python3 and a redis-server (on PATH, or DUPLEX_REDIS_SERVER); DUPLEX names the program.
set -euo pipefail
cd "$(dirname "$0")/.."

program=${DUPLEX:-target/release/duplex}
server=${DUPLEX_REDIS_SERVER:-$(command -v redis-server || command -v valkey-server || true)}
for need in tmux python3; do
    command -v "$need" >/dev/null || { echo "$need is not installed: install it with your package manager" >&2; exit 2; }
done
[ -x "$program" ] || { echo "$program is not there: run make build" >&2; exit 2; }
[ -n "$server" ] || { echo "no redis-server: install one, or set DUPLEX_REDIS_SERVER" >&2; exit 2; }
program=$(realpath "$program")

columns=100 rows=30 pictures=assets/screenshots
work=$(mktemp -d)
started=()
mkdir -p "$pictures"

# a server of its own for each picture: one that ends does not take the next with it
server_number=0
mux() { tmux -S "$work/tmux-$server_number" "$@"; }
finish() {
    mux kill-server 2>/dev/null || true
    if [ -f "$work/home/state/engine.lock" ]; then
        engine=$(DUPLEX_HOME="$work/home" "$program" status --json 2>/dev/null |
            python3 -c 'import json,sys; print(json.load(sys.stdin)["engine_pid"])' 2>/dev/null || true)
        [ -z "$engine" ] || kill "$engine" 2>/dev/null || true
    fi
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap finish EXIT

# open COMMAND…: a terminal of its own for it
open() {
    mux kill-server 2>/dev/null || true
    server_number=$((server_number + 1))
    mux -f /dev/null new-session -d -x $columns -y $rows \
        env LC_ALL=C.UTF-8 TERM=tmux-256color COLORTERM=truecolor DUPLEX_HOME="$work/home" \
        DUPLEX_REDIS_SERVER="$server" "$@"
    mux set -g status off
    mux set -sg escape-time 0
}
keys() { mux send-keys "$@"; }
# shows WORDS: waits for them, a minute at most
shows() {
    for _ in $(seq 600); do
        if mux capture-pane -p | grep -qF -- "$1"; then return; fi
        sleep 0.1
    done
    echo "the screen never showed \"$1\":" >&2
    mux capture-pane -p >&2
    exit 1
}
# picture NAME TITLE
picture() {
    mux capture-pane -e -p -N | python3 assets/screenshots.py $columns $rows "$2" >"$pictures/$1.svg"
    echo "$pictures/$1.svg"
}
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

a=$(port) b=$(port)
for p in "$a" "$b"; do
    "$server" --port "$p" --bind 127.0.0.1 --save "" --appendonly no --dir "$work" --requirepass s3cret \
        --repl-diskless-sync-delay 0 --repl-backlog-size 64mb >/dev/null &
    started+=($!)
done

open "$program" --lang en
shows "No sync job yet"
keys n
shows "[ sync-"
keys Tab "127.0.0.1:$a" Tab Tab Tab s3cret Tab Tab Tab "127.0.0.1:$b" Tab Tab Tab s3cret
shows "127.0.0.1:$b"
picture wizard-1 "Step 1: source and target"
keys PageDown
shows SELECTED
picture wizard-2 "Step 2: policy and objects"
keys PageDown
shows "Both ways"
keys PageDown
shows "Precheck passed"
picture wizard-4 "Step 4: precheck"
keys W PageDown
shows "Start both links"
keys PageDown
shows "synchronizing both ways"
keys Escape
shows "new job"
picture jobs "The list of jobs"
keys q

open "$program" demo --lang en --rate 400
shows "synchronizing both ways"
until mux capture-pane -p | grep -qF " 1m "; do keys r; sleep 0.5; done
sleep 65 # until the charts of a minute are full
picture dashboard "The dashboard"
keys k
shows "Again and again" # the dashboard names these keys too
picture conflicts "Conflicts as they are settled"
keys Escape
keys L
shows "双向同步中"
picture dashboard-zh "The dashboard in Chinese"
keys q
for _ in $(seq 100); do mux has-session 2>/dev/null || break; sleep 0.1; done
