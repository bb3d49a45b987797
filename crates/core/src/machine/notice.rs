//! What the app is told. Notices never change what the engine does.

use super::{Reason, State, StoreFault};
use crate::{EntityRef, MutationError, RemoteError};
use serde::{Deserialize, Serialize};
use syncline_protocol::{EntityId, EntityType, MutationId, Principal};

/// Something to tell the app; every blocked state and every conflict is told (C4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Notice {
    /// The machine moved.
    StateChanged {
        /// From here.
        from: State,
        /// To here.
        to: State,
    },
    /// A cycle began.
    CycleStarted {
        /// Why.
        reasons: Vec<Reason>,
    },
    /// A cycle ended.
    CycleEnded(CycleEnd),
    /// A push was answered and booked.
    Pushed {
        /// Mutations that took effect.
        applied: u64,
        /// Of those, ones that the server had already recorded.
        duplicates: u64,
    },
    /// A page was applied.
    Pulled {
        /// Rows written.
        upserts: u64,
        /// Rows removed.
        deletes: u64,
        /// Changes merged with local mutations.
        merged: u64,
        /// Changes that wait in the inbox.
        parked: u64,
    },
    /// More was to be pulled than may be staged for a checkpoint: it was applied in several
    /// transactions instead of one.
    CheckpointSplit {
        /// Changes that were applied before the head was reached.
        changes: u64,
    },
    /// A row was deleted elsewhere, and rows here referenced it: what their foreign key says was
    /// recorded as mutations.
    OrphansMended {
        /// The row that was deleted.
        parent: EntityRef,
        /// Rows that were deleted with it.
        deleted: u64,
        /// Rows whose reference was changed.
        changed: u64,
    },
    /// A row that was deleted elsewhere is created again: rows here reference it, and their foreign
    /// key does not let it go.
    DeletionUndone {
        /// The row.
        entity: EntityRef,
    },
    /// The server will not have a mutation; it waits for a person, everything else goes on.
    MutationFailed {
        /// The mutation.
        mutation: MutationId,
        /// Its entity; `None` where its key is none that can be synced.
        entity: Option<EntityRef>,
        /// Why.
        error: MutationError,
    },
    /// A mutation was given up after too many failures of its own.
    MutationDead {
        /// The mutation.
        mutation: MutationId,
        /// Its entity.
        entity: EntityRef,
        /// The last failure.
        error: MutationError,
    },
    /// A mutation that was to be cancelled had taken effect before; it stays.
    CancelledTooLate {
        /// The mutation.
        mutation: MutationId,
        /// Its entity.
        entity: EntityRef,
    },
    /// A conflict was decided by rule.
    ConflictResolved {
        /// The entity.
        entity: EntityRef,
        /// The rule that decided.
        rule: String,
    },
    /// A conflict waits for a person.
    ConflictOpened {
        /// The entity.
        entity: EntityRef,
        /// Why.
        reason: String,
    },
    /// A resolver of the app's did not answer in time. Until the database is opened again, conflicts
    /// of the type that only it could decide wait for a person.
    ResolverDisabled {
        /// The entity type.
        entity_type: EntityType,
        /// The resolver's name.
        resolver: String,
        /// How long it had, in milliseconds.
        deadline_ms: u64,
    },
    /// A row that was created here goes by another id now: the server has assigned it, another row
    /// needed the old one, or it is the same thing as another row by its natural key. Whoever remembers the old id has to follow.
    IdChanged {
        /// The entity type.
        entity_type: EntityType,
        /// The id that it had.
        old: EntityId,
        /// The id that it has.
        new: EntityId,
    },
    /// A request failed and will be repeated.
    BackingOff {
        /// In this many milliseconds.
        delay_ms: u64,
        /// What happened.
        error: RemoteError,
    },
    /// Credentials are needed; local work is kept.
    CredentialsNeeded {
        /// Why.
        detail: String,
    },
    /// The credentials name another account than the file's; nothing is sent (I1).
    OtherAccount {
        /// Whose the file is.
        recorded: Principal,
        /// Whom the credentials name.
        offered: Principal,
    },
    /// The server's history is another one; the local copy is compared anew, local work is kept.
    EpochChanged,
    /// This file turned out to be a copy, or an older state, of one that syncs as the same
    /// installation: it has a new identity now. What may have been sent keeps its keys, so nothing
    /// takes effect twice.
    IdentityChanged,
    /// Rows that the server no longer has would be removed, but they are so many that a person
    /// has to confirm (I3).
    SweepHeld {
        /// The entity type.
        entity_type: String,
        /// How many rows.
        rows: u64,
    },
    /// Writes had escaped capture (its triggers were gone or stale): they were found by comparing
    /// with the server and are recorded now.
    Recovered {
        /// The entity type.
        entity_type: String,
        /// How many mutations were recorded.
        rows: u64,
    },
    /// While capture was interrupted, rows disappeared that the server has; they are so many that
    /// no deletes were recorded: the rows came back (I3).
    RecoveryHeld {
        /// The entity type.
        entity_type: String,
        /// How many rows.
        rows: u64,
    },
    /// The table of a type is gone, or has become one that cannot be synced. What is written there is not
    /// recorded; what was recorded before is sent, and what comes of the type waits in the inbox.
    TypeUnsyncable {
        /// The entity type.
        entity_type: String,
        /// Why, and what can be done.
        reason: String,
    },
    /// The store could not do its work; it is tried again.
    StoreTrouble(StoreFault),
    /// Another process is the engine of this file.
    Standby,
}

/// How a cycle ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CycleEnd {
    /// Everything that can be done now is done.
    Complete,
    /// The remote failed; see the error. Work is kept and tried again.
    RemoteFailed(RemoteError),
    /// Credentials are needed.
    CredentialsNeeded,
    /// The store failed.
    StoreFailed(StoreFault),
    /// Another process is the engine.
    Standby,
    /// The host wanted rest.
    Paused,
    /// The work did not come to an end within the configured rounds; it goes on in the next cycle.
    RoundsUsedUp,
    /// A bounded pass has used up what it was allowed, or its time. Work is kept.
    BudgetUsedUp,
}

impl CycleEnd {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            CycleEnd::Complete => "complete",
            CycleEnd::RemoteFailed(_) => "remote-failed",
            CycleEnd::CredentialsNeeded => "credentials-needed",
            CycleEnd::StoreFailed(_) => "store-failed",
            CycleEnd::Standby => "standby",
            CycleEnd::Paused => "paused",
            CycleEnd::RoundsUsedUp => "rounds-used-up",
            CycleEnd::BudgetUsedUp => "budget-used-up",
        }
    }
}
