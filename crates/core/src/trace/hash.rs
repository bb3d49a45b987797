//! Hashes of inputs and effects that are the same everywhere: FNV-1a over their JSON.
//!
//! Against accidents, not against adversaries. What must not be guessed is hashed in `redact`.

use super::redact::{Redact, Redactor};
use crate::{Effect, Input, Now};
use serde::Serialize;
use std::io;

/// FNV-1a with 64 bits.
struct Fnv(u64);

impl Fnv {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;

    fn json(&mut self, value: &impl Serialize) {
        // What is hashed are maps, lists, texts and numbers, and this writer takes all: it cannot fail.
        let _ = serde_json::to_writer(self, value);
    }
}

impl io::Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(Self::PRIME);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The hash of one effect.
pub fn hash_effect(effect: &Effect) -> u64 {
    hash_redacted(&effect.redacted(&Redactor::leaving_details_out()))
}

/// The hash of an effect without texts for people.
pub(super) fn hash_redacted(effect: &Effect) -> u64 {
    let mut hash = Fnv(Fnv::START);
    hash.json(effect);
    hash.0
}

/// The hash of the effects of one input, in order.
pub fn hash_effects(effects: &[Effect]) -> u64 {
    let mut hash = Fnv(Fnv::START);
    for effect in effects {
        hash.json(&hash_effect(effect));
        hash.json(&"");
    }
    hash.0
}

/// The hash of a whole run, input by input: two runs are the same when their hashes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHash(u64);

impl Default for RunHash {
    fn default() -> Self {
        Self(Fnv::START)
    }
}

impl RunHash {
    /// Takes one input, when it came, and the effects that it had.
    pub fn step(&mut self, input: &Input, now: Now, effects: &[Effect]) {
        let mut hash = Fnv(self.0);
        hash.json(&now);
        hash.json(&input.redacted(&Redactor::leaving_details_out()));
        hash.json(&hash_effects(effects));
        self.0 = hash.0;
    }

    /// The hash so far.
    pub fn value(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CycleEnd, Notice, RemoteError, StoreWork};
    use std::io::Write;

    #[test]
    fn fnv_is_the_published_one() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            let mut fnv = Fnv(Fnv::START);
            fnv.write_all(text.as_bytes()).unwrap();
            assert_eq!(fnv.0, hash, "{text}");
        }
    }

    /// These numbers are in traces: they change with the format only.
    #[test]
    fn hashes_are_the_same_everywhere_and_for_ever() {
        let ended = |detail: &str| {
            let detail = detail.to_owned();
            let error = RemoteError::Unreachable { detail };
            Effect::Notice(Notice::CycleEnded(CycleEnd::RemoteFailed(error)))
        };
        assert_eq!(hash_effects(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(
            hash_effect(&Effect::Store(StoreWork::Acquire)),
            0xb9f1_f5b0_0a41_089e
        );
        assert_eq!(hash_effect(&ended("no route")), 0xdef4_673c_272f_e023);
        assert_eq!(
            hash_effect(&ended("no route")),
            hash_effect(&ended("nothing there"))
        );
        let both = [Effect::Store(StoreWork::Acquire), ended("")];
        let other = [ended(""), Effect::Store(StoreWork::Acquire)];
        assert_ne!(hash_effects(&both), hash_effects(&other));
    }
}
