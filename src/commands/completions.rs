//! `millrace completions`: a script for a shell.

use std::io::{Write, stdout};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{args::Cli, report::Failure};

pub fn run(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "millrace", &mut script);
    stdout().lock().write_all(&script)?;
    Ok(())
}
