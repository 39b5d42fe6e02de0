//! Brokers and stores: the systems that the rest of the file names.

use std::{collections::HashMap, path::Path};

use indexmap::IndexMap;
use millrace_core::{
    StoreKind,
    settings::{Key, Location, Node, NodeKind, Problem, Problems, Secret},
};
use tokio::time::Duration;

use crate::{
    catalog::{Catalog, Section},
    names::{Name, unknown},
    plan::SystemPlan,
    policy,
    select::select,
};

/// The systems of one section. One whose kind is unknown has been reported and is there without a plan, so that
/// what names it is not reported as well.
pub(crate) struct Systems {
    all: IndexMap<String, Option<SystemPlan>>,
}

impl Systems {
    /// Reads `brokers` or `stores`.
    pub(crate) fn read(
        root: &Node,
        (key, section): (&str, Section),
        catalog: &Catalog,
        base_dir: &Path,
        problems: &mut Problems,
    ) -> Self {
        let mut all = IndexMap::new();
        let entries = root.get(key).map(Node::entries).unwrap_or_default();
        for (name, node) in entries {
            let path = format!("{key}.{}", name.text);
            Name::of_key(name).check(&path, problems);
            let selected = select(node, &path, section, catalog, base_dir, problems);
            let system = selected.map(|selected| SystemPlan {
                name: name.text.clone(),
                kind_name: selected.kind.name,
                settings: selected.settings,
                breaker: policy::breaker(&selected.beside, problems),
            });
            all.insert(name.text.clone(), system);
        }
        Systems { all }
    }

    /// Reports a value that names none of these systems.
    pub(crate) fn check_name(&self, node: &Node, what: &str, path: &str, problems: &mut Problems) {
        if node.text().is_some_and(|name| !name.is_empty() && !self.all.contains_key(name)) {
            unknown(node, what, path, self.all.keys().map(String::as_str), problems);
        }
    }

    /// The kind of a store. None when there is no such store, or its kind is unknown.
    pub(crate) fn store_kind(&self, name: &str, catalog: &Catalog) -> Option<&'static StoreKind> {
        catalog.store(self.all.get(name)?.as_ref()?.kind_name)
    }

    /// The names and plans of the stores whose kind is good for something.
    pub(crate) fn names_of<'a>(
        &'a self,
        catalog: &'a Catalog,
        good: impl Fn(&StoreKind) -> bool + 'a,
    ) -> Vec<&'a str> {
        let good = |name: &&str| self.store_kind(name, catalog).is_some_and(&good);
        self.all.keys().map(String::as_str).filter(good).collect()
    }

    /// How long brokers wait when they take a partition away, by name; those that wait for ever are left out.
    pub(crate) fn handovers(&self, catalog: &Catalog) -> HashMap<String, Duration> {
        let patience = |system: &SystemPlan| {
            let handover = catalog.handovers.iter().find(|handover| handover.kind == system.kind_name)?;
            (handover.patience)(&system.settings)
        };
        let all = self.all.iter().filter_map(|(name, system)| Some((name, patience(system.as_ref()?)?)));
        all.map(|(name, patience)| (name.clone(), patience)).collect()
    }

    /// The system that a value names, or else the only one, or the first.
    pub(crate) fn named_or_first(&self, node: Option<&Node>) -> Option<String> {
        let named = node.and_then(Node::text).map(str::to_owned);
        named.or_else(|| self.all.keys().next().cloned())
    }

    /// The plans, by name.
    pub(crate) fn into_plans(self) -> IndexMap<String, SystemPlan> {
        self.all.into_iter().filter_map(|(name, system)| Some((name, system?))).collect()
    }
}

/// A broker that is described outside of any file: its kind, and its settings as text, which are not shown in
/// problems.
///
/// # Errors
/// Everything that is wrong with it.
pub fn broker(
    name: &str,
    kind: &str,
    settings: &[(String, String)],
    catalog: &Catalog,
) -> Result<SystemPlan, Vec<Problem>> {
    let at = Location { line: 1, column: 1 };
    let entry = |(key, text): &(String, String)| {
        let kind = NodeKind::Expanded { text: Secret::new(text.as_str()), source: key.clone() };
        (Key { at, text: key.clone() }, Node { at, kind })
    };
    let settings = Node { at, kind: NodeKind::Map(settings.iter().map(entry).collect()) };
    let node = Node { at, kind: NodeKind::Map(vec![(Key { at, text: kind.to_owned() }, settings)]) };
    let mut problems = Problems::default();
    let selected = select(&node, name, Section::Brokers, catalog, Path::new(""), &mut problems);
    let plan = selected.map(|selected| SystemPlan {
        name: name.to_owned(),
        kind_name: selected.kind.name,
        settings: selected.settings,
        breaker: policy::breaker(&selected.beside, &mut problems),
    });
    let problems = problems.into_sorted();
    match plan {
        Some(plan) if problems.is_empty() => Ok(plan),
        _ => Err(problems),
    }
}
