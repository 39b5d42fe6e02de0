//! Makes an index ready: the physical index with its mapping, and the alias that readers and we use.
//!
//! Nobody writes to the physical index by its name, so an operator may copy the documents into another one and
//! move the alias. Every step can be repeated, and two processes can take it at the same time.

use millrace_core::{
    Class, Error, Result,
    views::{IndexFields, IndexMode},
};
use serde_json::{Map, Value, json};

use crate::{
    client::Client,
    failure::{Cause, Trouble},
    mapping,
};

/// Looking again is needed when another process makes the index at the same moment.
const LOOKS_MAX: u32 = 3;

/// The index behind the alias.
struct Existing {
    name: String,
    alias: Value,
    mapping: Value,
}

/// An index to be made ready.
pub(crate) struct Preparation<'a> {
    pub(crate) client: &'a Client,
    /// Who fails, in errors.
    pub(crate) who: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) fields: &'a IndexFields,
    pub(crate) mode: IndexMode,
}

impl Preparation<'_> {
    /// Makes the index ready.
    ///
    /// # Errors
    /// Retry when the cluster is away, Fatal when it refuses or holds something else under the name.
    pub(crate) async fn run(&self) -> Result<()> {
        for _ in 0..LOOKS_MAX {
            if let Some(existing) = self.look().await? {
                return self.adjust(existing).await;
            }
            if self.create().await? {
                tracing::info!(index = self.alias, "created the index");
                return Ok(());
            }
            // Made by another process just now, or left without its alias: only then is the alias ours to set.
            if let Some(existing) = self.look().await? {
                return self.adjust(existing).await;
            }
            self.set_alias(&self.first_name()).await?;
        }
        Err(Error::retry(self.who, "the index comes and goes"))
    }

    /// What [`Preparation::run`] would change now.
    ///
    /// # Errors
    /// As [`Preparation::run`].
    pub(crate) async fn lacks(&self) -> Result<Vec<String>> {
        let Some(existing) = self.look().await? else {
            let fields = self.fields.fields.iter().map(|(name, _)| format!("+ {name}"));
            return Ok(std::iter::once("+ the index".to_owned()).chain(fields).collect());
        };
        let missing = mapping::missing(self.who, &existing.mapping, self.fields, self.mode)?;
        let mut lacks: Vec<String> = missing.fields.iter().map(|name| format!("+ {name}")).collect();
        if missing.update.is_some() && lacks.is_empty() {
            lacks.push("~ the mapping's own fields".to_owned());
        }
        if !mapping::hides_deleted(&existing.alias) {
            lacks.push("~ the alias, so that it hides deleted documents".to_owned());
        }
        Ok(lacks)
    }

    fn first_name(&self) -> String {
        format!("{}-000001", self.alias)
    }

    fn fatal(&self, trouble: Trouble) -> Error {
        trouble.into_error(self.who, Class::Fatal)
    }

    async fn look(&self) -> Result<Option<Existing>> {
        let reply = self.client.get(self.alias).await.map_err(|trouble| self.fatal(trouble))?;
        if reply.status == 404 {
            return Ok(None);
        }
        let indexes: Map<String, Value> =
            reply.json(self.client.who()).map_err(|trouble| self.fatal(trouble))?;
        let count = indexes.len();
        let mut indexes = indexes.into_iter();
        let (Some((name, mut index)), None) = (indexes.next(), indexes.next()) else {
            let why = format!("the alias leads to {count} indexes, it must lead to one");
            return Err(Error::fatal(self.who, why));
        };
        if index["aliases"].get(self.alias).is_none() {
            let why = format!(
                "'{}' is no alias but an index or a data stream; the name is needed for the alias that hides deleted documents",
                self.alias
            );
            return Err(Error::fatal(self.who, why));
        }
        let alias = index["aliases"][self.alias].take();
        Ok(Some(Existing { name, alias, mapping: index["mappings"].take() }))
    }

    /// Creates index and alias in one step. False when the index is there already.
    async fn create(&self) -> Result<bool> {
        let body = mapping::creation(self.alias, self.fields, self.mode);
        let reply =
            self.client.put(&self.first_name(), &body).await.map_err(|trouble| self.fatal(trouble))?;
        if reply.is_success() {
            return Ok(true);
        }
        let cause = Cause::of_body(&reply.body);
        if cause.kind == "resource_already_exists_exception" {
            return Ok(false);
        }
        Err(self.fatal(cause.trouble(self.who, reply.status)))
    }

    async fn adjust(&self, existing: Existing) -> Result<()> {
        let missing = mapping::missing(self.who, &existing.mapping, self.fields, self.mode)?;
        if let Some(update) = missing.update {
            let path = format!("{}/_mapping", existing.name);
            let reply = self.client.put(&path, &update).await.map_err(|trouble| self.fatal(trouble))?;
            reply.json::<Value>(self.who).map_err(|trouble| self.fatal(trouble))?;
        }
        if !missing.fields.is_empty() {
            tracing::warn!(
                index = self.alias,
                fields = missing.fields.join(", "),
                "added fields to the index; documents written before are found by them when they are written again"
            );
        }
        if !mapping::hides_deleted(&existing.alias) {
            self.set_alias(&existing.name).await?;
        }
        Ok(())
    }

    async fn set_alias(&self, index: &str) -> Result<()> {
        let mut add = mapping::alias_of_readers();
        add["index"] = index.into();
        add["alias"] = self.alias.into();
        let body = json!({ "actions": [{ "add": add }] });
        let reply =
            self.client.post("_aliases", body.to_string()).await.map_err(|trouble| self.fatal(trouble))?;
        reply.json::<Value>(self.who).map_err(|trouble| self.fatal(trouble))?;
        Ok(())
    }
}
