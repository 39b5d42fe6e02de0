//! `millrace stop` and `millrace start`: ends pipelines everywhere, so that nobody reads as their groups, and lets
//! them begin again.

use millrace_control::{StopEntry, stop_key};
use millrace_runtime::Clock;
use serde_json::json;

use super::pause::{Change, change_each, check_reason};
use crate::{
    args::{PauseArgs, ResumeArgs},
    report::Failure,
};

pub async fn stop(args: &PauseArgs) -> Result<(), Failure> {
    check_reason(&args.reason)?;
    change_each(&args.at, &args.names, false, |board, pipeline| {
        let key = stop_key(pipeline);
        match board.get(&key).map(|entry| entry.read::<StopEntry>()) {
            Some(Ok(stop)) => Change::none(format!("was stopped already by {}: {}", stop.by, stop.reason)),
            Some(Err(error)) => Change::none(format!("was stopped already: {}", error.chain())),
            None => {
                let (reason, since_ms) = (args.reason.clone(), Clock::system().now_ms());
                let entry = StopEntry { by: "operator".to_owned(), reason, since_ms };
                Change { writes: vec![(key, Some(json!(entry)))], says: "stopped".to_owned() }
            }
        }
    })
    .await
}

pub async fn start(args: &ResumeArgs) -> Result<(), Failure> {
    change_each(&args.at, &args.names, args.all, |board, pipeline| {
        let key = stop_key(pipeline);
        if board.get(&key).is_none() {
            return Change::none("was not stopped");
        }
        Change { writes: vec![(key, None)], says: "started".to_owned() }
    })
    .await
}
