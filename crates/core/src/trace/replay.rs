//! Feeds a trace to a machine again, and says where it does something else.

use super::line::{self, After, EffectMark, Header, In, TraceError};
use super::redact::{Redact, Redactor};
use crate::{Effect, Input, Machine, Now, State};
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A trace: its header, and the lines that follow it.
#[derive(Debug, Clone)]
pub struct Trace<'a> {
    /// What its machine was made with.
    pub header: Header,
    lines: &'a [u8],
}

impl<'a> Trace<'a> {
    /// Reads the header of a trace. The rest is read while it is replayed.
    pub fn read(bytes: &'a [u8]) -> Result<Self, TraceError> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (first, lines) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        let header = line::read_header(first)?;
        Ok(Self { header, lines })
    }

    /// The machine as it was at the beginning, and all that happened to it.
    pub fn replay(self) -> Replay<'a> {
        let Header {
            client,
            seed,
            config,
            machine,
            ..
        } = self.header;
        Replay {
            machine: match machine {
                Some(machine) => *machine,
                None => Machine::new(config, client, seed),
            },
            lines: Lines {
                rest: self.lines,
                number: 1,
            }
            .peekable(),
            inputs: 0,
            torn: false,
        }
    }
}

/// A replay under way; see [`Trace::replay`].
#[derive(Debug)]
pub struct Replay<'a> {
    machine: Machine,
    lines: Peekable<Lines<'a>>,
    inputs: u64,
    torn: bool,
}

/// One input, what was recorded of it and what came of it now.
#[derive(Debug)]
pub struct Step {
    /// Its number, from 1.
    pub number: u64,
    /// Its line in the file, from 1.
    pub line: u64,
    /// When it happened.
    pub now: Now,
    /// What happened.
    pub input: Input,
    /// The state in which it happened.
    pub state: State,
    /// What was recorded; `None`: the process ended before that was written.
    pub recorded: Option<After>,
    /// The same, now; `None`: the machine panicked, and the replay is at its end.
    pub replayed: Option<After>,
    /// Its effects in full, now.
    pub effects: Vec<Effect>,
}

impl Step {
    /// Whether what happens now is what was recorded, as far as it was.
    pub fn is_same(&self) -> bool {
        self.replayed.is_some() && (self.recorded.is_none() || self.recorded == self.replayed)
    }
}

impl Replay<'_> {
    /// The next input; `None` at the end. A last line that was cut while it was written is the end.
    pub fn step(&mut self) -> Result<Option<Step>, TraceError> {
        let Some(read) = self.lines.next() else {
            return Ok(None);
        };
        let Some(before) = self.parse::<In<'static>>(&read)? else {
            return Ok(None);
        };
        let expected = self.inputs + 1;
        if before.n != expected {
            let detail = format!("input {} follows, and {expected} is missing", before.n);
            return Err(read.damaged(detail));
        }
        self.inputs = expected;
        let recorded = match self.lines.next() {
            Some(after) => self.parse::<After>(&after)?,
            None => None,
        };
        let state = self.machine.state();
        let (now, input) = (before.now(), before.input.into_owned());
        let machine = AssertUnwindSafe(&mut self.machine);
        let handled = catch_unwind(|| { machine }.0.handle(input.clone(), now)).ok();
        let replayed = handled.as_ref().map(|effects| After {
            state: self.machine.state(),
            wake: self.machine.next_wakeup(),
            out: effects.iter().map(mark).collect(),
        });
        if replayed.is_none() {
            // Whatever the machine is now, nothing can be said of it.
            self.lines = Lines::default().peekable();
        }
        Ok(Some(Step {
            number: expected,
            line: read.number,
            now,
            input,
            state,
            recorded,
            replayed,
            effects: handled.unwrap_or_default(),
        }))
    }

    /// The machine as it stands.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether the trace ended in a line that was cut while it was written.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    /// Reads a line; `None`: it was cut while it was written.
    fn parse<T: serde::de::DeserializeOwned>(
        &mut self,
        line: &Line<'_>,
    ) -> Result<Option<T>, TraceError> {
        match serde_json::from_slice(line.text) {
            Ok(read) => Ok(Some(read)),
            Err(_) if !line.ended && self.lines.peek().is_none() => {
                self.torn = true;
                Ok(None)
            }
            Err(error) => Err(line.damaged(error.to_string())),
        }
    }
}

fn mark(effect: &Effect) -> EffectMark {
    EffectMark::of(&effect.redacted(&Redactor::leaving_details_out()))
}

/// One line of a file.
#[derive(Debug)]
struct Line<'a> {
    number: u64,
    text: &'a [u8],
    /// It has its end.
    ended: bool,
}

impl Line<'_> {
    fn damaged(&self, detail: String) -> TraceError {
        TraceError::Damaged {
            line: self.number,
            detail,
        }
    }
}

#[derive(Debug, Default)]
struct Lines<'a> {
    rest: &'a [u8],
    number: u64,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        self.number += 1;
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let (text, rest) = self
            .rest
            .split_at(end.map_or(self.rest.len(), |end| end + 1));
        self.rest = rest;
        Some(Line {
            number: self.number,
            text,
            ended: end.is_some(),
        })
    }
}
