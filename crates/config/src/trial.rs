//! `canary` and `shadow` of a step: another version of its module, on trial.

use std::collections::BTreeSet;

use millrace_core::{
    ModuleReference, VersionChoice,
    settings::{Node, Object, Problems},
};

use crate::{
    part::Part,
    plan::{CanaryPart, ModuleSource, TrialManner, TrialPlan},
    tables,
};

/// The keys of trials.
pub(crate) const KEYS: [&str; 2] = ["canary", "shadow"];

/// Where a trial would run.
pub(crate) struct Trials<'a> {
    /// Of the topic that is read; none where it is not known.
    pub(crate) partitions: Option<u32>,
    pub(crate) problems: &'a mut Problems,
}

impl Trials<'_> {
    /// Reads the trial of a step, if it has one; one that is wrong is reported.
    pub(crate) fn read(&mut self, part: &Part, source: &ModuleSource) -> Option<TrialPlan> {
        match KEYS.map(|key| part.has(key)) {
            [false, false] => None,
            [true, false] => self.canary(part, source),
            [false, true] => {
                let version = self.version(part, "shadow", &tables::SHADOW, source)?;
                Some(TrialPlan { version, manner: TrialManner::Shadow })
            }
            [true, true] => {
                let message = "a step has either a canary or a shadow";
                let advice = "try one version at a time: first as a shadow, then as a canary";
                self.problems.suggest(part.at_key("shadow"), &part.path_of("shadow"), message, advice);
                None
            }
        }
    }

    /// The version on trial: of the same module as the step's, and another one.
    fn version(
        &mut self,
        part: &Part,
        key: &str,
        object: &'static Object,
        source: &ModuleSource,
    ) -> Option<ModuleReference> {
        let ModuleSource::Registry(main) = source else {
            let shown = part.settings.shown("uses").unwrap_or_default();
            let message = format!("'{shown}' is not deployed, and has no other versions");
            let advice = "deploy it with 'millrace smartmodule deploy', and write 'uses: NAME@VERSION'";
            self.problems.suggest(part.at_key(key), &part.path_of(key), message, advice);
            return None;
        };
        let trial = part.part(key, object);
        let (node, path) = (trial.settings.node("version")?, trial.path_of("version"));
        let shown = node.shown().unwrap_or_default();
        let mut wrong = |message: String, advice: String| {
            self.problems.suggest(node.at, &path, message, advice);
            None
        };
        let text = node.text().filter(|text| !text.is_empty())?;
        match format!("{}@{text}", main.name).parse::<ModuleReference>() {
            Ok(reference) if reference.version == VersionChoice::Latest => {
                let message = "'latest' may be any version tomorrow".to_owned();
                wrong(message, format!("name the version on trial; '{reference}' may stand in 'uses'"))
            }
            Ok(reference) if reference == *main => {
                wrong(format!("{shown} is the version that the step uses"), "name another one".to_owned())
            }
            Ok(reference) => Some(reference),
            Err(_) => {
                let message = format!("'{shown}' is no version of '{}'", main.name);
                wrong(message, "three numbers, as 1.1.0 or 1.1.0-rc.1".to_owned())
            }
        }
    }

    fn canary(&mut self, part: &Part, source: &ModuleSource) -> Option<TrialPlan> {
        let version = self.version(part, "canary", &tables::CANARY, source);
        let canary = part.part("canary", &tables::CANARY);
        let records = match (canary.settings.node("share"), canary.settings.node("partitions")) {
            (Some(node), None) => {
                self.check_memory(part, &canary);
                self.share(node, &canary.path_of("share"))
            }
            (None, Some(node)) => self.partitions(node, &canary.path_of("partitions")),
            (both, _) => {
                let message = match both {
                    Some(_) => "a canary takes either a share or some partitions",
                    None => "the canary takes no records",
                };
                let advice = "'share: 10%', or 'partitions: [0, 3]'";
                self.problems.suggest(canary.at(), canary.settings.path(), message, advice);
                None
            }
        };
        Some(TrialPlan { version: version?, manner: TrialManner::Canary(records?) })
    }

    /// A module that wants to see the records before is of a whole partition.
    fn check_memory(&mut self, part: &Part, canary: &Part) {
        if part.has("lookback") {
            let message = "a module with a 'lookback' cannot be tried on a share of the records";
            let advice = "it would miss those of the others: name 'partitions'";
            self.problems.suggest(canary.at_key("share"), &canary.path_of("share"), message, advice);
        }
    }

    /// Reads `10%`.
    fn share(&mut self, node: &Node, path: &str) -> Option<CanaryPart> {
        let text = node.text()?;
        let percent = text
            .strip_suffix('%')
            .map(str::trim_end)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        let percent = percent.and_then(|digits| digits.parse::<f64>().ok());
        let per_million = percent.map(|percent| (percent * 10_000.0).round() as u32);
        match per_million.filter(|share| (1..1_000_000).contains(share)) {
            Some(per_million) => Some(CanaryPart::Share { per_million }),
            None => {
                let shown = node.shown().unwrap_or_default();
                let message = format!("expected a share, found '{shown}'");
                self.problems.suggest(node.at, path, message, "from 0.0001% to 99.9999%, as 10% or 0.5%");
                None
            }
        }
    }

    fn partitions(&mut self, list: &Node, path: &str) -> Option<CanaryPart> {
        let mut partitions = BTreeSet::new();
        for (index, node) in list.items().iter().enumerate() {
            // What is no number was reported already.
            let Some(partition) = node.text().and_then(|text| text.parse::<i32>().ok()) else { continue };
            let count = self.partitions.filter(|count| partition.cast_unsigned() >= *count);
            if let Some(count) = count {
                let message = format!("the topic has no partition {partition}");
                let advice = format!("it has {count}: 0 to {}", count.saturating_sub(1));
                self.problems.suggest(node.at, &format!("{path}[{index}]"), message, advice);
            }
            partitions.insert(partition);
        }
        if list.items().is_empty() {
            let message = "no partition: the canary takes no records";
            self.problems.suggest(list.at, path, message, "as 'partitions: [0, 3]'");
        }
        Some(CanaryPart::Partitions(partitions))
    }
}
