//! What is hidden of inputs and effects.

use super::{Redact, Redactor};
use crate::{
    Batch, BatchEntry, BookSummary, Booking, Cancel, Claimed, Effect, EntityRef, Fetched, Input,
    MeetSummary, MutationError, Page, PageChange, PageSummary, RemoteAnswer, RemoteError,
    RemoteRequest, StoreAnswer, StoreFault, StoreWork, Targets, Verdict, Wanted,
};

impl Redact for Input {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            Input::Store(answer) => Input::Store(answer.redacted(by)),
            Input::Remote(id, answer) => Input::Remote(*id, answer.redacted(by)),
            Input::Credentials(Ok(())) => Input::Credentials(Ok(())),
            Input::Credentials(Err(why)) => Input::Credentials(Err(by.detail(why))),
            Input::Trigger(_)
            | Input::NetworkLost
            | Input::Constraints(_)
            | Input::Pause
            | Input::Resume
            | Input::Pass(_)
            | Input::Live(_)
            | Input::Tick
            | Input::Stop => self.clone(),
        }
    }
}

impl Redact for StoreAnswer {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            StoreAnswer::Greeted {
                epoch_changed,
                token,
                register,
            } => StoreAnswer::Greeted {
                epoch_changed: *epoch_changed,
                token: token.redacted(by),
                register: register.redacted(by),
            },
            StoreAnswer::OtherAccount { recorded } => StoreAnswer::OtherAccount {
                recorded: recorded.redacted(by),
            },
            StoreAnswer::Claimed(claimed) => StoreAnswer::Claimed(claimed.redacted(by)),
            StoreAnswer::Booked(summary) => StoreAnswer::Booked(summary.redacted(by)),
            StoreAnswer::Cursor(cursor) => {
                StoreAnswer::Cursor(cursor.as_ref().map(|cursor| by.cursor(cursor)))
            }
            StoreAnswer::Targets(targets) => StoreAnswer::Targets(targets.redacted(by)),
            StoreAnswer::Met(summary) => StoreAnswer::Met(summary.redacted(by)),
            StoreAnswer::PageApplied(summary) => StoreAnswer::PageApplied(summary.redacted(by)),
            StoreAnswer::Failed(fault) => StoreAnswer::Failed(fault.redacted(by)),
            StoreAnswer::Acquired
            | StoreAnswer::HeldByOther { remaining_ms: _ }
            | StoreAnswer::Renewed
            | StoreAnswer::RegisteredNoted
            | StoreAnswer::Reminted { client: _ }
            | StoreAnswer::CursorForgotten
            | StoreAnswer::Surveyed(_) => self.clone(),
        }
    }
}

impl Redact for Claimed {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            batch,
            more,
            cancel,
            notices,
        } = self;
        Self {
            batch: batch.redacted(by),
            more: *more,
            cancel: cancel.redacted(by),
            notices: notices.redacted(by),
        }
    }
}

impl Redact for Cancel {
    fn redacted(&self, _: &Redactor) -> Self {
        let Self {
            seq: _,
            mutation: _,
            client: _,
            key: _,
        } = self;
        self.clone()
    }
}

impl Redact for BookSummary {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            applied,
            duplicates,
            notices,
        } = self;
        Self {
            applied: *applied,
            duplicates: *duplicates,
            notices: notices.redacted(by),
        }
    }
}

impl Redact for PageSummary {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            upserts,
            deletes,
            merged,
            parked,
            skipped,
            released,
            again,
            notices,
        } = self;
        Self {
            upserts: *upserts,
            deletes: *deletes,
            merged: *merged,
            parked: *parked,
            skipped: *skipped,
            released: *released,
            again: *again,
            notices: notices.redacted(by),
        }
    }
}

impl Redact for StoreFault {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self { kind, detail } = self;
        Self {
            kind: *kind,
            detail: by.detail(detail),
        }
    }
}

impl Redact for EntityRef {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self { entity_type, id } = self;
        Self {
            entity_type: entity_type.clone(),
            id: id.redacted(by),
        }
    }
}

