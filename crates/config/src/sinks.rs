//! Sinks: what a pipeline writes.

use millrace_core::{
    StoreKind, View,
    settings::{Key, Node, Problems, parse_duration},
    views::{Counter, Document, Index, IndexFields, Members, Timeline},
};

use crate::{
    catalog::{Memory, Section, SinkKind, SinkTarget},
    events::Events,
    fields::Fields,
    names::{Name, unknown},
    part::Part,
    plan::{BreakerPlan, Output, RetryPlan, SinkPlan},
    policy,
    select::{Selected, select},
    steps::can_serve,
    tables,
    world::{IndexUse, LaneUse, Later, LedgerUse, World},
};

/// The sinks of a pipeline.
pub(crate) struct Sinks<'a> {
    pub(crate) world: &'a World<'a>,
    pub(crate) pipeline: &'a str,
    /// The broker it reads from, if that is known.
    pub(crate) broker: Option<&'a str>,
    /// The pipeline's.
    pub(crate) retry: RetryPlan,
    pub(crate) events: &'a Events,
    /// What messages have after the last step.
    pub(crate) fields: &'a Fields,
    /// Whether a module may have dropped some of the events.
    pub(crate) filtered: bool,
    pub(crate) later: &'a mut Later,
    pub(crate) problems: &'a mut Problems,
}

