//! What can be typed, and nothing else: the commands resolve it.

mod dlq;
mod smartmodule;
mod state;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::time::Duration;

pub use dlq::{
    DlqCommand, DlqDiscardArgs, DlqExportArgs, DlqListArgs, DlqReplayArgs, DlqShowArgs, Id, SelectArgs,
};
pub use smartmodule::{
    BuildArgs, DeleteArgs, DeployArgs, InspectArgs, ListArgs, NewArgs, NewKind, Pair, RollbackArgs,
    SmartmoduleCommand, TestModuleArgs,
};
pub use state::{ApplyArgs, LagArgs, Place, PlanArgs, RewindArgs};

/// Turns streams of domain events into feeds, search indexes and notifications.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, about, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// How much is logged to standard error: a level, or tracing's filter syntax [default: warn]
    #[arg(long, global = true, env = "MILLRACE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How log lines look
    #[arg(long, global = true, env = "MILLRACE_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the reference pipelines on a generated social network: no server, no network
    Demo(DemoArgs),
    /// Check a pipeline file and report every mistake with its place
    Check(CheckArgs),
    /// Print the JSON Schema of pipeline files, for editors
    Schema,
    /// Run golden cases: input records to the exact calls each sink would make
    Test(TestArgs),
    /// Show what applying the file would change, and a hash that names exactly this
    Plan(PlanArgs),
    /// Put the file in force, for all processes that follow the applied state
    Apply(ApplyArgs),
    /// Run pipelines: those of a file, or what is applied where MILLRACE_STATE says
    Run(RunArgs),
    /// Show how every pipeline is doing, in whatever process it runs
    Status(StatusArgs),
    /// Hold pipelines, in all processes and across restarts, until they are resumed
    Pause(PauseArgs),
    /// Let pipelines go on that are held
    Resume(ResumeArgs),
    /// End pipelines in all processes, and leave their groups, until they are started
    Stop(PauseArgs),
    /// Let pipelines begin again that were stopped
    Start(ResumeArgs),
    /// Set how far a pipeline has come; it must be paused or stopped
    Rewind(RewindArgs),
    /// Show how far pipelines are behind, partition by partition
    Lag(LagArgs),
    /// Create, list, fill and read topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// List, show, replay and discard dead letters
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Make, deploy and manage SmartModules
    #[command(subcommand)]
    Smartmodule(SmartmoduleCommand),
    /// Reach every broker and store and say what is wrong
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which file, and where brokers and stores are.
#[derive(Args, Clone, Debug)]
pub struct FileArgs {
    /// The pipeline file [default: pipelines.yaml; where MILLRACE_STATE is set, many commands take the applied one]
    #[arg(short = 'f', long = "pipelines", value_name = "FILE")]
    pub pipelines: Option<PathBuf>,
    /// Replace every broker and store by the embedded ones, in DIR
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = ".millrace")]
    pub embedded: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Keep the log and the views in this new folder instead of a temporary one
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// How long events are generated, in seconds
    #[arg(long, default_value_t = 12, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Seed of the generated network: equal seeds give equal events
    #[arg(long, default_value_t = 7, value_name = "NUMBER")]
    pub seed: u64,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    pub at: FileArgs,
}

#[derive(Args, Debug)]
pub struct TestArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The folder of golden cases: <pipeline>/<case>.input.ndjson with <case>.expected.json beside it
    #[arg(default_value = "cases", value_name = "DIR")]
    pub cases: PathBuf,
    /// Write what was seen as the new expectation
    #[arg(long)]
    pub update: bool,
}

#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// Only this pipeline; may be repeated
    #[arg(long, value_name = "PIPELINE")]
    pub only: Vec<String>,
    /// End when the topics are read to where they end now
    #[arg(long)]
    pub until_end: bool,
    /// Exit with 1 when a record became a dead letter
    #[arg(long, requires = "until_end")]
    pub fail_on_dead_letters: bool,
    /// Where /metrics, /healthz and /readyz are served; 'off' for nowhere
    #[arg(long, default_value = "127.0.0.1:9464", value_name = "ADDR")]
    pub listen: String,
}

