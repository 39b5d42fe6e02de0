//! Which letters are meant: the topics to look into, and what a letter must be like.

use millrace_config::Plan;
use millrace_core::settings::suggest;
use millrace_runtime::{Letter, LetterId, Place};

use crate::{
    args::{Id, SelectArgs},
    report::Failure,
};

/// A topic of dead letters to look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The broker's name.
    pub broker: String,
    /// The topic's name.
    pub topic: String,
    /// Only these letters of it.
    pub ids: Option<Vec<LetterId>>,
}

/// What a letter must be like.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pipelines: Vec<String>,
    places: Vec<String>,
    reason: Option<String>,
    key: Option<String>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
}

/// Whether any option narrows what is meant.
pub fn narrows(args: &SelectArgs) -> bool {
    let listed = [args.topics.len(), args.pipelines.len(), args.places.len(), args.ids.len()];
    let given = [args.reason.is_some(), args.key.is_some(), args.since.is_some(), args.until.is_some()];
    listed.iter().any(|count| *count > 0) || given.contains(&true)
}

/// Whether a letter's topic and id are among those named, where some are.
pub fn names(args: &SelectArgs, topic: &str, at: LetterId) -> bool {
    let id = |id: &Id| id.at == at && id.topic.as_ref().is_none_or(|of| of == topic);
    (args.topics.is_empty() || args.topics.iter().any(|of| of == topic))
        && (args.ids.is_empty() || args.ids.iter().any(id))
}

/// A command that changes something must be told what.
pub fn require(narrowed: bool, all: bool, verb: &str) -> Result<(), Failure> {
    if narrowed || all {
        return Ok(());
    }
    let why = format!("which dead letters to {verb}? narrow them, as by --pipeline or --id, or say --all");
    Err(Failure::input(format!("{why}; 'millrace dlq list' shows them")))
}

impl Filter {
    /// Reads what was typed.
    pub fn of(plan: &Plan, args: &SelectArgs, now_ms: i64) -> Result<Self, Failure> {
        for place in &args.places {
            let kind = ["decode", "step", "lookup", "sink"].contains(&place.as_str());
            if !kind && let Err(why) = place.parse::<Place>() {
                return Err(Failure::input(format!("--place: {why}")));
            }
        }
        for name in args.pipelines.iter().filter(|name| !plan.pipelines.contains_key(*name)) {
            // Letters of a pipeline that is not in the file any more may be listed and discarded.
            if let Some(meant) = suggest(name, plan.pipelines.keys().map(String::as_str)) {
                return Err(Failure::input(format!("unknown pipeline '{name}'; did you mean '{meant}'?")));
            }
        }
        Ok(Filter {
            pipelines: args.pipelines.clone(),
            places: args.places.clone(),
            reason: args.reason.as_ref().map(|reason| reason.to_lowercase()),
            key: args.key.clone(),
            since_ms: args.since.map(|moment| moment.ms(now_ms)),
            until_ms: args.until.map(|moment| moment.ms(now_ms)),
        })
    }

    /// Whether a letter is meant.
    pub fn matches(&self, letter: &Letter) -> bool {
        let any =
            |wanted: &[String], is: &dyn Fn(&String) -> bool| wanted.is_empty() || wanted.iter().any(is);
        let at = |wanted: &String| {
            letter.places().any(|place| {
                place == *wanted || place.split_once(':').is_some_and(|(kind, _)| kind == wanted.as_str())
            })
        };
        let says = |text: &String| {
            let more = letter.more.iter().map(|(_, reason)| reason);
            std::iter::once(&letter.reason).chain(more).any(|reason| reason.to_lowercase().contains(text))
        };
        any(&self.pipelines, &|name| *name == letter.pipeline)
            && any(&self.places, &at)
            && self.reason.as_ref().is_none_or(says)
            && self.key.as_ref().is_none_or(|key| letter.record.key.as_deref() == Some(key.as_bytes()))
            && self.since_ms.is_none_or(|since| letter.last_failed_ms >= since)
            && self.until_ms.is_none_or(|until| letter.last_failed_ms < until)
    }
}

/// The topics to look into.
pub fn topics(plan: &Plan, args: &SelectArgs) -> Result<Vec<Chosen>, Failure> {
    let mut all: Vec<Chosen> = Vec::new();
    for pipeline in plan.pipelines.values() {
        let wanted = args.pipelines.is_empty()
            || args.pipelines.iter().any(|name| *name == pipeline.name || !plan.pipelines.contains_key(name));
        let (broker, topic) = (pipeline.from.broker.clone(), pipeline.dead_letters.name.clone());
        let chosen = Chosen { broker, topic, ids: None };
        if wanted && !all.contains(&chosen) {
            all.push(chosen);
        }
    }
    let named: Vec<&String> =
        args.topics.iter().chain(args.ids.iter().filter_map(|id| id.topic.as_ref())).collect();
    for topic in &named {
        if !all.iter().any(|chosen| chosen.topic == **topic) {
            return Err(unknown(topic, &all));
        }
    }
    if !args.topics.is_empty() {
        all.retain(|chosen| args.topics.contains(&chosen.topic));
    }
    if args.ids.is_empty() { Ok(all) } else { by_ids(&all, &args.ids) }
}

/// Only the topics of these letters.
fn by_ids(all: &[Chosen], ids: &[Id]) -> Result<Vec<Chosen>, Failure> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for id in ids {
        let mut holders = all.iter().filter(|of| id.topic.as_ref().is_none_or(|topic| *topic == of.topic));
        let (Some(holder), None) = (holders.next(), holders.next()) else {
            let ways: Vec<String> = all.iter().map(|of| format!("{}/{}", of.topic, id.at)).collect();
            return Err(Failure::input(format!("'{}' is in which topic? say {}", id.at, ways.join(" or "))));
        };
        match chosen.iter_mut().find(|of| of.topic == holder.topic && of.broker == holder.broker) {
            Some(known) => known.ids.get_or_insert_default().push(id.at),
            None => chosen.push(Chosen { ids: Some(vec![id.at]), ..holder.clone() }),
        }
    }
    Ok(chosen)
}

fn unknown(topic: &str, all: &[Chosen]) -> Failure {
    let names: Vec<&str> = all.iter().map(|chosen| chosen.topic.as_str()).collect();
    let advice = match suggest(topic, names.iter().copied()) {
        Some(meant) => format!("did you mean '{meant}'?"),
        None => format!("there are: {}", names.join(", ")),
    };
    Failure::input(format!("'{topic}' takes no dead letters of these pipelines; {advice}"))
}
