//! Kafka and Redpanda as a broker, on librdkafka.
//!
//! librdkafka's calls block and its callbacks come on the thread that polls. So each source has a thread of its
//! own, which talks to the asynchronous side through a bounded [`mailbox`], and each administrative call runs on
//! the pool for blocking work with a client of its own. Nothing is connected before it is needed.

mod admin;
mod client;
mod cluster;
mod context;
mod delivery;
mod error;
mod headers;
mod mailbox;
mod placement;
mod producer;
mod pulse;
mod settings;
mod slots;
mod source;
mod thread;
mod transactor;

use std::sync::Arc;

use async_trait::async_trait;
use millrace_core::{Admin, Broker, Producer, Result, Source, Subscription};

use admin::KafkaAdmin;
use client::Clients;
use producer::KafkaProducer;
use source::KafkaSource;

pub use settings::{KAFKA, Options};

/// A Kafka or Redpanda cluster. Opening it connects to nothing: a cluster that is away shows at the first call.
pub struct KafkaBroker {
    clients: Arc<Clients>,
    producer: Arc<KafkaProducer>,
}

impl KafkaBroker {
    /// A broker by its name in the configuration. Reads the files of its secrets and connects to nothing.
    ///
    /// # Errors
    /// Fatal when the file of a secret or a certificate cannot be read.
    pub fn open(name: &str, options: Options) -> Result<Self> {
        let clients = Arc::new(Clients::new(name, options)?);
        let producer = Arc::new(KafkaProducer::new(clients.clone()));
        Ok(KafkaBroker { clients, producer })
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Source>> {
        Ok(Box::new(KafkaSource::open(&self.clients, &self.producer, subscription)?))
    }

    async fn producer(&self) -> Result<Arc<dyn Producer>> {
        Ok(self.producer.clone())
    }

    fn admin(&self) -> Arc<dyn Admin> {
        Arc::new(KafkaAdmin::new(self.clients.clone()))
    }

    fn has_transactions(&self) -> bool {
        true
    }
}
