//! Which faults are played on a script, and how one case goes.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;
use syncline_fault_vfs::{Call, Damage, Fault, Faults, set_clock};

/// A piece of work with its surroundings, freshly made for each case.
pub trait Scene {
    /// What goes wrong with its files.
    fn faults(&self) -> &Faults;

    /// Does the work. Whatever fails, it must not panic.
    fn work(&mut self);

    /// The process dies now: everything open is closed, nothing is said to anyone.
    fn crash(&mut self);

    /// The files are found as they are in this folder.
    fn replace(&mut self, folder: &Path);

    /// Nothing fails any more. Starts again what is not running, and panics unless everything is as it
    /// must be, now and once all work is done.
    fn judge(&mut self);
}

/// A named scene.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    /// Its name.
    pub name: &'static str,
    /// Prepares the scene, up to the work.
    pub prepare: fn() -> Box<dyn Scene>,
}

/// One way in which a script goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Case {
    /// Calls fail; afterwards the process goes on, or is started again.
    Fails {
        /// Which.
        faults: Vec<Fault>,
        /// It crashes while they still fail.
        crash: bool,
    },
    /// The power fails in the middle of this change.
    PowerLoss {
        /// Counted from 1.
        at: u64,
        /// What becomes of changes that were not synced.
        damage: Damage,
    },
}

/// What was played.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Cases in which a fault struck.
    pub cases: u64,
    /// Cases by what failed.
    pub kinds: BTreeMap<String, u64>,
    /// What went wrong, with the case.
    pub failures: Vec<String>,
}

impl Figures {
    /// Adds another's.
    pub fn add(&mut self, other: Figures) {
        self.cases += other.cases;
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}

/// Every single fault that the script's work can meet: each call that it makes when all is well, in
/// every way, once and lasting. Every other one crashes as well.
pub fn all_cases(script: Script) -> Vec<Case> {
    let mut scene = prepared(script);
    scene.faults().fail_each(&[]);
    scene.work();
    let counts = scene.faults().calls();
    drop(scene);
    let mut cases = Vec::new();
    for call in Call::ALL {
        for &failure in call.failures() {
            for nth in 1..=counts.get(&call).copied().unwrap_or_default() {
                for fault in [
                    Fault::once(call, nth, failure),
                    Fault::lasting(call, nth, failure),
                ] {
                    cases.push(Case::Fails {
                        faults: vec![fault],
                        crash: cases.len() % 3 == 1,
                    });
                }
            }
        }
    }
    cases
}

/// A power loss in the middle of every change that the script's work makes, with each damage.
pub fn power_cases(script: Script) -> Vec<Case> {
    let mut scene = prepared(script);
    scene.faults().watch_power(None);
    scene.work();
    let changes = scene.faults().changes();
    let cases = (1..=changes).flat_map(|at| {
        [
            Damage::Lost,
            Damage::Kept,
            Damage::Shortened(at),
            Damage::Torn(at),
        ]
        .map(|damage| Case::PowerLoss { at, damage })
    });
    cases.collect()
}

/// A scene under a clock that stands still unless SQLite waits.
fn prepared(script: Script) -> Box<dyn Scene> {
    set_clock(Some(1_800_000_000_000));
    (script.prepare)()
}

/// Plays one case: whether it struck, or what went wrong. With `SHOW_CASES` set, says so before, for
/// one that does not end.
pub fn play(script: Script, case: &Case) -> Result<bool, String> {
    if std::env::var_os("SHOW_CASES").is_some() {
        eprintln!("{}: {case:?}", script.name);
    }
    let played = catch_unwind(AssertUnwindSafe(|| match case {
        Case::Fails { faults, crash } => {
            let mut scene = prepared(script);
            scene.faults().fail_each(faults);
            scene.work();
            if *crash {
                scene.crash();
            }
            let struck = scene.faults().heal() > 0;
            scene.judge();
            struck
        }
        Case::PowerLoss { at, damage } => {
            let mut scene = prepared(script);
            scene.faults().watch_power(Some(*at));
            scene.work();
            let struck = scene.faults().power_failed();
            let after = tempfile::tempdir().unwrap();
            scene.faults().survivors(after.path(), *damage);
            scene.crash();
            scene.faults().power_is_back();
            scene.replace(after.path());
            scene.judge();
            struck
        }
    }));
    set_clock(None);
    played.map_err(|panic| {
        let why = (panic.downcast_ref::<String>().cloned())
            .or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        format!("{}: {case:?}: {}", script.name, why.unwrap_or_default())
    })
}

/// Plays cases until the time is up, evenly spread if there is a bound.
pub fn play_share(script: Script, cases: &[Case], most: usize, until: Option<Instant>) -> Figures {
    let step = cases.len().div_ceil(most.max(1)).max(1);
    let mut figures = Figures::default();
    for case in cases.iter().step_by(step) {
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        match play(script, case) {
            Ok(true) => {
                figures.cases += 1;
                *figures.kinds.entry(kind(case)).or_default() += 1;
            }
            Ok(false) => {}
            Err(failure) => figures.failures.push(failure),
        }
    }
    figures
}

fn kind(case: &Case) -> String {
    match case {
        Case::PowerLoss { damage, .. } => match damage {
            Damage::Lost => "power loss, unsynced lost".to_owned(),
            Damage::Kept => "power loss, unsynced kept".to_owned(),
            Damage::Shortened(_) => "power loss, unsynced shortened".to_owned(),
            Damage::Torn(_) => "power loss, unsynced torn".to_owned(),
        },
        Case::Fails { faults, .. } => match faults.as_slice() {
            [one] => {
                let lasting = if one.lasting { "lasting" } else { "once" };
                format!("{:?} {:?} {lasting}", one.call, one.failure)
            }
            _ => "pairs".to_owned(),
        },
    }
}
