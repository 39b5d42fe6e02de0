//! The millrace program: what was typed is parsed here and carried out in `commands`. Composition only.

mod allocator;
mod args;
mod assemble;
mod commands;
mod control;
mod demo;
mod http;
mod json_bytes;
mod modules;
mod offline;
mod plan;
mod registry;
mod report;
mod signals;
mod state;
mod telemetry;
mod versions;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Cli, Command},
    report::Failure,
};

fn main() -> ExitCode {
    allocator::bound();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help and mistakes itself; a closed pipe is no mistake.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { report::INPUT } else { 0 });
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.exit(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    // The demo shows its rejected records itself.
    let usual = if matches!(cli.command, Command::Demo(_)) { "error" } else { "warn" };
    telemetry::start(cli.log.as_deref().unwrap_or(usual), cli.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(format!("cannot start the runtime: {error}")))?;
    let end = runtime.block_on(commands::run(cli.command));
    // Threads of clients that hang must not keep the process.
    runtime.shutdown_timeout(tokio::time::Duration::from_secs(2));
    end
}
