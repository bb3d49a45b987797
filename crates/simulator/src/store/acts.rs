//! What happens to devices and to the server, apart from writes and messages.

use super::check;
use super::device::Device;
use super::files::Files;
use super::given_up;
use super::play::tell;
use super::scenario::{DeviceAct, ServerAct};
use super::server::{RETENTION_HOURS, StorageFault};
use super::upgrade;
use super::world::{World, unix_ms};
use crate::level::Broken;
use crate::rng::Rng;
use std::path::Path;
use std::sync::atomic::Ordering;
use syncline::{Allowance, Constraints, Input, Reason};
use syncline_fault_vfs::{Call, Failure, Fault};

const HOUR_MS: u64 = 3_600_000;
/// Copies are made up to here.
const MOST_DEVICES: usize = 5;

impl World {
    /// A disk that was to fail has.
    pub(super) fn count_failed_disks(&mut self) {
        for device in &mut self.devices {
            if device.files.disk.failed() > 0
                && let Some(kind) = device.disk_fails.take()
            {
                self.played.fault(kind);
            }
        }
    }
}

/// Something happens to a device.
pub(super) fn act_on_device(world: &mut World, device: usize, act: DeviceAct) {
    let trigger = |reason| move || Input::Trigger(reason);
    match act {
        DeviceAct::Offline => world.devices[device].online = false,
        DeviceAct::Online => {
            world.devices[device].online = true;
            tell(world, device, trigger(Reason::NetworkAvailable));
        }
        DeviceAct::NetworkLost => {
            world.played.fault("device: network lost");
            tell(world, device, || Input::NetworkLost);
        }
        DeviceAct::Crash => {
            world.played.fault("device: dies");
            world.end(device, 0, false);
            world.run_until(world.now + 500);
            world.start(device, 0);
        }
        DeviceAct::CrashAt { moment } => {
            let dies = &world.devices[device].dies;
            dies.store(i64::from(moment), Ordering::Relaxed);
        }
        DeviceAct::Restart => {
            world.played.fault("device: restarted");
            world.end(device, 0, true);
            world.start(device, 0);
        }
        DeviceAct::Pause => {
            world.played.fault("device: paused");
            tell(world, device, || Input::Pause);
        }
        DeviceAct::Resume => tell(world, device, || Input::Resume),
        DeviceAct::Metered { on } => {
            if on {
                world.played.fault("device: metered network");
            }
            let constraints = Constraints {
                metered: on,
                low_power: false,
            };
            tell(world, device, || Input::Constraints(constraints));
        }
        DeviceAct::Hint => tell(world, device, trigger(Reason::RemoteHint)),
        DeviceAct::Foreground => tell(world, device, trigger(Reason::Foreground)),
        DeviceAct::Stall { seconds } => {
            let until = world.now + u64::from(seconds) * 1_000;
            if let Some(process) = world.devices[device].processes[0].as_mut() {
                process.stalled_until = until;
                world.played.fault("device: process stands still");
            }
        }
        DeviceAct::Second { start: true } => {
            if world.devices[device].processes[1].is_none() {
                world.played.fault("device: second process");
            }
            world.start(device, 1);
        }
        DeviceAct::Second { start: false } => world.end(device, 1, true),
        around => act_around_device(world, device, around),
    }
}

/// Something happens to what a device stands on: its file, its disk, its clock.
fn act_around_device(world: &mut World, device: usize, act: DeviceAct) {
    match act {
        DeviceAct::Busy => {
            world.played.fault("device: file locked by another program");
            let held = world.devices[device]
                .files
                .app
                .execute_batch("BEGIN IMMEDIATE");
            tell(world, device, || Input::Trigger(Reason::UserAsked));
            world.run_until(world.now + 100);
            let freed =
                held.and_then(|()| world.devices[device].files.app.execute_batch("ROLLBACK"));
            if let Err(error) = freed {
                world.breaks(Broken::new(
                    "F:A11",
                    format!("the file stays locked: {error}"),
                ));
            }
        }
        DeviceAct::Disk { nth, full, lasting } => {
            let (failure, kind) = match full {
                true => (Failure::Full, "device: disk full"),
                false => (Failure::Io, "device: i/o error"),
            };
            world.devices[device].disk_fails = Some(kind);
            world.devices[device].files.disk.fail(Fault {
                call: Call::Write,
                nth: 1 + u64::from(nth),
                failure,
                lasting,
            });
        }
        DeviceAct::ClockJump { minutes } => {
            world.played.fault("device: clock jumps");
            world.devices[device].skew_ms += i64::from(minutes) * 60_000;
        }
        DeviceAct::Sleep { seconds } => {
            world.played.fault("device: sleeps");
            world.devices[device].asleep_until = world.now + u64::from(seconds) * 1_000;
        }
        other => act_on_file(world, device, other),
    }
}

