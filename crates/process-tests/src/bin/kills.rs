//! `syncline-kills [--kills N] [--minutes M] [--seed S]`: kills processes until there were N kills or
//! the time is up, in two worlds at a time. The programs to kill stand beside this one.

// A tool of tests: what cannot go on panics, and the panic says why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;
use std::time::{Duration, Instant};
use syncline_process_tests::{KillFigures, Programs, kill_again_and_again, kill_migrations};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1)?.parse::<f64>().ok()
    };
    let seed = value("--seed").map_or(1, |seed| seed as u64);
    let kills = value("--kills").map_or(1000, |kills| kills as u64);
    let begun = Instant::now();
    let until = value("--minutes").map(|minutes| begun + Duration::from_secs_f64(minutes * 60.0));
    let beside = |name: &str| {
        let this = std::env::current_exe().unwrap();
        this.with_file_name(name).display().to_string()
    };
    let programs = Programs {
        device: beside("syncline-test-device"),
        server: beside("syncline-test-server"),
    };
    let migrations = kills / 50;
    let mut failed = false;
    let mut all = KillFigures::default();
    let mut new = 0;
    std::thread::scope(|threads| {
        let programs = &programs;
        let world = |nth: u64| {
            let half = (kills - migrations) / 2 + nth * ((kills - migrations) % 2);
            threads.spawn(move || kill_again_and_again(programs, seed + nth, half, until))
        };
        let both = [world(0), world(1)];
        let migrated = threads.spawn(|| kill_migrations(programs, seed, migrations));
        for one in both {
            match one.join() {
                Ok(figures) => all.add(&figures),
                Err(_) => failed = true,
            }
        }
        match migrated.join() {
            Ok(count) => new = count,
            Err(_) => failed = true,
        }
    });
    println!("figure: kills = {}", all.all_kills() + migrations);
    for (victim, count) in &all.kills {
        println!("figure: kills of a {victim} = {count}");
    }
    println!("figure: kills of a migration = {migrations}");
    println!("figure: migrations that were through = {new}");
    println!("figure: acknowledged commits = {}", all.acknowledged);
    println!(
        "figure: commits without an acknowledgement = {}",
        all.unacknowledged
    );
    println!("figure: effects on servers = {}", all.effects);
    println!("figure: seconds = {}", begun.elapsed().as_secs());
    println!("figure: failures = {}", u64::from(failed));
    ExitCode::from(u8::from(failed))
}
