//! The subcommands, one file each. A new one is a module and one line of the list below: its
//! `Args` (whose documentation is the help) and `run(Args, &Global) -> Result<Report, Failure>`.

mod admin;
mod attach;
mod clone;
mod conflicts;
mod detach;
mod doctor;
mod engine;
mod explain;
mod migrate;
mod outbox;
mod replay;
mod run;
mod schedule;
mod serve;
mod status;
mod sweep;
mod sync;
mod token;

pub use explain::explained;

use crate::{Failure, Global, Report, demo};

macro_rules! commands {
    ($($variant:ident => $module:ident,)*) => {
        /// What is to be done.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Command {
            $(#[allow(missing_docs)] $variant($module::Args),)*
        }

        impl Command {
            pub(crate) fn run(self, global: &Global) -> Result<Report, Failure> {
                match self {
                    $(Self::$variant(args) => $module::run(args, global),)*
                }
            }
        }
    };
}

commands! {
    Demo => demo,
    Serve => serve,
    Token => token,
    Admin => admin,
    Attach => attach,
    Clone => clone,
    Sync => sync,
    Run => run,
    Status => status,
    Explain => explain,
    Replay => replay,
    Doctor => doctor,
    Outbox => outbox,
    Conflicts => conflicts,
    Sweep => sweep,
    Detach => detach,
    Migrate => migrate,
}
