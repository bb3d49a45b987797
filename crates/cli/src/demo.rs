//! `syncline demo`: the story of an offline-first app, told while it really happens.
//!
//! ```text
//!  laptop.db ── engine ── link ──┐
//!                                ├── HTTP on loopback ── server ── SQLite
//!  phone.db  ── engine ── link ──┘
//! ```
//!
//! Devices, engines, server and HTTP are the real ones; only the links are the demo's own: small
//! proxies that lose an answer, answer 503, or hold an answer back. What is claimed at the end is
//! measured from the files, the wire and the server's own listing. The demo must never touch
//! anything outside its folder.

mod device;
mod folder;
mod http;
mod link;
mod listing;
mod outcome;
mod rows;
mod server;
mod story;
mod summary;
mod teller;
mod victim;

use crate::{Exit, Failure, Global, Report};
use folder::Folder;
use outcome::Outcome;
use rows::Name;
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Instant;
use story::Story;
use teller::{Teller, Voice};

/// See it work: two devices, a server, and a bad network, in a temporary folder
///
/// Runs in a few seconds and needs nothing. Ends with 0 when everything that it promises happened.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep the files in this folder, which must not exist yet or be empty
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print only the result
    #[arg(short, long)]
    quiet: bool,
    /// Be the device that is killed in the middle of a push
    #[arg(long, hide = true, requires = "link", conflicts_with = "keep")]
    device: Option<PathBuf>,
    /// The way to the server for that device
    #[arg(long, hide = true, requires = "device")]
    link: Option<String>,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<Report, Failure> {
    if let (Some(path), Some(link)) = (&args.device, &args.link) {
        return victim::run(path, link);
    }
    let started = Instant::now();
    let folder = Folder::choose(args.keep.as_deref())?;
    let voice = match args.quiet || global.json {
        true => Voice::Silent,
        false => Voice::Aloud,
    };
    let teller = Teller::new(voice);
    teller.line("Syncline, an offline-first sync engine for apps on SQLite: a demo.");
    teller.line(&format!(
        "Everything happens in {}",
        folder.path().display()
    ));

    let story = Story::run(folder.path(), &teller)?;
    let outcome = Outcome::measure(&story)?;
    let address = story.server.address().to_string();
    story.end();

    teller.line("");
    let wall = started.elapsed();
    let json = outcome.json(wall, folder.kept());
    let kept = folder.kept().map(|path| (path, address.as_str()));
    let text = summary::write(&outcome, wall, kept);
    let exit = match outcome.all_kept() {
        true => Exit::Done,
        false => Exit::Failed,
    };
    Ok(Report::new(text, &json)?.exit(exit))
}

impl Name {
    fn task(id: &str) -> Self {
        Self {
            entity_type: "task".to_owned(),
            entity_id: id.to_owned(),
        }
    }

    fn project(id: &str) -> Self {
        Self {
            entity_type: "project".to_owned(),
            entity_id: id.to_owned(),
        }
    }
}

/// Something that the demo needs did not work.
fn trouble(what: impl Display, why: impl Display) -> Failure {
    Failure::new("demo", format!("{what}: {why}"))
}
