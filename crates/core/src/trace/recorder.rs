//! Turns what happens to a machine into the lines of a trace; whoever calls it keeps them.

use super::line::{self, After, EffectMark, FORMAT, Header, In};
use super::redact::{Redact, Redactor};
use crate::{Effect, Input, Machine, Now};
use std::borrow::Cow;
use syncline_protocol::PROTOCOL_VERSION;

/// Makes the lines of a trace. They are to be kept in order: the header, then for each input the line
/// before it and the line after it.
///
/// The line before is to be kept before the machine gets the input, so that a trace holds the input
/// that a machine died of.
#[derive(Debug)]
pub struct Recorder {
    redactor: Redactor,
    for_hashes: Redactor,
    inputs: u64,
}

impl Recorder {
    /// A recorder that shows what the redactor shows.
    pub fn new(redactor: Redactor) -> Self {
        Self {
            for_hashes: redactor.without_details(),
            redactor,
            inputs: 0,
        }
    }

    /// Begins a trace with this machine, as it stands.
    pub fn header(&mut self, machine: &Machine) -> String {
        self.inputs = 0;
        let (config, client, seed) = machine.origin();
        let fresh = Machine::new(config.clone(), client.clone(), seed);
        let redacted = Box::new(machine.redacted(&self.redactor));
        let is_fresh = line::write(&fresh) == line::write(&redacted);
        line::write(&Header {
            trace: FORMAT,
            core: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL_VERSION.to_owned(),
            client: client.clone(),
            seed,
            config: config.clone(),
            values: self.redactor.shows_values(),
            machine: (!is_fresh).then_some(redacted),
        })
    }

    /// The line before an input.
    pub fn before(&mut self, input: &Input, now: Now) -> String {
        self.inputs += 1;
        line::write(&In {
            n: self.inputs,
            now: (now.monotonic_ms, now.unix_ms),
            input: Cow::Owned(input.redacted(&self.redactor)),
        })
    }

    /// The line after an input: where the machine stands now, and what it asked for.
    pub fn after(&self, machine: &Machine, effects: &[Effect]) -> String {
        let mark = |effect: &Effect| EffectMark::of(&effect.redacted(&self.for_hashes));
        line::write(&After {
            state: machine.state(),
            wake: machine.next_wakeup(),
            out: effects.iter().map(mark).collect(),
        })
    }
}
