//! Plays a scenario: its steps, then a calm phase in which everything has to come right, then judgement.

use super::acts::{self, act_on_device, act_on_server};
use super::app::App;
use super::baseline;
use super::blind;
use super::bounds;
use super::check;
use super::clean;
use super::files::Pool;
use super::histories;
use super::person;
use super::poison::{self, Stage};
use super::pure;
use super::scenario::{Poison, Scenario, Step, Write};
use super::secrets::listening;
use super::world::World;
use crate::level::{Broken, Played};
use crate::reference::ledger::Draft;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use syncline::{Constraints, Input, Reason};
use syncline_store::conflict::Choice;

/// The round of the calm phase from which on a person lets rows go that the server lost: whoever has them
/// must have had time to offer them again, and some back off for minutes first.
const LATE: usize = 14;

/// Plays a scenario to its end or to the first broken invariant.
pub(crate) fn play(scenario: &Scenario, pool: &Pool, within: &Path, verbose: bool) -> Played {
    let mut world = World::new(&scenario.setup, pool, within);
    world.verbose = verbose;
    let secrets = world.secrets.clone();
    let listened = listening(scenario.setup.seed, &secrets, || {
        act_out(&mut world, scenario);
        if world.broken.is_none() {
            calm(&mut world);
        }
        if world.broken.is_none()
            && let Err(broken) = check::judge(&mut world).and_then(|()| blind::writes(&world))
        {
            world.breaks(broken);
        }
    });
    if let ((), Some(broken)) = listened {
        world.breaks(broken);
    }
    let mut played = std::mem::take(&mut world.played);
    played.virtual_ms = world.now;
    played.trace = world.noted.trace.hash();
    played.count("mutations applied", world.model.applied);
    played.count("conflicts answered", world.model.conflicts);
    played.broken = world.broken.take();
    if played.broken.is_none() {
        world.end_all(pool);
    }
    played
}

fn act_out(world: &mut World, scenario: &Scenario) {
    for (n, step) in scenario.steps.iter().enumerate() {
        if world.broken.is_some() {
            return;
        }
        if world.verbose {
            eprintln!("{} ---- step {n}: {step:?}", world.now);
        }
        take(world, step);
        world.played.steps += 1;
        world.count_failed_disks();
        let watched = n % world.devices.len();
        if let Err(broken) = watch(world, watched) {
            world.breaks(broken);
        }
    }
}

/// What is checked about a device at each step.
fn watch(world: &mut World, device: usize) -> check::Checked<()> {
    let seen = clean::look(world, device)?;
    clean::reflects(world, device, &seen)?;
    bounds::never_falls(world, device)?;
    baseline::log_within(world, device)?;
    pure::shows_no_more(world, device, &seen)?;
    histories::can_be(world, device, &seen)
}

fn take(world: &mut World, step: &Step) {
    let known = |world: &World, device: u8| usize::from(device) % world.devices.len();
    match step {
        Step::Write { device, write } => {
            let device = known(world, *device);
            transact(world, device, std::slice::from_ref(write), false);
        }
        Step::Together {
            device,
            writes,
            rollback,
        } => {
            let device = known(world, *device);
            transact(world, device, writes, *rollback);
        }
        Step::Sync { device } => {
            let device = known(world, *device);
            tell(world, device, || Input::Trigger(Reason::UserAsked));
        }
        Step::Wait { ms } => world.run_until(world.now + u64::from(*ms)),
        Step::Net { device, fault } => {
            let device = known(world, *device);
            world.devices[device].faults.push_back(*fault);
        }
        Step::Device { device, act } => {
            let device = known(world, *device);
            act_on_device(world, device, *act);
        }
        Step::Server { act } => act_on_server(world, *act),
    }
}

/// Feeds an input to every process of a device, unless it sleeps.
pub(super) fn tell(world: &mut World, device: usize, input: impl Fn() -> Input) {
    for process in 0..2 {
        if world.devices[device].deaf_until(process) <= world.now {
            world.feed(device, process, input());
        }
    }
}

