//! The border of the state machine: everything that can happen, and everything it may ask for.

use crate::{Batch, Fetched, Page, RemoteAnswer, RemoteRequest, Verdict, Wanted};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use syncline_protocol::{
    ClientId, ExchangeToken, Hello, IdempotencyKey, MutationId, Principal, Scope, TypeDefinitions,
};

/// Everything that can happen to the engine. Exhaustive: a driver that forgets one does not compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Someone or something asks for a sync.
    Trigger(Reason),
    /// The network went away. (Its return is a [`Reason`].)
    NetworkLost,
    /// Whether the network is to be used sparingly from now on.
    Constraints(super::Constraints),
    /// Nothing is to be asked of the world until [`Input::Resume`]; reasons are remembered.
    Pause,
    /// The end of a pause.
    Resume,
    /// One bounded pass begins, also while the engine is paused: from here on no more than this is
    /// used of the network. `None` ends it: what is under way is given up, and the pause holds again.
    Pass(Option<super::Allowance>),
    /// Whether the remote's hints are heard from now on.
    Live(Live),
    /// Time passed; sent when the wake-up told by `next_wakeup` is due, harmless at other times.
    Tick,
    /// A unit of store work ended.
    Store(StoreAnswer),
    /// A remote request ended. Ignored unless it is the one under way (F:B3).
    Remote(RequestId, RemoteAnswer),
    /// A token refresh ended: new credentials, or why there are none.
    Credentials(Result<(), String>),
    /// The engine is to end; nothing more will be asked of the world.
    Stop,
}

/// Why a sync is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The app started.
    AppStart,
    /// The app came to the foreground.
    Foreground,
    /// The network came back.
    NetworkAvailable,
    /// There are new credentials.
    AuthRefreshed,
    /// A person wants it now.
    UserAsked,
    /// A local write was recorded.
    MutationEnqueued,
    /// One was recorded in the urgent lane: it does not wait for others.
    UrgentMutation,
    /// One was recorded in the background lane: it goes with the next cycle.
    BackgroundMutation,
    /// The remote said that there is something new.
    RemoteHint,
    /// The poll interval passed.
    Timer,
    /// A conflict was resolved, or a dead letter retried or discarded.
    Remediated,
    /// A bounded pass was asked for.
    Pass,
}

/// Whether hints that a scope's head moved are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Live {
    /// A stream is open and has told a head.
    Heard,
    /// No stream is open.
    Lost,
}

/// Names one remote request, so that a late or doubled answer is recognised.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Everything the engine may ask of the world. Exhaustive, as [`Input`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// One unit of store work: exactly one transaction.
    Store(StoreWork),
    /// One request to the remote.
    Remote(RequestId, RemoteRequest),
    /// New credentials are needed.
    RefreshCredentials,
    /// Something to tell the app.
    Notice(super::Notice),
}

/// One unit of store work. Each is one transaction, which first checks the fencing token (S2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreWork {
    /// Become (or stay) the engine of this file.
    Acquire,
    /// Prolong that right while a request is under way.
    Renew,
    /// Check the principal against the file's account and take over the epoch.
    Greet(Hello),
    /// Choose a batch, freeze its bytes, mark it in flight.
    Claim(ClaimLimits),
    /// What can be claimed behind this place in the outbox and has a state at the server that a
    /// conflict could come of, and what that refers to.
    Targets {
        /// Everything up to this place was looked at.
        after: i64,
        /// Entries at most.
        most: usize,
    },
    /// What these entities are at the server meets the mutations that wait here, as the state that
    /// comes with a refused push does. Nothing that may have been sent is touched (E5).
    Meet {
        /// The scope in which they were seen.
        scope: Scope,
        /// What was asked for.
        wanted: Wanted,
        /// What came.
        fetched: Fetched,
    },
    /// The remote knows the synced tables now.
    NoteRegistered,
    /// This file is a copy of another that syncs as the same installation: take a new identity,
    /// under which everything that may have been sent keeps its key.
    Remint,
    /// Write down what became of a batch.
    Book {
        /// The verdicts.
        bookings: Vec<Booking>,
        /// The exchange token of the answer they are from.
        token: Option<ExchangeToken>,
    },
    /// Where does the next page of this scope start?
    ReadCursor(Scope),
    /// Apply a page and move the cursor (A2); refused if the cursor is not `from` any more.
    ApplyPage {
        /// The scope.
        scope: Scope,
        /// The cursor that the page was asked with.
        from: Option<String>,
        /// The page.
        page: Page,
    },
    /// Forget the cursor of a scope: the next pull starts with a snapshot.
    ForgetCursor(Scope),
    /// What is left, and when is it due?
    Survey,
}

