//! Proof that the same inputs give the same effects: hashes of effects, and a trace of a machine
//! that can be replayed. `docs/trace.md` describes its format.
//!
//! A hash is the same in every process and on every platform. It covers everything of an effect but
//! texts for people, so that better words change no hash. Whoever records writes the lines of a
//! [`Recorder`] down; here no file is touched.

mod hash;
mod line;
mod recorder;
mod redact;
mod replay;
pub(crate) mod runs;
mod summary;

pub use hash::{RunHash, hash_effect, hash_effects};
pub use line::{After, EffectMark, FORMAT, Header, TraceError};
pub use recorder::Recorder;
pub(crate) use redact::Redact;
pub use redact::Redactor;
pub use replay::{Replay, Step, Trace};
pub use summary::summary;

/// Whether a field is left out of a trace. One that is added to an input or an effect is to be left
/// out where it has its default, so that traces from before it keep their hashes.
pub(crate) fn is_default<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}