/// Something happens to its file as a whole, or to who uses it.
fn act_on_file(world: &mut World, device: usize, act: DeviceAct) {
    match act {
        DeviceAct::Clone if world.devices.len() < MOST_DEVICES => {
            clone(world, device);
        }
        DeviceAct::BackUp => {
            let name = format!("backup-{}", world.serial());
            let path = world.folder.path().join(name);
            if world.devices[device].copy_to(&path) {
                world.devices[device].backup = Some(path);
            }
        }
        DeviceAct::PutBack => put_back(world, device),
        DeviceAct::Upgrade => {
            let next = world.devices[device].version + 1;
            upgrade(world, device, next.min(world.setup.changes()));
        }
        DeviceAct::OtherAccount { on: true }
            if check::has_account(world, device) && world.rests(device) && world.hears(device) =>
        {
            world.played.fault("device: another account");
            let stranger = world.stranger.trim_start_matches("Bearer ").to_owned();
            world.devices[device].token = stranger;
            tell(world, device, || Input::Trigger(Reason::AuthRefreshed));
        }
        DeviceAct::OtherAccount { on: false } => {
            let peer = &mut world.devices[device];
            peer.token.clone_from(&peer.own_token);
            tell(world, device, || Input::Trigger(Reason::AuthRefreshed));
        }
        DeviceAct::ReadOnly { on } => {
            let peer = &mut world.devices[device];
            let (before, after) = match on {
                true => (&peer.own_token, &peer.read_token),
                false => (&peer.read_token, &peer.own_token),
            };
            // Under another account it is none of its owner's.
            if peer.token != *before {
                return;
            }
            peer.token.clone_from(after);
            if on {
                world.played.fault("device: may only read");
            }
            tell(world, device, || Input::Trigger(Reason::AuthRefreshed));
        }
        DeviceAct::Pass { requests, bytes } => {
            world.played.fault("device: bounded pass");
            let allowance = Allowance {
                requests: u64::from(requests),
                bytes: match bytes {
                    0 => u64::MAX,
                    some => u64::from(some),
                },
            };
            tell(world, device, || Input::Pass(Some(allowance)));
            world.run_until(world.now + 2_000);
            tell(world, device, || Input::Pass(None));
        }
        _ => {}
    }
}

/// The file is opened on another machine too, where nothing is remembered of it.
fn clone(world: &mut World, device: usize) {
    let n = world.devices.len();
    let original = &world.devices[device];
    let copied = Files::new(None, world.folder.path(), |path| original.copy_to(path));
    let Some(files) = copied else {
        return;
    };
    world.played.fault("device: cloned");
    let created = check::unanswered_creates(world, &files.app);
    let edited = check::unanswered_edits(&files.app);
    match (created, edited) {
        (Ok(created), Ok(edited)) => {
            world.ledger.copied.extend(created);
            world.ledger.edited_twice.extend(edited);
        }
        (Err(broken), _) | (_, Err(broken)) => return world.breaks(broken),
    }
    let rng = Rng::new(world.setup.seed ^ n as u64);
    let copy = Device::new(files, None, rng);
    world.history.copied(device, n);
    world.join(n, copy);
}

/// A backup takes the file's place. Only where the server has everything since: what it never got would
/// be gone, as it must.
fn put_back(world: &mut World, device: usize) {
    let Some(backup) = world.devices[device].backup.clone() else {
        return;
    };
    match check::outbox(world, device) {
        Ok(left) if left.is_empty() => {}
        Ok(_) => return,
        Err(broken) => return world.breaks(broken),
    }
    // The records of conflicts go with the file: who puts a backup back gives them up.
    match check::recorded_values(world, device) {
        Ok(values) => world.ledger.overwritten.extend(values),
        Err(broken) => return world.breaks(broken),
    }
    world.played.fault("device: file restored");
    world.end(device, 0, false);
    world.end(device, 1, false);
    if let Err(broken) = replace(world, device, &backup) {
        return world.breaks(broken);
    }
    world.acknowledged.retain(|(owner, _)| *owner != device);
    world.sent.retain(|(owner, _), _| *owner != device);
    world.bounds.file_replaced(device);
    world.history.file_replaced(device);
    world.order.file_replaced(device);
    world.devices[device].version = upgrade::version(&world.devices[device].files.app);
    upgrade(world, device, world.version);
    world.start(device, 0);
}

