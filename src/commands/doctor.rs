//! `millrace doctor`: reaches every broker and store and says what is wrong.

use std::io::{Write, stdout};

use millrace_config::{PipelinePlan, Plan};
use millrace_core::{Class, Error, Finding};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use crate::{
    args::DoctorArgs,
    assemble::Systems,
    modules::Modules,
    plan,
    report::{Failure, counted},
};

/// What was seen of one system.
struct Visit {
    system: String,
    findings: Vec<Finding>,
}

pub async fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let limit = Duration::from_millis(args.timeout_ms);
    let mut systems = Systems::new()?;
    let mut visits = Vec::new();
    for name in plan.brokers.keys() {
        let seen = timeout(limit, broker(&mut systems, &plan, name)).await;
        visits.push(Visit::of("broker", name, seen.unwrap_or_else(|_| Err(late(limit)))));
    }
    for name in plan.stores.keys() {
        let seen = timeout(limit, store(&mut systems, &plan, name)).await;
        visits.push(Visit::of("store", name, seen.unwrap_or_else(|_| Err(late(limit)))));
    }
    if plan
        .pipelines
        .values()
        .flat_map(PipelinePlan::modules)
        .any(|module| module.deployed().next().is_some())
    {
        let seen = timeout(limit, deployed(&plan)).await;
        visits.push(Visit::of("registry on", &plan.state, seen.unwrap_or_else(|_| Err(late(limit)))));
    }
    print(&visits, args.at.json)?;
    let bad = visits.iter().flat_map(|visit| &visit.findings).filter(|finding| !finding.ok).count();
    if bad > 0 {
        return Err(Failure::environment(format!("{} to mend", counted(bad as u64, "finding"))));
    }
    Ok(())
}

/// Reaches the broker and compares its topics with the declared ones.
async fn broker(systems: &mut Systems, plan: &Plan, name: &str) -> Result<Vec<Finding>, Error> {
    let admin = systems.broker(plan, name)?.admin();
    let topics = admin.topics().await?;
    let mut findings =
        vec![Finding { ok: true, what: format!("reached, {}", counted(topics.len() as u64, "topic")) }];
    for (topic, declared) in plan.topics.iter().filter(|(_, topic)| topic.broker == name) {
        let wanted = declared.spec.partitions as usize;
        let what = match topics.iter().find(|info| info.name == *topic) {
            None => format!("topic {topic} does not exist; create it with 'millrace topic create --all'"),
            Some(info) if info.partitions.len() != wanted => {
                format!("topic {topic} has {} partitions, declared are {wanted}", info.partitions.len())
            }
            Some(_) => continue,
        };
        findings.push(Finding { ok: false, what });
    }
    Ok(findings)
}

async fn store(systems: &mut Systems, plan: &Plan, name: &str) -> Result<Vec<Finding>, Error> {
    systems.store(plan, name).await?.check().await
}

/// Whether the deployed modules that steps name are there, and may run.
async fn deployed(plan: &Plan) -> Result<Vec<Finding>, Error> {
    let (mut modules, mut findings) = (Modules::default(), Vec::new());
    for pipeline in plan.pipelines.values() {
        let used = pipeline.modules().flat_map(|module| module.deployed().map(move |used| (module, used.1)));
        for (module, reference) in used {
            let finding = match modules.deployed(plan, reference).await {
                Ok(manifest) => {
                    let digest: String = manifest.digest.chars().take(12).collect();
                    let what =
                        format!("{}.{}: {}, sha256 {digest}…", pipeline.name, module.id, manifest.label());
                    Finding { ok: true, what }
                }
                Err(error) if error.class() == Class::Retry => return Err(error),
                Err(error) => {
                    Finding { ok: false, what: format!("{}.{}: {}", pipeline.name, module.id, error.chain()) }
                }
            };
            findings.push(finding);
        }
    }
    Ok(findings)
}

fn late(limit: Duration) -> Error {
    Error::retry("doctor", format!("no answer within {} ms", limit.as_millis()))
}

impl Visit {
    fn of(what: &str, name: &str, seen: Result<Vec<Finding>, Error>) -> Self {
        let findings = seen.unwrap_or_else(|error| vec![Finding { ok: false, what: error.chain() }]);
        Visit { system: format!("{what} {name}"), findings }
    }
}

fn print(visits: &[Visit], json: bool) -> Result<(), Failure> {
    let mut out = stdout().lock();
    if json {
        let list: Vec<Value> = visits
            .iter()
            .flat_map(|visit| {
                let line = |f: &Finding| json!({ "system": visit.system, "ok": f.ok, "what": f.what });
                visit.findings.iter().map(line).collect::<Vec<_>>()
            })
            .collect();
        writeln!(out, "{}", Value::from(list))?;
        return Ok(());
    }
    for visit in visits {
        for finding in &visit.findings {
            let mark = if finding.ok { "ok  " } else { "BAD " };
            writeln!(out, "{mark} {}: {}", visit.system, finding.what)?;
        }
    }
    Ok(())
}