/// One transaction of an app's.
fn transact(world: &mut World, device: usize, writes: &[Write], rollback: bool) {
    let tables = world.setup.tables;
    let fits = |write: &&Write| match write {
        Write::AddPoison { .. } | Write::Poison { .. } => {
            tables.notes() && world.setup.poison != Poison::None
        }
        Write::AddNote
        | Write::Title { .. }
        | Write::Body { .. }
        | Write::Stock { .. }
        | Write::Tag { .. }
        | Write::Untag { .. }
        | Write::Extra { .. }
        | Write::DeleteNote { .. } => tables.notes(),
        Write::AddRow { .. }
        | Write::EditRow { .. }
        | Write::MoveRow { .. }
        | Write::DeleteRow { .. } => !world.setup.drawn.is_empty(),
        Write::OpenAccount | Write::Deposit { .. } | Write::Transfer { .. } => tables.bank(),
        _ => tables.tree(),
    };
    let before = match check::outbox(world, device) {
        Ok(before) => before,
        Err(broken) => return world.breaks(broken),
    };
    let mut draft = Draft::default();
    let setup = world.setup.at(world.devices[device].version);
    let peer = &world.devices[device];
    peer.now(world.now);
    let begun = peer.files.app.execute_batch("BEGIN IMMEDIATE");
    let mut done = begun;
    for write in writes.iter().filter(fits) {
        let mut app = App {
            conn: &peer.files.app,
            device: u8::try_from(device).unwrap_or(0),
            serial: &mut world.values,
            setup: &setup,
            draft: &mut draft,
        };
        done = done.and_then(|()| app.write(*write));
    }
    let done = done.and_then(|()| name_mutations(&peer.files.app, &before, &mut world.values));
    let end = if rollback { "ROLLBACK" } else { "COMMIT" };
    let done = done.and_then(|()| peer.files.app.execute_batch(end));
    if let Err(error) = &done {
        // SQLite may have done so already.
        let _ = peer.files.app.execute_batch("ROLLBACK");
        if peer.files.disk.failed() == 0 && !is_of_a_lost_parent(&peer.files.app, error) {
            let detail = format!("device {device}: {writes:?}: {error}");
            return world.breaks(Broken::new("D:A1", detail));
        }
    }
    match check::recorded(world, device, &before) {
        // A commit that failed may have been one all the same.
        Ok(recorded) if !rollback && (done.is_ok() || recorded > 0) => {
            world.history.wrote(device, &draft);
            world.ledger.commit(draft);
        }
        Ok(0) if rollback => world.history.undid(&draft),
        Ok(0) => {}
        Ok(recorded) => {
            let detail = format!("device {device}: rolled back, and {recorded} were recorded");
            return world.breaks(Broken::new("F:S1", detail));
        }
        Err(broken) => return world.breaks(broken),
    }
    tell(world, device, || Input::Trigger(Reason::MutationEnqueued));
}

/// Whether a transaction may end so because a row refers to a parent that went, which is looked after at the head of the feed. In a
/// table that refers to itself, SQLite looks at all references of a row when one of them changes.
fn is_of_a_lost_parent(app: &Connection, error: &rusqlite::Error) -> bool {
    let foreign = rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY;
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == foreign)
        && app
            .prepare("SELECT 1 FROM pragma_foreign_key_check")
            .and_then(|mut statement| statement.exists([]))
            .unwrap_or(false)
}

/// Gives new mutations ids that the seed decides: SQLite has one generator of randomness for all threads
/// of a process, so what the capture triggers draw from it differs from run to run.
fn name_mutations(
    app: &Connection,
    before: &BTreeSet<String>,
    serial: &mut u64,
) -> rusqlite::Result<()> {
    let mut statement =
        app.prepare_cached("SELECT seq, mutation FROM syncline_outbox ORDER BY seq")?;
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let all: Vec<(i64, String)> = all.collect::<Result<_, _>>()?;
    for (seq, drawn) in all.into_iter().filter(|(_, drawn)| !before.contains(drawn)) {
        *serial += 1;
        // Time and version stay as the triggers wrote them.
        let named = format!("{}0008{serial:015x}", drawn.get(..13).unwrap_or_default());
        app.prepare_cached("UPDATE syncline_outbox SET mutation = ?2 WHERE seq = ?1")?
            .execute(params![seq, named])?;
    }
    Ok(())
}

