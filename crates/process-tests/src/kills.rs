//! A loop of kills: processes that share files are killed with SIGKILL at random moments and started
//! again, and in the end nothing that was acknowledged is missing and nothing is there twice.
//!
//! In each world one device's file is used by an engine and two writers at once, another device by an
//! engine alone; any of them is killed, and the server too. What a writer's commits were acknowledged
//! is known from its pipe, outside of every file.

use crate::{
    Device, PATIENCE, Running, Server, assert_same, assert_settled, listing, number, token,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

const SCHEMA: &str = "
    CREATE TABLE entry (id TEXT PRIMARY KEY NOT NULL, number INTEGER NOT NULL);
    CREATE TABLE tally (id TEXT PRIMARY KEY NOT NULL, entries INTEGER NOT NULL);";

const SETTINGS: &str = "--plain --set debounce_ms=1 --set poll_interval_ms=25 --set lease_ttl_ms=60
    --set push_mutations=20 --set backoff_base_ms=5 --set backoff_cap_ms=40";

/// Kills in one world before it is judged.
const KILLS_OF_A_WORLD: u64 = 50;

/// A process lives at most so long before somebody is killed, in microseconds.
const MOST_PAUSE_US: u64 = 24_000;

/// The programs to kill.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `syncline-test-device`.
    pub device: String,
    /// `syncline-test-server`.
    pub server: String,
}

/// What was killed, and what it left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KillFigures {
    /// Kills by who was killed.
    pub kills: BTreeMap<&'static str, u64>,
    /// Commits that were acknowledged.
    pub acknowledged: u64,
    /// Commits that were made and not acknowledged when the writer died.
    pub unacknowledged: u64,
    /// Effects on servers.
    pub effects: u64,
}

impl KillFigures {
    /// All kills.
    pub fn all_kills(&self) -> u64 {
        self.kills.values().sum()
    }

    /// Adds another's.
    pub fn add(&mut self, other: &KillFigures) {
        for (victim, count) in &other.kills {
            *self.kills.entry(victim).or_default() += count;
        }
        self.acknowledged += other.acknowledged;
        self.unacknowledged += other.unacknowledged;
        self.effects += other.effects;
    }
}

/// Kills in world after world until there were `most`, or the time is up. Panics, with the seed of
/// the world, when something is lost or doubled.
pub fn kill_again_and_again(
    programs: &Programs,
    seed: u64,
    most: u64,
    until: Option<Instant>,
) -> KillFigures {
    let mut figures = KillFigures::default();
    for nth in 0.. {
        let left = most.saturating_sub(figures.all_kills());
        if left == 0 || until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let kills = left.min(KILLS_OF_A_WORLD);
        figures.add(&play(programs, seed.wrapping_mul(1_000_003) + nth, kills));
    }
    figures
}

/// One world.
fn play(programs: &Programs, seed: u64, kills: u64) -> KillFigures {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(programs, folder.path(), seed);
    for _ in 0..kills {
        world.kill_one();
    }
    world.judge()
}

/// Who can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Engine,
    Writer(usize),
    OtherEngine,
    Server,
}

struct World {
    seed: u64,
    dice: fastrand::Rng,
    server: Server,
    database: std::path::PathBuf,
    alice: Device,
    bob: Device,
    running: BTreeMap<Victim, Running>,
    promised: BTreeSet<String>,
    labels: u64,
    figures: KillFigures,
}

impl World {
    fn new(programs: &Programs, folder: &Path, seed: u64) -> Self {
        let server = Server::own(&programs.server, &folder.join("server"), None);
        let device = |name: &str| {
            // A folder for each: one installation, one state beside it.
            std::fs::create_dir(folder.join(name)).unwrap();
            Device::create(&programs.device, folder.join(name).join("app.db"), SCHEMA)
                .remote(&server.url(), &token())
                .options(SETTINGS)
        };
        let (alice, bob) = (device("alice"), device("bob"));
        alice.sql("INSERT INTO tally VALUES ('all', 0)");
        alice.run("--attach upload sync").success();
        bob.run("--attach upload sync").success();
        let mut world = Self {
            seed,
            dice: fastrand::Rng::with_seed(seed),
            database: folder.join("server/server.db"),
            server,
            alice,
            bob,
            running: BTreeMap::new(),
            promised: BTreeSet::new(),
            labels: 0,
            figures: KillFigures::default(),
        };
        for victim in [
            Victim::Engine,
            Victim::Writer(0),
            Victim::Writer(1),
            Victim::OtherEngine,
        ] {
            world.start(victim);
        }
        world
    }

    fn start(&mut self, victim: Victim) {
        let running = match victim {
            Victim::Engine => self.alice.start("run"),
            Victim::OtherEngine => self.bob.start("run"),
            Victim::Writer(_) => {
                self.labels += 1;
                self.alice.start(&format!("append w{}", self.labels))
            }
            Victim::Server => return self.server.restart(),
        };
        self.running.insert(victim, running);
    }

    fn kill_one(&mut self) {
        let pause = self.dice.u64(..MOST_PAUSE_US);
        std::thread::sleep(Duration::from_micros(pause));
        let victim = match self.dice.u8(..16) {
            0..=5 => Victim::Engine,
            6..=9 => Victim::Writer(0),
            10..=11 => Victim::Writer(1),
            12..=13 => Victim::OtherEngine,
            _ => Victim::Server,
        };
        self.kill(victim);
        self.start(victim);
    }