impl Redact for Batch {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self { entries, bytes } = self;
        Self {
            entries: entries.redacted(by),
            bytes: *bytes,
        }
    }
}

impl Redact for BatchEntry {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            seq,
            mutation,
            key,
            entity,
            op,
            attempts,
            group,
            origin,
            again,
            frozen,
        } = self;
        Self {
            seq: *seq,
            mutation: mutation.clone(),
            key: key.clone(),
            entity: entity.redacted(by),
            op: *op,
            attempts: *attempts,
            group: group.as_ref().map(|group| by.text(group)),
            origin: origin.clone(),
            again: *again,
            frozen: by.text(frozen),
        }
    }
}

impl Redact for MutationError {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            code,
            detail,
            errors,
        } = self;
        Self {
            code: by.word(code),
            detail: by.detail(detail),
            errors: errors.redacted(by),
        }
    }
}

impl Redact for RemoteAnswer {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            RemoteAnswer::Hello(answer) => RemoteAnswer::Hello(answer.redacted(by)),
            RemoteAnswer::Push(answer) => RemoteAnswer::Push(answer.redacted(by)),
            RemoteAnswer::Cancel(answer) => RemoteAnswer::Cancel(answer.redacted(by)),
            RemoteAnswer::Register(answer) => RemoteAnswer::Register(answer.redacted(by)),
            RemoteAnswer::Fetch(answer) => RemoteAnswer::Fetch(answer.redacted(by)),
            RemoteAnswer::Pull(answer) => RemoteAnswer::Pull(answer.redacted(by)),
        }
    }
}

impl Redact for RemoteError {
    fn redacted(&self, by: &Redactor) -> Self {
        let mut error = self.clone();
        let (RemoteError::Unreachable { detail }
        | RemoteError::Transient { detail, .. }
        | RemoteError::Auth { detail }
        | RemoteError::Forked { detail }
        | RemoteError::TooLarge { detail }
        | RemoteError::CursorGone { detail }
        | RemoteError::Incompatible { detail }
        | RemoteError::Misconfigured { detail, .. }) = &mut error;
        *detail = by.detail(detail);
        error
    }
}

impl Redact for Page {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            changes,
            end,
            bytes,
        } = self;
        Self {
            changes: hidden(changes, by),
            end: end.redacted(by),
            bytes: *bytes,
        }
    }
}

/// What changed is not looked at by the machine: as many stand-ins that together say which page it was.
fn hidden(changes: &Vec<PageChange>, by: &Redactor) -> Vec<PageChange> {
    if by.values {
        return changes.redacted(by);
    }
    let content = serde_json::to_string(changes).unwrap_or_default();
    let stand_in = PageChange::Invalid {
        raw: by.text(&content),
        detail: String::new(),
    };
    vec![stand_in; changes.len()]
}

impl Redact for Fetched {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            epoch,
            position,
            changes,
            bytes,
        } = self;
        Self {
            epoch: epoch.clone(),
            position: *position,
            changes: hidden(changes, by),
            bytes: *bytes,
        }
    }
}

impl Redact for Wanted {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self { entity_type, ids } = self;
        Self {
            entity_type: entity_type.clone(),
            ids: ids.iter().map(|id| by.id(id)).collect(),
        }
    }
}

impl Redact for Targets {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            wanted,
            last,
            unread,
        } = self;
        Self {
            wanted: wanted.redacted(by),
            last: *last,
            unread: *unread,
        }
    }
}

impl Redact for MeetSummary {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            merged,
            parked,
            pull_first,
            notices,
        } = self;
        Self {
            merged: *merged,
            parked: *parked,
            pull_first: *pull_first,
            notices: notices.redacted(by),
        }
    }
}

impl Redact for PageChange {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            PageChange::Valid(change) => PageChange::Valid(change.redacted(by)),
            PageChange::Invalid { raw, detail } => PageChange::Invalid {
                raw: by.text(raw),
                detail: by.detail(detail),
            },
        }
    }
}