/// The ledger is told what the files had and have.
fn replace(world: &mut World, device: usize, backup: &Path) -> Result<(), Broken> {
    let confirmed = given_up::confirmed(&world.setup, &world.devices[device].files.app)?;
    world.devices[device].files.replace(backup);
    let app = &world.devices[device].files.app;
    given_up::without(confirmed, app, &mut world.ledger)?;
    let edited = check::unanswered_edits(app)?;
    let created = check::unanswered_creates(world, &world.devices[device].files.app)?;
    world.ledger.copied.extend(created);
    world.ledger.edited_twice.extend(edited);
    Ok(())
}

/// The schema of a device changes until it has had so many changes, as `syncline migrate` does it.
pub(super) fn upgrade(world: &mut World, device: usize, to: usize) {
    let now = world.now;
    world.version = world.version.max(to);
    let peer = &mut world.devices[device];
    peer.now(now);
    // Where the disk failed nobody knows whether it was done.
    peer.version = upgrade::version(&peer.files.app).max(peer.version);
    while peer.version < to {
        peer.files.kind = None;
        let given_up = upgrade::given_up(&world.setup, peer.version, &peer.files.app);
        match upgrade::change(&world.setup, peer.version, &peer.files.path) {
            Ok(()) => {
                peer.version += 1;
                world.ledger.overwritten.extend(given_up);
                world.played.fault("device: schema upgraded");
            }
            Err(error) if peer.files.disk.failed() == 0 => {
                let detail = format!("device {device}: {error}");
                return world.breaks(Broken::new("F:A7", detail));
            }
            Err(_) => return,
        }
    }
}

/// Something happens to the server.
pub(super) fn act_on_server(world: &mut World, act: ServerAct) {
    match act {
        ServerAct::Restart => {
            world.played.fault("server: restarted");
            world.server.restart();
        }
        ServerAct::Busy { write } => world.server.fail_write(write, StorageFault::Busy),
        ServerAct::Full { write } => world.server.fail_write(write, StorageFault::Full),
        ServerAct::CommitUnknown { write } => {
            world.server.fail_write(write, StorageFault::CommitUnknown);
        }
        ServerAct::DieBeforeCommit { write } => {
            world
                .server
                .fail_write(write, StorageFault::DieBeforeCommit);
        }
        ServerAct::DieAfterCommit { write } => {
            world.server.fail_write(write, StorageFault::DieAfterCommit);
        }
        ServerAct::Down { seconds } => {
            world.down_until = world.now + u64::from(seconds) * 1_000;
        }
        ServerAct::BackUp => world.backup = Some((world.server.back_up(), world.model.clone())),
        ServerAct::Restore => {
            let Some((backup, model)) = world.backup.take() else {
                return;
            };
            world.played.fault("server: restored from a backup");
            world.server.restore(&backup);
            let now = std::mem::replace(&mut world.model, model.clone());
            world.model.follows(&now);
            world.order.server_restored();
            world.backup = Some((backup, model));
            rotate(world);
        }
        ServerAct::RotateEpoch => {
            world.played.fault("server: new history");
            rotate(world);
        }
        ServerAct::Purge { hours } => {
            world.played.fault("server: forgets");
            // Everybody sleeps meanwhile.
            let until = world.now + u64::from(hours) * HOUR_MS;
            for device in &mut world.devices {
                device.asleep_until = device.asleep_until.max(until);
            }
            world.server.purge(unix_ms(world.now));
            world.run_until(until);
            world.server.purge(unix_ms(world.now));
            let before = unix_ms(world.now) - RETENTION_HOURS * 3_600_000;
            world.model.forget(before);
        }
    }
}

fn rotate(world: &mut World) {
    world.server.rotate_epoch(unix_ms(world.now));
    let epoch = world.server.epoch();
    world.model.begin_history(&epoch);
    world.history_begins();
}
