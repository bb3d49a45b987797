//! The pure core of Syncline: what happens next, and nothing that makes it happen.
//!
//! - [`Machine`] is the state machine: [`Input`]s in, [`Effect`]s out, one next wake-up.
//! - [`plan_change`], [`decide`], [`fold`], [`judge`] are the pure rules behind the store's work:
//!   what to do with a pulled change, with a conflict, with several unsent mutations of one
//!   entity, with the server's result for a mutation.
//! - [`Remote`] is the border to a system of record.
//! - [`trace`] proves that the same inputs give the same effects.
//!
//! The core reads no clock, rolls no dice and does no I/O (invariant C1): time and a seed come in,
//! so the same inputs always give the same effects. The drawing of the machine is in this crate's
//! README.

mod batch;
mod change;
mod config;
mod conflict;
mod fold;
mod machine;
mod page;
mod reconnect;
mod remote;
mod retry;
mod time;
pub mod trace;
mod verdict;

pub use batch::{Batch, BatchEntry, EntityRef};
pub use change::{ChangePlan, LocalView, WaitsFor, plan_change};
pub use config::Config;
pub use conflict::{
    Bound, ConflictCause, ConflictInput, ConflictRules, Decision, DeleteRule, DeleteRules,
    FieldOutcome, FieldRule, Invariant, Lost, OwnedConflictInput, PendingMutation, Policy, Rebased,
    Resolution, Resolver, Rewrite, RuleError, Settled, TimeUnit, Timestamp, Took, UnknownWord,
    changed, decide, moved, rebase, what_each_policy_would_do,
};
pub use fold::{Folded, Intent, fold};
pub use machine::{
    Allowance, Blocked, BlockedBecause, BookSummary, Booking, Cancel, ClaimLimits, Claimed,
    Constraints, CycleEnd, Effect, FaultKind, Input, Live, Machine, MeetSummary, Notice,
    PageSummary, Reason, RequestId, State, StoreAnswer, StoreFault, StoreWork, Survey, SyncOrder,
    Targets, WakeReason,
};
pub use page::{
    MAX_CURSOR_BYTES, MAX_FIELDS, MAX_NAME_BYTES, PageFault, Standing, check_answer, check_order,
    unstorable,
};
pub use reconnect::Reconnect;
pub use remote::{
    AnswerFuture, Fetched, Hear, ListenEnd, ListenFuture, Page, PageChange, Remote, RemoteAnswer,
    RemoteError, RemoteRequest, Wanted,
};
pub use retry::{Dice, backoff_ms, retry_after_ms};
pub use time::Now;
pub use verdict::{Counted, KEY_REUSED, MutationError, Verdict, count_failure, judge};
