# Apache Kafka, one KRaft node: PLAINTEXT, SASL_SSL (SCRAM and PLAIN) and TLS that asks for a client certificate.
# The laboratory asks for an older one: see there.
VERSION="${MILLRACE_KAFKA_VERSION:-4.3.1}"
PORT_VAR=MILLRACE_KAFKA_PORT
PORT="${MILLRACE_KAFKA_PORT:-19092}"
CONTROLLER_PORT=$((PORT + 1)) SASL_PORT=$((PORT + 2)) MTLS_PORT=$((PORT + 3))
PORTS="$PORT $CONTROLLER_PORT $SASL_PORT $MTLS_PORT"
VAR=KAFKA_BROKERS
OWN="$BIND:$PORT"
NEEDS="java:default-jre-headless mvn:maven openssl:openssl"
LIBS="$ROOT/install/kafka-$VERSION"
# An older version does not start on the data of a newer one.
DATA="$DIR/data-$VERSION"
TEST_USER=millrace

install() {
  [ ! -f "$LIBS/.done" ] || return 0
  say "installing $VERSION from Maven Central"
  rm -rf "$LIBS"; mkdir -p "$LIBS"
  cat >"$DIR/pom.xml" <<X
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
  <groupId>millrace</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$VERSION</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
  </dependencies>
</project>
X
  maven -f "$DIR/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$LIBS"
  touch "$LIBS/.done"
}

configure() {
  logging
  # A forgotten topic must show as an error, as it does on Redpanda: nothing is created by being asked for.
  # Sessions may be short, so that a test of a dead consumer takes two seconds and not ten.
  cat >"$DIR/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=$BIND:$CONTROLLER_PORT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://$BIND:$PORT,CONTROLLER://$BIND:$CONTROLLER_PORT,SASL://$BIND:$SASL_PORT,MTLS://$BIND:$MTLS_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MTLS:SSL
ssl.keystore.type=PEM
ssl.keystore.location=$CERTS/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$CERTS/ca.pem
listener.name.mtls.ssl.client.auth=required
listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_$TEST_USER="$(<"$CERTS/password")";
log.dirs=$DATA
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=16777216
num.partitions=3
num.network.threads=2
num.io.threads=4
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2
P
  [ ! -f "$DATA/meta.properties" ] || return 0
  local user; user="[name=$TEST_USER,password=$(<"$CERTS/password")]"
  kafka_java kafka.tools.StorageTool format --standalone --cluster-id bWlsbHJhY2UtdGVzdC1hMQ --config "$DIR/server.properties" \
    --add-scram "SCRAM-SHA-256=$user" --add-scram "SCRAM-SHA-512=$user" >"$DIR/format.log" 2>&1 ||
    { tail -n 15 "$DIR/format.log" >&2; die "the storage could not be formatted"; }
}
logging() {
  mkdir -p "$DIR"
  printf '%s\n' 'status = error' 'appender.c.type = Console' 'appender.c.name = C' 'appender.c.target = SYSTEM_ERR' \
    'appender.c.layout.type = PatternLayout' 'appender.c.layout.pattern = [%d] %p %m (%c)%n' \
    'rootLogger.level = ${sys:log.level:-WARN}' 'rootLogger.appenderRef.c.ref = C' >"$DIR/log4j2.properties"
}
kafka_java() { java -XX:TieredStopAtLevel=1 -Xmx256m -cp "$LIBS/*" -Dlog4j2.configurationFile="file:$DIR/log4j2.properties" "$@"; }

launch() {
  daemon kafka java -Xms256m -Xmx512m -XX:+UseG1GC -Djava.awt.headless=true -Dlog.level=INFO \
    -Dlog4j2.configurationFile="file:$DIR/log4j2.properties" -cp "$LIBS/*" kafka.Kafka "$DIR/server.properties"
}

# One of the brokers answers an ApiVersions request (key 18, version 0, correlation id 1) with that correlation id.
# A broker that wants TLS says nothing to it: an accepted connection has to do for those.
answers() {
  local broker reply
  for broker in ${1//,/ }; do
    if [ "$1" != "$OWN" ]; then connects "${broker%:*}" "${broker##*:}" && return 0; continue; fi
    reply="$(timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "\0\0\0\012\0\022\0\0\0\0\0\001\377\377" >&3 && head -c 8 <&3 | od -An -tx1' \
      "${broker%:*}" "${broker##*:}" 2>/dev/null | tr -d ' \n')"
    [ "${reply:8}" != 00000001 ] || return 0
  done
  return 1
}

env_lines() {
  export_line KAFKA_BROKERS "${KAFKA_BROKERS:-$OWN}"
  ! external || return 0
  export_line MILLRACE_TEST_KAFKA_SASL "$BIND:$SASL_PORT"
  export_line MILLRACE_TEST_KAFKA_TLS "$BIND:$MTLS_PORT"
  export_line MILLRACE_TEST_KAFKA_USER "$TEST_USER"
  export_line MILLRACE_TEST_KAFKA_PASSWORD "$(cat "$CERTS/password" 2>/dev/null || true)"
  export_line MILLRACE_TEST_CA_FILE "$CERTS/ca.pem"
  export_line MILLRACE_TEST_CLIENT_CERT "$CERTS/client.crt"
  export_line MILLRACE_TEST_CLIENT_KEY "$CERTS/client.key"
}

# tool NAME ARGS...: --bootstrap-server is given where the caller gives none.
tool() {
  local class="${1:?which tool: topics, groups, configs, produce, consume or the name of a class}"; shift
  case "$class" in
    topics) class=org.apache.kafka.tools.TopicCommand ;;
    groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    configs) class=kafka.admin.ConfigCommand ;;
    produce) class=org.apache.kafka.tools.ConsoleProducer ;;
    consume) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
  esac
  [[ " $* " == *" --bootstrap-server "* ]] || set -- --bootstrap-server "${KAFKA_BROKERS:-$OWN}" "$@"
  [ -f "$LIBS/.done" ] || die "not installed: run scripts/services start kafka"
  [ -f "$DIR/log4j2.properties" ] || logging
  kafka_java "$class" "$@"
}
