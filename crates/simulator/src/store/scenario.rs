//! What is played at the level of the store: a setup and steps. Only numbers and words, so that a
//! scenario prints as Rust that can be pasted, and so that leaving steps out never makes it meaningless:
//! a step about something that is not there does nothing.

use super::drawn::Drawn;
use super::fault::NetFault;
use super::upgrade::Upgrade;
use serde::{Deserialize, Serialize};

/// A whole history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// What is there from the beginning.
    pub setup: Setup,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// What is there from the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Decides latencies, ids and everybody's dice.
    pub seed: u64,
    /// How many devices.
    pub devices: u8,
    /// Which tables every device has.
    pub tables: Tables,
    /// What the server keeps its data in.
    pub storage: StorageKind,
    /// How conflicts of notes are decided.
    pub rules: Rules,
    /// Mutations in a push at most.
    pub push_mutations: u8,
    /// Changes in a page at most.
    pub page_changes: u8,
    /// Who pulls in checkpoint mode: one bit per device.
    pub checkpoint: u8,
    /// Who pulls before pushing: one bit per device.
    pub pull_first: u8,
    /// The longest that a message is on its way, in milliseconds.
    pub latency_ms: u16,
    /// Bytes of mutations in a push at most, where a few already have that; 0: as many as an engine takes by itself.
    #[serde(default)]
    pub push_bytes: u16,
    /// Whether there are mutations that never go through, and what a person does about them.
    #[serde(default)]
    pub poison: Poison,
    /// What the schema says becomes of a task whose project is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
    /// Tables that this history has beside those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drawn: Vec<Drawn>,
    /// How its schema changes, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<Upgrade>,
}

/// What the schema says becomes of a task whose project is deleted. Steps go with their task.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum OnDelete {
    /// It goes too.
    #[default]
    Cascade,
    /// It belongs to none.
    SetNull,
    /// A project that has tasks stays.
    Restrict,
}

/// What a person does about mutations that never go through.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Poison {
    /// There are none.
    #[default]
    None,
    /// They are sent again once the server is mended.
    Retried,
    /// They are given up.
    Discarded,
}

/// How a mutation does not go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoisonKind {
    /// The server refuses it by its schema.
    Refused,
    /// The server never answers a request that has it.
    Hangs,
    /// The connection is reset.
    Resets,
    /// The server fails: 500.
    Fails,
}

impl PoisonKind {
    /// All of them, to draw from.
    pub const ALL: [Self; 4] = [Self::Refused, Self::Hangs, Self::Resets, Self::Fails];
}

/// Which tables there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tables {
    /// Notes with ids that the app chooses.
    Notes,
    /// Projects, tasks and steps: ids that SQLite assigns, references, a composite key.
    Tree,
    /// Accounts that commands change, alone and in groups.
    Bank,
    /// All of them.
    All,
}

impl Tables {
    /// All of them, to draw from.
    pub const ALL: [Self; 4] = [Self::Notes, Self::Tree, Self::Bank, Self::All];

    /// Whether there are notes.
    pub fn notes(self) -> bool {
        matches!(self, Self::Notes | Self::All)
    }

    /// Whether there are projects, tasks and steps.
    pub fn tree(self) -> bool {
        matches!(self, Self::Tree | Self::All)
    }

    /// Whether there are accounts.
    pub fn bank(self) -> bool {
        matches!(self, Self::Bank | Self::All)
    }
}

/// What the server keeps its data in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StorageKind {
    /// Memory.
    Memory,
    /// A SQLite database.
    Sqlite,
}

/// How conflicts of notes are decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rules {
    /// Field by field, what was written here where both changed one.
    Default,
    /// Field by field: the stock counts, tags are a set, the body is the server's.
    Fields,
    /// As `Fields`, and an edit wins against a delete.
    EditWins,
    /// The server's row.
    ServerWins,
    /// The local row.
    ClientWins,
}

impl Rules {
    /// All of them, to draw from.
    pub const ALL: [Self; 5] = [
        Self::Default,
        Self::Fields,
        Self::EditWins,
        Self::ServerWins,
        Self::ClientWins,
    ];
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// The app on a device writes.
    Write {
        /// Where.
        device: u8,
        /// What.
        write: Write,
    },
    /// Several writes in one transaction.
    Together {
        /// Where.
        device: u8,
        /// What.
        writes: Vec<Write>,
        /// Whether it is rolled back in the end.
        rollback: bool,
    },
    /// The user asks for a sync.
    Sync {
        /// Where.
        device: u8,
    },
    /// Time passes, and what is due happens.
    Wait {
        /// How long, in milliseconds.
        ms: u32,
    },
    /// The device's next request goes wrong; several faults wait in line.
    Net {
        /// Whose.
        device: u8,
        /// How.
        fault: NetFault,
    },
    /// Something happens to a device.
    Device {
        /// Which.
        device: u8,
        /// What.
        act: DeviceAct,
    },
    /// Something happens to the server.
    Server {
        /// What.
        act: ServerAct,
    },
}

