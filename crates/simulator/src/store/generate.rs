//! Seeds become scenarios. Each seed first draws what kind of history it is (its swarm configuration:
//! which tables, who takes part, which faults exist and how often), then the steps.

use super::draw;
use super::fault::NetFault;
use super::scenario::{
    DeviceAct, OnDelete, Poison, PoisonKind, Rules, Scenario, ServerAct, Setup, Step, StorageKind,
    Tables, Write,
};
use crate::rng::Rng;

/// What kind of history a seed is.
struct Swarm {
    /// Weights of: writing, syncing, waiting, the network, devices, the server.
    kinds: [u64; 6],
    /// Of a hundred writes, how many do not go through.
    poison: u64,
    net: Vec<NetFault>,
    device: Vec<usize>,
    server: Vec<usize>,
    writes: Vec<usize>,
    /// How many drawn tables there are.
    drawn: u64,
    longest_wait_ms: u64,
}

/// In one history of five something does not go through.
pub(super) const POISON: [Poison; 10] = {
    let mut all = [Poison::None; 10];
    all[0] = Poison::Retried;
    all[1] = Poison::Discarded;
    all
};

/// In every other history tasks go with their project.
pub(super) const ON_DELETE: [OnDelete; 4] = [
    OnDelete::Cascade,
    OnDelete::Cascade,
    OnDelete::SetNull,
    OnDelete::Restrict,
];

fn some<T: Clone>(rng: &mut Rng, all: &[T]) -> Vec<T> {
    let percent = *rng.pick(&[10, 30, 60, 100]).unwrap_or(&100);
    let mut some: Vec<T> = (all.iter())
        .filter(|_| rng.chance(percent))
        .cloned()
        .collect();
    if some.is_empty() {
        some.extend(rng.pick(all).cloned());
    }
    some
}

/// The scenario of a seed.
pub(crate) fn scenario(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed);
    let setup = setup(seed, &mut rng);
    let swarm = swarm(&mut rng, &setup);
    let length = *rng.pick(&[10, 20, 30, 50, 120]).unwrap_or(&30);
    let mut steps = beginning(&setup);
    for _ in 0..length {
        steps.push(step(&mut rng, &setup, &swarm));
    }
    Scenario { setup, steps }
}

fn setup(seed: u64, rng: &mut Rng) -> Setup {
    let pick = |rng: &mut Rng, all: &[u8]| *rng.pick(all).unwrap_or(&1);
    let mut setup = Setup {
        seed,
        devices: pick(rng, &[2, 2, 2, 3, 3, 4]),
        tables: *rng.pick(&Tables::ALL).unwrap_or(&Tables::All),
        storage: match rng.chance(20) {
            true => StorageKind::Sqlite,
            false => StorageKind::Memory,
        },
        rules: *rng.pick(&Rules::ALL).unwrap_or(&Rules::Default),
        push_mutations: pick(rng, &[1, 2, 3, 10, 100]),
        push_bytes: push_bytes(seed),
        page_changes: pick(rng, &[1, 2, 5, 100]),
        checkpoint: (rng.draw() & rng.draw()) as u8 & 0xf,
        pull_first: (rng.draw() & rng.draw()) as u8 & 0xf,
        latency_ms: *rng.pick(&[5, 50, 400, 3_000]).unwrap_or(&50),
        poison: *rng.pick(&POISON).unwrap_or(&Poison::None),
        on_delete: *rng.pick(&ON_DELETE).unwrap_or(&OnDelete::Cascade),
        drawn: Vec::new(),
        upgrades: Vec::new(),
    };
    draw::into_setup(&mut setup);
    setup
}

/// From dice of its own, so that it decides nothing else.
fn push_bytes(seed: u64) -> u16 {
    let mut rng = Rng::new(seed ^ 0x5eed_b17e);
    *rng.pick(&[0, 0, 400, 1_000]).unwrap_or(&0)
}

