//! The core level: several machines over model stores and a reference server, thousands of inputs in a
//! moment. Everything of [`syncline_core`] is real; store, server, network and clock are models.
//!
//! | file | what it is |
//! |---|---|
//! | `plan.rs` | what a seed means: a small world and a list of steps |
//! | `world.rs`, `steps.rs` | the world, and taking a step in it |
//! | `network.rs` | serves requests; bends, loses, doubles, delays |
//! | `calm.rs` | the calm phase in which liveness is owed |
//! | `file.rs`, `claim.rs`, `target.rs`, `book.rs`, `apply.rs` | the model store |
//! | `server.rs`, `feed.rs`, `ledger.rs` | the reference: imports nothing of core |
//! | `watch.rs` | what every machine is held to, input by input |
//! | `cover.rs`, `impossible.txt` | the cells of the machine's table |
//! | `shrink.rs` | a small scenario, as a test |
//! | `sabotage.rs` | a test: models that do wrong are found out |
//!
//! Playing reads no clock and keeps nothing between seeds.

mod again;
mod apply;
mod book;
mod calm;
mod claim;
pub mod cover;
mod feed;
mod file;
mod ledger;
mod network;
pub mod plan;
#[cfg(test)]
mod sabotage;
mod server;
mod shrink;
mod steps;
mod target;
mod watch;
mod world;

use crate::level::{Broken, Cell, Level, Played};
use plan::{Setup, Step, draw};
use world::World;

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoreLevel {
    /// Prints everything that happens to standard error, in a seed and in the scenario that is left of it.
    pub verbose: bool,
}

impl Level for CoreLevel {
    fn name(&self) -> &'static str {
        "core"
    }

    fn play(&self, seed: u64) -> Played {
        let (setup, steps) = draw(seed);
        self.run(setup, &steps)
    }

    fn table(&self) -> Vec<(Cell, &'static str)> {
        cover::table()
    }

    fn shrink(&self, seed: u64) -> Option<String> {
        let (setup, steps) = draw(seed);
        let broken = run(setup, &steps).broken?;
        let (setup, steps) = shrink::shrink(setup, steps, broken.invariant);
        if self.verbose {
            self.run(setup, &steps);
        }
        Some(shrink::print(seed, broken.invariant, &setup, &steps))
    }
}

impl CoreLevel {
    fn run(&self, setup: Setup, steps: &[Step]) -> Played {
        let mut world = World::new(setup);
        world.verbose = self.verbose;
        world.say(|| format!("{setup:?}"));
        let played = play_out(world, steps, &mut |_| Ok(()));
        if self.verbose {
            eprintln!("{:?}", played.broken);
        }
        played
    }
}

/// Plays a scenario and says which invariant it breaks, as `id: what was seen`: for tests that keep one.
pub fn play(setup: Setup, steps: &[Step]) -> Option<String> {
    let Broken { invariant, detail } = run(setup, steps).broken?;
    Some(format!("{invariant}: {detail}"))
}

/// Plays a scenario.
pub fn run(setup: Setup, steps: &[Step]) -> Played {
    CoreLevel::default().run(setup, steps)
}

/// Plays a scenario in a new world; something else is done to it after each step.
fn play_out(mut world: World, steps: &[Step], also: &mut Also<'_>) -> Played {
    let broken = chaos(&mut world, steps, also).and_then(|()| world.calm());
    world.finish(broken.err())
}

type Also<'a> = dyn FnMut(&mut World) -> Result<(), Broken> + 'a;

fn chaos(world: &mut World, steps: &[Step], also: &mut Also<'_>) -> Result<(), Broken> {
    for step in steps {
        world.say(|| format!("{step:?}"));
        world.step(*step)?;
        also(world)?;
        world.check()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    /// The reference must not share a mistake with core.
    #[test]
    fn the_reference_imports_nothing_of_core() {
        let reference = [
            include_str!("server.rs"),
            include_str!("feed.rs"),
            include_str!("ledger.rs"),
        ];
        assert!(reference.iter().all(|text| !text.contains("syncline_core")));
    }
}
