//! What a seed means: the shape of a small world, and the list of steps that are taken in it. Each step
//! says all about itself, so that any of them can be left out and the rest still means the same.

use crate::rng::Rng;

/// The shape of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// Seeds the machines' dice.
    pub dice: u64,
    /// How many files; each has a process.
    pub files: u8,
    /// The first file has a second process.
    pub second: bool,
    /// The order of push and pull of each process, two bits each.
    pub orders: u8,
    /// How conflicts are decided.
    pub policy: u8,
    /// Mutations in a push at most.
    pub push: u8,
    /// Changes in a page at most.
    pub page: u8,
    /// Attributable failures after which a mutation is dead.
    pub attempts: u8,
    /// Entities in all.
    pub entities: u8,
}

/// What becomes of the request that a process waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is served and answered.
    Answered,
    /// It never arrives.
    Lost,
    /// It is served, and the answer is lost.
    AnswerLost,
    /// It arrives twice; the second answer is heard.
    Doubled,
    /// Refused before anything was done: the server is busy, and says for how many seconds.
    Overloaded(u32),
    /// Refused before anything was done: an error of the server, which may say for how many seconds.
    Broken(u32),
    /// It is served, and the answer is an error of the server's.
    BrokenAfter,
    /// It is served, and the answer cannot be read.
    Garbled,
    /// The credentials are refused.
    Unauthorized,
    /// Another file answers to the same name.
    Forked,
    /// Larger than the server takes.
    TooLarge,
    /// The position is not known any more.
    CursorGone,
    /// No common protocol.
    Incompatible,
    /// No such service.
    Misconfigured,
    /// An answer of another kind comes first.
    WrongKind,
    /// It is served, and the answer is bent, in a way that this number decides.
    Bent(u8),
}

/// One step. Processes, files and entities are counted modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The app writes through a process; `pick` decides what.
    Write {
        /// The process.
        process: u8,
        /// The entity.
        entity: u8,
        /// What is written, and in which lane.
        pick: u8,
    },
    /// The app writes two entities that go together.
    Group {
        /// The process.
        process: u8,
        /// The entity; the next one goes with it.
        entity: u8,
    },
    /// Somebody else writes at the server.
    Foreign {
        /// The entity.
        entity: u8,
        /// Whether it is deleted.
        delete: bool,
    },
    /// The request under way comes to its end.
    Deliver(u8, Fate),
    /// A request that was given up arrives late, and its answer later still.
    Ghost(u8),
    /// An answer comes once more.
    Echo(u8),
    /// So many milliseconds pass.
    Pass(u32),
    /// Time passes until a process wants to be woken.
    Wake(u8),
    /// A tick that nobody asked for.
    Tick(u8),
    /// A reason to sync, by number.
    Trigger(u8, u8),
    /// The network goes away.
    NetworkLost(u8),
    /// Metered or not.
    Constraints(u8, bool),
    /// A bounded pass of so many requests; of none: the end of it.
    Bounded(u8, u8),
    /// Rest.
    Pause(u8),
    /// The end of it.
    Resume(u8),
    /// Hints are heard, or not.
    Live(u8, bool),
    /// New credentials, or none.
    Credentials(u8, bool),
    /// The credentials of a file name another account, or the first again.
    Account(u8, bool),
    /// The next store work of a process fails, in a way that this number decides.
    StoreFault(u8, u8),
    /// The process dies at its next store work: before it, or after.
    Crash(u8, bool),
    /// The process ends in order.
    Stop(u8),
    /// A process that ended starts again.
    Start(u8),
    /// The wall clock of a file's machine jumps by so many seconds.
    Clock(u8, i32),
    /// A copy of the file is kept; or the file is replaced by the copy.
    File(u8, bool),
    /// A copy of the server is kept; or it is replaced by the copy, with a new epoch.
    Server(bool),
    /// Only the epoch changes.
    Epoch,
    /// Tombstones are forgotten.
    Purge,
    /// Mutations of an entity break the request that carries them, or do not any more.
    Poison(u8, bool),
    /// An entity is busy, or is not any more.
    Busy(u8, bool),
    /// A person acts on the first thing that waits for one, in a way that this number decides.
    Person(u8, u8),
}

/// How many percent of writes are groups, and of what befalls the server another history. Copies of
/// files are not drawn: how a *store* fares with them is the other level's to find out, and the model
/// store is too plain to be held to it. Scenarios written by hand may have them.
const GROUPS: u64 = 15;
const COPIES: u64 = 0;
const HISTORIES: u64 = 50;

const BIG_WAITS: [u32; 6] = [0, 2, 30, 600, 90_000, u32::MAX];
const JUMPS: [i32; 6] = [5, -5, 3_600, -86_400, 315_360_000, -315_360_000];

/// The groups of faults that a seed has or has not (swarm).
struct Swarm([u64; 12]);

impl Swarm {
    fn draw(rng: &mut Rng) -> Self {
        let heavy = rng.chance(30);
        Self(std::array::from_fn(|_| match rng.below(10) {
            0..4 => 0,
            4..8 => 1,
            _ if heavy => 6,
            _ => 2,
        }))
    }
}