/// Everything bad ends, and within bounds everything comes right (F:L1, F:L3).
fn calm(world: &mut World) {
    world.down_until = 0;
    world.server.heal();
    for n in 0..world.devices.len() {
        let device = &mut world.devices[n];
        device.faults.clear();
        device.files.disk.heal();
        device.dies.store(-1, Ordering::Relaxed);
        device.no_token_until = 0;
        device.asleep_until = 0;
        for process in device.processes.iter_mut().flatten() {
            process.stalled_until = 0;
        }
        device.online = true;
        device.token.clone_from(&device.own_token);
        world.start(n, 0);
        acts::upgrade(world, n, world.version);
        tell(world, n, || Input::Resume);
        tell(world, n, || Input::Constraints(Constraints::default()));
        tell(world, n, || Input::Trigger(Reason::AuthRefreshed));
        tell(world, n, || Input::Trigger(Reason::NetworkAvailable));
    }
    settle(world);
    if world.setup.poison != Poison::None && world.broken.is_none() {
        poison::decide(world);
        settle(world);
    }
}

/// Time passes until everything is done; people decide what is left to them. Where a push may come last in a cycle, there is one more
/// of it: what a push met is looked after at the next head.
fn settle(world: &mut World) {
    let mut left = String::new();
    let mut read_last = world.setup.pull_first == 0;
    for (round, wait_ms) in [[5_000; 12], [300_000; 12], [3_600_000; 12]]
        .concat()
        .into_iter()
        .enumerate()
    {
        world.begin_round();
        world.run_until(world.now + wait_ms);
        world.end_round(wait_ms);
        if world.broken.is_some() {
            return;
        }
        let spared = poison::spares_others(world, round);
        match spared.and_then(|()| check::unfinished(world)) {
            Ok(None) if read_last => return,
            Ok(None) => read_last = true,
            Ok(Some(what)) => left = what,
            Err(broken) => return world.breaks(broken),
        }
        for n in 0..world.devices.len() {
            remedy(world, n, round > LATE);
            tell(world, n, || Input::Trigger(Reason::UserAsked));
        }
    }
    let invariant = match world.poison {
        Stage::Waits => "F:L2",
        Stage::Harmless | Stage::GivenUp => "F:L1",
    };
    world.breaks(Broken::new(invariant, left));
}

/// A person has every dead letter sent again, for what refused it is over, keeps the own row where two
/// devices made the same one anew, and lets rows go that the server does not have, once whoever may offer
/// them again had time for it.
fn remedy(world: &mut World, device: usize, late: bool) {
    let (letters, held) = match person::for_a_person(world, device) {
        Ok(found) => found,
        Err(broken) => return world.breaks(broken),
    };
    if late && !held.is_empty() {
        // Whoever lets a row go has seen what stands in it.
        match person::held_values(world, device) {
            Ok(values) => world.ledger.overwritten.extend(values),
            Err(broken) => return world.breaks(broken),
        }
    }
    let (poisoned, letters): (Vec<i64>, Vec<i64>) =
        (letters.into_iter()).partition(|seq| poison::is_poisoned(world, device, *seq));
    let mut retried = 0;
    if world.poison == Stage::GivenUp && !poisoned.is_empty() {
        match poison::give_up(world, device, &poisoned) {
            Ok(done) => retried += done,
            Err(broken) => return world.breaks(broken),
        }
    }
    let twice = match person::made_twice(world, device) {
        Ok(found) => found,
        Err(broken) => return world.breaks(broken),
    };
    let peer = &mut world.devices[device];
    let now = peer.now(world.now);
    let Some(running) = peer.processes[0].as_mut() else {
        return;
    };
    for one in twice {
        let store = running.engine.store();
        if store.resolve_conflict(one.id, &Choice::Mine, now).is_ok() {
            // What gives way stands in the record.
            world.ledger.mistaken.extend(one.theirs);
            world.order.decided(one.mutations);
            retried += 1;
        }
    }
    for seq in letters {
        retried += u64::from(running.engine.store().retry(seq, now).is_ok());
    }
    for entity_type in held.iter().filter(|_| late) {
        retried += running
            .engine
            .store()
            .confirm_sweep(entity_type, now)
            .unwrap_or(0);
    }
    if retried > 0 {
        world.played.count("remedies by a person", retried);
        tell(world, device, || Input::Trigger(Reason::Remediated));
    }
}
