//! What can be typed to change what runs, and how far it has come.

use std::str::FromStr;

use clap::Args;

use super::{FileArgs, From};

#[derive(Args, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// Also forget the progress of pipelines that are not in the file any more
    #[arg(long)]
    pub purge: bool,
}

#[derive(Args, Debug)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// Only if it is still this that would be done: the hash that 'plan' has shown
    #[arg(long, value_name = "HASH")]
    pub plan: Option<String>,
    /// Also forget the progress of pipelines that are not in the file any more
    #[arg(long)]
    pub purge: bool,
    /// How long processes may take to end removed pipelines before their progress is forgotten, in milliseconds
    #[arg(long, default_value_t = 90_000, value_name = "MS")]
    pub timeout_ms: u64,
}

#[derive(Args, Debug)]
pub struct RewindArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The pipeline
    #[arg(value_name = "PIPELINE")]
    pub name: String,
    /// Where to: beginning, end, an offset, or a time as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "PLACE")]
    pub to: Place,
    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<i32>,
    /// Process what comes again by the versions of deployed modules that are wanted now, not by those it was for
    #[arg(long)]
    pub forget_versions: bool,
    /// How long processes may take to leave the pipeline's group, in milliseconds
    #[arg(long, default_value_t = 90_000, value_name = "MS")]
    pub timeout_ms: u64,
}

#[derive(Args, Debug)]
pub struct LagArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// Only these pipelines [default: all]
    #[arg(value_name = "PIPELINE")]
    pub names: Vec<String>,
    /// How long one broker may take to answer, in milliseconds
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    pub timeout_ms: u64,
}

/// Where `rewind` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Beginning,
    End,
    Offset(i64),
    /// Ms since 1970.
    Time(i64),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return Ok(Place::Time(time.as_millisecond()));
        }
        match text.parse() {
            Ok(From::Beginning) => Ok(Place::Beginning),
            Ok(From::End) => Ok(Place::End),
            Ok(From::Offset(offset)) => Ok(Place::Offset(offset)),
            Err(_) => Err("expected 'beginning', 'end', an offset, or a time as 2026-01-31T12:00:00Z".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("beginning"), Ok(Place::Beginning));
        assert_eq!(place("17"), Ok(Place::Offset(17)));
        assert_eq!(place("1970-01-01T00:00:01Z"), Ok(Place::Time(1_000)));
        assert!(place("-1").is_err() && place("yesterday").is_err());
    }
}
