//! `millrace dlq list`: a line for each letter.

use std::io::{Write, stdout};

use tokio_util::sync::CancellationToken;

use super::{
    form,
    letters::{self, Letters},
    now_ms,
    select::{self, Filter},
};
use crate::{
    args::DlqListArgs,
    assemble::Systems,
    plan,
    report::{Failure, counted, grouped, say},
};

pub async fn run(args: &DlqListArgs, shutdown: &CancellationToken) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let filter = Filter::of(&plan, &args.select, now_ms())?;
    let mut systems = Systems::new()?;
    let (mut listed, mut hidden) = (0, 0);
    for chosen in select::topics(&plan, &args.select)? {
        let Some(log) = letters::open(&mut systems, &plan, &chosen, shutdown).await? else { continue };
        let mut letters = Letters::of(&log, &chosen, &filter, args.resolved, shutdown).await?;
        while let Some((letter, outcome)) = letters.next().await? {
            let mut out = stdout().lock();
            if listed == 0 && !args.at.json {
                writeln!(out, "{}", form::head())?;
            }
            form::print(&mut out, args.at.json, log.topic(), &letter, outcome)?;
            listed += 1;
        }
        hidden += letters.hidden;
    }
    if !args.at.json {
        let mut line = format!("millrace: {}", counted(listed, "dead letter"));
        if hidden > 0 {
            line.push_str(&format!(", and {} that are resolved (--resolved lists them)", grouped(hidden)));
        }
        say(&line);
    }
    Ok(())
}
