//! From the text of a file to a plan, or to everything that is wrong with it.

use std::path::Path;

use indexmap::IndexMap;
use millrace_core::settings::{Location, Node, Problem, Problems, check_object};

use crate::{
    catalog::{Catalog, Section},
    graph,
    modules::{modules, signature_keys},
    parse::parse_all,
    pipeline::pipeline,
    plan::Plan,
    retention::{agree_on_dead_letters, check_ledgers, note_ledgers},
    systems::Systems,
    tables,
    topics::{indexes, topics},
    variables::{Env, expand},
    world::{Later, World, written_topics},
};

const VERSION: &str = "1";

/// Reads, expands and checks a file. `source_name` names it in messages that have no line of it to show, `env`
/// answers for variables, relative paths are relative to `base_dir`, the file's folder.
///
/// # Errors
/// Every mistake that was found, in the order of the file.
pub fn load(
    source_name: &str,
    text: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    catalog: &Catalog,
) -> Result<Plan, Vec<Problem>> {
    load_for(source_name, text, base_dir, env, false, catalog)
}

/// As [`load`], for a run with every broker and store embedded in the folder `dir`: variables of brokers and
/// stores need not be set.
///
/// # Errors
/// As [`load`].
pub fn load_embedded(
    source_name: &str,
    text: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    catalog: &Catalog,
    dir: &Path,
) -> Result<Plan, Vec<Problem>> {
    load_for(source_name, text, base_dir, env, true, catalog).map(|plan| plan.embedded(dir))
}

fn load_for(
    source_name: &str,
    text: &str,
    base_dir: &Path,
    env: Env<'_>,
    embedded: bool,
    catalog: &Catalog,
) -> Result<Plan, Vec<Problem>> {
    let (root, mut problems) = parse_all(text);
    let Some(mut root) = root else { return Err(problems.into_sorted()) };
    let unresolved = expand(&mut root, env, embedded, &mut problems);
    if other_version(&root, source_name, &mut problems) {
        return Err(problems.into_sorted());
    }
    let mut found = Problems::default();
    check_object(&root, &tables::FILE, "", &mut found);
    let plan = resolve(&root, base_dir, catalog, &mut found);
    for problem in found.into_sorted().into_iter().filter(|problem| !unresolved.contains(&problem.at)) {
        match problem.suggestion {
            Some(advice) => problems.suggest(problem.at, &problem.path, problem.message, advice),
            None => problems.add(problem.at, &problem.path, problem.message),
        }
    }
    let problems = problems.into_sorted();
    match plan {
        Some(plan) if problems.is_empty() => Ok(plan),
        _ => Err(problems),
    }
}

/// Whether the file says that it has another format: then nothing else of it can be judged.
fn other_version(root: &Node, source_name: &str, problems: &mut Problems) -> bool {
    let Some(node) = root.get("version") else { return false };
    let Some(shown) = node.shown().filter(|_| node.text() != Some(VERSION)) else { return false };
    problems.suggest(
        node.at,
        "version",
        format!("{source_name} has the format version '{shown}', this program knows version 1"),
        "write 'version: 1', or use the program that the file was made for",
    );
    true
}

/// None when a pipeline has no plan; then there are problems.
fn resolve(root: &Node, base_dir: &Path, catalog: &Catalog, problems: &mut Problems) -> Option<Plan> {
    let brokers = Systems::read(root, ("brokers", Section::Brokers), catalog, base_dir, problems);
    let stores = Systems::read(root, ("stores", Section::Stores), catalog, base_dir, problems);
    let modules = modules(root, base_dir, problems);
    if let Some(node) = root.get("state") {
        brokers.check_name(node, "broker", "state", problems);
    }
    let topics = topics(root, &brokers, problems);
    let indexes = indexes(root, problems);
    let world = World {
        catalog,
        base_dir,
        stores: &stores,
        modules: &modules,
        topics: &topics,
        indexes: &indexes,
        handovers: brokers.handovers(catalog),
        written: written_topics(root),
    };
    let mut later = Later::default();
    let mut pipelines = IndexMap::new();
    let entries = root.get("pipelines").map(Node::entries).unwrap_or_default();
    for (key, node) in entries {
        if let Some(plan) = pipeline(key, node, &world, &mut later, problems) {
            pipelines.insert(key.text.clone(), plan);
        }
    }
    let complete = pipelines.len() == entries.len();
    agree_on_dead_letters(&mut pipelines, &topics);
    check_ledgers(&later, &pipelines, &topics, problems);
    note_ledgers(&later, &mut pipelines);
    later.check_index_modes(problems);
    later.check_lanes(pipelines.keys(), problems);
    let plan = Plan {
        state: brokers.named_or_first(root.get("state")).unwrap_or_default(),
        require_signature: signature_keys(root, base_dir, problems),
        brokers: brokers.into_plans(),
        stores: stores.into_plans(),
        topics,
        indexes,
        pipelines,
    };
    check_cycle(&plan, root, problems);
    complete.then_some(plan)
}

fn check_cycle(plan: &Plan, root: &Node, problems: &mut Problems) {
    let flows: Vec<_> = plan.pipelines.values().map(|pipeline| pipeline.flow()).collect();
    let Err(circle) = graph::levels(&flows) else { return };
    let Some(name) = circle.get(1) else { return };
    let entries = root.get("pipelines").map(Node::entries).unwrap_or_default();
    let at = entries.iter().find(|(key, _)| key.text == *name).map_or(Location::default(), |(key, _)| key.at);
    let way: Vec<String> = circle
        .iter()
        .enumerate()
        .map(|(index, name)| if index % 2 == 0 { name.clone() } else { format!("[{name}]") })
        .collect();
    problems.suggest(
        at,
        &format!("pipelines.{name}"),
        format!("topics go in a circle: {}", way.join(" → ")),
        "an event would run for ever; write to another topic (dead letters are written as well)",
    );
}