impl Sinks<'_> {
    /// Reads the mapping at `path`.
    pub(crate) fn read(&mut self, to: &Node, path: &str) -> Vec<SinkPlan> {
        if to.entries().is_empty() {
            let advice = "name at least one sink, as 'out: { stdout: {} }'";
            self.problems.suggest(to.at, path, "the pipeline writes nothing", advice);
        }
        let sinks: Vec<SinkPlan> =
            to.entries().iter().filter_map(|(id, node)| self.sink(id, node, path)).collect();
        if !sinks.is_empty() && sinks.iter().all(|sink| sink.isolated) && sinks.len() == to.entries().len() {
            let advice = "take 'isolated' from one of them: it goes at the pipeline's own pace";
            self.problems.suggest(to.at, path, "every sink is isolated", advice);
        }
        sinks
    }

    fn sink(&mut self, id: &Key, node: &Node, path: &str) -> Option<SinkPlan> {
        let path = format!("{path}.{}", id.text);
        Name::of_key(id).check_id(&path, self.problems);
        let (catalog, base_dir) = (self.world.catalog, self.world.base_dir);
        let selected = select(node, &path, Section::Sinks, catalog, base_dir, self.problems)?;
        let SinkKind { target, memory, .. } = catalog.sink(selected.kind.name)?;
        let retry =
            policy::retry(&selected.beside.part("retry", &tables::RETRY), Some(&self.retry), self.problems);
        let breaker = self.breaker(&selected.beside, target);
        let settings = &selected.settings;
        let (node, path, object) = (settings.as_node(), settings.path(), selected.kind.settings);
        self.fields.check_object(node, object, path, self.problems);
        self.events.check_ops(node, object, path, self.filtered, self.problems);
        self.check_store(&selected, target, memory);
        self.note_ledger(&selected, memory);
        let output = match target {
            SinkTarget::View => Output::View(self.view(&selected)?),
            SinkTarget::Topic => self.topic(&selected)?,
            SinkTarget::System => Output::System,
        };
        let isolated = self.isolated(id, &selected.beside, &output);
        Some(SinkPlan {
            isolated,
            retry,
            breaker,
            id: id.text.clone(),
            kind_name: selected.kind.name,
            store: settings.text(memory.store).map(str::to_owned),
            output,
            settings: selected.settings,
        })
    }

    fn breaker(&mut self, beside: &Part, target: SinkTarget) -> BreakerPlan {
        let place = match target {
            SinkTarget::System => None,
            SinkTarget::View => Some("its store, under 'stores'"),
            SinkTarget::Topic => Some("its topic's broker, under 'brokers'"),
        };
        if let Some(place) = place.filter(|_| beside.has("breaker")) {
            let (at, path) = (beside.at_key("breaker"), beside.path_of("breaker"));
            self.problems.suggest(at, &path, "has no effect here", format!("write it beside {place}"));
        }
        policy::breaker(beside, self.problems)
    }

    /// Whether the sink is to have progress of its own.
    fn isolated(&mut self, id: &Key, beside: &Part, output: &Output) -> bool {
        let isolated = beside.settings.flag("isolated").unwrap_or(false);
        if !isolated {
            return false;
        }
        let (at, path) = (beside.at_key("isolated"), beside.path_of("isolated"));
        if matches!(output, Output::Topic { broker, .. } if self.broker == Some(broker)) {
            let message = "a topic on the broker that the pipeline reads cannot be isolated";
            let advice = "when that broker is away nothing is read either; take 'isolated' away";
            self.problems.suggest(at, &path, message, advice);
        }
        let group = format!("{}.{}", self.pipeline, id.text);
        self.later.lanes.push(LaneUse { group, at, path });
        true
    }

    fn check_store(&mut self, selected: &Selected, target: SinkTarget, memory: Memory) {
        let Some(node) = selected.settings.node(memory.store) else { return };
        let (stores, path) = (self.world.stores, selected.settings.path_of(memory.store));
        stores.check_name(node, "store", &path, self.problems);
        let Some(kind) = node.text().and_then(|name| stores.store_kind(name, self.world.catalog)) else {
            return;
        };
        let name = selected.kind.name;
        if !serves(kind, target, name) {
            let what = match target {
                SinkTarget::View => format!("keep the view '{name}'"),
                SinkTarget::System | SinkTarget::Topic => "hold a ledger".to_owned(),
            };
            let shown = node.shown().unwrap_or_default();
            let message = format!("the store '{shown}' ({}) cannot {what}", kind.kind.name);
            let able = stores.names_of(self.world.catalog, |kind| serves(kind, target, name));
            self.problems.suggest(node.at, &path, message, can_serve(&able));
        }
    }

    /// Whatever remembers events must do so for long enough.
    fn note_ledger(&mut self, selected: &Selected, memory: Memory) {
        let (settings, fields) = (&selected.settings, selected.kind.settings.fields);
        let Some(field) = fields.iter().find(|field| field.key == memory.lives) else { return };
        let default = || parse_duration(field.default?);
        let lives = settings.duration(memory.lives).or_else(default);
        if let Some(lives) = lives.filter(|_| settings.node(memory.store).is_some()) {
            self.later.ledgers.push(LedgerUse {
                pipeline: self.pipeline.to_owned(),
                key: memory.lives,
                at: settings.at_key(memory.lives),
                path: settings.path_of(memory.lives),
                lives,
            });
        }
    }

    fn view(&mut self, selected: &Selected) -> Option<View> {
        let settings = &selected.settings;
        let declared = match selected.kind.name {
            "index" => self.index(selected),
            _ => None,
        };
        if !selected.sound {
            return None;
        }
        let mut found = Problems::default();
        let view = match selected.kind.name {
            "timeline" => Timeline::read(settings, &mut found).map(View::Timeline),
            "members" => Members::read(settings, &mut found).map(View::Members),
            "document" => Document::read(settings, &mut found).map(View::Document),
            "counter" => Counter::read(settings, &mut found).map(View::Counter),
            "index" => Index::read(settings, &mut found).and_then(|index| {
                self.later.indexes.push(IndexUse {
                    store: settings.text("store")?.to_owned(),
                    index: index.name.clone(),
                    mode: index.mode,
                    at: settings.at(),
                    path: settings.path().to_owned(),
                });
                Some(View::Index(index, declared?))
            }),
            _ => None,
        };
        self.problems.append(found);
        view
    }

    fn index(&mut self, selected: &Selected) -> Option<IndexFields> {
        let node = selected.settings.node("index")?;
        let name = node.text().filter(|name| !name.is_empty())?;
        let declared = self.world.indexes.get(name);
        if declared.is_none() {
            let known = self.world.indexes.keys().map(String::as_str);
            unknown(node, "index", &selected.settings.path_of("index"), known, self.problems);
        }
        declared.cloned()
    }

    fn topic(&mut self, selected: &Selected) -> Option<Output> {
        let settings = &selected.settings;
        let node = settings.node("topic")?;
        let name = node.text().filter(|name| !name.is_empty())?;
        let Some(topic) = self.world.topics.get(name) else {
            let known = self.world.topics.keys().map(String::as_str);
            unknown(node, "topic", &settings.path_of("topic"), known, self.problems);
            return None;
        };
        Some(Output::Topic {
            topic: name.to_owned(),
            broker: topic.broker.clone(),
            key: settings.template("key"),
        })
    }
}

fn serves(store: &StoreKind, target: SinkTarget, sink_kind: &str) -> bool {
    match target {
        SinkTarget::View => store.views.contains(&sink_kind),
        SinkTarget::System | SinkTarget::Topic => store.ledger,
    }
}