impl Redact for Effect {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            Effect::Store(work) => Effect::Store(work.redacted(by)),
            Effect::Remote(id, request) => Effect::Remote(*id, request.redacted(by)),
            Effect::RefreshCredentials => Effect::RefreshCredentials,
            Effect::Notice(notice) => Effect::Notice(notice.redacted(by)),
        }
    }
}

impl Redact for StoreWork {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            StoreWork::Greet(hello) => StoreWork::Greet(hello.redacted(by)),
            StoreWork::Book { bookings, token } => StoreWork::Book {
                bookings: bookings.redacted(by),
                token: token.redacted(by),
            },
            StoreWork::ReadCursor(scope) => StoreWork::ReadCursor(scope.redacted(by)),
            StoreWork::ApplyPage { scope, from, page } => StoreWork::ApplyPage {
                scope: scope.redacted(by),
                from: from.as_ref().map(|from| by.cursor(from)),
                page: page.redacted(by),
            },
            StoreWork::ForgetCursor(scope) => StoreWork::ForgetCursor(scope.redacted(by)),
            StoreWork::Meet {
                scope,
                wanted,
                fetched,
            } => StoreWork::Meet {
                scope: scope.redacted(by),
                wanted: wanted.redacted(by),
                fetched: fetched.redacted(by),
            },
            StoreWork::Acquire
            | StoreWork::Renew
            | StoreWork::Claim(_)
            | StoreWork::Targets { after: _, most: _ }
            | StoreWork::NoteRegistered
            | StoreWork::Remint
            | StoreWork::Survey => self.clone(),
        }
    }
}

impl Redact for Booking {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self { seq, verdict } = self;
        Self {
            seq: *seq,
            verdict: verdict.redacted(by),
        }
    }
}

impl Redact for Verdict {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            Verdict::Applied {
                version,
                position,
                fields,
                id,
                duplicate,
                unsent,
            } => Verdict::Applied {
                version: version.redacted(by),
                position: *position,
                fields: fields.redacted(by),
                id: id.redacted(by),
                duplicate: *duplicate,
                unsent: *unsent,
            },
            Verdict::Conflict {
                reason,
                remote,
                replayed,
            } => Verdict::Conflict {
                reason: *reason,
                remote: remote.redacted(by),
                replayed: *replayed,
            },
            Verdict::Failed(error) => Verdict::Failed(error.redacted(by)),
            Verdict::Later {
                after_ms,
                counted,
                error,
            } => Verdict::Later {
                after_ms: *after_ms,
                counted: *counted,
                error: error.redacted(by),
            },
            Verdict::Skipped { because } => Verdict::Skipped {
                because: because.clone(),
            },
            Verdict::OtherHistory(error) => Verdict::OtherHistory(error.redacted(by)),
            Verdict::Cancelled => Verdict::Cancelled,
            Verdict::Dead(error) => Verdict::Dead(error.redacted(by)),
        }
    }
}

impl Redact for RemoteRequest {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            RemoteRequest::Push {
                client,
                batch,
                token,
            } => RemoteRequest::Push {
                client: client.clone(),
                batch: batch.redacted(by),
                token: token.redacted(by),
            },
            RemoteRequest::Register { client, types } => RemoteRequest::Register {
                client: client.clone(),
                types: types.redacted(by),
            },
            RemoteRequest::Pull {
                client,
                scope,
                cursor,
                limit,
                bytes,
            } => RemoteRequest::Pull {
                client: client.clone(),
                scope: scope.redacted(by),
                cursor: cursor.as_ref().map(|cursor| by.cursor(cursor)),
                limit: *limit,
                bytes: *bytes,
            },
            RemoteRequest::Fetch {
                client,
                scope,
                wanted,
            } => RemoteRequest::Fetch {
                client: client.clone(),
                scope: scope.redacted(by),
                wanted: wanted.redacted(by),
            },
            RemoteRequest::Hello { client: _ } | RemoteRequest::Cancel { client: _, key: _ } => {
                self.clone()
            }
        }
    }
}
