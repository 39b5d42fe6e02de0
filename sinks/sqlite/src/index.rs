//! Indexes: documents under an id, by one version (replace) or field by field (merge). A delete beats every
//! version and its row stays.

use millrace_core::{
    Error, Message, Op, Ordinals,
    views::{Change, FieldType, Index, IndexEffect, IndexFields, IndexMode},
};
use millrace_sqlite_file::Failure;
use rusqlite::OptionalExtension;
use serde_json::{Value, json};

use crate::{
    calls::{Calls, Keyed, Parts, by_key},
    field_type,
    fields::{ChangeOp, Fields, Known, Stored},
    index_schema::IndexSchema,
    search::texts_of,
    sink::Writes,
    writer::Tx,
};

/// Writes an index.
pub(crate) struct IndexWrites {
    view: Index,
    declared: Vec<(String, FieldType)>,
    schema: IndexSchema,
    read: String,
    write: String,
}

impl IndexWrites {
    /// # Errors
    /// Fatal when the index cannot have its name.
    pub(crate) fn new(view: Index, fields: &IndexFields) -> Result<Self, Failure> {
        let schema = IndexSchema::new(&view.name, fields)?;
        let documents = &schema.tables.documents;
        let read = format!("SELECT json, version, versions FROM {documents} WHERE id = ?");
        let write = format!(
            "INSERT INTO {documents}(id, json, version, versions, deleted) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET json = excluded.json, version = excluded.version,
                 versions = excluded.versions, deleted = excluded.deleted
             RETURNING number"
        );
        let declared = fields.fields.clone();
        Ok(IndexWrites { view, declared, schema, read, write })
    }

    /// The effect of a message whose values fit the declared types.
    fn effect(&self, message: &Message) -> Result<IndexEffect, Error> {
        let effect = self.view.effect(message)?;
        if let Change::Put { fields, .. } = &effect.change {
            field_type::check(&self.declared, fields)?;
        }
        Ok(effect)
    }

    fn change(&self, tx: &Tx<'_>, id: &str, ops: &[Keyed<'_>]) -> Result<(), Failure> {
        let changes: Vec<ChangeOp<'_>> =
            ops.iter().map(|keyed| ChangeOp::read(keyed.op)).collect::<Result<_, _>>()?;
        let stored = match self.known(tx, id)? {
            Known::Deleted => return Ok(()),
            Known::Nothing => None,
            Known::Document(stored) => Some(stored),
        };
        let stored = stored.as_ref();
        let deleted = changes.iter().find_map(|change| match change {
            ChangeOp::Delete { version } => Some(*version),
            ChangeOp::Put { .. } => None,
        });
        if let Some(version) = deleted {
            let number = self.store(tx, id, None, version)?;
            if stored.is_some() && !self.schema.text_fields.is_empty() {
                self.schema.delete_texts(tx, number)?;
            }
            return Ok(());
        }
        let next = match self.view.mode {
            IndexMode::Replace => newest(stored, &changes),
            IndexMode::Merge => merged(stored, &changes)?,
        };
        if let Some(next) = next {
            let number = self.store(tx, id, Some(&next), next.version)?;
            self.store_texts(tx, number, stored, &next)?;
        }
        Ok(())
    }

    fn known(&self, tx: &Tx<'_>, id: &str) -> Result<Known, Failure> {
        let mut read = tx.statement(&self.read)?;
        let found = read.query_row((id,), |row| {
            Ok(match row.get(0)? {
                None => Known::Deleted,
                Some(json) => Known::Document(Stored { json, version: row.get(1)?, versions: row.get(2)? }),
            })
        });
        Ok(found.optional()?.unwrap_or(Known::Nothing))
    }

    /// Writes a row, deleted where there is no document, and gives its number.
    fn store(&self, tx: &Tx<'_>, id: &str, row: Option<&Stored>, version: i64) -> Result<i64, Failure> {
        let json = row.map(|row| row.json.as_str());
        let versions = row.and_then(|row| row.versions.as_deref());
        let mut write = tx.statement(&self.write)?;
        Ok(write.query_row((id, json, version, versions, row.is_none()), |row| row.get(0))?)
    }

    /// Most changes touch no text: then the full text stays.
    fn store_texts(
        &self,
        tx: &Tx<'_>,
        number: i64,
        before: Option<&Stored>,
        now: &Stored,
    ) -> Result<(), Failure> {
        let fields = &self.schema.text_fields;
        if fields.is_empty() {
            return Ok(());
        }
        let texts = texts_of(&now.json, fields);
        if before.is_some_and(|before| texts_of(&before.json, fields) == texts) {
            return Ok(());
        }
        self.schema.insert_texts(tx, number, &texts)
    }
}

impl Writes for IndexWrites {
    fn kind(&self) -> &'static str {
        "index"
    }

    fn encode(&self, messages: &[Message], _: &mut Ordinals, calls: &mut Calls) {
        for (place, message) in (0..).zip(messages) {
            match self.effect(message) {
                Ok(effect) => calls.push(place, ChangeOp::parts(effect.id, &effect.change)),
                Err(error) => calls.reject(place, error),
            }
        }
    }

    fn prepare(&self, tx: &Tx<'_>) -> Result<(), Failure> {
        self.schema.prepare(tx)
    }

    fn lacks(&self, tx: &Tx<'_>) -> Result<Vec<String>, Failure> {
        self.schema.lacks(tx)
    }

    fn apply(&self, tx: &Tx<'_>, ops: &[Op]) -> Result<(), Failure> {
        for ops in by_key(ops)?.chunk_by(|a, b| a.key == b.key) {
            self.change(tx, ops[0].key, ops)?;
        }
        Ok(())
    }

    fn describe(&self, op: Parts<'_>) -> Result<Value, Failure> {
        Ok(ChangeOp::read(op)?.describe(json!({ "index": self.view.name, "id": op.text(1)? })))
    }
}

/// The first document of the highest version, if it is higher than the stored one's.
fn newest(stored: Option<&Stored>, changes: &[ChangeOp<'_>]) -> Option<Stored> {
    let mut version_max = stored.map(|stored| stored.version);
    let mut newest = None;
    for change in changes {
        if let ChangeOp::Put { document, version, .. } = *change
            && version_max.is_none_or(|version_max| version > version_max)
        {
            version_max = Some(version);
            newest = Some((document, version));
        }
    }
    newest.map(|(document, version)| Stored::whole(document, version))
}

/// The document with all changes, if they change anything.
fn merged(stored: Option<&Stored>, changes: &[ChangeOp<'_>]) -> Result<Option<Stored>, Failure> {
    let mut fields = stored.map(Fields::of).transpose()?.unwrap_or_default();
    let mut changed = false;
    for change in changes {
        if let ChangeOp::Put { document, version, versions } = *change {
            changed |= fields.merge(document, version, versions)?;
        }
    }
    Ok(changed.then(|| fields.store()))
}
