//! `millrace check`: every mistake of a pipeline file, with its place.

use std::io::{Write, stdout};

use serde_json::{Value, json};

use crate::{
    args::CheckArgs,
    plan,
    report::{Failure, counted},
};

pub fn run(args: &CheckArgs) -> Result<(), Failure> {
    let checked = plan::check(&args.at)?;
    let mut out = stdout().lock();
    match checked.plan {
        Ok(plan) => {
            if args.at.json {
                let notes = plan.notes();
                writeln!(
                    out,
                    "{}",
                    json!({ "file": checked.name, "ok": true, "problems": [], "notes": notes })
                )?;
            } else {
                let (pipelines, topics) = (plan.pipelines.len() as u64, plan.topics.len() as u64);
                let what = format!("{} on {}", counted(pipelines, "pipeline"), counted(topics, "topic"));
                writeln!(out, "{}: {what}, no mistakes", checked.name)?;
                for note in plan.notes() {
                    writeln!(out, "note: {note}")?;
                }
            }
            Ok(())
        }
        Err(problems) if args.at.json => {
            let list: Vec<Value> = problems.iter().map(|p| plan::problem_json(&checked.name, p)).collect();
            writeln!(out, "{}", json!({ "file": checked.name, "ok": false, "problems": list }))?;
            Err(Failure::input(""))
        }
        Err(problems) => {
            Err(Failure::input(millrace_config::render(&problems, &checked.name, &checked.text).trim_end()))
        }
    }
}
