//! What was seen on the wire: pushes, what was sent again, and whether its bytes were the same.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use syncline_protocol::{IdempotencyKey, PushResponse};

/// What went over one link.
#[derive(Debug, Clone, Default)]
pub(in crate::demo) struct Traffic {
    /// Pushes that a device sent.
    pub(in crate::demo) pushes: u64,
    /// Pushes among them with something that had been sent before.
    pub(in crate::demo) repeats: u64,
    /// Mutations that were sent again, byte for byte the same under the same key.
    pub(in crate::demo) resent: u64,
    /// Mutations that were sent again under the same key with other bytes: must stay 0.
    pub(in crate::demo) changed: u64,
    /// Results that the server marked as already recorded by an earlier push.
    pub(in crate::demo) duplicates: u64,
    /// Answers dropped on the way back.
    pub(in crate::demo) lost: u64,
    /// Pushes answered 503.
    pub(in crate::demo) busy: u64,
    /// Answers held back.
    pub(in crate::demo) held: u64,
    /// The pause that a device kept after a 503.
    pub(in crate::demo) pause: Option<Duration>,
    sent: BTreeMap<IdempotencyKey, String>,
    last: Option<(Instant, u64)>,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(borrow)]
    mutations: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Key {
    key: IdempotencyKey,
}

impl Traffic {
    pub(super) fn saw_push(&mut self, body: &[u8]) {
        self.pushes += 1;
        let now = Instant::now();
        if let Some((before, busy)) = self.last.replace((now, self.busy))
            && busy < self.busy
        {
            self.pause = Some(now.duration_since(before));
        }
        let Ok(push) = serde_json::from_slice::<Push<'_>>(body) else {
            return;
        };
        let (resent, changed) = (self.resent, self.changed);
        for raw in push.mutations {
            let Ok(Key { key }) = serde_json::from_str(raw.get()) else {
                continue;
            };
            match self.sent.insert(key, raw.get().to_owned()) {
                None => {}
                Some(before) if before == raw.get() => self.resent += 1,
                Some(_) => self.changed += 1,
            }
        }
        self.repeats += u64::from((resent, changed) != (self.resent, self.changed));
    }

    pub(super) fn saw_answer(&mut self, body: &[u8]) {
        if let Ok(answer) = serde_json::from_slice::<PushResponse>(body) {
            let duplicates = answer.results.iter().filter(|result| result.duplicate);
            self.duplicates += duplicates.count() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_is_compared_byte_for_byte() {
        let mut traffic = Traffic::default();
        traffic
            .saw_push(br#"{"client":"c","mutations":[{"key":"k1","op":"delete"},{"key":"k2"}]}"#);
        traffic.saw_push(br#"{"client":"c","mutations":[{"key":"k1","op":"delete"}]}"#);
        traffic.saw_push(br#"{"client":"c","mutations":[{"key":"k3"}]}"#);
        assert_eq!(
            (
                traffic.pushes,
                traffic.repeats,
                traffic.resent,
                traffic.changed
            ),
            (3, 1, 1, 0)
        );
        traffic.saw_push(br#"{"client":"c","mutations":[{"key":"k2" }]}"#);
        assert_eq!((traffic.resent, traffic.changed), (1, 1));
        traffic.saw_answer(
            br#"{"epoch":"e","results":[{"key":"k1","outcome":"expired","duplicate":true}]}"#,
        );
        assert_eq!(traffic.duplicates, 1);
    }
}