fn swarm(rng: &mut Rng, setup: &Setup) -> Swarm {
    let mut weight = |most: u64| rng.below(most + 1);
    let kinds = [
        20 + weight(20),
        5 + weight(15),
        5 + weight(15),
        weight(15),
        weight(10),
        weight(6),
    ];
    let mut writes = some(rng, &writes_of(setup.tables));
    if !setup.drawn.is_empty() {
        // Two thirds of what is written.
        let drawn = some(rng, &(19..23).collect::<Vec<_>>());
        let shares = 1 + 2 * writes.len() / drawn.len();
        writes.extend(drawn.repeat(shares));
    }
    let mut swarm = Swarm {
        kinds,
        poison: match setup.poison {
            Poison::None => 0,
            _ if setup.tables.notes() => *rng.pick(&[2, 10]).unwrap_or(&2),
            _ => 0,
        },
        net: some(rng, NetFault::ALL),
        device: some(rng, &(0..24).collect::<Vec<_>>()),
        server: some(rng, &(0..11).collect::<Vec<_>>()),
        writes,
        drawn: setup.drawn.len() as u64,
        longest_wait_ms: *rng.pick(&[200, 2_000, 20_000, 120_000]).unwrap_or(&2_000),
    };
    if !setup.upgrades.is_empty() {
        // As often as a third of what happens to devices.
        let often = 1 + swarm.device.len() / 2;
        swarm.device.extend(vec![18; often]);
    }
    swarm
}

/// Everybody has something to begin with.
fn beginning(setup: &Setup) -> Vec<Step> {
    let mut writes = Vec::new();
    if setup.tables.notes() {
        writes.extend([Write::AddNote, Write::AddNote]);
    }
    if setup.tables.tree() {
        writes.extend([Write::AddProject, Write::AddTask { row: 0 }]);
    }
    if setup.tables.bank() {
        writes.extend([Write::OpenAccount, Write::OpenAccount]);
    }
    for table in 0..setup.drawn.len() as u8 {
        let dice = |n| u16::from(table) * 2 + n;
        writes.extend([0, 1].map(|n| Write::AddRow {
            table,
            dice: dice(n),
        }));
    }
    vec![
        Step::Together {
            device: 0,
            writes,
            rollback: false,
        },
        Step::Wait { ms: 5_000 },
    ]
}

fn writes_of(tables: Tables) -> Vec<usize> {
    let mut kinds = Vec::new();
    if tables.notes() {
        kinds.extend(0..8);
    }
    if tables.tree() {
        kinds.extend(8..16);
    }
    if tables.bank() {
        kinds.extend(16..19);
    }
    kinds
}

fn write(rng: &mut Rng, swarm: &Swarm) -> Write {
    let row = rng.below(6) as u8;
    let other = rng.below(6) as u8;
    let amount = rng.below(50) as u8;
    if swarm.poison > 0 && rng.chance(swarm.poison) {
        let kind = *rng.pick(&PoisonKind::ALL).unwrap_or(&PoisonKind::Refused);
        return match rng.chance(25) {
            true => Write::AddPoison { kind },
            false => Write::Poison { row, kind },
        };
    }
    match rng.pick(&swarm.writes).copied().unwrap_or(0) {
        0 => Write::AddNote,
        1 => Write::Title { row },
        2 => Write::Body { row },
        3 => Write::Stock {
            row,
            by: 1 + amount as i8 % 9,
        },
        4 => Write::Tag { row },
        5 => Write::Untag { row },
        6 => Write::Extra { row },
        7 => Write::DeleteNote { row },
        8 => Write::AddProject,
        9 => Write::NameProject { row },
        10 => Write::DeleteProject { row },
        11 => Write::AddTask { row },
        12 => Write::NameTask { row },
        13 => Write::DeleteTask { row },
        14 => Write::MoveTask {
            row,
            project: other,
        },
        15 => Write::PutStep { row, number: other },
        16 => Write::OpenAccount,
        17 => Write::Deposit { row, amount },
        18 => Write::Transfer { row, amount },
        kind => write_drawn(rng, swarm, kind, (row, other)),
    }
}

