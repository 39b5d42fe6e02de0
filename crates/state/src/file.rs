//! A pipeline file as it is applied: its text, and the modules that its names stand for.

use std::collections::{BTreeMap, BTreeSet};

use millrace_config::{ModuleSource, Output, PipelinePlan, StepPlan};
use millrace_core::{
    View,
    settings::{Key, Node, NodeKind, Problem},
};
use sha2::{Digest, Sha256};

use crate::tree::canonical;

/// A file, and what it stands for.
#[derive(Clone, Debug)]
pub struct FileState {
    /// Variables unexpanded.
    pub text: String,
    /// The text as a tree.
    pub root: Node,
    /// The SHA-256 of the modules it uses, by the name the file uses.
    pub modules: BTreeMap<String, String>,
    /// Brokers and stores are the embedded ones.
    pub embedded: bool,
}

impl FileState {
    /// Reads a file's text.
    ///
    /// # Errors
    /// What is no YAML in it.
    pub fn new(
        text: String,
        modules: BTreeMap<String, String>,
        embedded: bool,
    ) -> Result<Self, Vec<Problem>> {
        let root = millrace_config::parse(&text)?;
        Ok(FileState { text, root, modules, embedded })
    }

    /// Names all that it is.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for part in [self.text.as_str(), if self.embedded { "embedded" } else { "" }] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        for (name, digest) in &self.modules {
            hasher.update(format!("{name}={digest};"));
        }
        hex::encode(hasher.finalize())
    }

    /// The entries of a section, by name, in the order of the file.
    pub(crate) fn section(&self, key: &str) -> Vec<(&str, &Node)> {
        let entries = self.root.get(key).map(Node::entries).unwrap_or_default();
        entries.iter().map(|(key, node)| (key.text.as_str(), node)).collect()
    }

    pub(crate) fn entry(&self, section: &str, name: &str) -> Option<&Node> {
        self.root.get(section)?.get(name)
    }

    /// The declaration of each system, by what it is and its name, so that two files can be compared: those that
    /// have changed must be opened anew.
    pub fn systems(&self) -> BTreeMap<(&'static str, String), String> {
        let of = |section: &'static str| {
            let entries = self.section(section).into_iter();
            entries.map(move |(name, node)| ((section, name.to_owned()), canonical(node)))
        };
        of("brokers").chain(of("stores")).collect()
    }
}

/// Names everything in the file that a pipeline depends on, itself included: as long as this stays the same, it need
/// not be restarted. Versions of deployed modules are not in it, but for those on trial: a pipeline that runs takes up others.
pub fn dependencies(file: &FileState, pipeline: &PipelinePlan) -> String {
    let mut names: BTreeSet<(&str, &str)> = BTreeSet::from([
        ("pipelines", pipeline.name.as_str()),
        ("topics", &pipeline.from.topic),
        ("topics", &pipeline.dead_letters.name),
        ("brokers", &pipeline.from.broker),
    ]);
    let mut modules = BTreeMap::new();
    for step in &pipeline.steps {
        match step {
            StepPlan::Lookup(lookup) => drop(names.insert(("stores", &lookup.store))),
            StepPlan::Module(module) => {
                let name = module.module.split('@').next().unwrap_or_default();
                names.insert(("smartmodules", name));
                if !matches!(module.source, ModuleSource::Registry(_)) {
                    modules.insert(module.module.clone(), file.modules.get(&module.module));
                }
                let trial = module.trial.iter().map(|trial| trial.named().0);
                modules.extend(trial.map(|name| {
                    let digest = file.modules.get(&name);
                    (name, digest)
                }));
            }
        }
    }
    for sink in &pipeline.sinks {
        names.extend(sink.store.as_deref().map(|store| ("stores", store)));
        match &sink.output {
            Output::Topic { topic, broker, .. } => {
                names.extend([("topics", &**topic), ("brokers", &**broker)]);
            }
            Output::View(View::Index(index, _)) => drop(names.insert(("indexes", &index.name))),
            Output::View(_) | Output::System => {}
        }
    }
    let mut hasher = Sha256::new();
    for (section, name) in names {
        let node = file.entry(section, name).map(|node| canonical(&without_versions(section, node)));
        hasher.update(format!("{section}.{name}={node:?};"));
    }
    hasher.update(format!("{modules:?};{}", file.embedded));
    hex::encode(hasher.finalize())
}

/// A declaration with the names of deployed modules, but without their versions.
fn without_versions(section: &str, node: &Node) -> Node {
    let mut node = node.clone();
    let NodeKind::Map(entries) = &mut node.kind else { return node };
    let strip = |entries: &mut Vec<(Key, Node)>, key: &str| {
        let value = entries.iter_mut().find(|(name, _)| name.text == key);
        if let Some((_, Node { kind: NodeKind::Scalar { text, .. }, .. })) = value
            && let Some(at) = text.find('@')
        {
            text.truncate(at);
        }
    };
    if section == "smartmodules" {
        strip(entries, "registry");
    }
    let steps = entries.iter_mut().find(|(name, _)| section == "pipelines" && name.text == "steps");
    if let Some((_, Node { kind: NodeKind::List(steps), .. })) = steps {
        for step in steps {
            if let NodeKind::Map(step) = &mut step.kind {
                strip(step, "uses");
            }
        }
    }
    node
}

/// The SHA-256 of a module's bytes, in hex.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
