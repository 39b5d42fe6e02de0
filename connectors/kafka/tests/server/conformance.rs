//! The suite that every broker passes.

use millrace_testkit::broker_suite::{self, Rig};

use crate::rig;

/// Runs one area of the suite.
macro_rules! area {
    ($name:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (broker, prefix) = (rig::plain(), rig::prefix(stringify!($name)));
            broker_suite::$name(Rig { broker: &broker, discard: &rig::discard, prefix: &prefix }).await;
        }
    };
}

area!(administration);
area!(appending);
area!(compaction);
area!(progress);
area!(flow);
area!(gaps);
area!(groups);
