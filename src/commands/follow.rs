//! `millrace run` without a file: follows what is applied until a signal.

use millrace_control::{Applied, Board, FollowerEntry, RefusedEntry, chain, follower_key};
use millrace_core::{Class, Result};
use millrace_runtime::{Clock, Health, Metrics};
use serde_json::json;
use tokio::time::{Duration, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::run::conclude;
use crate::{
    args::RunArgs,
    control::this_process,
    http,
    report::{Failure, say},
    signals::Signals,
    state::{self, Loaded, StateBroker, follow::Follower},
};

/// How often a process says how far it follows.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How long telling may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// How long it rests while the broker of the state is away at the start.
const REST: Duration = Duration::from_secs(1);

/// The state as this process follows it.
struct Position {
    state: StateBroker,
    board: Board,
    key: String,
    /// What was looked at last.
    seen: Option<i64>,
    /// What is in force and could not be run in whole.
    unfinished: Option<Loaded>,
    entry: FollowerEntry,
}

pub async fn run(args: RunArgs) -> std::result::Result<(), Failure> {
    let state = StateBroker::of_environment()?.ok_or_else(|| Failure::input("no state is named"))?;
    let signals = Signals::listen()?;
    let (metrics, health) = (Metrics::new(), Health::default());
    let (shutdown, served) = (CancellationToken::new(), CancellationToken::new());
    if args.listen != "off" {
        let address = http::serve(&args.listen, metrics.clone(), health.clone(), served.clone()).await?;
        say(&format!("millrace: following the applied state, metrics on http://{address}/metrics"));
    }
    let mut follower = Follower::new(args.only.clone(), metrics, health, shutdown.clone())?;
    let work = async {
        if let Some(mut position) = open(state, &shutdown).await? {
            let followed = follow(&mut position, &mut follower, &shutdown).await;
            let last_words = [(position.key.clone(), None)];
            let _ = timeout(CLOSE_WITHIN, position.board.put(&last_words)).await;
            if let Err(failure) = followed {
                shutdown.cancel();
                follower.finish().await;
                return Err(failure);
            }
        }
        Ok(follower.finish().await)
    };
    let report = signals.guard(&shutdown, work).await??;
    served.cancel();
    conclude(&args, &report)
}

/// Opens the board, waiting for its broker; none when the process is to end.
async fn open(state: StateBroker, shutdown: &CancellationToken) -> Result<Option<Position>> {
    let mut waits = false;
    loop {
        let opened = shutdown.run_until_cancelled(Board::open(&*state.broker, &state.topic)).await;
        match opened {
            None => return Ok(None),
            Some(Ok(board)) => {
                let key = follower_key(&format!("{:08x}", rand::random::<u32>()));
                let entry =
                    FollowerEntry { process: this_process(), generation: None, refused: None, at_ms: 0 };
                return Ok(Some(Position { state, board, key, seen: None, unfinished: None, entry }));
            }
            Some(Err(error)) if error.class() == Class::Retry => {
                if !std::mem::replace(&mut waits, true) {
                    say(&format!("millrace: waiting for the broker of the state: {}", error.chain()));
                }
                if shutdown.run_until_cancelled(sleep(REST)).await.is_none() {
                    return Ok(None);
                }
            }
            Some(Err(error)) => return Err(error),
        }
    }
}

/// Follows until the process is to end.
async fn follow(
    position: &mut Position,
    follower: &mut Follower,
    shutdown: &CancellationToken,
) -> std::result::Result<(), Failure> {
    let mut changes = position.board.changes();
    let mut tell = interval(TELL_EVERY);
    tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if position.board.in_order().is_empty() {
        say("millrace: nothing is applied yet: waiting for 'millrace apply'");
    }
    loop {
        changes.borrow_and_update();
        position.look(follower).await?;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            Ok(()) = changes.changed() => {}
            () = follower.ended() => {}
            _ = tell.tick() => match position.unfinished.take() {
                Some(loaded) => position.adopt(follower, loaded, true).await?,
                None => position.tell().await,
            },
        }
    }
}

impl Position {
    /// Takes up what is in force, if that is new.
    async fn look(&mut self, follower: &mut Follower) -> std::result::Result<(), Failure> {
        let entries = self.board.in_order();
        let last = entries.last().map(|(_, offset, _)| *offset);
        if last.is_none() || last == self.seen {
            return Ok(());
        }
        self.seen = last;
        let chain = chain(entries);
        let applied = match chain.in_force() {
            Ok(Some(applied)) if Some(applied.entry.generation) != self.entry.generation => applied,
            Ok(_) => return Ok(()),
            Err(error) => return self.refuse(None, Failure::from(error)).await,
        };
        let loaded = match state::read(applied, self.state.dir.as_deref()) {
            Ok(loaded) => loaded,
            Err(problems) => return self.refuse(Some(applied), state::unreadable(applied, &problems)).await,
        };
        match self.adopt(follower, loaded, false).await {
            Err(failure) => self.refuse(Some(applied), failure).await,
            Ok(()) => Ok(()),
        }
    }

    /// Runs a file as far as that can be done, and keeps it for another try if that is not all.
    async fn adopt(
        &mut self,
        follower: &mut Follower,
        loaded: Loaded,
        again: bool,
    ) -> std::result::Result<(), Failure> {
        let troubles = follower.adopt(&loaded, again).await?;
        self.entry.generation = Some(loaded.generation);
        self.entry.refused = troubles.first().map(|error| {
            tracing::error!(error = %error.chain(), "a pipeline cannot be run as it is applied, trying again");
            RefusedEntry { generation: loaded.generation, reason: error.chain() }
        });
        self.unfinished = Some(loaded).filter(|_| !troubles.is_empty());
        self.tell().await;
        Ok(())
    }

    /// What cannot be run is told of, and what runs goes on; where nothing runs yet it is the end.
    async fn refuse(
        &mut self,
        applied: Option<&Applied>,
        failure: Failure,
    ) -> std::result::Result<(), Failure> {
        if self.entry.generation.is_none() {
            return Err(failure);
        }
        say(&format!("millrace: what is applied cannot be run here, what ran goes on: {failure}"));
        let generation = applied.map_or(0, |applied| applied.entry.generation);
        self.entry.refused = Some(RefusedEntry { generation, reason: failure.to_string() });
        self.tell().await;
        Ok(())
    }

    async fn tell(&mut self) {
        self.entry.at_ms = Clock::system().now_ms();
        let entry = [(self.key.clone(), Some(json!(self.entry)))];
        match timeout(CLOSE_WITHIN, self.board.put(&entry)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = %error.chain(), "the control topic cannot be written"),
            Err(_) => tracing::debug!("the control topic takes long to be written"),
        }
    }
}
