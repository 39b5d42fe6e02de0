//! What a running process does with the boards of its brokers: it keeps its pipelines in step with the pauses
//! that stand there, puts there the pauses its runtime has made, and tells how its pipelines are doing.

mod report;
mod version_log;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use millrace_control::{Board, Entry, PauseEntry, pause_key, stop_key};
use millrace_core::{Broker, Class, Result};
use millrace_runtime::{Clock, Gate, Health, HeldBy, Metrics, Pause, Steering, VersionLog};
use serde_json::{Value, json};
use tokio::{
    sync::OnceCell,
    task::JoinSet,
    time::{Duration, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::report::{About, this_process};
use self::{
    report::{News, Reporter},
    version_log::BoardLog,
};
use crate::versions::Following;

/// How often it is looked whether there is something to tell.
const TICK: Duration = Duration::from_millis(500);

/// How long the last words of a process may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// How long a pipeline that is resumed waits for news of its modules.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// The boards of a process's brokers.
pub struct Boards {
    stations: BTreeMap<String, Arc<Station>>,
    health: Health,
    metrics: Metrics,
    clock: Clock,
    following: Following,
}

/// One board and the pipelines that it is for.
struct Station {
    broker: Arc<dyn Broker>,
    topic: String,
    /// None: it may not be used.
    board: OnceCell<Option<Arc<Board>>>,
    /// By lane: a pipeline's name, with `/` and the sink's id for an isolated one.
    pipelines: Mutex<BTreeMap<Arc<str>, Steering>>,
    /// Those that are held because the board says so.
    held: Mutex<BTreeSet<Arc<str>>>,
    /// Lanes that joined, whose former failures may be on the board.
    joined: Mutex<BTreeSet<Arc<str>>>,
    reporter: Mutex<Reporter>,
    tasks: Mutex<JoinSet<()>>,
    closed: CancellationToken,
    clock: Clock,
    following: Following,
}

/// Lets a pipeline begin when its board is read.
struct Door(Arc<Station>);

impl Boards {
    /// None is opened yet.
    pub fn new(health: Health, metrics: Metrics, clock: Clock, following: Following) -> Self {
        Boards { stations: BTreeMap::new(), health, metrics, clock, following }
    }

    /// The handle of a lane that reads from this broker, held by what the broker's board says.
    pub fn steering(
        &mut self,
        (broker, topic): (Arc<dyn Broker>, String),
        name: &str,
        pipeline: &Arc<str>,
    ) -> Steering {
        let station = self.stations.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Station {
                broker,
                topic,
                board: OnceCell::new(),
                pipelines: Mutex::default(),
                held: Mutex::default(),
                joined: Mutex::default(),
                reporter: Mutex::new(Reporter::new(self.health.clone(), self.metrics.clone())),
                tasks: Mutex::default(),
                closed: CancellationToken::new(),
                clock: self.clock.clone(),
                following: self.following.clone(),
            })
        });
        let steering = lock(&station.pipelines).entry(pipeline.clone()).or_default().clone();
        lock(&station.joined).insert(pipeline.clone());
        steering.behind(Arc::new(Door(station.clone())))
    }

    /// Remembers the versions of modules of a lane that [`Boards::steering`] was asked for.
    pub fn version_log(&self, name: &str) -> Option<Arc<dyn VersionLog>> {
        let station = self.stations.get(name)?.clone();
        Some(Arc::new(BoardLog(station)))
    }

    /// Notes what lanes run, for those who ask: by lane.
    pub fn note(&self, lanes: &BTreeMap<Arc<str>, About>) {
        for station in self.stations.values() {
            lock(&station.reporter).note(lanes);
        }
    }

    /// Takes leave of lanes that have ended here, and of boards that none is left for.
    pub async fn leave(&mut self, lanes: &BTreeSet<Arc<str>>) {
        for station in self.stations.values() {
            // Whoever is cut off is taken for gone after a while.
            let _ = timeout(CLOSE_WITHIN, station.leave(lanes)).await;
        }
        let empty: Vec<String> = self
            .stations
            .iter()
            .filter(|(_, s)| s.names().is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        for station in empty.iter().filter_map(|name| self.stations.remove(name)) {
            let _ = timeout(CLOSE_WITHIN, station.close()).await;
        }
    }

    /// Says on every board how this process ends. Waits a few seconds at most.
    pub async fn close(self) {
        let ends = self.stations.values().map(|station| timeout(CLOSE_WITHIN, station.close()));
        for (name, end) in self.stations.keys().zip(futures::future::join_all(ends).await) {
            if end.is_err() {
                tracing::warn!(
                    broker = name,
                    "the end of this process could not be noted in the control topic"
                );
            }
        }
    }
}

#[async_trait]
impl Gate for Door {
    async fn ready(&self) -> Result<()> {
        // One that joins later is held as well by what stands there already.
        if let Some(board) = self.0.board.get_or_try_init(|| open(&self.0)).await? {
            self.0.take_in(board);
        }
        Ok(())
    }
}

/// Opens the board, sets the pauses that stand, and keeps at it in the background.
async fn open(station: &Arc<Station>) -> Result<Option<Arc<Board>>> {
    let board = match Board::open(&*station.broker, &station.topic).await {
        Ok(board) => Arc::new(board),
        Err(error) if error.class() == Class::Retry => return Err(error),
        Err(error) => {
            tracing::warn!(
                error = %error.chain(),
                "the control topic {} cannot be used: pauses do not survive a restart, and 'status', 'pause' and 'resume' do not reach this process",
                station.topic
            );
            return Ok(None);
        }
    };
    station.take_in(&board);
    station.spawn(obey(station.clone(), board.clone()));
    station.spawn(tell(station.clone(), board.clone()));
    Ok(Some(board))
}

