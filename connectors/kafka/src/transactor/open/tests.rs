//! A transaction that fails, on librdkafka's own double of a cluster.
#![allow(clippy::unwrap_used)]

use std::sync::Weak;

use millrace_core::{Lease, TopicPartition};
use rdkafka::mocking::MockCluster;

use super::*;
use crate::{client::tests::clients_of, producer::KafkaProducer};

#[test]
fn a_transaction_that_cannot_be_committed_is_the_last_one_of_its_client() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("out", 1, 1).unwrap();
    let clients = Arc::new(clients_of(&cluster.bootstrap_servers(), &[]));
    // It is nobody's member, so that its progress cannot be added.
    let owner = Owner {
        producer: Arc::new(KafkaProducer::new(clients.clone())),
        clients,
        consumer: Weak::new(),
        group: "group".into(),
        partition: TopicPartition { topic: "in".into(), partition: 0 },
        lease: Arc::new(Lease::unbounded()),
    };
    let mut open = Open::new(Arc::new(owner));
    open.hold("out".into(), NewRecord { value: Some("1".into()), ..NewRecord::default() });
    open.hand_over().unwrap();
    assert!(open.client.is_some() && open.begun);
    let outcome = open.commit(1, &States::new()).unwrap();
    assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{outcome:?}");
    assert!(open.client.is_none() && !open.begun);
}
