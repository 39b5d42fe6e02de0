# A Redis Cluster of three masters: what is one script on one node must stay in one slot here.
PORT_VAR=MILLRACE_REDIS_CLUSTER_PORT
PORT="${MILLRACE_REDIS_CLUSTER_PORT:-16401}"
NODES="$PORT $((PORT + 1)) $((PORT + 2))"
PORTS="$NODES $((PORT + 10000)) $((PORT + 10001)) $((PORT + 10002))" # and the cluster bus
PROCESSES=3
VAR=MILLRACE_TEST_REDIS_CLUSTER
OWN="$BIND:$PORT,$BIND:$((PORT + 1)),$BIND:$((PORT + 2))"
NEEDS="redis-server:redis-server redis-cli:redis-tools"

install() { :; }

configure() {
  local port
  for port in $NODES; do
    mkdir -p "$DIR/$port"
    printf '%s\n' "bind $BIND" "port $port" "dir $DIR/$port" 'cluster-enabled yes' 'cluster-node-timeout 5000' \
      'appendonly yes' 'save ""' 'maxmemory 256mb' 'maxmemory-policy noeviction' >"$DIR/$port/redis.conf"
  done
}

launch() {
  local port
  for port in $NODES; do daemon "$port" redis-server "$DIR/$port/redis.conf"; done
  for port in $NODES; do await 120 cli "$port" ping; done
  # Nodes that were joined before remember it.
  [ "$(cli "$PORT" cluster info | awk -F: '/^cluster_known_nodes/ {print $2 + 0}')" -gt 1 ] ||
    redis-cli --cluster create ${OWN//,/ } --cluster-yes >"$DIR/create.log" 2>&1 ||
    { tail -n 15 "$DIR/create.log" >&2; die "the cluster could not be made"; }
}

cli() { redis-cli -h "$BIND" -p "$@"; }

# Every node sees all slots served.
answers() {
  local node
  for node in ${1//,/ }; do
    node="${node#*://}"
    redis-cli -h "${node%:*}" -p "${node##*:}" cluster info 2>/dev/null | grep -q '^cluster_state:ok' || return 1
  done
}

env_lines() { export_line MILLRACE_TEST_REDIS_CLUSTER "${MILLRACE_TEST_REDIS_CLUSTER:-$OWN}"; }