/// Follows the board.
async fn obey(station: Arc<Station>, board: Arc<Board>) {
    let mut changes = board.changes();
    while changes.changed().await.is_ok() {
        if station.will_let_go(&board) {
            station.look().await;
        }
        station.take_in(&board);
    }
}

/// Writes to the board what it does not know yet.
async fn tell(station: Arc<Station>, board: Arc<Board>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained = false;
    let mut news = News::new();
    loop {
        tick.tick().await;
        let joined = std::mem::take(&mut *lock(&station.joined));
        if !joined.is_empty() {
            let now_ms = station.clock.now_ms();
            news.extend(lock(&station.reporter).outdated(&joined, &board.entries(), now_ms));
        }
        let told = station.publish(&board, news).await;
        if let Err(error) = &told {
            if !complained {
                tracing::warn!(error = %error.chain(), "the control topic cannot be written, trying again");
            }
            lock(&station.reporter).untold();
        }
        complained = told.is_err();
        news = lock(&station.reporter).due(&station.names(), station.clock.now_ms());
    }
}

impl Station {
    fn names(&self) -> BTreeSet<Arc<str>> {
        lock(&self.pipelines).keys().cloned().collect()
    }

    /// Works in the background until the station is closed.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        lock(&self.tasks).spawn(async move {
            // None when it was closed first.
            let _ = closed.run_until_cancelled_owned(work).await;
        });
    }

    /// Whether a lane is held that the board lets go.
    fn will_let_go(&self, board: &Board) -> bool {
        lock(&self.held).iter().any(|name| pause_on(board, name).is_none())
    }

    /// Looks for new versions of modules: what was deployed before a pause was lifted is what goes on.
    async fn look(&self) {
        if timeout(LOOK_WITHIN, self.following.look()).await.is_err() {
            tracing::warn!(
                "whether there are new versions of modules is not known, pipelines are resumed without"
            );
        }
    }

    /// Holds and lets go what the board says.
    fn take_in(&self, board: &Board) {
        let mut held = lock(&self.held);
        for (name, steering) in &*lock(&self.pipelines) {
            match pause_on(board, name) {
                Some(entry) if held.insert(name.clone()) => {
                    steering.pause(pause_of(&entry, self.clock.now_ms()));
                }
                None if held.remove(name) => steering.resume(),
                Some(_) | None => {}
            }
            let pipeline = name.split('/').next().unwrap_or(name);
            steering.set_ended(board.get(&stop_key(pipeline)).is_some());
        }
    }

    async fn leave(&self, lanes: &BTreeSet<Arc<str>>) -> Result<()> {
        let left: Vec<Arc<str>> = lanes.intersection(&self.names()).cloned().collect();
        lock(&self.pipelines).retain(|name, _| !lanes.contains(name));
        lock(&self.held).retain(|name| !lanes.contains(name));
        lock(&self.joined).retain(|name| !lanes.contains(name));
        let news = lock(&self.reporter).forget(&left);
        match self.board.get() {
            Some(Some(board)) if !news.is_empty() => board.put(&news).await,
            _ => Ok(()),
        }
    }

    /// Writes the pauses that the runtime has made, and what else there is.
    async fn publish(&self, board: &Board, mut news: Vec<(String, Option<Value>)>) -> Result<()> {
        let mut made = Vec::new();
        {
            let held = lock(&self.held);
            for (name, steering) in &*lock(&self.pipelines) {
                if let Some(pause) = steering.paused().filter(|_| !held.contains(name)) {
                    news.push((pause_key(name), Some(pause_json(&pause))));
                    made.push((name.clone(), steering.clone()));
                }
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        board.put(&news).await?;
        if made.iter().any(|(name, _)| board.get(&pause_key(name)).is_none()) {
            self.look().await;
        }
        for (name, steering) in made {
            // Somebody may have removed it as soon as it was there.
            match board.get(&pause_key(&name)) {
                Some(_) => drop(lock(&self.held).insert(name)),
                None => steering.resume(),
            }
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.closed.cancel();
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while tasks.join_next().await.is_some() {}
        if let Some(Some(board)) = self.board.get() {
            let pipelines = lock(&self.pipelines).clone();
            let last = lock(&self.reporter).last_words(&pipelines, self.clock.now_ms());
            self.publish(board, last).await?;
        }
        Ok(())
    }
}

/// What holds a lane: its own entry, or one of its pipeline that is a person's. What the runtime has made of the
/// main lane does not concern the isolated ones.
fn pause_on(board: &Board, lane: &str) -> Option<Entry> {
    let own = board.get(&pause_key(lane));
    own.or_else(|| {
        let (pipeline, _) = lane.split_once('/')?;
        let entry = board.get(&pause_key(pipeline))?;
        (pause_of(&entry, 0).by == HeldBy::Operator).then_some(entry)
    })
}

/// A pause as the runtime takes it. One that cannot be read holds all the same.
fn pause_of(entry: &Entry, now_ms: i64) -> Pause {
    match entry.read::<PauseEntry>() {
        Ok(pause) => Pause {
            by: HeldBy::named(&pause.by).unwrap_or(HeldBy::Operator),
            reason: pause.reason,
            since_ms: pause.since_ms,
        },
        Err(error) => Pause { by: HeldBy::Operator, reason: error.chain(), since_ms: now_ms },
    }
}

fn pause_json(pause: &Pause) -> Value {
    json!({ "by": pause.by.name(), "reason": pause.reason, "since_ms": pause.since_ms })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("invariant: nobody panics while holding a lock of the boards")
}
