//! What is to happen to the files of one folder, and what was counted there.

use crate::fault::{Call, Fault};
use crate::power::{Damage, Disk};
use crate::shim;
use rusqlite::ffi;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The folders that are watched.
static WATCHED: Mutex<Vec<Arc<Plan>>> = Mutex::new(Vec::new());

/// Shared by the test and the open files of its folder.
#[derive(Debug)]
pub(crate) struct Plan {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Calls of each kind since the faults were set.
    calls: BTreeMap<Call, u64>,
    faults: Vec<Fault>,
    failed: u64,
    disk: Option<Disk>,
}

/// What the shim is to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Pass,
    /// Answer this; what was to be written is written half.
    Fail(c_int),
    /// The power fails in the middle of this change, which the disk may or may not have.
    PowerFails,
}

impl Plan {
    /// The plan for a file, if somebody watches its folder.
    pub(crate) fn of(path: &Path) -> Option<Arc<Plan>> {
        let watched = lock(&WATCHED);
        let found = watched.iter().find(|plan| path.starts_with(&plan.folder));
        found.cloned()
    }

    /// Counts a call and says what is to become of it.
    pub(crate) fn order(&self, call: Call) -> Order {
        let mut state = lock(&self.state);
        let count = state.calls.entry(call).or_default();
        *count += 1;
        let count = *count;
        if let Some(disk) = &mut state.disk {
            if disk.is_dead() {
                return Order::Fail(ffi::SQLITE_IOERR);
            }
            if call.changes() && disk.fails_now() {
                return Order::PowerFails;
            }
        }
        let strikes = |fault: &&Fault| fault.strikes(call, count);
        match state.faults.iter().find(strikes).copied() {
            Some(fault) => {
                state.failed += 1;
                Order::Fail(fault.failure.code(call))
            }
            None => Order::Pass,
        }
    }

    /// Notes a change on the disk, if power loss is played.
    pub(crate) fn on_disk(&self, note: impl FnOnce(&mut Disk)) {
        if let Some(disk) = &mut lock(&self.state).disk {
            note(disk);
        }
    }
}

/// What goes wrong with the files of one folder, as long as this lives.
#[derive(Debug)]
pub struct Faults {
    plan: Arc<Plan>,
}

impl Faults {
    /// Watches a folder that exists; files that are open already are not seen. A folder can be watched
    /// once at a time.
    pub fn in_folder(folder: &Path) -> Self {
        shim::install();
        let folder = folder.canonicalize().unwrap();
        let plan = Arc::new(Plan {
            folder,
            state: Mutex::default(),
        });
        let mut watched = lock(&WATCHED);
        let is_other = |other: &Arc<Plan>| other.folder != plan.folder;
        assert!(watched.iter().all(is_other), "the folder is watched twice");
        watched.push(Arc::clone(&plan));
        Self { plan }
    }

    /// Sets a fault in the place of those before, and counts calls from here.
    pub fn fail(&self, fault: Fault) {
        self.fail_each(&[fault]);
    }

    /// As [`fail`](Self::fail), with several.
    pub fn fail_each(&self, faults: &[Fault]) {
        let mut state = lock(&self.plan.state);
        state.calls.clear();
        state.failed = 0;
        state.faults = faults.to_vec();
    }

    /// Nothing fails any more. How many calls had failed.
    pub fn heal(&self) -> u64 {
        let mut state = lock(&self.plan.state);
        state.faults.clear();
        state.failed
    }

    /// How many calls failed since the faults were set.
    pub fn failed(&self) -> u64 {
        lock(&self.plan.state).failed
    }

    /// Calls of each kind since the faults were set.
    pub fn calls(&self) -> BTreeMap<Call, u64> {
        lock(&self.plan.state).calls.clone()
    }

    /// From here on it is noted what has reached the disk; what the folder holds now counts as there.
    /// With a number, the power fails in the middle of that change (write, cut, sync or deletion),
    /// counted from 1, and every later call fails.
    pub fn watch_power(&self, fails_at: Option<u64>) {
        let mut disk = Disk::of(&self.plan.folder);
        disk.fails_at = fails_at;
        lock(&self.plan.state).disk = Some(disk);
    }

    /// How many changes were made since then.
    pub fn changes(&self) -> u64 {
        let state = lock(&self.plan.state);
        state.disk.as_ref().map_or(0, |disk| disk.changes)
    }

    /// Whether the power has failed.
    pub fn power_failed(&self) -> bool {
        lock(&self.plan.state)
            .disk
            .as_ref()
            .is_some_and(Disk::is_dead)
    }

    /// Nothing is noted any more, and calls pass again. What is open stays useless: its log and the
    /// files may differ from what [`survivors`](Self::survivors) found.
    pub fn power_is_back(&self) {
        lock(&self.plan.state).disk = None;
    }

    /// Copies the folder into another one as it is after a power loss now. Files that are not SQLite's
    /// count as synced. Databases have names that end in `.db`.
    pub fn survivors(&self, into: &Path, damage: Damage) {
        let state = lock(&self.plan.state);
        let disk = state.disk.as_ref().expect("watch_power comes first");
        disk.survivors(&self.plan.folder, into, damage);
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.heal();
        lock(&self.plan.state).disk = None;
        lock(&WATCHED).retain(|plan| !Arc::ptr_eq(plan, &self.plan));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