/// Something that happens to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceAct {
    /// It leaves the network, and nobody tells its engine.
    Offline,
    /// It comes back, and its engine is told.
    Online,
    /// Its engine is told that the network is gone.
    NetworkLost,
    /// The process dies and is started again.
    Crash,
    /// The process dies at the n-th moment of store work from here, and is started again.
    CrashAt {
        /// Which moment.
        moment: u8,
    },
    /// The process ends in order and is started again.
    Restart,
    /// The host wants rest.
    Pause,
    /// The end of it.
    Resume,
    /// The network costs money, or no more.
    Metered {
        /// Which.
        on: bool,
    },
    /// The server hints that there is something new.
    Hint,
    /// The app comes to the foreground.
    Foreground,
    /// Another program holds the file's write lock while the engine works once.
    Busy,
    /// The n-th write to its files from here fails: the disk is full, or broken.
    Disk {
        /// Which write.
        nth: u8,
        /// Whether it is full; else it reports an I/O error.
        full: bool,
        /// Whether all later ones fail as well, until the process is started again.
        lasting: bool,
    },
    /// Its clock jumps by so many minutes.
    ClockJump {
        /// How far, in minutes.
        minutes: i32,
    },
    /// The process stands still for so many seconds, as a laptop that sleeps.
    Sleep {
        /// How long.
        seconds: u16,
    },
    /// Its first process stands still for so many seconds, and everything else goes on: longer than a
    /// lease lasts, and a second process takes the file over.
    Stall {
        /// How long.
        seconds: u16,
    },
    /// Its file is copied to another machine, where the copy is opened as one more device.
    Clone,
    /// A backup of its file is made.
    BackUp,
    /// The backup is put in its place, if everything written since is on the server.
    PutBack,
    /// The app on it is upgraded: its schema changes by the next step. The first is another column of the notes.
    Upgrade,
    /// Its owner may only read from here on, or write again.
    ReadOnly {
        /// Whether it is so.
        on: bool,
    },
    /// Somebody else signs in on it, or its owner again.
    OtherAccount {
        /// Which.
        on: bool,
    },
    /// One bounded pass begins, of so many requests.
    Pass {
        /// How many.
        requests: u8,
        /// Bytes of mutations and changes that it may use; 0: any number.
        #[serde(default)]
        bytes: u16,
    },
    /// A second process is started on the same file, or ends.
    Second {
        /// Which.
        start: bool,
    },
}

/// Something that happens to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerAct {
    /// Its process dies and is started again on what was committed.
    Restart,
    /// The n-th write from here is refused: the storage is busy.
    Busy {
        /// Which write.
        write: u8,
    },
    /// The n-th write from here is refused: the storage is full.
    Full {
        /// Which write.
        write: u8,
    },
    /// The n-th write from here is committed and told to have failed.
    CommitUnknown {
        /// Which write.
        write: u8,
    },
    /// The n-th write from here is done and rolled back: the server died before the commit.
    DieBeforeCommit {
        /// Which write.
        write: u8,
    },
    /// The n-th write from here is committed, and the process dies before it answers.
    DieAfterCommit {
        /// Which.
        write: u8,
    },
    /// It is down for everybody, for so many seconds.
    Down {
        /// How long.
        seconds: u16,
    },
    /// A backup is made.
    BackUp,
    /// The last backup is restored, and a new history begun.
    Restore,
    /// A new history begins, nothing else changes.
    RotateEpoch,
    /// Old deletions and keys are forgotten, after so many hours.
    Purge {
        /// How much time passes before it.
        hours: u16,
    },
}

/// What an app writes. Rows are named by numbers; a row that is not there is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// A new note.
    AddNote,
    /// The title of the n-th note that is there.
    Title {
        /// Which.
        row: u8,
    },
    /// Its body.
    Body {
        /// Which.
        row: u8,
    },
    /// Its stock goes up or down.
    Stock {
        /// Which.
        row: u8,
        /// By how much.
        by: i8,
    },
    /// It gets another tag.
    Tag {
        /// Which.
        row: u8,
    },
    /// It loses its first tag.
    Untag {
        /// Which.
        row: u8,
    },
    /// Its column that came with the upgrade.
    Extra {
        /// Which.
        row: u8,
    },
    /// A new note with a title that does not go through.
    AddPoison {
        /// How it does not.
        kind: PoisonKind,
    },
    /// Such a title for a note that is there.
    Poison {
        /// Which.
        row: u8,
        /// How it does not go through.
        kind: PoisonKind,
    },
    /// It goes.
    DeleteNote {
        /// Which.
        row: u8,
    },
    /// A new project.
    AddProject,
    /// Its name.
    NameProject {
        /// Which.
        row: u8,
    },
    /// It goes, and its tasks with it.
    DeleteProject {
        /// Which.
        row: u8,
    },
    /// A new task in it.
    AddTask {
        /// In which project.
        row: u8,
    },
    /// A task's name.
    NameTask {
        /// Which.
        row: u8,
    },
    /// It goes, and its steps with it.
    DeleteTask {
        /// Which.
        row: u8,
    },
    /// It moves to another project.
    MoveTask {
        /// Which.
        row: u8,
        /// Whither.
        project: u8,
    },
    /// A step of it, new or overwritten.
    PutStep {
        /// Of which task.
        row: u8,
        /// Which step.
        number: u8,
    },
    /// A new account.
    OpenAccount,
    /// Money comes in, by a command.
    Deposit {
        /// Whither.
        row: u8,
        /// How much.
        amount: u8,
    },
    /// Money changes hands, by two commands in a group.
    Transfer {
        /// From here.
        row: u8,
        /// How much.
        amount: u8,
    },
    /// A new row in a drawn table.
    AddRow {
        /// In which.
        table: u8,
        /// Decides what stands in it, and what it refers to.
        dice: u16,
    },
    /// Another value in a column of a drawn table's row, or none.
    EditRow {
        /// In which table.
        table: u8,
        /// Which row.
        row: u8,
        /// Which column.
        column: u8,
        /// Decides the value.
        dice: u16,
    },
    /// It refers to another row, or to none.
    MoveRow {
        /// In which table.
        table: u8,
        /// Which row.
        row: u8,
        /// By which of its references.
        reference: u8,
        /// Whither.
        parent: u8,
    },
    /// It goes, and what goes with it.
    DeleteRow {
        /// In which table.
        table: u8,
        /// Which row.
        row: u8,
    },
}
