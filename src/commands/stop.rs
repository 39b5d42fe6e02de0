//! `millrace stop` and `millrace start`: ends pipelines everywhere, so that nobody reads as their groups, and lets
//! them begin again.

use millrace_control::{StopEntry, stop_key};
use millrace_runtime::Clock;
use serde_json::json;

use super::{
    pause::{BoardsOf, Done, check_reason, print},
    run::selected,
};
use crate::{
    args::{PauseArgs, ResumeArgs},
    report::Failure,
    state,
};

pub async fn stop(args: &PauseArgs) -> Result<(), Failure> {
    let plan = state::load(&args.at).await?;
    let names = selected(&plan, &args.names)?;
    check_reason(&args.reason)?;
    let mut boards = BoardsOf::new()?;
    let mut done = Vec::new();
    for pipeline in names {
        let board = boards.of(&plan, &pipeline).await?;
        let key = stop_key(&pipeline);
        let (changed, says) = match board.get(&key).map(|entry| entry.read::<StopEntry>()) {
            Some(Ok(stop)) => (false, format!("was stopped already by {}: {}", stop.by, stop.reason)),
            Some(Err(error)) => (false, format!("was stopped already: {}", error.chain())),
            None => {
                let since_ms = Clock::system().now_ms();
                let entry = StopEntry { by: "operator".to_owned(), reason: args.reason.clone(), since_ms };
                board.put(&[(key, Some(json!(entry)))]).await?;
                (true, "stopped".to_owned())
            }
        };
        done.push(Done { pipeline, changed, says });
    }
    print(&done, args.at.json)
}

pub async fn start(args: &ResumeArgs) -> Result<(), Failure> {
    let plan = state::load(&args.at).await?;
    let names = selected(&plan, &args.names)?;
    let mut boards = BoardsOf::new()?;
    let mut done = Vec::new();
    for pipeline in names {
        let board = boards.of(&plan, &pipeline).await?;
        let key = stop_key(&pipeline);
        let changed = board.get(&key).is_some();
        if changed {
            board.put(&[(key, None)]).await?;
        } else if args.all {
            continue;
        }
        let says = if changed { "started" } else { "was not stopped" };
        done.push(Done { pipeline, changed, says: says.to_owned() });
    }
    print(&done, args.at.json)
}
