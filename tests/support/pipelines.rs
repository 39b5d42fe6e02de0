//! The reference pipelines with names of a test's own, so that tests share servers.

/// As they are shipped.
pub const REFERENCE: &str = include_str!("../../pipelines.yaml");

/// The reference pipelines with topics, groups and indexes that begin with `prefix`.
pub fn prefixed(prefix: &str) -> String {
    let mut text = REFERENCE.to_owned();
    for topic in ["content-events", "user-events", "social-events", "order-events"] {
        text = text.replace(topic, &format!("{prefix}{topic}"));
    }
    // A short heartbeat, so that a second process gets its partitions while there is still something to do.
    let kafka =
        format!("kafka: {{ group_prefix: \"{prefix}\", heartbeat: 200ms, session_timeout: 6s, bootstrap:");
    text = text.replace("kafka: { bootstrap:", &kafka);
    let (head, rest) = text.split_once("\nindexes:\n").unwrap();
    let (indexes, pipelines) = rest.split_once("\npipelines:\n").unwrap();
    let (mut indexes, mut pipelines) = (format!("\n{indexes}"), pipelines.to_owned());
    for index in ["posts", "users", "notifications", "orders"] {
        indexes = indexes.replace(&format!("\n  {index}:\n"), &format!("\n  {prefix}{index}:\n"));
        pipelines = pipelines.replace(&format!("index: {index}\n"), &format!("index: {prefix}{index}\n"));
    }
    format!("{head}\nindexes:\n{indexes}\npipelines:\n{pipelines}")
}
