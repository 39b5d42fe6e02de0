//! The contracts every part of Millrace is written against, and nothing that touches the world.
//!
//! A [`Broker`] holds topics; its [`Source`] yields [`Batch`]es of [`Record`]s. The runtime turns each record
//! into a [`Message`], runs it through [`Step`]s and lookups, and hands the results to [`Sink`]s. Every message
//! knows the record it came from ([`Origin`]), so that a failure names its record and an offset is committed
//! only when all that came of it is done.
//!
//! Errors carry a [`Class`]; the runtime acts on the class alone.

mod blocking;
mod broker;
mod envelope;
mod error;
mod identity;
mod lease;
mod ledger;
mod lookup;
mod message;
pub mod module_info;
mod module_reference;
pub mod numbered;
mod partitioner;
mod record;
pub mod settings;
mod sink;
mod source;
mod step;
mod store;
mod template;
mod transaction;
mod up_to;
pub mod views;

pub use blocking::off_the_reactor;
pub use broker::{
    Admin, Broker, CreateOutcome, NewRecord, PartitionSpan, Position, Producer, Start, Subscription,
    TopicInfo, TopicSpec,
};
pub use envelope::{Envelope, EnvelopeError};
pub use error::{Class, Error, Result};
pub use identity::{EffectIdentity, Ordinals, SinkId};
pub use lease::Lease;
pub use ledger::{Claim, Ledger};
pub use lookup::{Lookup, Page, PageRequest};
pub use message::{Message, Origin};
pub use module_reference::{
    MODULE_NAME_BYTES_MAX, ModuleReference, ModuleReferenceError, Version, VersionChoice, is_module_name,
    parse_version,
};
pub use partitioner::partition_for_key;
pub use record::{Batch, Header, Headers, Record, TopicPartition};
pub use sink::{Answer, Call, Encoded, Op, Sink};
pub use source::{Assignment, Control, Source, SourceEvent};
pub use step::{LookBack, Outcome, Rejected, Step, StepContext, StepFactory, StepUsage};
pub use store::{Finding, Store, StoreKind, View};
pub use template::{Template, TemplateError, TemplateErrorKind};
pub use transaction::{CommitOutcome, States, Transactor};
pub use up_to::{Stretch, read_up_to};
