//! The tables of an index: a row per document, full text over the declared text fields, and a view under the
//! index's own name that hides the deleted.

use std::collections::HashSet;

use millrace_core::{
    Class,
    views::{FieldType, IndexFields},
};
use millrace_sqlite_file::Failure;
use rusqlite::OptionalExtension;
use serde_json::Value;

use crate::{schema::TABLES, search::texts_of, writer::Tx};

/// An index is named with at most this many bytes.
const NAME_BYTES_MAX: usize = 200;

/// Prefixes of names that tables have.
const PREFIXES: [&str; 3] = ["index_", "sqlite_", "millrace_"];

const KNOWN: &str = "SELECT text_fields FROM indexes WHERE name = ?";
const KNOW: &str = "INSERT INTO indexes(name, text_fields) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET text_fields = excluded.text_fields";
const TAKEN: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ? COLLATE NOCASE)";

/// The tables of an index, quoted as SQL wants them.
#[derive(Clone, Debug)]
pub(crate) struct IndexTables {
    name: String,
    /// `number`, `id`, `json`, `version`, `versions`, `deleted`.
    pub(crate) documents: String,
    /// Full text; its rowid is a document's `number`.
    pub(crate) texts: String,
}

/// A checked index: its tables and the fields that are searched.
pub(crate) struct IndexSchema {
    pub(crate) tables: IndexTables,
    pub(crate) text_fields: Vec<String>,
}

impl IndexTables {
    /// The tables of an index, whether there is one or not. A name cannot contain `/`, so that no index's table
    /// is one of another's.
    pub(crate) fn of(name: &str) -> Self {
        IndexTables {
            name: name.to_owned(),
            documents: quoted(&format!("index_{name}")),
            texts: quoted(&format!("index_{name}/text")),
        }
    }
}

