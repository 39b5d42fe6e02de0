//! The world as a plan needs it: which topics, indexes and groups there are. Changes nothing.

use std::{collections::BTreeMap, sync::Arc};

use millrace_config::{PipelinePlan, Plan};
use millrace_control::Chain;
use millrace_core::{Broker, Sink, TopicSpec};
use millrace_state::{GroupWorld, IndexWorld, TopicWorld, World};

use super::{StateBroker, read};
use crate::{
    assemble::{Systems, group},
    report::{Failure, say},
};

/// What was observed, with the opened systems to change it by.
pub struct Observed {
    /// What there is.
    pub world: World,
    /// How missing topics are made.
    pub topics: Vec<(Arc<dyn Broker>, TopicSpec)>,
    /// Indexes that lack something.
    pub indexes: Vec<(String, Arc<dyn Sink>)>,
    /// The groups of pipelines that are not in the file any more, with the control topics of their brokers.
    pub former: Vec<(Arc<dyn Broker>, String, GroupWorld)>,
}

/// Observes all that a file names, and what former files have left.
pub async fn observe(
    systems: &mut Systems,
    plan: &Plan,
    state: &StateBroker,
    chain: &Chain,
) -> Result<Observed, Failure> {
    let mut observed =
        Observed { world: World::default(), topics: Vec::new(), indexes: Vec::new(), former: Vec::new() };
    topics(systems, plan, &mut observed).await?;
    indexes(systems, plan, &mut observed).await?;
    for pipeline in plan.pipelines.values() {
        let broker = systems.broker(plan, &pipeline.from.broker)?;
        for world in groups(&*broker, pipeline, true).await? {
            observed.world.groups.push(world);
        }
    }
    former(systems, plan, state, chain, &mut observed).await?;
    Ok(observed)
}

async fn topics(systems: &mut Systems, plan: &Plan, observed: &mut Observed) -> Result<(), Failure> {
    let mut specs: BTreeMap<(String, String), TopicSpec> = BTreeMap::new();
    for (name, topic) in &plan.topics {
        specs.insert((topic.broker.clone(), name.clone()), topic.spec.clone());
    }
    for pipeline in plan.pipelines.values() {
        let key = (pipeline.from.broker.clone(), pipeline.dead_letters.name.clone());
        specs.entry(key).or_insert_with(|| pipeline.dead_letters.clone());
    }
    for ((broker_name, name), spec) in specs {
        let broker = systems.broker(plan, &broker_name)?;
        let found = broker.admin().topic(&name).await?;
        let found = found.map(|info| u32::try_from(info.partitions.len()).unwrap_or(u32::MAX));
        if found.is_none() {
            observed.topics.push((broker, spec.clone()));
        }
        let wanted = spec.partitions;
        observed.world.topics.push(TopicWorld { broker: broker_name, name, wanted, found });
    }
    Ok(())
}

async fn indexes(systems: &mut Systems, plan: &Plan, observed: &mut Observed) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for pipeline in plan.pipelines.values() {
        for sink in &pipeline.sinks {
            let Some(index) = systems.index(plan, &pipeline.name, sink).await? else { continue };
            let name = sink.settings.text("index").unwrap_or_default().to_owned();
            let store = sink.store.clone().unwrap_or_default();
            if seen.contains(&(store.clone(), name.clone())) {
                continue;
            }
            seen.push((store.clone(), name.clone()));
            let lacks = index.lacks().await?;
            if !lacks.is_empty() {
                observed.indexes.push((name.clone(), index));
            }
            observed.world.indexes.push(IndexWorld { store, name, lacks });
        }
    }
    Ok(())
}

/// The groups of a pipeline: its own and those of its isolated sinks.
async fn groups(
    broker: &dyn Broker,
    pipeline: &PipelinePlan,
    wanted: bool,
) -> Result<Vec<GroupWorld>, Failure> {
    let lanes = pipeline.sinks.iter().filter(|sink| sink.isolated).map(|sink| Some(sink.id.as_str()));
    let mut found = Vec::new();
    for lane in std::iter::once(None).chain(lanes) {
        let (name, topic) = (group(pipeline, lane), &pipeline.from.topic);
        let progress = broker.admin().progress(&name, topic).await?;
        found.push(GroupWorld {
            pipeline: pipeline.name.clone(),
            broker: pipeline.from.broker.clone(),
            group: name,
            topic: topic.clone(),
            wanted,
            has_progress: !progress.is_empty(),
        });
    }
    Ok(found)
}

/// What pipelines have left that were applied once and are not in the file any more.
async fn former(
    systems: &mut Systems,
    plan: &Plan,
    state: &StateBroker,
    chain: &Chain,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let mut seen: Vec<String> = plan.pipelines.keys().cloned().collect();
    for applied in chain.history().iter().rev() {
        let Ok(older) = read(applied, state.dir.as_deref()) else {
            say(&format!(
                "millrace: generation {} cannot be read here: what its pipelines have left is not known",
                applied.entry.generation
            ));
            continue;
        };
        let mut of_older = None;
        for (_, pipeline) in older.plan.pipelines.iter().filter(|(name, _)| !seen.contains(name)) {
            let broker_name = &pipeline.from.broker;
            let (broker, topic) = if plan.brokers.contains_key(broker_name) {
                systems.control(plan, broker_name)?
            } else {
                let systems = match &mut of_older {
                    Some(systems) => systems,
                    none => none.insert(Systems::new()?),
                };
                systems.control(&older.plan, broker_name)?
            };
            for world in groups(&*broker, pipeline, false).await? {
                observed.former.push((broker.clone(), topic.clone(), world.clone()));
                observed.world.groups.push(world);
            }
        }
        seen.extend(older.plan.pipelines.keys().cloned());
    }
    Ok(())
}