/// The world and the steps of a seed.
pub fn draw(seed: u64) -> (Setup, Vec<Step>) {
    let mut rng = Rng::new(seed);
    let small = |rng: &mut Rng, most: u64| u8::try_from(rng.below(most)).unwrap_or(0);
    let setup = Setup {
        dice: rng.draw(),
        files: 1 + small(&mut rng, 2),
        second: rng.chance(35),
        orders: match rng.below(10) {
            0..6 => 0,
            _ => small(&mut rng, 256),
        },
        policy: small(&mut rng, 6),
        push: 1 + small(&mut rng, 5),
        page: 1 + small(&mut rng, 4),
        attempts: 2 + small(&mut rng, 4),
        entities: 2 + small(&mut rng, 5),
    };
    let swarm = Swarm::draw(&mut rng);
    let length = 50 + rng.index(110);
    let mut steps = Vec::with_capacity(length);
    for process in 0..3 {
        steps.push(Step::Trigger(process, 0));
    }
    while steps.len() < length {
        steps.push(step(&mut rng, &swarm));
    }
    (setup, steps)
}

fn step(rng: &mut Rng, Swarm(on): &Swarm) -> Step {
    let which = rng.weighted(&[
        14,
        34,
        7,
        3,
        4,
        on[0] * 2,      // ghosts and echoes
        on[1] * 4,      // the host
        on[2] * 2,      // credentials
        on[3] * 3,      // store faults
        on[4] * 2,      // ends and starts
        on[5],          // clocks
        on[6] * COPIES, // copies of files
        on[7],          // the server's history
        on[8] * 2,      // poison and busy
        2,
    ]);
    let p = u8::try_from(rng.below(3)).unwrap_or(0);
    let e = u8::try_from(rng.below(8)).unwrap_or(0);
    let any = u8::try_from(rng.below(256)).unwrap_or(0);
    let yes = rng.chance(50);
    match which {
        0 if rng.chance(GROUPS) => Step::Group {
            process: p,
            entity: e,
        },
        0 => Step::Write {
            process: p,
            entity: e,
            pick: any,
        },
        1 => Step::Deliver(p, fate(rng, on)),
        2 => Step::Wake(p),
        3 => Step::Pass(u32::try_from(rng.below(60_000)).unwrap_or(0)),
        4 if any < 70 => Step::Foreign {
            entity: e,
            delete: any < 20,
        },
        4 => Step::Trigger(p, any % 11),
        5 if yes => Step::Ghost(p),
        5 => Step::Echo(p),
        6 => host(p, any, yes),
        7 if any < 200 => Step::Credentials(p, yes),
        7 => Step::Account(p, yes),
        8 => Step::StoreFault(p, any),
        9 => match any % 5 {
            0 => Step::Crash(p, yes),
            1 => Step::Stop(p),
            _ => Step::Start(p),
        },
        10 => Step::Clock(p, *rng.pick(&JUMPS).unwrap_or(&0)),
        11 => Step::File(p, yes),
        12 => match any % 8 {
            _ if !rng.chance(HISTORIES) => Step::Purge,
            0 => Step::Epoch,
            _ => Step::Server(yes),
        },
        13 if any < 128 => Step::Poison(e, yes),
        13 => Step::Busy(e, yes),
        _ => Step::Person(p, any),
    }
}

/// What the host does.
fn host(p: u8, any: u8, yes: bool) -> Step {
    match any % 8 {
        0 | 1 => Step::NetworkLost(p),
        2 => Step::Constraints(p, yes),
        3 | 4 => Step::Pause(p),
        5 => Step::Resume(p),
        6 if any < 128 => Step::Live(p, yes),
        6 => Step::Bounded(p, any % 12),
        _ => Step::Tick(p),
    }
}

fn fate(rng: &mut Rng, on: &[u64; 12]) -> Fate {
    let wait = *rng.pick(&BIG_WAITS).unwrap_or(&0);
    let any = u8::try_from(rng.below(256)).unwrap_or(0);
    let which = rng.weighted(&[
        30,
        on[9] * 4,  // the network
        on[10] * 3, // the server's trouble
        on[11] * 2, // odd answers
    ]);
    match which {
        1 => match any % 3 {
            0 => Fate::Lost,
            1 => Fate::AnswerLost,
            _ => Fate::Doubled,
        },
        2 => match any % 8 {
            0 | 1 => Fate::Overloaded(wait),
            2 => Fate::Broken(if any < 200 { 0 } else { wait }),
            3 => Fate::BrokenAfter,
            4 => Fate::Garbled,
            5 => Fate::Unauthorized,
            6 => Fate::TooLarge,
            _ => Fate::Misconfigured,
        },
        3 => match any % 8 {
            0 => Fate::Forked,
            1 => Fate::CursorGone,
            2 => Fate::Incompatible,
            3 => Fate::WrongKind,
            _ => Fate::Bent(any / 8),
        },
        _ => Fate::Answered,
    }
}
