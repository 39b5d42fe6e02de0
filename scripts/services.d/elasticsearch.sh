# Elasticsearch, one node without security: the real server as Elastic publishes it for integration tests on Maven
# Central. It carries few modules: no painless, no GET / (ask /_cluster/health), no _delete_by_query, no ILM.
VERSION=8.19.21
PORT_VAR=MILLRACE_ES_PORT
PORT="${MILLRACE_ES_PORT:-19200}"
TRANSPORT_PORT=$((PORT + 100))
PORTS="$PORT $TRANSPORT_PORT"
VAR=ES_URL
OWN="http://$BIND:$PORT"
NEEDS="java:default-jre-headless mvn:maven unshare:util-linux curl:curl"
HOME_DIR="$ROOT/install/elasticsearch-$VERSION"

install() {
  [ ! -f "$HOME_DIR/.done" ] || return 0
  say "installing $VERSION from Maven Central"
  rm -rf "$HOME_DIR" "$DIR/unpacked"; mkdir -p "$DIR/unpacked"
  cd "$DIR/unpacked" # the plugin leaves its markers in ./target
  maven org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack -DoutputDirectory="$DIR/unpacked" \
    -Dartifact=org.elasticsearch.distribution.integ-test-zip:elasticsearch:"$VERSION":zip
  mv "elasticsearch-$VERSION" "$HOME_DIR"
  chmod +x "$HOME_DIR"/bin/* # Maven drops the mode bits
  cd "$ROOT"; rm -rf "$DIR/unpacked"
  touch "$HOME_DIR/.done"
}

configure() {
  mkdir -p "$DIR"/{config/jvm.options.d,data,logs,tmp}
  cp "$HOME_DIR"/config/{jvm.options,log4j2.properties} "$DIR/config/"
  printf '%s\n' -Xms512m -Xmx512m -XX:-HeapDumpOnOutOfMemoryError -XX:-AlwaysPreTouch >"$DIR/config/jvm.options.d/heap.options"
  cat >"$DIR/config/elasticsearch.yml" <<Y
cluster.name: millrace
node.name: millrace-1
path.data: $DIR/data
path.logs: $DIR/logs
network.host: $BIND
http.port: $PORT
transport.port: $TRANSPORT_PORT
discovery.type: single-node
xpack.security.enabled: false
xpack.ml.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
action.auto_create_index: false
Y
}

# Elasticsearch refuses uid 0. A user namespace that maps root to another uid needs no account and no chown.
launch() {
  local as=() java
  if [ "$(id -u)" -eq 0 ]; then
    as=(unshare --user --map-user=1000 --map-group=1000)
    "${as[@]}" true 2>/dev/null || die "Elasticsearch refuses to run as root and there are no user namespaces here: run this as another user"
  fi
  java="$(readlink -f "$(command -v java)")"
  # -d: the launcher ends when the node is up; the server, which writes the pid file, stays.
  ES_PATH_CONF="$DIR/config" ES_JAVA_HOME="${java%/bin/java}" ES_TMPDIR="$DIR/tmp" CLI_JAVA_OPTS="-Xmx64m -XX:TieredStopAtLevel=1" \
    setsid ${as[@]+"${as[@]}"} "$HOME_DIR/bin/elasticsearch" -d -p "$DIR/server" >"$DIR/elasticsearch.log" 2>&1 </dev/null 9>&- ||
    { tail -qn 15 "$DIR/elasticsearch.log" "$DIR/logs/millrace.log" >&2; die "did not start (logs: $DIR/logs)"; }
  record_pid elasticsearch "$(<"$DIR/server")"
}

answers() { curl -fsS --noproxy '*' -m 5 -o /dev/null "$1/_cluster/health?wait_for_status=yellow&timeout=1s" 2>/dev/null; }

env_lines() { export_line ES_URL "${ES_URL:-$OWN}"; }