impl StoreWork {
    /// One word for the kind of work.
    pub fn word(&self) -> &'static str {
        match self {
            StoreWork::Acquire => "acquire",
            StoreWork::Renew => "renew",
            StoreWork::Greet(_) => "greet",
            StoreWork::Claim(_) => "claim",
            StoreWork::Targets { .. } => "targets",
            StoreWork::Meet { .. } => "meet",
            StoreWork::NoteRegistered => "note-registered",
            StoreWork::Remint => "remint",
            StoreWork::Book { .. } => "book",
            StoreWork::ReadCursor(_) => "read-cursor",
            StoreWork::ApplyPage { .. } => "apply-page",
            StoreWork::ForgetCursor(_) => "forget-cursor",
            StoreWork::Survey => "survey",
        }
    }
}

/// Sizes to which a claim keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimLimits {
    /// Entries at most.
    pub mutations: usize,
    /// Bytes of frozen mutations at most, unless a single one has more.
    pub bytes: usize,
    /// Bytes of one mutation at most; a larger one fails.
    pub mutation_bytes: usize,
    /// Mutations that may only be sent alone, because they failed alone before.
    pub alone: BTreeSet<MutationId>,
    /// Entries in a batch at most by the server's own limit, to which a group has to keep.
    pub most_mutations: usize,
    /// Bytes in a batch at most by the server's own limit, to which a group has to keep.
    pub most_bytes: usize,
    /// Entries of a batch that is under way: neither they nor more of their entities.
    pub under_way: BTreeSet<i64>,
    /// Only the urgent lane.
    pub urgent_only: bool,
    /// This once in local order, whatever the lanes: so that no lane starves another.
    pub in_order: bool,
}

/// What a claim found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Claimed {
    /// The batch; empty when nothing can be sent now.
    pub batch: Batch,
    /// It is as large as it may be: there may be more.
    pub more: bool,
    /// A key that is to be cancelled at the server.
    pub cancel: Option<Cancel>,
    /// Things the app is to be told (C4).
    pub notices: Vec<super::Notice>,
}

/// What is fetched before a claim.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Targets {
    /// Request by request.
    pub wanted: Vec<Wanted>,
    /// The place in the outbox up to which was looked.
    pub last: i64,
    /// There is nothing yet that could be compared: a snapshot has to be read first.
    pub unread: bool,
}

/// What meeting fetched states did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MeetSummary {
    /// Entities that a resolver merged.
    pub merged: u64,
    /// States that wait in the inbox.
    pub parked: u64,
    /// What was seen needs the feed: it is to be read before anything is sent.
    pub pull_first: bool,
    /// Things the app is to be told (C4).
    pub notices: Vec<super::Notice>,
}

/// An entry that its user gave up although it may have been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The entry.
    pub seq: i64,
    /// Its mutation.
    pub mutation: MutationId,
    /// The installation that sent it.
    pub client: ClientId,
    /// Its key.
    pub key: IdempotencyKey,
}

/// The verdict on one claimed entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Booking {
    /// The entry.
    pub seq: i64,
    /// What became of it.
    pub verdict: Verdict,
}

