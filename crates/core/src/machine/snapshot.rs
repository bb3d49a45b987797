//! The machine as it stands, for a trace that begins in the middle of a run.

use super::Machine;
use super::pull::Cycle;
use super::push::{Pusher, Then};
use super::wait::Waiting;
use crate::Config;
use crate::trace::{Redact, Redactor};
use syncline_protocol::ClientId;

impl Machine {
    /// What a machine that is to go on like this one is made with, if it is at its beginning.
    pub(crate) fn origin(&self) -> (&Config, &ClientId, u64) {
        (&self.config, &self.client, u64::from(self.dice.clone()))
    }
}

impl Redact for Machine {
    fn redacted(&self, by: &Redactor) -> Self {
        Self {
            greeting: self.greeting.redacted(by),
            session: self.session.redacted(by),
            cycle: self.cycle.redacted(by),
            pusher: self.pusher.redacted(by),
            waiting: self.waiting.redacted(by),
            // Only ever told, never decided by.
            refused: None,
            ..self.clone()
        }
    }
}

impl Redact for Cycle {
    fn redacted(&self, by: &Redactor) -> Self {
        let mut cycle = self.clone();
        for cursor in [&mut cycle.from, &mut cycle.guard.remembered] {
            *cursor = cursor.as_ref().map(|cursor| by.cursor(cursor));
        }
        cycle.targeting = self.targeting.redacted(by);
        cycle
    }
}

impl Redact for Pusher {
    fn redacted(&self, by: &Redactor) -> Self {
        let mut pusher = self.clone();
        pusher.batch = self.batch.redacted(by);
        let next = self.next.as_ref();
        pusher.next = next.map(|(batch, more)| (batch.redacted(by), *more));
        pusher.cancel = self.cancel.redacted(by);
        pusher.token = self.token.redacted(by);
        pusher.then = self.then.redacted(by);
        pusher
    }
}

impl Redact for Then {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            Then::Halve(error) => Then::Halve(error.redacted(by)),
            Then::Fail(error) => Then::Fail(error.redacted(by)),
            Then::Remint(error) => Then::Remint(error.redacted(by)),
            Then::ClaimMore | Then::Leave | Then::Reconnect | Then::Rest | Then::UsedUp => {
                self.clone()
            }
        }
    }
}

impl Redact for Waiting {
    fn redacted(&self, by: &Redactor) -> Self {
        let mut waiting = self.clone();
        if let Some(backoff) = &mut waiting.backoff {
            backoff.error = backoff.error.redacted(by);
        }
        waiting
    }
}
