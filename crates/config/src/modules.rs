//! Modules: where the code of those that steps name is, and who must vouch for it.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use millrace_core::{
    ModuleReference,
    settings::{Node, Problems},
};

use crate::{names::Name, plan::ModuleSource};

/// What is said to a file with a module that nobody can have signed.
const UNSIGNED: &str =
    "deploy it with 'millrace smartmodule deploy --sign-key FILE' and write 'registry: NAME@VERSION'";

/// Reads `smartmodules`: where each is, by name. One that is wrong has been reported and is there without a source,
/// so that what names it is not reported as well.
pub(crate) fn modules(
    root: &Node,
    base_dir: &Path,
    problems: &mut Problems,
) -> IndexMap<String, Option<ModuleSource>> {
    let entries = root.get("smartmodules").map(Node::entries).unwrap_or_default();
    let mut modules = IndexMap::new();
    for (name, node) in entries {
        let path = format!("smartmodules.{}", name.text);
        Name::of_key(name).check(&path, problems);
        let source = match (node.get("file"), node.get("registry")) {
            (Some(file), None) => {
                if root.get("require_signature").is_some() {
                    let message = "a file is not signed, and 'require_signature' asks for it";
                    problems.suggest(file.at, &format!("{path}.file"), message, UNSIGNED);
                }
                Some(ModuleSource::File(base_dir.join(file.text().unwrap_or_default())))
            }
            (None, Some(reference)) => deployed(reference, &format!("{path}.registry"), problems),
            (both, _) => {
                let message = if both.is_some() {
                    "a module is either in a file or deployed"
                } else {
                    "the module is nowhere"
                };
                let advice = "'file: FILE.wasm', or 'registry: NAME@VERSION'";
                problems.suggest(node.at, &path, message, advice);
                None
            }
        };
        modules.insert(name.text.clone(), source);
    }
    modules
}

/// Reads `NAME@VERSION`.
pub(crate) fn deployed(node: &Node, path: &str, problems: &mut Problems) -> Option<ModuleSource> {
    match node.text()?.parse::<ModuleReference>() {
        Ok(reference) => Some(ModuleSource::Registry(reference)),
        Err(error) => {
            let message = format!("'{}' names no deployed module", node.shown().unwrap_or_default());
            problems.suggest(node.at, path, message, error.to_string());
            None
        }
    }
}

/// Reads `require_signature`: the files with the keys; none where signatures are not asked for.
pub(crate) fn signature_keys(root: &Node, base_dir: &Path, problems: &mut Problems) -> Option<Vec<PathBuf>> {
    let keys = root.get("require_signature")?.get("keys");
    let files: Vec<PathBuf> = keys
        .map(Node::items)
        .unwrap_or_default()
        .iter()
        .filter_map(Node::text)
        .map(|file| base_dir.join(file))
        .collect();
    if let Some(keys) = keys.filter(|keys| keys.items().is_empty()) {
        problems.suggest(keys.at, "require_signature.keys", "no key", "without one, no module could run");
    }
    Some(files)
}
