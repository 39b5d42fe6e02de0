//! The queue between asynchronous callers and the thread that works on a file: callers wait for room without
//! blocking, the thread waits for work with a time-out.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The callers' side. Cloned by them; when the last one is gone the thread is told.
#[derive(Debug)]
pub struct Mailbox<R> {
    room: Arc<Semaphore>,
    letters: mpsc::SyncSender<Letter<R>>,
}

/// The thread's side.
#[derive(Debug)]
pub struct Inbox<R> {
    letters: mpsc::Receiver<Letter<R>>,
}

/// What the thread found when it waited.
#[derive(Debug)]
pub enum Wait<R> {
    /// Work.
    Request(R),
    /// Nothing for as long as it waited.
    Idle,
    /// All callers are gone.
    Closed,
}

#[derive(Debug)]
struct Letter<R> {
    request: R,
    room: OwnedSemaphorePermit,
}

/// A queue that holds at most `requests_max` requests.
pub fn mailbox<R>(requests_max: usize) -> (Mailbox<R>, Inbox<R>) {
    let (sender, receiver) = mpsc::sync_channel(requests_max);
    (Mailbox { room: Arc::new(Semaphore::new(requests_max)), letters: sender }, Inbox { letters: receiver })
}

impl<R> Mailbox<R> {
    /// Queues a request as soon as there is room; gives it back when the thread has ended. Cancel-safe.
    pub async fn post(&self, request: R) -> Result<(), R> {
        let Ok(room) = self.room.clone().acquire_owned().await else { return Err(request) };
        // Never full: every letter in the queue holds one of the permits.
        self.letters.try_send(Letter { request, room }).map_err(|error| match error {
            mpsc::TrySendError::Full(letter) | mpsc::TrySendError::Disconnected(letter) => letter.request,
        })
    }
}

impl<R> Clone for Mailbox<R> {
    fn clone(&self) -> Self {
        Mailbox { room: self.room.clone(), letters: self.letters.clone() }
    }
}

impl<R> Inbox<R> {
    /// Waits for the next request, at most this long.
    pub fn wait(&self, at_most: Duration) -> Wait<R> {
        match self.letters.recv_timeout(at_most) {
            Ok(letter) => Wait::Request(letter.open()),
            Err(mpsc::RecvTimeoutError::Timeout) => Wait::Idle,
            Err(mpsc::RecvTimeoutError::Disconnected) => Wait::Closed,
        }
    }

    /// The next request, if one is there.
    pub fn try_next(&self) -> Option<R> {
        self.letters.try_recv().ok().map(Letter::open)
    }
}

impl<R> Letter<R> {
    fn open(self) -> R {
        // The letter has left the queue: its place is free.
        drop(self.room);
        self.request
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[tokio::test]
    async fn waits_for_room_and_keeps_the_order() {
        let (mailbox, inbox) = mailbox(2);
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                match inbox.wait(Duration::from_secs(30)) {
                    Wait::Request(n) => seen.push(n),
                    Wait::Idle => panic!("nothing came"),
                    Wait::Closed => return seen,
                }
                seen.extend(inbox.try_next());
            }
        });
        for n in 0..500 {
            mailbox.post(n).await.unwrap();
        }
        drop(mailbox);
        assert_eq!(thread.join().unwrap(), (0..500).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_request_comes_back_when_the_thread_is_gone() {
        let (mailbox, inbox) = mailbox(1);
        drop(inbox);
        assert_eq!(mailbox.post("work").await, Err("work"));
    }
}
