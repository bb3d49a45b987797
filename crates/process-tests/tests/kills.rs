//! A share of the kill loop, in which everybody is killed, also the server. The command
//! `syncline-kills` of this package goes on for as long as one likes.

// A test that cannot go on has failed; the panic says where.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use syncline_process_tests::{Programs, kill_again_and_again, kill_migrations};

const KILLS: u64 = 40;

fn programs() -> Programs {
    Programs {
        device: env!("CARGO_BIN_EXE_syncline-test-device").to_owned(),
        server: env!("CARGO_BIN_EXE_syncline-test-server").to_owned(),
    }
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    seed
}

#[test]
fn f_a2_a12_what_was_acknowledged_survives_whoever_is_killed() {
    let figures = kill_again_and_again(&programs(), seed(), KILLS, None);
    println!("{figures:?}");
    assert!(figures.all_kills() >= KILLS);
    assert!(figures.acknowledged > 0, "the writers wrote nothing");
}

#[test]
fn f_a7_a_migration_that_is_killed_leaves_old_or_new() {
    let new = kill_migrations(&programs(), seed(), 20);
    println!("{new} of 20 were through");
}
