//! What to do with one pulled change, given what is known locally of its entity.

/// What the local store knows of an entity when a change of it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalView {
    /// It has unsettled mutations.
    pub dirty: bool,
    /// One of them may have been sent and has no final outcome yet.
    pub sent: bool,
    /// It has a conflict that waits for a person.
    pub conflict_open: bool,
    /// The row is already known to reflect this position (an own push that the feed now echoes).
    pub reflects: Option<i64>,
    /// The position of a change of it that waits in the inbox.
    pub waiting: Option<i64>,
    /// The server does not have it, and whether it goes here too waits for a person.
    pub held: bool,
}

/// The plan for one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangePlan {
    /// Already reflected, or older than what waits.
    Skip,
    /// The entity is clean: the row becomes the remote state.
    Write,
    /// The entity is dirty: the resolver decides (P2), also afresh where a conflict is open.
    Resolve,
    /// Not now; into the inbox.
    Park(WaitsFor),
}

/// Why a change waits in the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitsFor {
    /// The outcome of a mutation that may have been sent (E5).
    Answer,
    /// The row that it references.
    Parent,
    /// Whatever else holds the place that a local constraint gives to one row only.
    Constraint,
    /// An app that knows this entity type.
    Type,
    /// Someone who understands it: the change is not well-formed.
    Valid,
    /// The head of the feed: it came with an answer to a push, ahead of what belongs to it.
    Checkpoint,
}

impl WaitsFor {
    /// The word for it in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitsFor::Answer => "answer",
            WaitsFor::Parent => "parent",
            WaitsFor::Constraint => "constraint",
            WaitsFor::Type => "type",
            WaitsFor::Valid => "valid",
            WaitsFor::Checkpoint => "checkpoint",
        }
    }
}

/// Plans one change at `position`.
pub fn plan_change(view: LocalView, position: i64) -> ChangePlan {
    let seen = view.reflects.is_some_and(|reflected| reflected >= position);
    let superseded = view.waiting.is_some_and(|waiting| waiting > position);
    if seen || superseded {
        ChangePlan::Skip
    } else if view.sent {
        ChangePlan::Park(WaitsFor::Answer)
    } else if view.dirty {
        ChangePlan::Resolve
    } else {
        ChangePlan::Write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_the_first_way_that_holds() {
        let clean = LocalView::default();
        let dirty = LocalView {
            dirty: true,
            ..clean
        };
        let sent = LocalView {
            sent: true,
            ..dirty
        };
        let open = LocalView {
            conflict_open: true,
            ..dirty
        };
        for (view, plan) in [
            (clean, ChangePlan::Write),
            (dirty, ChangePlan::Resolve),
            (sent, ChangePlan::Park(WaitsFor::Answer)),
            (open, ChangePlan::Resolve),
            (
                LocalView {
                    reflects: Some(5),
                    ..sent
                },
                ChangePlan::Skip,
            ),
            (
                LocalView {
                    reflects: Some(4),
                    ..clean
                },
                ChangePlan::Write,
            ),
            (
                LocalView {
                    waiting: Some(6),
                    ..clean
                },
                ChangePlan::Skip,
            ),
            (
                LocalView {
                    waiting: Some(4),
                    ..clean
                },
                ChangePlan::Write,
            ),
        ] {
            assert_eq!(plan_change(view, 5), plan, "{view:?}");
        }
    }
}
