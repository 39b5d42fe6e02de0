//! `millrace dlq`: dead letters listed, shown, exported, discarded and replayed.

mod discard;
mod export;
mod form;
mod letters;
mod list;
mod replay;
mod select;
mod show;

use millrace_runtime::Clock;
use tokio_util::sync::CancellationToken;

use crate::{args::DlqCommand, report::Failure, signals::Signals};

pub async fn run(command: DlqCommand) -> Result<(), Failure> {
    let signals = Signals::listen()?;
    let shutdown = CancellationToken::new();
    let work = async {
        match command {
            DlqCommand::List(args) => list::run(&args, &shutdown).await,
            DlqCommand::Show(args) => show::run(&args, &shutdown).await,
            DlqCommand::Replay(args) => Box::pin(replay::run(&args, &shutdown)).await,
            DlqCommand::Discard(args) => discard::run(&args, &shutdown).await,
            DlqCommand::Export(args) => export::run(&args, &shutdown).await,
        }
    };
    signals.guard(&shutdown, work).await?
}

fn now_ms() -> i64 {
    Clock::system().now_ms()
}

/// Who settles letters, as far as the environment tells.
fn user() -> Option<String> {
    ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).filter(|name| !name.is_empty())
}
