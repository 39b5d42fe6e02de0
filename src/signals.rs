//! The first SIGINT or SIGTERM drains, the second ends the process at once with 128 + its number.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::report::{Failure, say};

/// Both signals, listened to from now on.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts listening.
    pub fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Failure::run(format!("cannot listen to signals: {e}")));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal and gives its number.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }

    /// Runs `work`; the first signal cancels `shutdown`, the second gives up waiting for the work.
    pub async fn guard<T>(
        mut self,
        shutdown: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = self.next() => {}
        }
        say("millrace: finishing what is in flight; once more to end at once");
        shutdown.cancel();
        tokio::select! {
            done = &mut work => Ok(done),
            number = self.next() => Err(Failure::signal(number)),
        }
    }
}
