//! `millrace status`: how every pipeline of the file is doing, in whatever process it runs. What processes say
//! of themselves is on the brokers' boards; lag and dead letters the brokers know best.

pub(super) mod look;
mod pace;
mod print;
mod trials;

use std::io::{IsTerminal, Write, stdout};

use millrace_runtime::Clock;
use tokio::time::{Duration, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::look::Look;
pub(super) use self::pace::Pace;
use crate::{
    args::StatusArgs,
    assemble::Systems,
    report::{Failure, counted},
    signals::Signals,
    state,
};

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Moves to the first place of a terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub async fn run(args: &StatusArgs) -> Result<(), Failure> {
    let plan = state::load(&args.at).await?;
    let mut systems = Systems::new()?;
    let limit = Duration::from_millis(args.timeout_ms);
    let clock = Clock::system();
    if !args.watch {
        let look = look::take(&mut systems, &plan, limit, clock.now_ms()).await?;
        show(&look, args.at.json)?;
        return conclude(&look);
    }
    let shutdown = CancellationToken::new();
    let watch = async {
        let mut tick = interval(WATCH_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            let look = look::take(&mut systems, &plan, limit, clock.now_ms()).await?;
            if stdout().is_terminal() {
                write!(stdout(), "{CLEAR}")?;
            }
            show(&look, args.at.json)?;
        }
        Ok(())
    };
    Signals::listen()?.guard(&shutdown, watch).await?
}

fn show(look: &Look, as_json: bool) -> Result<(), Failure> {
    let mut out = stdout().lock();
    if as_json {
        writeln!(out, "{}", print::json(look))?;
    } else {
        write!(out, "{}", print::table(look))?;
    }
    out.flush()?;
    Ok(())
}

/// The exit code: brokers that are away hide what is true, so they come first.
fn conclude(look: &Look) -> Result<(), Failure> {
    let away: Vec<String> =
        look.away.iter().map(|(name, why)| format!("broker {name} does not answer: {why}")).collect();
    if !away.is_empty() {
        return Err(Failure::environment(away.join("; ")));
    }
    match look.pipelines.iter().filter(|pipeline| pipeline.state != "running").count() as u64 {
        0 => Ok(()),
        1 => Err(Failure::run("1 pipeline is not running")),
        several => Err(Failure::run(format!("{} are not running", counted(several, "pipeline")))),
    }
}
