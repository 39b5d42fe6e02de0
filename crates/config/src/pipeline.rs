//! A pipeline: what it reads, its steps and sinks, and the numbers it runs by.

use millrace_core::{
    TopicSpec,
    settings::{Key, Node, NodeKind, Problems},
};
use tokio::time::Duration;

use crate::{
    events::Events,
    fields::Fields,
    names::{Name, unknown},
    part::Part,
    plan::{
        BatchPlan, FromPlan, GapPolicy, InFlightPlan, Output, PipelinePlan, RecordFormat, SinkPlan, TopicPlan,
    },
    policy,
    sinks::Sinks,
    steps::Steps,
    tables,
    world::{Later, World},
};

const DEAD_LETTERS_SUFFIX: &str = ".dlq";

/// Reads one entry of `pipelines`. None when a problem was added without which there is no plan.
pub(crate) fn pipeline(
    key: &Key,
    node: &Node,
    world: &World<'_>,
    later: &mut Later,
    problems: &mut Problems,
) -> Option<PipelinePlan> {
    let name = key.text.as_str();
    let path = format!("pipelines.{name}");
    Name::of_key(key).check(&path, problems);
    let part = Part::new(node, path, &tables::PIPELINE);
    let from_part = part.part("from", &tables::FROM);
    let (events, fields, from) = from(&from_part, world, problems);
    let partitions = from.as_ref().and_then(|from| Some(world.topics.get(&from.topic)?.spec.partitions));
    let mut steps = Steps {
        world,
        pipeline: name,
        events: &events,
        fields,
        filtered: false,
        partitions,
        later,
        problems,
    };
    let step_plans =
        part.settings.node("steps").map(|list| steps.read(list, &part.path_of("steps"))).unwrap_or_default();
    let Steps { fields, filtered, later, problems, .. } = steps;
    let retry = policy::retry(&part.part("retry", &tables::RETRY), None, problems);
    let broker = from.as_ref().map(|from| from.broker.as_str());
    let (events, fields) = (&events, &fields);
    let mut sinks = Sinks { world, pipeline: name, broker, retry, events, fields, filtered, later, problems };
    let to = part.settings.node("to").filter(|to| matches!(to.kind, NodeKind::Map(_)));
    let sink_plans = to.map(|to| sinks.read(to, &part.path_of("to"))).unwrap_or_default();
    let patience = from.as_ref().and_then(|from| world.handovers.get(&from.broker)).copied();
    let drain_timeout = drain_timeout(&part, patience, problems);
    let batch = batch(&part.part("batch", &tables::BATCH), problems);
    let in_flight = in_flight(&part.part("in_flight", &tables::IN_FLIGHT), problems);
    let send_timeout = send_timeout(&part, drain_timeout, problems);
    let commit_interval = part.duration_within("commit_interval", ("1ms", "1m"), problems);
    let letters_part = part.part("dead_letters", &tables::DEAD_LETTERS);
    let dead_letters = dead_letters(&letters_part, &from_part, from.as_ref(), world, problems);
    let transactions = part.settings.flag("transactions");
    if let (Some(true), Some(from)) = (transactions, &from) {
        within_one_broker(name, from, &sink_plans, problems);
    }
    Some(PipelinePlan {
        name: name.to_owned(),
        from: from?,
        steps: step_plans,
        sinks: sink_plans,
        batch,
        in_flight,
        retry,
        dead_letters: dead_letters?,
        dead_letters_per_minute_max: letters_part.count("per_minute_max"),
        transactions,
        remembers: None,
        send_timeout,
        drain_timeout,
        commit_interval,
    })
}

/// A transaction is of one broker: a topic elsewhere cannot be part of it.
fn within_one_broker(pipeline: &str, from: &FromPlan, sinks: &[SinkPlan], problems: &mut Problems) {
    for sink in sinks {
        let Output::Topic { topic, broker, .. } = &sink.output else { continue };
        if *broker != from.broker {
            let message = format!(
                "'{topic}' lies on the broker '{broker}', outside the transactions of '{}': it is written at least once",
                from.broker
            );
            let advice = format!(
                "leave 'pipelines.{pipeline}.transactions' out if that will do, or write a topic on '{}'",
                from.broker
            );
            problems.suggest(sink.settings.at_key("topic"), &sink.settings.path_of("topic"), message, advice);
        }
    }
}