fn write_drawn(rng: &mut Rng, swarm: &Swarm, kind: usize, (row, other): (u8, u8)) -> Write {
    let table = rng.below(swarm.drawn) as u8;
    let dice = rng.draw() as u16;
    match kind {
        19 => Write::AddRow { table, dice },
        20 => Write::EditRow {
            table,
            row,
            column: other,
            dice,
        },
        21 => Write::MoveRow {
            table,
            row,
            reference: other,
            parent: dice as u8,
        },
        _ => Write::DeleteRow { table, row },
    }
}

fn step(rng: &mut Rng, setup: &Setup, swarm: &Swarm) -> Step {
    let device = rng.below(u64::from(setup.devices)) as u8;
    match rng.weighted(&swarm.kinds) {
        0 if rng.chance(20) => Step::Together {
            device,
            writes: (0..2 + rng.below(3)).map(|_| write(rng, swarm)).collect(),
            rollback: rng.chance(20),
        },
        0 => Step::Write {
            device,
            write: write(rng, swarm),
        },
        1 => Step::Sync { device },
        2 => Step::Wait {
            ms: 1 + rng.below(swarm.longest_wait_ms) as u32,
        },
        3 => Step::Net {
            device,
            fault: *rng.pick(&swarm.net).unwrap_or(&NetFault::LoseAnswer),
        },
        4 => Step::Device {
            device,
            act: device_act(rng, swarm),
        },
        _ => Step::Server {
            act: server_act(rng, swarm),
        },
    }
}

fn device_act(rng: &mut Rng, swarm: &Swarm) -> DeviceAct {
    match rng.pick(&swarm.device).copied().unwrap_or(0) {
        0 => DeviceAct::Offline,
        1 => DeviceAct::Online,
        2 => DeviceAct::NetworkLost,
        3 => DeviceAct::Crash,
        4 | 5 => DeviceAct::CrashAt {
            moment: rng.below(30) as u8,
        },
        6 => DeviceAct::Restart,
        7 => DeviceAct::Pause,
        8 => DeviceAct::Resume,
        9 => DeviceAct::Metered { on: rng.chance(50) },
        10 => DeviceAct::Hint,
        11 => DeviceAct::Foreground,
        12 => DeviceAct::Busy,
        13 => match rng.chance(50) {
            true => DeviceAct::ClockJump {
                minutes: *rng.pick(&[-525_600, -60, -1, 1, 60, 525_600]).unwrap_or(&1),
            },
            false => DeviceAct::Sleep {
                seconds: 1 + rng.below(200) as u16,
            },
        },
        14 => DeviceAct::Disk {
            nth: rng.below(40) as u8,
            full: rng.chance(50),
            lasting: rng.chance(20),
        },
        15 => DeviceAct::Clone,
        16 => DeviceAct::BackUp,
        17 => DeviceAct::PutBack,
        18 => DeviceAct::Upgrade,
        19 => DeviceAct::OtherAccount { on: rng.chance(50) },
        20 => {
            let requests = 1 + rng.below(6) as u8;
            DeviceAct::Pass {
                requests,
                bytes: u16::from(requests % 2) * u16::from(requests) * 300,
            }
        }
        21 => DeviceAct::Stall {
            seconds: 1 + rng.below(120) as u16,
        },
        22 => DeviceAct::ReadOnly { on: rng.chance(40) },
        _ => DeviceAct::Second {
            start: rng.chance(60),
        },
    }
}

fn server_act(rng: &mut Rng, swarm: &Swarm) -> ServerAct {
    let write = rng.below(4) as u8;
    match rng.pick(&swarm.server).copied().unwrap_or(0) {
        0 => ServerAct::Restart,
        1 => ServerAct::Busy { write },
        2 => ServerAct::Full { write },
        3 => ServerAct::CommitUnknown { write },
        4 => ServerAct::DieBeforeCommit { write },
        5 => ServerAct::Down {
            seconds: 1 + rng.below(60) as u16,
        },
        6 => ServerAct::BackUp,
        7 => ServerAct::Restore,
        8 => ServerAct::RotateEpoch,
        9 => ServerAct::DieAfterCommit { write },
        _ => ServerAct::Purge {
            hours: 1 + rng.below(72) as u16,
        },
    }
}
