//! `millrace schema`: the JSON Schema of pipeline files.

use std::io::{Write, stdout};

use crate::{registry, report::Failure};

pub fn run() -> Result<(), Failure> {
    let schema = millrace_config::schema(&registry::catalog());
    let mut out = stdout().lock();
    serde_json::to_writer_pretty(&mut out, &schema)?;
    writeln!(out)?;
    Ok(())
}