#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// Show it again every 2 seconds
    #[arg(long)]
    pub watch: bool,
    /// How long one broker may take to answer, in milliseconds
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    pub timeout_ms: u64,
}

#[derive(Args, Debug)]
pub struct PauseArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The pipelines
    #[arg(value_name = "PIPELINE", required = true)]
    pub names: Vec<String>,
    /// Why, for those who see it in 'status'
    #[arg(long, default_value = "no reason given", value_name = "TEXT")]
    pub reason: String,
}

#[derive(Args, Debug)]
pub struct ResumeArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The pipelines
    #[arg(value_name = "PIPELINE", required_unless_present = "all")]
    pub names: Vec<String>,
    /// Every pipeline of the file
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create topics as the pipeline file declares them
    Create(TopicCreateArgs),
    /// List topics with their partitions and offsets
    List(TopicListArgs),
    /// Append the lines of NDJSON files to a topic
    Produce(TopicProduceArgs),
    /// Print the records of a topic
    Tail(TopicTailArgs),
}

#[derive(Args, Debug)]
pub struct TopicCreateArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The topics
    #[arg(value_name = "TOPIC", required_unless_present = "all")]
    pub topics: Vec<String>,
    /// Every topic of the file
    #[arg(long, conflicts_with = "topics")]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct TopicListArgs {
    #[command(flatten)]
    pub at: FileArgs,
}

#[derive(Args, Debug)]
pub struct TopicProduceArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The topic
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// NDJSON, also gzipped; '-' for standard input; may be repeated
    #[arg(long = "file", value_name = "FILE", required_unless_present = "drain")]
    pub files: Vec<PathBuf>,
    /// The field that becomes the record's key, as 'payload.user_id'
    #[arg(long, value_name = "PATH")]
    pub key: Option<String>,
    /// Keep lines in this folder while the broker is away, and send them first when it is back
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// The most the spool holds
    #[arg(long, default_value = "256MiB", value_name = "SIZE", value_parser = size, requires = "spool")]
    pub spool_bytes_max: u64,
    /// Send what waits in the spool, and nothing else
    #[arg(long, requires = "spool", conflicts_with_all = ["files", "key"])]
    pub drain: bool,
    /// How long the broker may take to acknowledge lines [default: 5s with --spool, else 1m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub append_timeout: Option<Duration>,
}

#[derive(Args, Debug)]
pub struct TopicTailArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// The topic
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Where to begin: beginning, end or an offset
    #[arg(long, default_value = "end", value_name = "PLACE")]
    pub from: From,
    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<i32>,
    /// End when the topic is read to where it ends now
    #[arg(long)]
    pub until_end: bool,
}

/// A span of time as in the pipeline file, at least a millisecond.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = millrace_core::settings::parse_duration(text).filter(|span| !span.is_zero());
    parsed.ok_or_else(|| "expected a time as '500ms', '5s' or '1m'".into())
}

/// A size as in the pipeline file.
fn size(text: &str) -> Result<u64, String> {
    millrace_core::settings::parse_size(text).ok_or_else(|| "expected a size as '64MiB'".into())
}

/// Where `topic tail` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Beginning,
    End,
    Offset(i64),
}

impl std::str::FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "beginning" => Ok(From::Beginning),
            "end" => Ok(From::End),
            _ => match text.parse() {
                Ok(offset) if offset >= 0 => Ok(From::Offset(offset)),
                _ => Err("expected 'beginning', 'end' or an offset".into()),
            },
        }
    }
}

#[derive(Args, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub at: FileArgs,
    /// How long one system may take to answer, in milliseconds
    #[arg(long, default_value_t = 5_000, value_name = "MS")]
    pub timeout_ms: u64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_command_contradicts_itself() {
        Cli::command().debug_assert();
    }
}
