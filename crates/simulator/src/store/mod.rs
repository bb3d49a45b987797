//! The level of the store: the real engine (machine and store on SQLite files) on every device, the
//! real server over memory or SQLite, a played network and clock. It panics when the simulation itself
//! cannot go on: it is a test tool.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod acts;
mod answer;
mod app;
mod arrive;
mod baseline;
mod blind;
mod bounds;
mod check;
mod clean;
mod device;
mod draw;
mod drawn;
mod drawn_app;
mod fault;
mod fence;
mod files;
mod generate;
mod given_up;
mod histories;
mod http;
mod noted;
mod order;
mod person;
mod play;
mod poison;
mod pure;
mod rows;
mod scenario;
mod schema;
mod secrets;
mod server;
mod shrink;
mod unreached;
mod upgrade;
mod watch;
mod words;
mod world;

pub use drawn::{Action, Column, Drawn, Key, Kind, Reference, Rule, To};
pub use fault::NetFault;
pub use scenario::{
    DeviceAct, OnDelete, Poison, PoisonKind, Rules, Scenario, ServerAct, Setup, Step, StorageKind,
    Tables, Write,
};

pub use upgrade::Upgrade;

use crate::level::{Cell, Level, Played};
use files::Pool;
use std::path::{Path, PathBuf};

/// Plays seeds, and scenarios that were kept.
pub struct StoreLevel {
    pool: Pool,
    within: PathBuf,
    /// Whether everything that happens is printed to standard error.
    pub verbose: bool,
}

impl Default for StoreLevel {
    fn default() -> Self {
        Self::new()
    }
}

impl StoreLevel {
    /// Keeps files in memory where the system has a place for that.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let within = match memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        Self {
            pool: Pool::default(),
            within,
            verbose: false,
        }
    }

    /// The scenario of a seed.
    pub fn scenario(&self, seed: u64) -> Scenario {
        generate::scenario(seed)
    }

    /// Plays a scenario.
    pub fn play_scenario(&self, scenario: &Scenario) -> Played {
        play::play(scenario, &self.pool, &self.within, self.verbose)
    }
}

impl Level for StoreLevel {
    fn name(&self) -> &'static str {
        "store"
    }

    fn play(&self, seed: u64) -> Played {
        self.play_scenario(&self.scenario(seed))
    }

    fn table(&self) -> Vec<(Cell, &'static str)> {
        unreached::table()
    }

    fn faults(&self) -> Vec<&'static str> {
        words::faults()
    }

    fn shrink(&self, seed: u64) -> Option<String> {
        shrink::shrink(self, &self.scenario(seed))
            .map(|(scenario, broken)| shrink::print(&scenario, &broken))
    }
}
