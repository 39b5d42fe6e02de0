//! Mode `replace`: whole documents under external versions. That the index holds a newer one is success.

use serde_json::json;

use crate::{
    bulk::{Bulk, Item, Written},
    document::{tombstone, whole},
    encode::Work,
};

/// The version of a tombstone: above every version that an event may have (2^53), and a number that every
/// JSON reader holds exactly.
const TOMBSTONE_VERSION: i64 = 1 << 62;

/// Writes all changes and answers for each.
pub(crate) async fn replace(bulk: &Bulk<'_>, works: &[Work<'_>]) -> Vec<Written> {
    let items: Vec<Item> = works.iter().map(item).collect();
    let newer_is_there = |answer| match answer {
        Written::Conflict => Written::Yes,
        other => other,
    };
    bulk.write(&items).await.into_iter().map(newer_is_there).collect()
}

fn item(work: &Work<'_>) -> Item {
    let (version, source) = match work.document {
        Some(document) => (work.version, whole(document, work.version)),
        None => (TOMBSTONE_VERSION, tombstone(work.version)),
    };
    let action = json!({ "index": { "_id": work.id, "version": version, "version_type": "external" } });
    Item { action: action.to_string(), source }
}