/// What came of a [`StoreWork`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreAnswer {
    /// To `Acquire`.
    Acquired,
    /// To `Acquire`: another process is the engine.
    HeldByOther {
        /// For how much longer at most, in milliseconds.
        remaining_ms: u64,
    },
    /// To `Renew`.
    Renewed,
    /// To `Greet`.
    Greeted {
        /// The history changed; cursors and versions were dropped, local work kept.
        epoch_changed: bool,
        /// The exchange token that was booked last.
        token: Option<ExchangeToken>,
        /// What the remote is to be told about the synced tables, when that changed.
        register: Option<TypeDefinitions>,
    },
    /// To `NoteRegistered`.
    RegisteredNoted,
    /// To `Remint`.
    Reminted {
        /// Who this installation is from now on.
        client: ClientId,
    },
    /// To `Greet`: the file belongs to another account (I1).
    OtherAccount {
        /// Whose it is.
        recorded: Principal,
    },
    /// To `Claim`.
    Claimed(Claimed),
    /// To `Targets`.
    Targets(Targets),
    /// To `Meet`.
    Met(MeetSummary),
    /// To `Book`.
    Booked(BookSummary),
    /// To `ReadCursor`.
    Cursor(Option<String>),
    /// To `ApplyPage`.
    PageApplied(PageSummary),
    /// To `ForgetCursor`.
    CursorForgotten,
    /// To `Survey`.
    Surveyed(Survey),
    /// To any: the transaction was rolled back, nothing changed.
    Failed(StoreFault),
}

/// What a booking did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BookSummary {
    /// Mutations that took effect.
    pub applied: u64,
    /// Of those, the ones that the server had already recorded.
    pub duplicates: u64,
    /// Things the app is to be told (C4).
    pub notices: Vec<super::Notice>,
}

/// What applying a page did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PageSummary {
    /// Rows written.
    pub upserts: u64,
    /// Rows removed.
    pub deletes: u64,
    /// Changes of entities with local mutations that a resolver merged.
    pub merged: u64,
    /// Changes that wait in the inbox.
    pub parked: u64,
    /// Changes already reflected (own echoes).
    pub skipped: u64,
    /// Mutations that had waited for the head and may be sent now.
    pub released: u64,
    /// The cursor was given up: a snapshot comes next, head or not.
    pub again: bool,
    /// Things the app is to be told (C4).
    pub notices: Vec<super::Notice>,
}

/// What is left to do, as seen in one snapshot of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Survey {
    /// Something can be claimed right now.
    pub claimable: bool,
    /// Unsettled entries.
    pub unsettled: u64,
    /// In how many milliseconds the earliest entry that waits for a time is due.
    pub due_in_ms: Option<u64>,
    /// Conflicts that wait for a person.
    pub open_conflicts: u64,
}

/// A unit of store work that could not be done; it was rolled back as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{kind}: {detail}")]
pub struct StoreFault {
    /// What kind of trouble.
    pub kind: FaultKind,
    /// For people.
    pub detail: String,
}

/// Kinds of store trouble, by what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultKind {
    /// Another process took over; it must be asked again for the lease.
    #[error("another process became the engine of this database")]
    Fenced,
    /// Another writer holds the file; trying again helps.
    #[error("the database is busy")]
    Busy,
    /// No space left; trying again helps once there is.
    #[error("the disk is full")]
    Full,
    /// It cannot be read or written just now; never taken for damage (S1).
    #[error("the database is not available")]
    Unavailable,
    /// The file is damaged.
    #[error("the database is damaged")]
    Corrupt,
    /// The page does not continue what is stored; it is asked for again.
    #[error("the page does not follow the stored cursor")]
    OutOfOrder,
    /// The page contradicts itself or what is stored, or brings more that nobody understands than
    /// can be kept: the server's fault. The cursor stays; asked again later.
    #[error("the server's page cannot be taken")]
    BadPage,
    /// Anything else: a defect.
    #[error("the store failed")]
    Other,
}

impl FaultKind {
    /// One word for the kind.
    pub fn word(self) -> &'static str {
        match self {
            FaultKind::Fenced => "fenced",
            FaultKind::Busy => "busy",
            FaultKind::Full => "full",
            FaultKind::Unavailable => "unavailable",
            FaultKind::Corrupt => "corrupt",
            FaultKind::OutOfOrder => "out-of-order",
            FaultKind::BadPage => "bad-page",
            FaultKind::Other => "other",
        }
    }
}
