//! Exit codes, and which of them a sync ends with. Scripts depend on these numbers.

use crate::cycle::End;

/// How the command ends; the number is the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Anything that has no code of its own.
    Failed = 1,
    /// The command line is wrong; nothing was looked at.
    Usage = 2,
    /// Something waits for a person: a conflict, a failed or dead mutation, a held removal.
    PersonNeeded = 10,
    /// The remote is unreachable or kept failing; work is kept.
    Unreachable = 11,
    /// Credentials are needed; work is kept.
    CredentialsNeeded = 12,
    /// Work is left: the budget ended first.
    WorkLeft = 13,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// What was found at the end of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How the last cycle ended.
    pub(crate) end: End,
    /// Conflicts, dead letters and removals that wait for a person.
    pub(crate) for_person: u64,
    /// Mutations that are still to be sent or answered.
    pub(crate) unsettled: u64,
}

/// The exit code of a sync: the first that applies of 12, 11, 1 (the sync itself broke down),
/// 10, 13, else 0.
pub(crate) fn of_sync(finding: &Finding) -> Exit {
    match finding.end {
        End::CredentialsNeeded => Exit::CredentialsNeeded,
        End::Unreachable | End::Transient => Exit::Unreachable,
        End::Refused | End::StoreFailed => Exit::Failed,
        _ if finding.for_person > 0 => Exit::PersonNeeded,
        End::Unfinished | End::Interrupted | End::Standby => Exit::WorkLeft,
        End::Complete if finding.unsettled > 0 => Exit::WorkLeft,
        End::Complete => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(end: End, for_person: u64, unsettled: u64) -> u8 {
        let finding = Finding {
            end,
            for_person,
            unsettled,
        };
        of_sync(&finding).code()
    }

    #[test]
    fn the_first_that_applies_counts() {
        assert_eq!(code(End::Complete, 0, 0), 0);
        assert_eq!(code(End::Complete, 0, 1), 13);
        assert_eq!(code(End::Complete, 1, 1), 10);
        assert_eq!(code(End::Unfinished, 0, 0), 13);
        assert_eq!(code(End::Unfinished, 1, 5), 10);
        assert_eq!(code(End::Interrupted, 0, 0), 13);
        assert_eq!(code(End::Standby, 0, 0), 13);
        assert_eq!(code(End::Unreachable, 1, 1), 11);
        assert_eq!(code(End::Transient, 0, 0), 11);
        assert_eq!(code(End::CredentialsNeeded, 1, 1), 12);
        assert_eq!(code(End::Refused, 1, 1), 1);
        assert_eq!(code(End::StoreFailed, 0, 0), 1);
    }
}
