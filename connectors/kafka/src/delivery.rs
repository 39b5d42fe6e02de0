//! Waiting for the broker's answers to one call of `send`.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use millrace_core::Position;
use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{DeliveryResult, ProducerContext},
};
use tokio::sync::Notify;

use crate::context::{Listener, Reports};

/// What became of a record.
pub type Answer = Result<Position, Code>;

/// The answers to one call, by the records' order.
pub struct Delivery {
    answers: Mutex<Vec<Option<Answer>>>,
    open: AtomicUsize,
    done: Notify,
}

/// One record's place among the answers; travels through librdkafka with the record.
pub struct Ticket {
    delivery: Arc<Delivery>,
    index: usize,
}

impl Delivery {
    /// For that many records.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Delivery {
            answers: Mutex::new(vec![None; count]),
            open: AtomicUsize::new(count),
            done: Notify::new(),
        })
    }

    /// A record's ticket; each must be answered once.
    pub fn ticket(self: &Arc<Self>, index: usize) -> Box<Ticket> {
        Box::new(Ticket { delivery: self.clone(), index })
    }

    /// Waits for all answers and takes them.
    pub async fn answers(&self) -> Vec<Answer> {
        while self.open.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        answers.into_iter().map(|answer| answer.unwrap_or(Err(Code::Fail))).collect()
    }
}

impl Ticket {
    /// Answers for the record.
    pub fn answer(self, answer: Answer) {
        let mut answers = self.delivery.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = answers.get_mut(self.index) {
            *place = Some(answer);
        }
        drop(answers);
        if self.delivery.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.delivery.done.notify_one();
        }
    }
}

/// The context of clients that append.
#[derive(Default)]
pub struct AppenderContext {
    listener: Listener,
}

impl AppenderContext {
    /// What was reported.
    pub fn reports(&self) -> &Reports {
        &self.listener.reports
    }
}

impl ClientContext for AppenderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext for AppenderContext {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        ticket.answer(match result {
            Ok(message) => Ok(Position { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Fail)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_in_the_records_order() {
        let delivery = Delivery::new(3);
        let tickets: Vec<_> = (0..3).map(|index| delivery.ticket(index)).collect();
        let waiting = tokio::spawn({
            let delivery = delivery.clone();
            async move { delivery.answers().await }
        });
        for (offset, ticket) in (10..).zip(tickets).collect::<Vec<_>>().into_iter().rev() {
            let answer =
                if offset == 11 { Err(Code::QueueFull) } else { Ok(Position { partition: 0, offset }) };
            ticket.answer(answer);
        }
        let answers = waiting.await.expect("it ends");
        let at = |offset| Ok(Position { partition: 0, offset });
        assert_eq!(answers, [at(10), Err(Code::QueueFull), at(12)]);
        assert!(Delivery::new(0).answers().await.is_empty());
    }
}
