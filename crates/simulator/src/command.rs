//! What the command takes, and running it: reads arguments, picks the level, prints the report.

use crate::level::Level;
use crate::model::CoreLevel;
use crate::runner::{Run, run as run_seeds};
#[cfg(feature = "store")]
use crate::store::{Scenario, StoreLevel};
use clap::{Parser, ValueEnum};
#[cfg(feature = "store")]
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Plays seeds of a deterministic simulation and checks Syncline's invariants.
#[derive(Debug, Parser)]
#[command(name = "syncline-simulator", version)]
pub struct Arguments {
    /// How many seeds; with `--minutes` alone, as many as there is time for.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// No new seed is begun after this many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// Which level: the real store on SQLite, or the machine alone.
    #[arg(long, value_enum, default_value_t = Which::USUAL)]
    level: Which,
    /// Threads; as many as there are processors unless told.
    #[arg(long)]
    jobs: Option<usize>,
    /// Ends after so many failures; otherwise they are counted to the end.
    #[arg(long)]
    failures: Option<usize>,
    /// Prints everything that happens to standard error.
    #[arg(long)]
    verbose: bool,
    /// Plays the scenario in this file, as one in `seeds`, instead of seeds.
    #[cfg(feature = "store")]
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// Leaves failures as they are: making a scenario smaller plays it hundreds of times.
    #[arg(long)]
    no_shrink: bool,
    /// Writes the report here, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    /// The real engine on real SQLite, against the real server.
    #[cfg(feature = "store")]
    Store,
    /// The machine alone, against models of store and server.
    Core,
}

impl Which {
    #[cfg(feature = "store")]
    const USUAL: Self = Self::Store;
    #[cfg(not(feature = "store"))]
    const USUAL: Self = Self::Core;
}

fn level(which: Which, verbose: bool) -> Box<dyn Level> {
    match which {
        #[cfg(feature = "store")]
        Which::Store => {
            let mut level = StoreLevel::new();
            level.verbose = verbose;
            Box::new(level)
        }
        Which::Core => Box::new(CoreLevel { verbose }),
    }
}

/// Exit code 0 when it breaks nothing, 1 when it does, 2 when there is no such scenario.
#[cfg(feature = "store")]
fn play_scenario(path: &Path, verbose: bool) -> ExitCode {
    let read = std::fs::read(path).map_err(serde_json::Error::io);
    let scenario: Scenario = match read.and_then(|json| serde_json::from_slice(&json)) {
        Ok(scenario) => scenario,
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let mut level = StoreLevel::new();
    level.verbose = verbose;
    match level.play_scenario(&scenario).broken {
        None => ExitCode::SUCCESS,
        Some(broken) => {
            println!("breaks {}: {}", broken.invariant, broken.detail);
            ExitCode::FAILURE
        }
    }
}

/// Exit code 0 when every seed is clean, 1 when one is not, 2 when the report could not be written.
pub fn run(arguments: &Arguments) -> ExitCode {
    #[cfg(feature = "store")]
    if let Some(path) = &arguments.scenario {
        return play_scenario(path, arguments.verbose);
    }
    let level = level(arguments.level, arguments.verbose);
    let limited = arguments.minutes.is_some();
    let report = run_seeds(
        &*level,
        Run {
            from: arguments.from,
            seeds: arguments
                .seeds
                .unwrap_or(if limited { u64::MAX } else { 100 }),
            longest: arguments
                .minutes
                .map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0)),
            jobs: arguments.jobs.unwrap_or_else(|| {
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
            }),
            failures: arguments.failures.unwrap_or(usize::MAX),
            shrink: !arguments.no_shrink,
        },
    );
    println!("{report}");
    if let Some(path) = &arguments.json {
        let written = serde_json::to_vec_pretty(&report)
            .map_err(std::io::Error::other)
            .and_then(|json| std::fs::write(path, json));
        if let Err(error) = written {
            eprintln!(
                "the report could not be written to {}: {error}",
                path.display()
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::from(u8::from(!report.is_clean()))
}
