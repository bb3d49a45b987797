//! Which cells of the machine's table were visited: the state it was in, the kind of the input. The
//! cells that cannot be reached, or that must not, are listed in `impossible.txt` with the reason.

use crate::level::{Cell, Played};
use syncline_core::{
    FaultKind, Input, Live, Reason, RemoteAnswer, RemoteError, State, StoreAnswer,
};

/// The states, in the order of the machine's table.
pub const STATES: [&str; 9] = [
    "idle",
    "connecting",
    "pushing",
    "pulling",
    "blocked_auth",
    "blocked_conflict",
    "backoff",
    "paused",
    "stopped",
];

/// The kinds of inputs.
pub const KINDS: [&str; 89] = [
    "trigger app-start",
    "trigger foreground",
    "trigger network-available",
    "trigger auth-refreshed",
    "trigger user-asked",
    "trigger mutation-enqueued",
    "trigger urgent-mutation",
    "trigger background-mutation",
    "trigger remote-hint",
    "trigger timer",
    "trigger remediated",
    "network lost",
    "constraints on",
    "constraints off",
    "pause",
    "resume",
    "live heard",
    "live lost",
    "tick due",
    "tick early",
    "credentials new",
    "credentials none",
    "stop",
    "store acquired",
    "store held-by-other",
    "store renewed",
    "store greeted",
    "store greeted anew",
    "store greeted with types",
    "store other-account",
    "store registered-noted",
    "store reminted",
    "store claimed",
    "store claimed nothing",
    "store claimed a cancel",
    "store booked",
    "store cursor",
    "store page-applied",
    "store cursor-forgotten",
    "store surveyed",
    "store failed fenced",
    "store failed busy",
    "store failed full",
    "store failed unavailable",
    "store failed corrupt",
    "store failed out-of-order",
    "store failed bad-page",
    "store failed other",
    "hello answered",
    "register answered",
    "push answered",
    "cancel answered",
    "pull answered",
    "hello unreachable",
    "hello transient",
    "hello overloaded",
    "hello auth",
    "hello refused",
    "register unreachable",
    "register transient",
    "register overloaded",
    "register auth",
    "register refused",
    "push unreachable",
    "push transient",
    "push overloaded",
    "push auth",
    "push refused",
    "cancel unreachable",
    "cancel transient",
    "cancel overloaded",
    "cancel auth",
    "cancel refused",
    "pull unreachable",
    "pull transient",
    "pull overloaded",
    "pull auth",
    "pull refused",
    "answer that nobody waits for",
    "pass begun",
    "pass ended",
    "store targets",
    "store met",
    "fetch answered",
    "fetch unreachable",
    "fetch transient",
    "fetch overloaded",
    "fetch auth",
    "fetch refused",
];

/// Visits by cell.
#[derive(Debug, Clone)]
pub(crate) struct Cells(Vec<u32>);

impl Default for Cells {
    fn default() -> Self {
        Self(vec![0; STATES.len() * KINDS.len()])
    }
}

impl Cells {
    pub(crate) fn visit(&mut self, state: usize, kind: usize) {
        if let Some(visits) = self.0.get_mut(state * KINDS.len() + kind) {
            *visits += 1;
        }
    }

    pub(crate) fn tell(&self, played: &mut Played) {
        for (index, visits) in self.0.iter().enumerate().filter(|(_, visits)| **visits > 0) {
            let state = STATES.get(index / KINDS.len()).unwrap_or(&"?");
            let kind = KINDS.get(index % KINDS.len()).unwrap_or(&"?");
            *played.cells.entry((state, kind)).or_default() += u64::from(*visits);
        }
    }
}

/// The state's place in [`STATES`].
pub(crate) fn state_index(state: State) -> usize {
    match state {
        State::Idle => 0,
        State::Connecting => 1,
        State::Pushing => 2,
        State::Pulling => 3,
        State::BlockedAuth => 4,
        State::BlockedConflict => 5,
        State::Backoff => 6,
        State::Paused => 7,
        _ => 8,
    }
}

/// The input's place in [`KINDS`]. `awaited`: it is the answer that the machine waits for, or, of a
/// tick, that its time has come.
pub(crate) fn kind_index(input: &Input, awaited: bool) -> usize {
    match input {
        Input::Trigger(reason) => match reason {
            Reason::AppStart => 0,
            Reason::Foreground => 1,
            Reason::NetworkAvailable => 2,
            Reason::AuthRefreshed => 3,
            Reason::UserAsked => 4,
            Reason::MutationEnqueued => 5,
            Reason::UrgentMutation => 6,
            Reason::BackgroundMutation => 7,
            Reason::RemoteHint => 8,
            Reason::Timer => 9,
            _ => 10,
        },
        Input::NetworkLost => 11,
        Input::Constraints(constraints) => 13 - usize::from(constraints.any()),
        Input::Pass(Some(_)) => 79,
        Input::Pass(None) => 80,
        Input::Pause => 14,
        Input::Resume => 15,
        Input::Live(Live::Heard) => 16,
        Input::Live(Live::Lost) => 17,
        Input::Tick => 19 - usize::from(awaited),
        Input::Credentials(refresh) => 20 + usize::from(refresh.is_err()),
        Input::Stop => 22,
        Input::Store(answer) => store_index(answer),
        Input::Remote(_, _) if !awaited => 78,
        Input::Remote(_, answer) => remote_index(answer),
    }
}

