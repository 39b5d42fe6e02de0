//! Steps: SmartModules and lookups.

use std::collections::{BTreeMap, HashMap};

use millrace_core::{
    LookBack,
    module_info::ShippedModule,
    settings::{Location, Node, Problems},
};

use crate::{
    events::{EventTypes, Events},
    fields::{FieldName, Fields},
    modules::deployed,
    names::{Name, advice, unknown},
    part::Part,
    plan::{
        GuardPlan, LookupPlan, LookupQuery, ModuleLimits, ModulePlan, ModuleSource, QuarantinePlan,
        QuarantinePolicy, StepPlan,
    },
    tables,
    trial::{self, Trials},
    world::{Later, LedgerUse, World},
};

/// The steps of a pipeline, read one after the other: each changes what the next one sees.
pub(crate) struct Steps<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) pipeline: &'a str,
    pub(crate) events: &'a Events,
    /// What messages have after the steps read so far.
    pub(crate) fields: Fields,
    /// Whether a module may have dropped some of the events.
    pub(crate) filtered: bool,
    /// Of the topic that is read, as it is declared.
    pub(crate) partitions: Option<u32>,
    pub(crate) later: &'a mut Later,
    pub(crate) problems: &'a mut Problems,
}

impl Steps<'_> {
    /// Reads the list at `path`.
    pub(crate) fn read(&mut self, list: &Node, path: &str) -> Vec<StepPlan> {
        let mut ids: HashMap<String, Location> = HashMap::new();
        let mut steps = Vec::new();
        for (index, node) in list.items().iter().enumerate() {
            let part = Part::new(node, format!("{path}[{index}]"), &tables::STEP);
            if let Some(id) = part.settings.node("id").filter(|id| id.text().is_some()) {
                self.check_id(id, &part.path_of("id"), &mut ids);
            }
            steps.extend(self.step(&part));
        }
        steps
    }

    fn check_id(&mut self, node: &Node, path: &str, ids: &mut HashMap<String, Location>) {
        let (Some(name), Some(text)) = (Name::of_value(node), node.text()) else { return };
        name.check_id(path, self.problems);
        if let Some(first) = ids.insert(text.to_owned(), node.at) {
            let shown = node.shown().unwrap_or_default();
            let message = format!("the id '{shown}' stands twice, first in line {}", first.line);
            self.problems.suggest(node.at, path, message, "ids name steps in metrics and dead letters");
        }
    }

    fn step(&mut self, part: &Part) -> Option<StepPlan> {
        match (part.has("uses"), part.settings.node("lookup")) {
            (true, None) => self.module(part).map(StepPlan::Module),
            (false, Some(node)) => {
                let beside_uses = ["with", "lookback", "limits", "quarantine"].into_iter().chain(trial::KEYS);
                for key in beside_uses.filter(|key| part.has(key)) {
                    let message = format!("'{key}' has a meaning only beside 'uses'");
                    self.problems.add(part.at_key(key), &part.path_of(key), message);
                }
                let lookup = Part::new(node, part.path_of("lookup"), &tables::LOOKUP);
                self.lookup(part.settings.text("id").unwrap_or_default(), &lookup).map(StepPlan::Lookup)
            }
            (both, _) => {
                let message =
                    if both { "a step is either 'uses' or 'lookup'" } else { "the step does nothing" };
                let advice = "'uses: MODULE' for a SmartModule, 'lookup: {…}' to read a store";
                self.problems.suggest(part.at(), part.settings.path(), message, advice);
                None
            }
        }
    }

    fn module(&mut self, part: &Part) -> Option<ModulePlan> {
        let name = part.settings.text("uses")?;
        let shipped = self.world.catalog.module(name);
        let Some(source) = self.source(part, name, shipped) else {
            self.fields = Fields::Any;
            return None;
        };
        self.filtered = true;
        self.fields = match (&source, shipped.and_then(|module| module.output_fields)) {
            (ModuleSource::File(_) | ModuleSource::Registry(_), _) => Fields::Any,
            (ModuleSource::Shipped, None) => self.fields.clone(),
            (ModuleSource::Shipped, Some(names)) => Fields::Output {
                module: name.to_owned(),
                names: names.iter().map(|name| FieldName::known(name)).collect(),
            },
        };
        let trial = Trials { partitions: self.partitions, problems: self.problems }.read(part, &source);
        let quarantine = self.quarantine(&part.part("quarantine", &tables::QUARANTINE), &source);
        let with: BTreeMap<String, String> = part.settings.pairs("with").into_iter().collect();
        Some(ModulePlan {
            id: part.settings.text("id").unwrap_or_default().to_owned(),
            module: name.to_owned(),
            source,
            with,
            look_back: part
                .has("lookback")
                .then(|| self.look_back(&part.part("lookback", &tables::LOOK_BACK))),
            limits: self.limits(&part.part("limits", &tables::LIMITS)),
            trial,
            quarantine,
        })
    }

    /// Where the module is; reports one that is nowhere.
    fn source(&mut self, part: &Part, name: &str, shipped: Option<&ShippedModule>) -> Option<ModuleSource> {
        let node = part.settings.node("uses")?;
        match (self.world.modules.get(name), shipped) {
            (Some(source), _) => source.clone(),
            (None, Some(module)) => {
                self.check_params(part, module);
                Some(ModuleSource::Shipped)
            }
            (None, None) if name.contains('@') => deployed(node, &part.path_of("uses"), self.problems),
            (None, None) => {
                let shipped = self.world.catalog.modules.iter().map(|module| module.name);
                let known = self.world.modules.keys().map(String::as_str).chain(shipped);
                unknown(node, "SmartModule", &part.path_of("uses"), known, self.problems);
                None
            }
        }
    }

    fn check_params(&mut self, part: &Part, module: &ShippedModule) {
        let given = part.settings.node("with").map(Node::entries).unwrap_or_default();
        for (key, _) in given.iter().filter(|(key, _)| !module.params.contains(&key.text.as_str())) {
            let path = format!("{}.{}", part.path_of("with"), key.text);
            let message = format!("'{}' has no parameter '{}'", module.name, key.text);
            let advice = advice(&key.text, "parameter", module.params.iter().copied());
            self.problems.suggest(key.at, &path, message, advice);
        }
    }

    fn look_back(&mut self, part: &Part) -> LookBack {
        let age = part.has("age").then(|| part.duration_within("age", ("1ms", "36500d"), self.problems));
        LookBack { records_max: part.count("last"), age_max: age }
    }

    fn limits(&mut self, part: &Part) -> ModuleLimits {
        ModuleLimits {
            memory_bytes: part.size_within("memory", ("2MiB", "1GiB"), self.problems),
            timeout: part.duration_within("timeout", ("1ms", "10m"), self.problems),
            output_records: part.count("output_records"),
            output_bytes: part.size_within("output_bytes", ("1KiB", "1GiB"), self.problems),
            fuel: part.number("fuel"),
        }
    }

    fn quarantine(&mut self, part: &Part, source: &ModuleSource) -> QuarantinePlan {
        let then = match part.settings.text("then") {
            Some("skip") => QuarantinePolicy::Skip,
            Some("previous") => QuarantinePolicy::Previous,
            _ => QuarantinePolicy::Stop,
        };
        let is_deployed = matches!(source, ModuleSource::Registry(_));
        if then == QuarantinePolicy::Previous && !is_deployed {
            let message = "only a deployed module has a version before it";
            let advice =
                "'millrace smartmodule deploy' it and use NAME@VERSION or NAME@latest, or 'then: stop'";
            self.problems.suggest(part.at_key("then"), &part.path_of("then"), message, advice);
        }
        QuarantinePlan { after: part.count("after"), then }
    }

    fn lookup(&mut self, id: &str, part: &Part) -> Option<LookupPlan> {
        self.check_lookup_store(part);
        self.fields.check_object(
            part.settings.as_node(),
            &tables::LOOKUP,
            part.settings.path(),
            self.problems,
        );
        let query = self.query(part);
        let uncached = self.event_types(part, "uncached");
        let cache_ttl = part.duration_within("cache_ttl", ("0s", "1d"), self.problems);
        let guard = part.has("guard").then(|| part.part("guard", &tables::GUARD));
        if let Some(guard) = &guard {
            self.check_guard(guard, cache_ttl.is_zero(), &uncached);
        }
        let into = self.field_added(part);
        Some(LookupPlan {
            id: id.to_owned(),
            store: part.settings.text("store")?.to_owned(),
            query: query?,
            into: into?,
            cache_ttl,
            cache_entries: part.count("cache_entries"),
            uncached: uncached.into_keys().collect(),
            guard: match guard {
                None => None,
                Some(guard) => Some(GuardPlan {
                    id: guard.settings.template("id")?,
                    closed_by: guard.settings.texts("closed_by"),
                    ledger: guard.duration("ledger"),
                }),
            },
        })
    }

    fn check_lookup_store(&mut self, part: &Part) {
        let Some(node) = part.settings.node("store") else { return };
        let (stores, path) = (self.world.stores, part.path_of("store"));
        stores.check_name(node, "store", &path, self.problems);
        let kind = node.text().and_then(|name| stores.store_kind(name, self.world.catalog));
        if let Some(kind) = kind.filter(|kind| !kind.lookup) {
            let good = stores.names_of(self.world.catalog, |kind| kind.lookup);
            let shown = node.shown().unwrap_or_default();
            let message = format!("the store '{shown}' ({}) cannot serve lookups", kind.kind.name);
            self.problems.suggest(node.at, &path, message, can_serve(&good));
        }
    }

    fn query(&mut self, part: &Part) -> Option<LookupQuery> {
        let of_members = part.has("members");
        if of_members == part.has("document") {
            let message = "a lookup reads either 'members' or 'document'";
            self.problems.add(part.at(), part.settings.path(), message);
            return None;
        }
        for key in ["page", "guard"].into_iter().filter(|key| !of_members && part.has(key)) {
            let message = format!("'{key}' has a meaning only with 'members'");
            self.problems.add(part.at_key(key), &part.path_of(key), message);
        }
        Some(if of_members {
            LookupQuery::Members { key: part.settings.template("members")?, page: part.count("page") }
        } else {
            LookupQuery::Document { key: part.settings.template("document")? }
        })
    }

    fn field_added(&mut self, part: &Part) -> Option<String> {
        let node = part.settings.node("into")?;
        let name = node.text().filter(|name| !name.is_empty())?;
        let path = part.path_of("into");
        Name::of_value(node)?.check_field(&path, self.problems);
        if self.fields.has(name) {
            let message = format!("the field '{}' exists already", node.shown().unwrap_or_default());
            self.problems.suggest(
                node.at,
                &path,
                message,
                "the answer would replace it: choose another name",
            );
        }
        self.fields.add(FieldName { text: name.to_owned(), shown: !node.is_expanded() });
        Some(name.to_owned())
    }

    fn event_types(&mut self, part: &Part, key: &str) -> EventTypes {
        match part.settings.node(key) {
            Some(node) => self.events.check_list(node, &part.path_of(key), self.problems),
            None => EventTypes::new(),
        }
    }

    /// An event that closes the guard takes back what others did: from a stale list it would miss some of it.
    fn check_guard(&mut self, guard: &Part, never_cached: bool, uncached: &EventTypes) {
        let path = guard.path_of("closed_by");
        let closed_by = self.event_types(guard, "closed_by");
        if closed_by.is_empty()
            && guard.settings.node("closed_by").is_some_and(|node| node.items().is_empty())
        {
            self.problems.add(guard.at_key("closed_by"), &path, "no event type closes the guard");
        }
        let cached = |event_type: &String| !never_cached && !uncached.contains_key(event_type);
        for (_, shown) in closed_by.iter().filter(|(event_type, _)| cached(event_type)) {
            let message = format!("the event type '{shown}' closes the guard but reads from the cache");
            let advice = format!("add it to 'uncached': [{shown}]");
            self.problems.suggest(guard.at_key("closed_by"), &path, message, advice);
        }
        self.later.ledgers.push(LedgerUse {
            pipeline: self.pipeline.to_owned(),
            key: "ledger",
            at: guard.at_key("ledger"),
            path: guard.path_of("ledger"),
            lives: guard.duration("ledger"),
        });
    }
}

/// What to do about a store that cannot do what is asked of it.
pub(crate) fn can_serve(good: &[&str]) -> String {
    if good.is_empty() {
        "no store of this file can".to_owned()
    } else {
        format!("these can: {}", good.join(", "))
    }
}