    fn kill(&mut self, victim: Victim) {
        let name = match victim {
            Victim::Engine | Victim::OtherEngine => "engine",
            Victim::Writer(_) => "writer",
            Victim::Server => "server",
        };
        *self.figures.kills.entry(name).or_default() += 1;
        if victim == Victim::Server {
            return self.server.kill();
        }
        let ended = self.running.remove(&victim).map(Running::kill);
        let Some(ended) = ended else { return };
        assert!(
            ended.status.code().is_none(),
            "SEED={}: {victim:?} ended by itself: {ended:?}",
            self.seed
        );
        if let Victim::Writer(_) = victim {
            let ids = ended
                .lines
                .iter()
                .filter_map(|line| line.strip_prefix("ack "));
            self.promised.extend(ids.map(str::to_owned));
        }
    }

    /// S1 to S4, once everything has come to rest.
    fn judge(mut self) -> KillFigures {
        let seed = self.seed;
        let context = format!("SEED={seed}, after the kills");
        let left: Vec<Victim> = self.running.keys().copied().collect();
        for victim in left {
            self.kill(victim);
        }
        let (alice, bob) = (&self.alice, &self.bob);
        alice.sync();
        bob.sync();
        let on_server = listing(&self.server.url(), &token());
        let (own, others) = (alice.rows(), bob.rows());
        assert_same(&context, ("Alice", &own), ("the server", &on_server));
        assert_same(&context, ("Bob", &others), ("the server", &on_server));
        assert_settled(&context, &alice.path);
        assert_settled(&context, &bob.path);
        let is_there = |id: &&String| on_server.contains_key(&("entry".to_owned(), (*id).clone()));
        let lost: Vec<_> = self.promised.iter().filter(|id| !is_there(id)).collect();
        assert!(
            lost.is_empty(),
            "{context}: acknowledged and lost: {lost:?}"
        );
        // Each transaction made an entry and counted it.
        let entries = number(&alice.path, "SELECT count(*) FROM entry");
        let counted = number(&alice.path, "SELECT entries FROM tally");
        assert_eq!(counted, entries, "{context}: half a transaction");
        let keys = "SELECT count(*) FROM outcome WHERE json_extract(outcome, '$.type') = 'entry'";
        assert_eq!(
            number(&self.database, keys),
            entries,
            "{context}: keys used for entries"
        );
        let applied = "SELECT count(*) FROM outcome WHERE fingerprint IS NOT NULL
                          AND json_extract(outcome, '$.outcome.outcome') = 'applied'";
        let effects = number(&self.database, "SELECT sum(head) FROM head");
        assert_eq!(
            number(&self.database, applied),
            effects,
            "{context}: effects"
        );
        let promised = self.promised.len() as u64;
        let entries = u64::try_from(entries).unwrap();
        self.figures.acknowledged = promised;
        self.figures.unacknowledged = entries - promised;
        self.figures.effects = u64::try_from(effects).unwrap();
        let writers = self.labels;
        assert!(
            self.figures.unacknowledged <= writers,
            "{context}: each writer has at most one commit that nobody heard of"
        );
        self.figures
    }
}

/// A file whose schema is being migrated by a process that is killed at a random moment: old or new,
/// never half. Returns how often it was found new.
pub fn kill_migrations(programs: &Programs, seed: u64, kills: u64) -> u64 {
    let mut dice = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let device = Device::create(&programs.device, path.clone(), SCHEMA);
    let device = device.remote("http://127.0.0.1:9", &token());
    device.sql("INSERT INTO entry VALUES ('e1', 1), ('e2', 2)");
    device.run("--attach upload attach").success();
    let has = |column: &str| {
        let sql = "SELECT count(*) FROM pragma_table_info('entry') WHERE name = ";
        number(&path, &format!("{sql}'{column}'")) == 1
    };
    let mut new = 0;
    // As long as one takes that nobody kills.
    let begun = Instant::now();
    let whole = folder.path().join("whole.sql");
    std::fs::write(&whole, "ALTER TABLE tally ADD COLUMN first TEXT").unwrap();
    device
        .start(&format!("migrate {}", whole.display()))
        .wait(PATIENCE)
        .success();
    let longest = begun.elapsed() * 5 / 4;
    for nth in 0..kills {
        let script = folder.path().join("script.sql");
        let sql = format!(
            "ALTER TABLE entry ADD COLUMN a{nth} TEXT; ALTER TABLE entry ADD COLUMN b{nth} TEXT;
             UPDATE entry SET a{nth} = 'x', number = number + 1;"
        );
        std::fs::write(&script, sql).unwrap();
        let before = number(&path, "SELECT sum(number) FROM entry");
        let running = device.start(&format!("migrate {}", script.display()));
        let pause = dice.u64(..u64::try_from(longest.as_micros()).unwrap());
        std::thread::sleep(Duration::from_micros(pause));
        let ended = running.kill();
        let done = has(&format!("a{nth}"));
        assert!(
            done || !ended.status.success(),
            "SEED={seed}: acknowledged and gone"
        );
        assert_eq!(has(&format!("b{nth}")), done, "SEED={seed}: half a script");
        let after = number(&path, "SELECT sum(number) FROM entry");
        assert_eq!(after, before + if done { 2 } else { 0 }, "SEED={seed}");
        assert_eq!(number(&path, "SELECT count(*) FROM syncline_guard"), 0);
        new += u64::from(done);
    }
    // In the end it can be migrated, and what is written is captured.
    std::fs::write(
        folder.path().join("last.sql"),
        "ALTER TABLE tally ADD COLUMN last TEXT",
    )
    .unwrap();
    let last = folder.path().join("last.sql").display().to_string();
    device
        .start(&format!("migrate {last}"))
        .wait(PATIENCE)
        .success();
    device.sql("INSERT INTO entry (id, number) VALUES ('later', 1)");
    let recorded = "SELECT count(*) FROM syncline_outbox WHERE entity_id = 'later'";
    assert_eq!(number(&path, recorded), 1);
    new
}