impl IndexSchema {
    /// The schema of an index.
    ///
    /// # Errors
    /// Fatal when the index cannot have this name.
    pub(crate) fn new(name: &str, fields: &IndexFields) -> Result<Self, Failure> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !starts_well || !name.chars().all(allowed) || name.len() > NAME_BYTES_MAX {
            let why = format!(
                "an index is named with at most {NAME_BYTES_MAX} lowercase letters, digits, '-', '_' and '.', and begins with a letter or digit"
            );
            return Err(Failure::new(Class::Fatal, why));
        }
        if TABLES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(taken(name));
        }
        let text = fields.fields.iter().filter(|(_, of)| *of == FieldType::Text);
        let text_fields = text.map(|(field, _)| field.clone()).collect();
        Ok(IndexSchema { tables: IndexTables::of(name), text_fields })
    }

    /// Makes the tables, or the full text anew when other fields are to be searched.
    ///
    /// # Errors
    /// Fatal when something else has the index's name.
    pub(crate) fn prepare(&self, tx: &Tx<'_>) -> Result<(), Failure> {
        let IndexTables { name, documents, texts } = &self.tables;
        let declared = Value::from(self.text_fields.clone()).to_string();
        let known: Option<String> = tx.statement(KNOWN)?.query_row((name,), |row| row.get(0)).optional()?;
        if known.as_ref() == Some(&declared) {
            return Ok(());
        }
        if known.is_none() {
            let exists: bool = tx.statement(TAKEN)?.query_row((name,), |row| row.get(0))?;
            if exists {
                return Err(taken(name));
            }
            let view = quoted(name);
            let deleted = quoted(&format!("index_{name}/deleted"));
            tx.batch(&format!(
                "CREATE TABLE {documents}(
                     number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, json TEXT, version INTEGER NOT NULL,
                     versions TEXT, deleted INTEGER NOT NULL
                 ) STRICT;
                 CREATE INDEX {deleted} ON {documents}(id) WHERE deleted = 1;
                 CREATE VIEW {view} AS SELECT id, json FROM {documents} WHERE deleted = 0"
            ))?;
        }
        tx.batch(&format!("DROP TABLE IF EXISTS {texts}"))?;
        if !self.text_fields.is_empty() {
            self.fill_texts(tx)?;
        }
        tx.statement(KNOW)?.execute((name, declared))?;
        Ok(())
    }

    /// What [`IndexSchema::prepare`] would change now.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn lacks(&self, tx: &Tx<'_>) -> Result<Vec<String>, Failure> {
        let name = &self.tables.name;
        let known: Option<String> = tx.statement(KNOWN)?.query_row((name,), |row| row.get(0)).optional()?;
        let Some(known) = known else { return Ok(vec!["+ the index".to_owned()]) };
        let declared = Value::from(self.text_fields.clone()).to_string();
        if known == declared {
            return Ok(Vec::new());
        }
        Ok(vec![format!("~ the full text, over {}", self.text_fields.join(", "))])
    }

    /// Writes a document's texts.
    pub(crate) fn insert_texts(
        &self,
        tx: &Tx<'_>,
        number: i64,
        values: &[Option<String>],
    ) -> Result<(), Failure> {
        let columns = columns(&self.text_fields).join(", ");
        let holes = ", ?".repeat(values.len());
        let texts = &self.tables.texts;
        let mut insert =
            tx.statement(&format!("INSERT OR REPLACE INTO {texts}(rowid, {columns}) VALUES (?{holes})"))?;
        insert.raw_bind_parameter(1, number)?;
        for (place, value) in (2..).zip(values) {
            insert.raw_bind_parameter(place, value)?;
        }
        insert.raw_execute()?;
        Ok(())
    }

    /// Removes a document's texts.
    pub(crate) fn delete_texts(&self, tx: &Tx<'_>, number: i64) -> Result<(), Failure> {
        let texts = &self.tables.texts;
        tx.statement(&format!("DELETE FROM {texts} WHERE rowid = ?"))?.execute((number,))?;
        Ok(())
    }

    fn fill_texts(&self, tx: &Tx<'_>) -> Result<(), Failure> {
        let IndexTables { documents, texts, .. } = &self.tables;
        let columns = columns(&self.text_fields).join(", ");
        tx.batch(&format!(
            "CREATE VIRTUAL TABLE {texts} USING fts5(
                 {columns}, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 2'
             )"
        ))?;
        let mut all = tx.statement(&format!("SELECT number, json FROM {documents} WHERE deleted = 0"))?;
        let mut rows = all.query(())?;
        while let Some(row) = rows.next()? {
            let (number, json): (i64, String) = (row.get(0)?, row.get(1)?);
            self.insert_texts(tx, number, &texts_of(&json, &self.text_fields))?;
        }
        Ok(())
    }
}

/// Columns named as their fields, or by number where full text cannot have the name.
fn columns(fields: &[String]) -> Vec<String> {
    let mut used: HashSet<String> = ["rank", "rowid"].map(str::to_owned).into();
    let column = |(number, field): (usize, &String)| {
        let word = field.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let starts_well = field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if word && starts_well && used.insert(field.to_ascii_lowercase()) {
            quoted(field)
        } else {
            quoted(&number.to_string())
        }
    };
    fields.iter().enumerate().map(column).collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn taken(name: &str) -> Failure {
    let why = format!("an index cannot be named '{name}': the file has another table or view of that name");
    Failure::new(Class::Fatal, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_checked() {
        let schema = |name: &str| IndexSchema::new(name, &IndexFields::default());
        for name in ["posts", "posts-2015.02", "1", "index", "document"] {
            assert!(schema(name).is_ok(), "{name}");
        }
        let long = "a".repeat(201);
        let bad = [
            "",
            "Posts",
            "a b",
            "a\"b",
            "a/b",
            "a;drop",
            "_a",
            ".a",
            "é",
            "members",
            "progress",
            "index_a",
            "a'",
            "sqlite_schema",
            "millrace_format",
            "a\0",
            &long,
        ];
        for name in bad {
            assert_eq!(schema(name).err().unwrap().class(), Class::Fatal, "{name:?}");
        }
    }

    #[test]
    fn columns_are_named_as_their_fields_where_they_can() {
        let fields = ["title", "Title", "rank", "a.b", "2nd", "RowId", "a\"b", "_x"].map(str::to_owned);
        let expected = ["title", "1", "2", "3", "4", "5", "6", "_x"].map(|name| format!("\"{name}\""));
        assert_eq!(columns(&fields), expected);
    }
}
