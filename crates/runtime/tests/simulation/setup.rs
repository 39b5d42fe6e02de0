//! What a seed decides before anything happens: sizes, bounds, times, and which faults there are at all. Leaving
//! most of them out in each run reaches what a little of everything never does.

use millrace_runtime::{BreakerPolicy, Exhausted, Limits, RetryPolicy};
use millrace_testkit::sim::{Faults, World};
use tokio::time::Duration;

use crate::pipelines::Lane;

/// A pipeline of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// Who is in which set.
    Follows,
    /// Posts to the timelines of their author's followers.
    Feed,
    /// Posts as documents, in a store and in an index.
    Posts,
    /// Two counters under one key, and a topic.
    Points,
}

/// What may happen to processes and systems, and how often, per thousand of what happens at all.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    pub start: u64,
    pub shutdown: u64,
    pub crash: u64,
    pub stop: u64,
    pub outage: u64,
    pub rebalance: u64,
    pub pause: u64,
    pub clock: u64,
}

#[derive(Clone, Debug)]
pub struct Setup {
    pub flows: Vec<Flow>,
    pub partitions: u32,
    pub processes_max: usize,
    pub posts: u64,
    pub follows: u64,
    /// How long things go wrong.
    pub chaos_ms: u64,
    pub weights: Weights,
    pub faults: Faults,
    pub limits: Limits,
    pub retry: RetryPolicy,
    pub breaker: BreakerPolicy,
    pub batch_records_max: usize,
    pub sink_timeout: Duration,
    pub ops_max: usize,
    pub page_members_max: u32,
    pub cache_ttl: Duration,
    /// The index has a lane of its own.
    pub isolated: bool,
    /// Outputs, states and progress are one.
    pub transactions: bool,
    /// The end is reached by runs that end by themselves.
    pub until_end: bool,
}

impl Setup {
    pub fn of(world: &World) -> Self {
        // A pipeline that holds itself waits for a person, so such a run does not end by itself.
        let holds_itself = world.chance(0.2);
        let flows = match world.below(9) {
            0 => vec![Flow::Follows],
            1..=4 => vec![Flow::Follows, Flow::Feed],
            5 => vec![Flow::Posts],
            6 | 7 => vec![Flow::Points],
            _ => vec![Flow::Feed, Flow::Posts, Flow::Points],
        };
        Setup {
            flows,
            partitions: 1 + u32::try_from(world.below(4)).unwrap(),
            processes_max: 1 + world.index(3),
            posts: 5 + world.below(15),
            follows: 5 + world.below(30),
            chaos_ms: 1_000 + world.below(5_000),
            weights: weights(world),
            faults: faults(world),
            limits: limits(world, holds_itself),
            retry: RetryPolicy {
                initial: Duration::from_millis(world.pick(&[5, 50])),
                max: Duration::from_millis(world.pick(&[100, 500])),
                budget: holds_itself.then(|| Duration::from_millis(world.pick(&[300, 2_000]))),
                exhausted: Exhausted::Pause,
            },
            breaker: BreakerPolicy {
                failures: world.pick(&[1, 3, 5]),
                open_for: Duration::from_millis(world.pick(&[20, 200])),
                open_for_max: Duration::from_millis(world.pick(&[200, 1_000])),
            },
            batch_records_max: world.pick(&[1, 5, 30]),
            sink_timeout: Duration::from_millis(world.pick(&[100, 400, 1_000])),
            ops_max: world.pick(&[1, 4, 50]),
            page_members_max: world.pick(&[1, 2, 10]),
            cache_ttl: Duration::from_millis(world.pick(&[0, 300, 5_000])),
            isolated: world.chance(0.4),
            transactions: world.chance(0.5),
            until_end: world.chance(0.3) && !holds_itself,
        }
    }
}

impl Setup {
    /// Everything that has progress of its own.
    pub fn lanes(&self) -> Vec<Lane> {
        self.flows.iter().flat_map(|flow| flow.lanes(self)).collect()
    }
}

fn weights(world: &World) -> Weights {
    let some = |most: u64| if world.chance(0.5) { world.below(most) } else { 0 };
    Weights {
        start: 200,
        shutdown: some(200),
        crash: some(300),
        stop: some(300),
        outage: some(200),
        rebalance: some(300),
        pause: some(300),
        clock: some(300),
    }
}

fn faults(world: &World) -> Faults {
    let some = |most: u64| if world.chance(0.4) { world.below(most) as f64 / 1_000.0 } else { 0.0 };
    Faults {
        latency_ms_max: world.pick(&[1, 5, 40]),
        refused: some(100),
        lost: some(40),
        unanswered: some(80),
        late: some(100),
        late_ms_max: world.pick(&[100, 1_000, 5_000]),
        partial: some(300),
        source_errors: some(50),
        fetch_ms_max: world.pick(&[1, 30, 200]),
    }
}

fn limits(world: &World, holds_itself: bool) -> Limits {
    Limits {
        batch_records_max: world.pick(&[1, 10, 100]),
        batch_bytes_max: world.pick(&[500, 1 << 20]),
        linger: Duration::from_millis(world.pick(&[0, 0, 20])),
        outputs_max: world.pick(&[1, 7, 100]),
        output_bytes_max: world.pick(&[400, 1 << 20]),
        queue_bytes_max: world.pick(&[1, 2_000, 1 << 20]),
        drain_timeout: Duration::from_millis(world.pick(&[50, 300, 900])),
        commit_interval: Duration::from_millis(world.pick(&[20, 100, 500])),
        dead_letters_per_minute_max: if holds_itself { world.pick(&[1, 6_000]) } else { 6_000 },
        call_timeout: Duration::from_millis(world.pick(&[150, 600])),
    }
}