fn store_index(answer: &StoreAnswer) -> usize {
    match answer {
        StoreAnswer::Acquired => 23,
        StoreAnswer::HeldByOther { .. } => 24,
        StoreAnswer::Renewed => 25,
        StoreAnswer::Greeted {
            register: Some(_), ..
        } => 28,
        StoreAnswer::Greeted { epoch_changed, .. } => 26 + usize::from(*epoch_changed),
        StoreAnswer::OtherAccount { .. } => 29,
        StoreAnswer::RegisteredNoted => 30,
        StoreAnswer::Reminted { .. } => 31,
        StoreAnswer::Claimed(claimed) if !claimed.batch.entries.is_empty() => 32,
        StoreAnswer::Claimed(claimed) => 33 + usize::from(claimed.cancel.is_some()),
        StoreAnswer::Booked(_) => 35,
        StoreAnswer::Cursor(_) => 36,
        StoreAnswer::PageApplied(_) => 37,
        StoreAnswer::CursorForgotten => 38,
        StoreAnswer::Surveyed(_) => 39,
        StoreAnswer::Targets(_) => 81,
        StoreAnswer::Met(_) => 82,
        StoreAnswer::Failed(fault) => match fault.kind {
            FaultKind::Fenced => 40,
            FaultKind::Busy => 41,
            FaultKind::Full => 42,
            FaultKind::Unavailable => 43,
            FaultKind::Corrupt => 44,
            FaultKind::OutOfOrder => 45,
            FaultKind::BadPage => 46,
            _ => 47,
        },
    }
}

fn remote_index(answer: &RemoteAnswer) -> usize {
    let (place, error) = match answer {
        RemoteAnswer::Hello(answer) => (0, answer.as_ref().err()),
        RemoteAnswer::Register(answer) => (1, answer.as_ref().err()),
        RemoteAnswer::Push(answer) => (2, answer.as_ref().err()),
        RemoteAnswer::Cancel(answer) => (3, answer.as_ref().err()),
        RemoteAnswer::Pull(answer) => (4, answer.as_ref().err()),
        RemoteAnswer::Fetch(answer) => (5, answer.as_ref().err()),
    };
    let (answered, failed) = match place {
        5 => (83, 84),
        place => (48 + place, 53 + place * 5),
    };
    let bucket = match error {
        None => return answered,
        Some(RemoteError::Unreachable { .. }) => 0,
        Some(RemoteError::Transient { overloaded, .. }) => 1 + usize::from(*overloaded),
        Some(RemoteError::Auth { .. }) => 3,
        Some(_) => 4,
    };
    failed + bucket
}

/// The list of cells that cannot be reached.
pub const IMPOSSIBLE: &str = include_str!("impossible.txt");

/// Every cell, and why it is not among those that were visited, should it not be.
pub(super) fn table() -> Vec<(Cell, &'static str)> {
    let cells = STATES
        .iter()
        .flat_map(|state| KINDS.iter().map(move |kind| (*state, *kind)));
    let told =
        |cell| why_impossible(cell, IMPOSSIBLE).unwrap_or("rare: the tour of the tests visits it");
    cells.map(|cell| (cell, told(cell))).collect()
}

/// Whether a rule of the list names the cell.
pub fn is_impossible(cell: Cell, list: &str) -> bool {
    why_impossible(cell, list).is_some()
}

/// The reason of the rule of the list that names the cell. A line: states, kinds, reason, parted by `|`; several are
/// parted by commas, `*` is any, `!` in front of the states means all others, a kind may end in `*`.
fn why_impossible(cell: Cell, list: &str) -> Option<&str> {
    list.lines()
        .find_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
            [states, kinds, why] => (names_state(states.trim(), cell.0)
                && names_kind(kinds, cell.1))
            .then_some(why.trim()),
            _ => None,
        })
}

fn names_state(states: &str, state: &str) -> bool {
    let (listed, others) = match states.strip_prefix('!') {
        Some(listed) => (listed, true),
        None => (states, false),
    };
    let named = listed
        .split(',')
        .any(|one| one.trim() == state || one.trim() == "*");
    named != others
}

fn names_kind(kinds: &str, kind: &str) -> bool {
    kinds
        .split(',')
        .map(str::trim)
        .any(|one| match one.strip_suffix('*') {
            Some(start) => kind.starts_with(start),
            None => one == kind,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_states_or_all_others_and_kinds_by_their_start() {
        let list = "# comment\n!pushing, pulling | store claimed*, stop | why";
        assert!(is_impossible(("idle", "store claimed nothing"), list));
        assert!(is_impossible(("idle", "stop"), list));
        assert!(!is_impossible(("pulling", "store claimed"), list));
        assert!(!is_impossible(("idle", "store booked"), list));
    }
}
