//! The registry on a broker's topic: compacted, one partition for what there is and one for the code.
//!
//! A deploy writes, in this order: that it has begun, the pieces of the code, its claim to the version, what `latest`
//! names, and that it has ended. Whatever of this is left of one that was killed is found by a later deploy, and removed
//! when it is older than any deploy may take.

use std::{ops::ControlFlow, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use millrace_core::{
    Broker, CreateOutcome, Error, NewRecord, PartitionSpan, Position, Result, TopicInfo, TopicSpec, Version,
    numbered::Found,
};
use sha2::{Digest, Sha256};
use tokio::time::{Duration, timeout};

pub use crate::code::MODULE_BYTES_MAX;
use crate::{
    board::{Board, Entries},
    code,
    contract::{Deployed, ModuleRegistry, Moved, NewModule},
    entry::{self, BOARD, CODE, LatestEntry, UploadEntry},
    manifest::Manifest,
    reading,
    shelf::Shelf,
};

/// How long a deploy may take.
const DEPLOY_WITHIN: Duration = Duration::from_secs(600);
/// When what is left of a deploy is taken for that of a dead one; clocks may differ by the rest.
const STALE_MS: i64 = 3_600_000;
/// Versions remembered for `roll_back`.
const BEFORE_MAX: usize = 20;
/// Pieces of the largest module, and some: a damaged entry must not make millions of records.
const CHUNKS_MAX: u32 = 256;
/// The topic's partitions.
const PARTITIONS: u32 = 2;

/// A registry in a topic of a broker.
#[derive(Clone)]
pub struct TopicRegistry {
    broker: Arc<dyn Broker>,
    topic: String,
}

impl TopicRegistry {
    /// Connects to nothing yet. The topic is made by the first deploy.
    pub fn new(broker: Arc<dyn Broker>, topic: impl Into<String>) -> Self {
        TopicRegistry { broker, topic: topic.into() }
    }

    fn who(&self) -> String {
        format!("registry {}", self.topic)
    }

    async fn create(&self) -> Result<()> {
        let spec = TopicSpec {
            name: self.topic.clone(),
            partitions: PARTITIONS,
            retention_ms: None,
            retention_bytes: None,
            // A piece with its key; manifests are smaller.
            record_bytes_max: code::CHUNK_BYTES_MAX + (16 << 10),
            replication: None,
            compact: true,
        };
        match self.broker.admin().create_topic(&spec).await? {
            CreateOutcome::Exists { partitions } if partitions < PARTITIONS => Err(self.too_few(partitions)),
            CreateOutcome::Exists { .. } | CreateOutcome::Created => Ok(()),
        }
    }

    fn too_few(&self, partitions: u32) -> Error {
        let why = format!(
            "the topic has {partitions} partition, the registry needs {PARTITIONS}: delete it, deploy makes it as it must be"
        );
        Error::fatal(self.who(), why)
    }

    fn span(&self, info: &TopicInfo, partition: i32) -> Result<(i32, PartitionSpan)> {
        let few = u32::try_from(info.partitions.len()).unwrap_or(u32::MAX);
        let span = info.partitions.get(&partition).copied().ok_or_else(|| self.too_few(few))?;
        Ok((partition, span))
    }

    /// What there is; nothing where there is no topic.
    async fn entries(&self) -> Result<Entries> {
        let Some(info) = self.broker.admin().topic(&self.topic).await? else { return Ok(Entries::default()) };
        // Also before there is code: a topic of somebody's making is of no use.
        self.span(&info, CODE)?;
        let mut board = Board::default();
        let take = |record| {
            board.take_in(record);
            ControlFlow::Continue(())
        };
        reading::read(&*self.broker, &self.topic, self.span(&info, BOARD)?, 0, take).await?;
        Ok(board.entries())
    }

    /// Appends records; the first error there is.
    async fn write(&self, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let producer = self.broker.producer().await?;
        producer.send(&self.topic, records).await.into_iter().collect()
    }

    /// The pieces of an upload, as far as they are there, from an offset on.
    async fn pieces(&self, manifest: &Manifest, info: &TopicInfo, from: i64) -> Result<Vec<Bytes>> {
        let keys: Vec<String> =
            (0..manifest.chunks).map(|number| entry::chunk_key(&manifest.upload, number)).collect();
        let mut pieces: Vec<Option<Bytes>> = vec![None; keys.len()];
        let mut missing = keys.len();
        let take = |record: millrace_core::Record| {
            let key = record.key.as_deref().unwrap_or_default();
            if let Some(number) = keys.iter().position(|wanted| wanted.as_bytes() == key) {
                missing =
                    missing + usize::from(pieces[number].is_some()) - usize::from(record.value.is_some());
                pieces[number] = record.value;
            }
            if missing == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        reading::read(&*self.broker, &self.topic, self.span(info, CODE)?, from, take).await?;
        Ok(pieces.into_iter().flatten().collect())
    }

    async fn deploy_now(&self, module: &NewModule<'_>) -> Result<Deployed> {
        let label = format!("{}@{}", module.name, module.version);
        let digest = hex::encode(Sha256::digest(module.wasm));
        let pieces = code::split(&label, module.wasm)?;
        self.create().await?;
        let entries = self.entries().await?;
        self.sweep(&entries, module.at_ms).await?;
        if let Some(claim) = entries.holder(&module.name, &module.version) {
            let manifest = claim.manifest(&label)?.clone();
            // A deploy that was killed after its claim is finished by the next one.
            if manifest.digest == digest && entries.uploads.contains_key(&manifest.upload) {
                self.finish(module, &manifest).await?;
            }
            return Ok(outcome(manifest, &digest));
        }
        let upload = format!("{:016x}", rand::random::<u64>());
        let chunks = u32::try_from(pieces.len()).expect("invariant: a bounded module has few pieces");
        let begun = UploadEntry { chunks, at_ms: module.at_ms };
        self.write(vec![entry::upload(&upload, Some(&begun))]).await?;
        let stored_bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let records = (0..).zip(pieces).map(|(number, piece)| entry::chunk(&upload, number, Some(piece)));
        let written = self.write(records.collect()).await?;
        let manifest = Manifest {
            name: module.name.clone(),
            version: module.version.clone(),
            kind: module.kind.clone(),
            signature: module.signer.map(|key| key.sign(&module.name, &module.version, &digest)),
            digest,
            size_bytes: module.wasm.len() as u64,
            stored_bytes,
            chunks,
            upload,
            first_chunk_offset: written.first().map_or(0, |position| position.offset),
            description: module.sheet.description.clone(),
            params: module.sheet.params.clone(),
            output_fields: module.sheet.output_fields.clone(),
            deployed_at_ms: module.at_ms,
            deployed_by: module.by.clone(),
        };
        self.write(vec![entry::claim(&manifest)]).await?;
        self.settle(module, manifest).await
    }

    /// Looks who has the version, now that our claim is in the log.
    async fn settle(&self, module: &NewModule<'_>, ours: Manifest) -> Result<Deployed> {
        let entries = self.entries().await?;
        let label = ours.label();
        let holder = entries.holder(&ours.name, &ours.version);
        let holder =
            holder.ok_or_else(|| Error::retry(self.who(), format!("{label} was removed meanwhile")))?;
        if holder.upload == ours.upload {
            self.finish(module, &ours).await?;
            return Ok(Deployed::New(ours));
        }
        self.remove(&ours.name, &ours.version, &ours.upload, ours.chunks, ours.deployed_at_ms).await?;
        Ok(outcome(holder.manifest(&label)?.clone(), &ours.digest))
    }

    /// The last words of a deploy whose claim holds.
    async fn finish(&self, module: &NewModule<'_>, manifest: &Manifest) -> Result<()> {
        if module.latest {
            self.point(&manifest.name, &manifest.version).await?;
        }
        self.write(vec![entry::upload(&manifest.upload, None)]).await.map(drop)
    }

    /// Removes a claim and its code. It may be killed anywhere: what is left is swept later.
    async fn remove(
        &self,
        name: &str,
        version: &Version,
        upload: &str,
        chunks: u32,
        at_ms: i64,
    ) -> Result<()> {
        let begun = UploadEntry { chunks, at_ms };
        self.write(vec![entry::upload(upload, Some(&begun)), entry::no_claim(name, version, upload)]).await?;
        self.remove_code(upload, chunks).await
    }

    async fn remove_code(&self, upload: &str, chunks: u32) -> Result<()> {
        self.write((0..chunks.min(CHUNKS_MAX)).map(|number| entry::chunk(upload, number, None)).collect())
            .await?;
        self.write(vec![entry::upload(upload, None)]).await.map(drop)
    }

    /// Removes what dead deploys have left: claims that lost, and code that no claim speaks of.
    async fn sweep(&self, entries: &Entries, now_ms: i64) -> Result<()> {
        let is_stale = |at_ms: i64| at_ms < now_ms.saturating_sub(STALE_MS);
        for ((name, version), claims) in &entries.claims {
            for claim in claims.iter().skip(1) {
                if let Found::Entry(lost) = &claim.manifest
                    && is_stale(lost.deployed_at_ms)
                {
                    self.remove(name, version, &claim.upload, lost.chunks, lost.deployed_at_ms).await?;
                }
            }
        }
        for (upload, begun) in entries.uploads.iter().filter(|(_, begun)| is_stale(begun.at_ms)) {
            let mut claims = entries.claims.values().flatten();
            if claims.any(|claim| claim.upload == *upload) {
                self.write(vec![entry::upload(upload, None)]).await?;
                continue;
            }
            tracing::info!(%upload, "removing what is left of a deploy that did not end");
            self.remove_code(upload, begun.chunks).await?;
        }
        Ok(())
    }

    async fn set_latest(&self, name: &str, from: Option<Version>, entry: LatestEntry) -> Result<Moved> {
        self.write(vec![entry::latest(name, Some(&entry))]).await?;
        Ok(Moved { from, to: entry.version })
    }
}

fn outcome(holder: Manifest, digest: &str) -> Deployed {
    if holder.digest == digest { Deployed::Same(holder) } else { Deployed::Taken(holder) }
}

#[async_trait]
impl ModuleRegistry for TopicRegistry {
    async fn list(&self) -> Result<Shelf> {
        Ok(self.entries().await?.shelf())
    }

    async fn revision(&self) -> Result<i64> {
        let info = self.broker.admin().topic(&self.topic).await?;
        Ok(info.and_then(|info| info.partitions.get(&BOARD).map(|span| span.end)).unwrap_or(0))
    }

    async fn fetch(&self, manifest: &Manifest) -> Result<Bytes> {
        let who = || format!("module {}", manifest.label());
        if manifest.chunks > CHUNKS_MAX {
            return Err(Error::fatal(who(), "its entry in the registry is damaged"));
        }
        let info = self.broker.admin().topic(&self.topic).await?;
        let info = info.ok_or_else(|| Error::fatal(self.who(), "the topic is gone"))?;
        let wanted = manifest.chunks as usize;
        let mut pieces = self.pieces(manifest, &info, manifest.first_chunk_offset).await?;
        if pieces.len() < wanted {
            pieces = self.pieces(manifest, &info, 0).await?;
        }
        if pieces.len() < wanted {
            let why = "its code is not in the registry any more: somebody has deleted the version";
            return Err(Error::fatal(who(), why));
        }
        code::join(manifest, &pieces)
    }

    async fn deploy(&self, module: NewModule<'_>) -> Result<Deployed> {
        let slow = || Error::retry(self.who(), format!("not done within {} s", DEPLOY_WITHIN.as_secs()));
        timeout(DEPLOY_WITHIN, self.deploy_now(&module)).await.unwrap_or_else(|_| Err(slow()))
    }

    async fn point(&self, name: &str, version: &Version) -> Result<Moved> {
        let entries = self.entries().await?;
        if entries.holder(name, version).is_none() {
            let shelf = entries.shelf();
            let why = match shelf.modules.get(name) {
                Some(versions) => format!("is not in the registry ({})", versions.listed()),
                None => shelf.no_module(name),
            };
            return Err(Error::fatal(format!("module {name}@{version}"), why));
        }
        let entry = entries.latest(name)?;
        let mut before = entry.map(|entry| entry.before.clone()).unwrap_or_default();
        let from = entry.map(|entry| entry.version.clone());
        if let Some(current) = from.clone().filter(|current| current != version) {
            // Going back to one of those before forgets what came after it.
            match before.iter().position(|earlier| earlier == version) {
                Some(earlier) => before.truncate(earlier),
                None => before.push(current),
            }
            before.drain(..before.len().saturating_sub(BEFORE_MAX));
        }
        self.set_latest(name, from, LatestEntry { version: version.clone(), before }).await
    }

    async fn roll_back(&self, name: &str) -> Result<Moved> {
        let entries = self.entries().await?;
        let shelf = entries.shelf();
        let fatal = |why: String| Error::fatal(format!("module {name}"), why);
        let versions = shelf.modules.get(name).ok_or_else(|| fatal(shelf.no_module(name)))?;
        let nothing = || {
            fatal(format!(
                "'latest' named nothing before; name a version with '--to' ({})",
                versions.listed()
            ))
        };
        let entry = entries.latest(name)?.ok_or_else(nothing)?;
        let mut before = entry.before.clone();
        while let Some(version) = before.pop() {
            if entries.holder(name, &version).is_some() {
                return self
                    .set_latest(name, Some(entry.version.clone()), LatestEntry { version, before })
                    .await;
            }
        }
        Err(nothing())
    }

    async fn delete(&self, name: &str, version: &Version) -> Result<Manifest> {
        let entries = self.entries().await?;
        let shelf = entries.shelf();
        let label = format!("{name}@{version}");
        let fatal = |why: String| Error::fatal(format!("module {label}"), why);
        let versions = shelf.modules.get(name).ok_or_else(|| fatal(shelf.no_module(name)))?;
        let claims = entries.claims.get(&(name.to_owned(), version.clone()));
        let claims =
            claims.ok_or_else(|| fatal(format!("is not in the registry ({})", versions.listed())))?;
        let manifest = claims[0].manifest(&label)?.clone();
        if versions.latest.as_ref() == Some(version) {
            if versions.all.len() + versions.unreadable.len() > 1 {
                let why = format!(
                    "'latest' names it: move that first with 'millrace smartmodule rollback {name}' ({})",
                    versions.listed()
                );
                return Err(fatal(why));
            }
            self.write(vec![entry::latest(name, None)]).await?;
        }
        // Those that lost first, so that none of them has the version for a moment.
        for claim in claims.iter().rev() {
            let chunks = match &claim.manifest {
                Found::Entry(manifest) => manifest.chunks,
                Found::Newer(_) => continue,
            };
            self.remove(name, version, &claim.upload, chunks, manifest.deployed_at_ms).await?;
        }
        Ok(manifest)
    }
}
