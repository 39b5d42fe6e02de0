//! Logs: to standard error, for people or as JSON lines. Records are named by pipeline, partition, offset and
//! correlation id; payloads are never logged above debug, secrets never.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::{args::LogFormat, report::Failure};

/// Starts logging. A mistake in the filter is the user's to correct.
pub fn start(filter: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::input(format!("--log {filter}: {error}; try 'info' or 'millrace_runtime=debug'"))
    })?;
    // A line that cannot be written has nowhere to be reported to.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(io::stderr);
    match format {
        LogFormat::Text => {
            lines.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init();
        }
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).init(),
    }
    Ok(())
}
