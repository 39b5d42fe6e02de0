//! `millrace plan`: what applying the file would change, as a diff, with a hash that names exactly this.

use std::io::{Write, stdout};

use millrace_control::{AppliedEntry, Chain};
use millrace_runtime::Clock;
use millrace_state::{Change, FileState, Planned};
use serde_json::json;

use crate::{
    args::{FileArgs, PlanArgs},
    assemble::Systems,
    plan::{load_with_text, mistakes},
    registry,
    report::{Failure, counted},
    state::{
        Modules, StateBroker, modules,
        observe::{Observed, observe},
    },
};

pub async fn run(args: &PlanArgs) -> Result<(), Failure> {
    let look = Look::take(&args.at, args.purge).await?;
    if args.at.json {
        let Planned { hash, changes, notes } = &look.planned;
        let applied = look.generation();
        let printed =
            json!({ "hash": hash, "applied_generation": applied, "changes": changes, "notes": notes });
        writeln!(stdout().lock(), "{printed}")?;
        return Ok(());
    }
    show(&look.planned)?;
    Ok(())
}

/// A file against the world.
pub struct Look {
    pub file: FileState,
    pub modules: Modules,
    pub state: StateBroker,
    pub chain: Chain,
    pub observed: Observed,
    pub planned: Planned,
}

impl Look {
    /// Reads the file and looks at everything that it concerns.
    pub async fn take(args: &FileArgs, purge: bool) -> Result<Self, Failure> {
        let (plan, text) = load_with_text(args)?;
        let name = args.pipelines.as_deref().map_or("pipelines.yaml".into(), |path| path.to_string_lossy());
        let mut systems = Systems::new()?;
        let modules = modules(&mut systems, &plan).await?;
        let file = FileState::new(text.clone(), modules.digests.clone(), args.embedded.is_some());
        let file = file.map_err(|problems| mistakes(&problems, &name, &text))?;
        // Before anything of the file is shown or stored.
        let secrets = millrace_config::inline_secrets(&file.root, &registry::catalog());
        if !secrets.is_empty() {
            // Without the lines that they stand in.
            return Err(mistakes(&secrets, &name, ""));
        }
        let state = StateBroker::of_plan(&mut systems, &plan)?;
        let chain = state.chain().await?;
        let observed = observe(&mut systems, &plan, &state, &chain).await?;
        let before = match chain.in_force()? {
            None => None,
            Some(applied) => {
                let AppliedEntry { text, modules, embedded, .. } = &applied.entry;
                let file = FileState::new(text.clone(), modules.clone(), *embedded);
                Some((file.map_err(|_| Failure::run("what is applied is no YAML"))?, applied.offset))
            }
        };
        let before = before.as_ref().map(|(file, offset)| (file, *offset));
        let mut planned = millrace_state::plan(before, &file, &observed.world, purge);
        for name in &modules.files {
            planned.notes.push(format!(
                "smartmodule {name} is a file of this machine, which the processes that run it may not have: 'apply' refuses it"
            ));
        }
        Ok(Look { file, modules, state, chain, observed, planned })
    }

    /// What is in force.
    pub fn generation(&self) -> Option<u64> {
        self.chain.history().last().map(|applied| applied.entry.generation)
    }

    /// What would be in force; none where that is in force already.
    pub fn entry(&self) -> Option<AppliedEntry> {
        let last = self.chain.history().last();
        let hash = self.file.hash();
        if last.is_some_and(|last| last.entry.hash == hash) {
            return None;
        }
        Some(AppliedEntry {
            generation: last.map_or(1, |last| last.entry.generation + 1),
            predecessor: last.map(|last| last.offset),
            hash,
            text: self.file.text.clone(),
            embedded: self.file.embedded,
            modules: self.file.modules.clone(),
            at_ms: Clock::system().now_ms(),
            by: by(),
        })
    }
}

/// Who applies, for people.
fn by() -> String {
    let process = crate::control::this_process();
    let user = std::env::var("USER").unwrap_or_default();
    if user.is_empty() { process.host } else { format!("{user} on {}", process.host) }
}

/// The diff for people.
pub fn show(planned: &Planned) -> Result<(), Failure> {
    let mut out = stdout().lock();
    for Change { action, subject, name, details } in &planned.changes {
        writeln!(out, "{} {subject} {name}", action.mark())?;
        for detail in details {
            writeln!(out, "    {detail}")?;
        }
    }
    for note in &planned.notes {
        writeln!(out, "note: {note}")?;
    }
    match planned.changes.len() as u64 {
        0 => writeln!(out, "nothing to change")?,
        count => writeln!(
            out,
            "{}; apply exactly this: millrace apply --plan {}",
            counted(count, "change"),
            planned.hash
        )?,
    }
    Ok(())
}
