//! Where topic outputs and dead letters are appended: to the log at once, or within a worker's transaction.

use std::sync::Arc;

use millrace_core::{NewRecord, Producer, Result, Transactor};

/// The log, or a transaction on it.
#[derive(Clone)]
pub(crate) enum Appender {
    Log(Arc<dyn Producer>),
    Transaction(Arc<dyn Transactor>),
}

impl Appender {
    /// Appends in order and answers for each record, as [`Producer::send`] and [`Transactor::send`] do.
    pub(crate) async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Result<()>> {
        match self {
            Appender::Log(producer) => {
                producer.send(topic, records).await.into_iter().map(|answer| answer.map(drop)).collect()
            }
            Appender::Transaction(transactor) => transactor.send(topic, records).await,
        }
    }
}
