//! `millrace smartmodule`: from a new crate to a module that pipelines run.

mod author;
mod build;
mod delete;
mod deploy;
mod inspect;
mod lines;
mod list;
mod new;
mod rollback;
mod test;
mod toolchain;

use crate::{args::SmartmoduleCommand, report::Failure};

pub async fn run(command: SmartmoduleCommand) -> Result<(), Failure> {
    match command {
        SmartmoduleCommand::New(args) => new::run(&args),
        SmartmoduleCommand::Build(args) => build::run(&args).await,
        SmartmoduleCommand::Test(args) => test::run(&args),
        SmartmoduleCommand::Deploy(args) => deploy::run(&args).await,
        SmartmoduleCommand::List(args) => list::run(&args).await,
        SmartmoduleCommand::Inspect(args) => inspect::run(&args).await,
        SmartmoduleCommand::Rollback(args) => rollback::run(&args).await,
        SmartmoduleCommand::Delete(args) => delete::run(&args).await,
    }
}
