# Redis, append-only and without eviction, as Millrace asks of it; one node with a TLS port and a user with a password.
PORT_VAR=MILLRACE_REDIS_PORT
PORT="${MILLRACE_REDIS_PORT:-16379}"
TLS_PORT=$((PORT + 1))
PORTS="$PORT $TLS_PORT"
VAR=REDIS_URL
OWN="redis://$BIND:$PORT"
NEEDS="redis-server:redis-server redis-cli:redis-tools openssl:openssl"

install() { :; }

configure() {
  mkdir -p "$DIR/data"
  cat >"$DIR/redis.conf" <<C
bind $BIND
port $PORT
tls-port $TLS_PORT
tls-cert-file $CERTS/server.crt
tls-key-file $CERTS/server.key
tls-ca-cert-file $CERTS/ca.pem
tls-auth-clients no
user millrace on >$(<"$CERTS/password") ~* &* +@all
dir $DIR/data
appendonly yes
appendfsync ${MILLRACE_REDIS_FSYNC:-everysec}
save ""
maxmemory 1gb
maxmemory-policy noeviction
C
}

launch() { daemon redis redis-server "$DIR/redis.conf"; }

# PING is answered, be it with an error that asks for a password; a TLS port only accepts the connection.
answers() {
  local hostport="${1#*://}" host port reply
  hostport="${hostport##*@}"; hostport="${hostport%%/*}"; hostport="${hostport%%\?*}"
  host="${hostport%:*}"; port="${hostport##*:}"; [ "$port" != "$hostport" ] || port=6379
  [[ $1 != rediss:* ]] || { connects "$host" "$port"; return; }
  reply="$(timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "PING\r\n" >&3 && head -n 1 <&3' "$host" "$port" 2>/dev/null)"
  [[ $reply == +PONG* || $reply == -NOAUTH* ]]
}

env_lines() {
  export_line REDIS_URL "${REDIS_URL:-$OWN}"
  ! external || return 0
  export_line MILLRACE_TEST_REDIS_AUTH "redis://millrace:$(cat "$CERTS/password" 2>/dev/null || true)@$BIND:$PORT"
  export_line MILLRACE_TEST_REDIS_TLS "rediss://$BIND:$TLS_PORT"
}
