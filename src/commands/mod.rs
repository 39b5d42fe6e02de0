//! The commands, one file each.

mod apply;
mod check;
mod completions;
mod demo;
mod dlq;
mod doctor;
mod expectation;
mod follow;
mod golden;
mod lag;
mod pause;
mod plan;
mod rewind;
mod run;
mod schema;
mod smartmodule;
mod status;
mod stop;
mod topic;

use crate::{args::Command, report::Failure};

/// Carries out what was typed.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Check(args) => check::run(&args),
        Command::Schema => schema::run(),
        Command::Test(args) => golden::run(&args).await,
        Command::Plan(args) => plan::run(&args).await,
        Command::Apply(args) => apply::run(&args).await,
        Command::Run(args) => Box::pin(run::run(args)).await,
        Command::Status(args) => status::run(&args).await,
        Command::Pause(args) => pause::pause(&args).await,
        Command::Resume(args) => pause::resume(&args).await,
        Command::Stop(args) => stop::stop(&args).await,
        Command::Start(args) => stop::start(&args).await,
        Command::Rewind(args) => rewind::run(&args).await,
        Command::Lag(args) => lag::run(&args).await,
        Command::Topic(command) => topic::run(command).await,
        Command::Dlq(command) => dlq::run(command).await,
        Command::Smartmodule(command) => smartmodule::run(command).await,
        Command::Doctor(args) => doctor::run(&args).await,
        Command::Completions { shell } => completions::run(shell),
    }
}
