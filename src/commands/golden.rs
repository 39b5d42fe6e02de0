//! `millrace test`: golden cases. A case is `<pipeline>/<name>.input.ndjson`, beside it `<name>.expected.json`
//! and, where the pipeline looks something up, `<name>.lookups.json` with the answers by key.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use millrace_config::Plan;
use millrace_core::{Record, SinkId};
use millrace_runtime::{Pipeline, rehearse};
use serde_json::{Value, json};

use super::expectation::{Tally, judge};
use crate::{
    args::TestArgs,
    assemble::Systems,
    offline::{GivenAnswers, Recorder},
    plan,
    report::Failure,
};

const INPUT: &str = ".input.ndjson";

/// A case on disk.
struct Case {
    pipeline: String,
    name: String,
    folder: PathBuf,
}

pub async fn run(args: &TestArgs) -> Result<(), Failure> {
    let plan = plan::load(&args.at)?;
    let cases = find(&args.cases, &plan)?;
    if cases.is_empty() {
        let advice = format!("a case is <pipeline>/<name>{INPUT}");
        return Err(Failure::input(format!("no cases in {}; {advice}", args.cases.display())));
    }
    let mut tally = Tally::new(cases.len(), args.at.json);
    for case in cases {
        let seen = observe(&plan, &case).await?;
        let verdict = judge(&case.file(".expected.json"), &seen, args.update)?;
        tally.note(&format!("{}/{}", case.pipeline, case.name), verdict)?;
    }
    tally.conclude()
}

fn find(folder: &Path, plan: &Plan) -> Result<Vec<Case>, Failure> {
    let read = |path: &Path| {
        let entries = fs::read_dir(path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry?.path());
        }
        paths.sort();
        Ok::<_, Failure>(paths)
    };
    let mut cases = Vec::new();
    for path in read(folder)?.into_iter().filter(|path| path.is_dir()) {
        let pipeline = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !plan.pipelines.contains_key(&pipeline) {
            return Err(Failure::input(format!("{}: there is no pipeline '{pipeline}'", path.display())));
        }
        for file in read(&path)? {
            let file_name = file.file_name().unwrap_or_default().to_string_lossy();
            if let Some(name) = file_name.strip_suffix(INPUT) {
                cases.push(Case { pipeline: pipeline.clone(), name: name.to_owned(), folder: path.clone() });
            }
        }
    }
    Ok(cases)
}

/// Runs the case: the calls of each sink, and what was rejected.
async fn observe(plan: &Plan, case: &Case) -> Result<Value, Failure> {
    let mut systems = Systems::offline(GivenAnswers::new(case.lookups()?))?;
    let mut pipeline: Pipeline = systems.pipeline(plan, &plan.pipelines[case.pipeline.as_str()]).await?;
    let mut recorders: Vec<(SinkId, Arc<Recorder>)> = Vec::new();
    for part in &mut pipeline.sinks {
        let recorder = Arc::new(Recorder::new(part.sink.clone()));
        part.sink = recorder.clone();
        recorders.push((part.id.clone(), recorder));
    }
    let records = case.records(&pipeline.subscription.topic)?;
    let rehearsal = rehearse(Arc::new(pipeline), records).await?;
    let sinks: BTreeMap<String, Vec<Value>> =
        recorders.into_iter().map(|(id, recorder)| (id.sink.to_string(), recorder.calls())).collect();
    let rejected: Vec<Value> = rehearsal
        .rejected
        .iter()
        .map(|letter| {
            let line = letter.origin.record.offset + 1;
            json!({ "line": line, "place": letter.place.to_string(), "reason": letter.reason })
        })
        .collect();
    Ok(json!({ "sinks": sinks, "rejected": rejected, "skipped": rehearsal.skipped }))
}

impl Case {
    fn file(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", self.name))
    }

    fn lookups(&self) -> Result<BTreeMap<String, Value>, Failure> {
        let path = self.file(".lookups.json");
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(Failure::input(format!("{}: {error}", path.display()))),
            Ok(text) => serde_json::from_str(&text)
                .map_err(|e| Failure::input(format!("{}: expected answers by key: {e}", path.display()))),
        }
    }

    /// The lines as records of partition 0; the offset is the line's number from 0, the key is not set.
    fn records(&self, topic: &str) -> Result<Vec<Record>, Failure> {
        let path = self.file(INPUT);
        let text = fs::read(&path).map_err(|e| Failure::input(format!("{}: {e}", path.display())))?;
        let topic: Arc<str> = topic.into();
        let lines = text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
        Ok(lines
            .map(|(index, line)| Record {
                topic: topic.clone(),
                partition: 0,
                offset: index as i64,
                timestamp_ms: 0,
                key: None,
                value: Some(Bytes::copy_from_slice(line)),
                headers: Arc::new([]),
            })
            .collect())
    }
}
