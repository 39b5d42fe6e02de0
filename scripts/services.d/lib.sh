# What every service shares: places, packages, certificates, processes. Sourced by scripts/services.
#
# A service file sets NEEDS (binary:debian-package ...), VAR (the variable that names a server of the user's), OWN
# (its value for ours), PORTS and PROCESSES, and defines install, configure, launch, answers ADDRESS and env_lines.
# The verbs below are the same for all of them.
BIND=127.0.0.1
ROOT="${MILLRACE_SERVICES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace/services}"
CERTS="$ROOT/certificates"
PROCESSES=1

report() { printf '%s: %s\n' "$SERVICE" "$*"; }
say() { report "$@" >&2; }
die() { say "$@"; exit 1; }

# --- packages

missing_packages() {
  ! external || return 0
  local need
  for need in $NEEDS; do command -v "${need%%:*}" >/dev/null || echo "${need#*:}"; done
}

install_packages() {
  local SERVICE=services as=() log="$ROOT/apt.log"
  if [ "$(id -u)" -ne 0 ]; then as=(sudo -n); fi
  if ! command -v apt-get >/dev/null || ! ${as[@]+"${as[@]}"} true 2>/dev/null; then
    die "these Debian packages (or what they hold) are missing and cannot be installed from here: $*"
  fi
  local get=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -y --no-install-recommends -o DPkg::Lock::Timeout=180)
  say "installing $*"
  mkdir -p "$ROOT"
  ${as[@]+"${as[@]}"} "${get[@]}" install "$@" >"$log" 2>&1 && return
  { ${as[@]+"${as[@]}"} "${get[@]}" update && ${as[@]+"${as[@]}"} "${get[@]}" install "$@"; } >>"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "apt-get install $* failed (log: $log)"; }
}

# maven GOAL ARGS...: with a local repository of its own, because two Mavens may not share one at a time.
maven() {
  local repository="$ROOT/install/$SERVICE.m2" log="$DIR/maven.log"
  MAVEN_OPTS="${MAVEN_OPTS:--XX:TieredStopAtLevel=1}" mvn -B -C --no-transfer-progress -Dstyle.color=never \
    -Dmaven.repo.local="$repository" "$@" >"$log" 2>&1 </dev/null ||
    { grep -m 3 ERROR "$log" >&2; die "the download from Maven Central failed (log: $log)"; }
  rm -rf "$repository"
}

# --- certificates: a CA for the tests, a server certificate for loopback, a client certificate, a password

make_certificates() (
  [ ! -f "$CERTS/password" ] || return 0
  mkdir -p "$ROOT"
  exec 8>"$ROOT/certificates.lock"; flock 8
  [ ! -f "$CERTS/password" ] || return 0
  umask 077; rm -rf "$CERTS"; mkdir -p "$CERTS"; cd "$CERTS"
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 3650 \
      -subj '/CN=Millrace test CA' -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign'
    signed server serverAuth && signed client clientAuth
  } 2>openssl.log || { cat openssl.log >&2; SERVICE=certificates die "openssl failed"; }
  cat server.key server.crt >server.pem
  openssl rand -hex 16 >password
)
signed() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=millrace-$1"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -out "$1.crt" \
    -extfile <(printf 'subjectAltName=DNS:localhost,IP:%s\nextendedKeyUsage=%s\n' "$BIND" "$2")
}

# --- processes: known by pid and start time, so that a recycled pid is never signalled

# Nothing for one that is dead with all its threads, and waits for its parent to notice.
started_at() { awk '{sub(/^.*\) /, ""); if ($1 != "Z" || $18 > 1) print $20}' "/proc/$1/stat" 2>/dev/null; }
pids() {
  local file pid at
  for file in "$DIR"/*.pid; do
    [ -s "$file" ] && read -r pid at <"$file" && [ -n "$at" ] && [ "$(started_at "$pid")" = "$at" ] && echo "$pid"
  done
  return 0
}
running() { [ "$(pids | wc -l)" -eq "$PROCESSES" ]; }
record_pid() { echo "$2 $(started_at "$2")" >"$DIR/$1.pid"; }

# daemon NAME COMMAND...: in a session of its own, without our terminal and our lock.
daemon() {
  local name="$1"; shift
  setsid "$@" >>"$DIR/$name.log" 2>&1 </dev/null 9>&- &
  record_pid "$name" $!
}
await() { # await SECONDS COMMAND...
  local until=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    running || { tail -qn 15 "$DIR"/*.log >&2; die "died before it was ready (logs: $DIR)"; }
    [ "$SECONDS" -lt "$until" ] || { tail -qn 15 "$DIR"/*.log >&2; die "not ready in time (logs: $DIR)"; }
    sleep 0.2
  done
}
connects() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }
milliseconds() { local now=${EPOCHREALTIME/[.,]/}; echo $((now / 1000)); }

# --- the verbs

external() { [ -n "${!VAR:-}" ] && [ "${!VAR}" != "$OWN" ]; }
export_line() { printf 'export %s=%q\n' "$1" "$2"; }
lock() { mkdir -p "$DIR"; exec 9>"$ROOT/$SERVICE.lock"; flock 9; }

start() {
  if external; then
    answers "${!VAR}" || die "the server that $VAR names does not answer"
    say "using the server that $VAR names"; return
  fi
  lock
  if running; then await 300 answers "$OWN"; say "already running, $OWN"; return; fi
  end TERM
  mkdir -p "$ROOT/install"; install
  local port
  for port in $PORTS; do
    ! connects "$BIND" "$port" || die "port $port is taken by another program (set $PORT_VAR to use other ports)"
  done
  configure
  echo "$SERVICE"
  local from; from=$(milliseconds)
  launch
  await 300 answers "$OWN"
  say "ready, $OWN, after $(($(milliseconds) - from)) ms"
}

# end SIGNAL: the processes of this service, with SIGKILL for what is left after 30 s.
end() {
  local pid tries
  for pid in $(pids); do kill -s "$1" "$pid" 2>/dev/null || true; done
  for ((tries = 0; tries < 150; tries++)); do [ -n "$(pids)" ] || break; sleep 0.2; done
  for pid in $(pids); do say "no exit within 30 s, killed"; kill -KILL "$pid" 2>/dev/null || true; done
  rm -f "$DIR"/*.pid
}
stop_service() { lock; if [ -n "$(pids)" ]; then end TERM; say stopped; else say "not running"; fi; }
kill_service() { lock; end KILL; say killed; }
status_service() {
  local pid rss
  if external; then
    answers "${!VAR}" || { report "$VAR names a server, no answer"; return 3; }
    report "$VAR names a server, it answers"
  elif running; then
    rss="$(for pid in $(pids); do cat "/proc/$pid/status"; done | awk '/^VmRSS/ {kib += $2} END {print int(kib / 1024)}')"
    report "running, $OWN, $rss MiB"
  else
    report stopped; return 3
  fi
}
wipe_service() { stop_service; rm -rf "$DIR"; say "data deleted"; }
