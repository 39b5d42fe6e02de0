//! What can be typed after `millrace dlq`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, Subcommand};
use millrace_core::settings::parse_duration;
use millrace_runtime::LetterId;

use super::FileArgs;

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List dead letters, a line each
    List(DlqListArgs),
    /// Show dead letters with all that is known of them
    Show(DlqShowArgs),
    /// Run the records of dead letters through the pipelines they failed in, with their first identity
    Replay(DlqReplayArgs),
    /// Give dead letters up: they stay in the topic, and are not listed any more
    Discard(DlqDiscardArgs),
    /// Print dead letters whole, a JSON object a line, to be kept or to be edited for 'replay --from'
    Export(DlqExportArgs),
}

/// Which letters. Several options narrow together.
#[derive(Args, Clone, Debug, Default)]
pub struct SelectArgs {
    /// Only this topic of dead letters [default: those of all pipelines]; may be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Only letters of this pipeline; may be repeated
    #[arg(id = "of_pipeline", long = "pipeline", value_name = "PIPELINE")]
    pub pipelines: Vec<String>,
    /// Only what failed here: decode, step, lookup or sink, or one of them as 'step:ID'; may be repeated
    #[arg(long = "place", value_name = "PLACE")]
    pub places: Vec<String>,
    /// Only letters whose reason has this text in it, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only records with this key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Only what failed last at this time or later: RFC 3339, or a time ago as '2h' or '7d'
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Only what failed last before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// Only this letter: PARTITION:OFFSET, with TOPIC/ before it where there are several topics; may be repeated
    #[arg(long = "id", value_name = "ID")]
    pub ids: Vec<Id>,
}

#[derive(Args, Debug)]
pub struct DlqListArgs {
    #[command(flatten)]
    pub at: FileArgs,
    #[command(flatten)]
    pub select: SelectArgs,
    /// Also those that were replayed or discarded
    #[arg(long)]
    pub resolved: bool,
}

#[derive(Args, Debug)]
pub struct DlqShowArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The letters: PARTITION:OFFSET, with TOPIC/ before it where there are several topics
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<Id>,
}

#[derive(Args, Debug)]
pub struct DlqExportArgs {
    #[command(flatten)]
    pub at: FileArgs,
    #[command(flatten)]
    pub select: SelectArgs,
    /// Also those that were replayed or discarded
    #[arg(long)]
    pub resolved: bool,
}

#[derive(Args, Debug)]
pub struct DlqDiscardArgs {
    #[command(flatten)]
    pub at: FileArgs,
    #[command(flatten)]
    pub select: SelectArgs,
    /// Every open letter that the other options leave; needed when there are none
    #[arg(long)]
    pub all: bool,
    /// Only list what would be discarded
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Debug)]
pub struct DlqReplayArgs {
    #[command(flatten)]
    pub at: FileArgs,
    #[command(flatten)]
    pub select: SelectArgs,
    /// Every open letter that the other options leave; needed when there are none
    #[arg(long)]
    pub all: bool,
    /// Take the letters from this file as 'export' wrote it, with values, keys or headers edited; '-' for standard input
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Only list what would be replayed
    #[arg(long)]
    pub dry_run: bool,
    /// Also what is not safe to repeat: letters older than what their sinks remember, pipelines whose steps have a
    /// memory, letters of FILE that were resolved before
    #[arg(long)]
    pub force: bool,
    /// How long a call is tried again before the replay gives up, in milliseconds
    #[arg(long, default_value_t = 60_000, value_name = "MS")]
    pub timeout_ms: u64,
}

/// A letter as it is typed: of which topic, where that must be said, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    pub topic: Option<String>,
    pub at: LetterId,
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (topic, at) = match text.rsplit_once('/') {
            Some((topic, at)) => (Some(topic.to_owned()), at),
            None => (None, text),
        };
        let at = at.parse().map_err(|_| "expected PARTITION:OFFSET or TOPIC/PARTITION:OFFSET".to_owned())?;
        Ok(Id { topic, at })
    }
}

/// A point in time as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Milliseconds since 1970.
    At(i64),
    /// Milliseconds before now.
    Ago(i64),
}

impl Moment {
    /// Milliseconds since 1970.
    pub fn ms(self, now_ms: i64) -> i64 {
        match self {
            Moment::At(ms) => ms,
            Moment::Ago(ms) => now_ms - ms,
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Moment::At(time.as_millisecond()));
        }
        let ago = parse_duration(text).and_then(|ago| i64::try_from(ago.as_millis()).ok());
        ago.map(Moment::Ago)
            .ok_or_else(|| "expected a time as 2026-01-31T12:00:00Z, or a time ago as 2h".into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ids_and_moments_are_read() {
        let id: Id = "events.dlq/2:17".parse().unwrap();
        assert_eq!((id.topic.as_deref(), id.at), (Some("events.dlq"), LetterId { partition: 2, offset: 17 }));
        assert_eq!("2:17".parse::<Id>().unwrap().topic, None);
        assert!("events.dlq/17".parse::<Id>().is_err());
        assert_eq!("2h".parse::<Moment>().unwrap().ms(7_200_001), 1);
        assert_eq!("1970-01-01T00:00:01Z".parse::<Moment>().unwrap().ms(5), 1_000);
        assert!("yesterday".parse::<Moment>().is_err());
    }
}
