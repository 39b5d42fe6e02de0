//! The conformance suite every index implementation passes: whatever the order, the repetition and the company
//! in which events arrive, readers of an index see the same documents.
#![expect(clippy::panic, reason = "a conformance suite fails by panicking")]

mod documents;
mod merge;
mod replace;
mod writer;

use async_trait::async_trait;
use millrace_core::Store;
use serde_json::Value;

use writer::Writer;

/// Reads an index as its readers do: through the index's name, which hides deleted documents.
#[async_trait]
pub trait IndexReader: Send + Sync {
    /// Makes everything that was acknowledged so far visible to the other two.
    async fn refresh(&self, index: &str);

    /// The document without what the store keeps for itself; none when it is absent or deleted.
    async fn document(&self, index: &str, id: &str) -> Option<Value>;

    /// How many documents readers see.
    async fn count(&self, index: &str) -> u64;
}

/// What the suite runs against.
#[derive(Clone, Copy)]
pub struct Rig<'a> {
    /// The store under test, opened.
    pub store: &'a dyn Store,
    /// How its readers see it.
    pub reader: &'a dyn IndexReader,
    /// Begins the name of every index the suite makes: unique per run, lowercase letters, digits and `-`.
    pub prefix: &'a str,
    /// Whether a value that does not fit the declared type of its field is refused. A store that keeps any
    /// value says false; it must then keep the document.
    pub types_checked: bool,
}

/// Runs every case; panics at the first that fails, with its name in the message.
pub async fn run(rig: Rig<'_>) {
    merge::every_order_gives_the_same_documents(rig).await;
    merge::equal_versions_converge(rig).await;
    merge::a_status_moves_by_rank(rig).await;
    merge::many_changes_of_one_document_in_one_send(rig).await;
    merge::writers_of_the_same_documents_converge(rig).await;
    merge::one_poisoned_change_spares_its_neighbours(rig).await;
    replace::older_never_overwrites(rig).await;
    replace::deleted_stays_deleted(rig).await;
    replace::writers_of_the_same_documents_converge(rig).await;
    documents::values_survive(rig).await;
    documents::unusual_ids_are_ids(rig).await;
    documents::huge_documents_arrive(rig).await;
    documents::one_misfit_of_five_hundred(rig).await;
    documents::preparing_again_changes_nothing(rig).await;
}

impl Rig<'_> {
    fn index(&self, case: &str) -> String {
        format!("{}-{case}", self.prefix)
    }

    async fn document(&self, writer: &Writer, id: &str) -> Option<Value> {
        self.reader.document(&writer.index, id).await
    }

    async fn refresh(&self, writer: &Writer) {
        self.reader.refresh(&writer.index).await;
    }

    async fn count(&self, writer: &Writer) -> u64 {
        self.reader.count(&writer.index).await
    }
}
