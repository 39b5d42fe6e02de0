//! `millrace dlq export`: letters whole, as NDJSON. A value that was left out of a letter is read from where it
//! came from, so that what is exported can be replayed.

use std::io::{Write, stdout};

use millrace_core::Broker;
use millrace_runtime::{Letter, read_again};
use tokio_util::sync::CancellationToken;

use super::{
    form,
    letters::{self, Letters},
    now_ms,
    select::{self, Filter},
};
use crate::{
    args::DlqExportArgs,
    assemble::Systems,
    plan,
    report::{Failure, counted, say},
};

pub async fn run(args: &DlqExportArgs, shutdown: &CancellationToken) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let filter = Filter::of(&plan, &args.select, now_ms())?;
    let mut systems = Systems::new()?;
    let (mut exported, mut without_value) = (0, 0);
    for chosen in select::topics(&plan, &args.select)? {
        let Some(log) = letters::open(&mut systems, &plan, &chosen, shutdown).await? else { continue };
        let mut letters = Letters::of(&log, &chosen, &filter, args.resolved, shutdown).await?;
        while let Some((mut letter, outcome)) = letters.next().await? {
            if !complete(&**log.broker(), &mut letter).await? {
                without_value += 1;
            }
            writeln!(stdout().lock(), "{}", form::whole(log.topic(), &letter, outcome))?;
            exported += 1;
        }
    }
    say(&format!("millrace: {} exported", counted(exported, "dead letter")));
    if without_value > 0 {
        let why = "too large for the topic of dead letters, and gone from where they came from";
        say(&format!("millrace: {} have no value: {why}", counted(without_value, "letter")));
    }
    Ok(())
}

/// Gives a letter its value back where that was left out; false when it is nowhere any more.
pub async fn complete(broker: &dyn Broker, letter: &mut Letter) -> Result<bool, Failure> {
    if letter.truncated_bytes.is_none() {
        return Ok(true);
    }
    let Some(record) = read_again(broker, letter).await? else { return Ok(false) };
    letter.record.key = record.key;
    letter.record.value = record.value;
    letter.record.headers = record.headers;
    letter.truncated_bytes = None;
    Ok(true)
}