fn from(part: &Part, world: &World<'_>, problems: &mut Problems) -> (Events, Fields, Option<FromPlan>) {
    let settings = &part.settings;
    let topic = settings.text("topic").filter(|topic| !topic.is_empty());
    let declared = topic.and_then(|topic| world.topics.get(topic));
    if let (Some(node), None, Some(_)) = (settings.node("topic"), declared, topic) {
        unknown(node, "topic", &part.path_of("topic"), world.topics.keys().map(String::as_str), problems);
    }
    let format = match settings.text("format") {
        Some("bytes") => RecordFormat::Bytes,
        _ => RecordFormat::Json,
    };
    let all = Events { format, listed: None };
    let listed = settings.node("events").map(|node| {
        if matches!(&node.kind, NodeKind::List(items) if items.is_empty()) {
            let advice = "list event types, or leave 'events' out to read all";
            problems.suggest(
                node.at,
                &part.path_of("events"),
                "no event type: nothing would be read",
                advice,
            );
        }
        all.check_list(node, &part.path_of("events"), problems)
    });
    let written = topic.is_some_and(|topic| world.written.contains(topic));
    let fields = if format == RecordFormat::Json && !written {
        Fields::Event { added: Vec::new() }
    } else {
        Fields::Any
    };
    let plan = declared.zip(topic).map(|(declared, topic)| FromPlan {
        topic: topic.to_owned(),
        broker: declared.broker.clone(),
        events: listed.as_ref().map(|types| types.keys().cloned().collect()),
        format,
        on_gap: match settings.text("on_gap") {
            Some("continue") => GapPolicy::Continue,
            _ => GapPolicy::Stop,
        },
    });
    (Events { format, listed }, fields, plan)
}

fn batch(part: &Part, problems: &mut Problems) -> BatchPlan {
    BatchPlan {
        records: part.count("records"),
        bytes: part.size_within("bytes", ("1KiB", "64MiB"), problems),
        linger: part.duration_within("linger", ("0s", "1m"), problems),
    }
}

fn in_flight(part: &Part, problems: &mut Problems) -> InFlightPlan {
    let mut bytes = |key| part.size_within(key, ("1KiB", "1GiB"), problems);
    InFlightPlan {
        outputs: part.count("outputs"),
        output_bytes: bytes("output_bytes"),
        queue_bytes: bytes("queue_bytes"),
        prefetch_bytes: bytes("prefetch_bytes"),
    }
}

/// A partition that is taken away is another process's when the broker's patience ends, so work on it must end before.
fn drain_timeout(part: &Part, patience: Option<Duration>, problems: &mut Problems) -> Duration {
    let timeout = part.duration_within("drain_timeout", ("1ms", "10m"), problems);
    let Some(patience) = patience.filter(|patience| *patience < timeout) else { return timeout };
    if part.has("drain_timeout") {
        let message = format!(
            "is longer than the broker waits for a partition it takes away: {} ms",
            patience.as_millis()
        );
        let advice = "make it shorter, or the broker's session longer";
        problems.suggest(part.at_key("drain_timeout"), &part.path_of("drain_timeout"), message, advice);
    }
    patience
}

/// A drain waits for calls under way, so each must end within it.
fn send_timeout(part: &Part, drain_timeout: Duration, problems: &mut Problems) -> Duration {
    let timeout = part.duration_within("send_timeout", ("1ms", "10m"), problems);
    if timeout > drain_timeout && part.has("send_timeout") {
        let message = "send_timeout is longer than drain_timeout";
        problems.add(part.at_key("send_timeout"), &part.path_of("send_timeout"), message);
    }
    timeout.min(drain_timeout)
}

fn dead_letters(
    part: &Part,
    from_part: &Part,
    from: Option<&FromPlan>,
    world: &World<'_>,
    problems: &mut Problems,
) -> Option<TopicSpec> {
    let retention = part.duration_within("retention", ("1m", "36500d"), problems);
    let given = part.settings.node("topic").filter(|node| node.text().is_some_and(|text| !text.is_empty()));
    let from = from?;
    let name = match given {
        Some(node) => {
            Name::of_value(node)?.check_topic(&part.path_of("topic"), problems);
            node.text()?.to_owned()
        }
        None => {
            let name = format!("{}{DEAD_LETTERS_SUFFIX}", from.topic);
            let key = Key { at: from_part.at_key("topic"), text: name.clone() };
            Name::of_key(&key).check_topic(&from_part.path_of("topic"), problems);
            name
        }
    };
    if let Some(declared) = world.topics.get(&name) {
        check_declared(part, &name, declared, from, problems);
        return Some(declared.spec.clone());
    }
    let source = &world.topics.get(&from.topic)?.spec;
    Some(TopicSpec {
        name,
        retention_ms: u64::try_from(retention.as_millis()).ok(),
        retention_bytes: None,
        compact: false,
        ..source.clone()
    })
}

fn check_declared(part: &Part, name: &str, declared: &TopicPlan, from: &FromPlan, problems: &mut Problems) {
    if declared.broker != from.broker {
        let message = format!("'{name}' lies on the broker '{}', not on '{}'", declared.broker, from.broker);
        let advice = "dead letters stay on the broker of the topic they come from";
        problems.suggest(part.at_key("topic"), &part.path_of("topic"), message, advice);
    }
    if part.has("retention") {
        let message = format!("has no effect: '{name}' is declared under 'topics'");
        problems.suggest(
            part.at_key("retention"),
            &part.path_of("retention"),
            message,
            format!("set it at 'topics.{name}.retention'"),
        );
    }
}
