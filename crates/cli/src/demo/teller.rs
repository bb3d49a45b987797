//! The demo's voice: short numbered steps on stdout while things happen, or nothing at all.

use crate::report;
use std::cell::Cell;

/// How much is told while the story runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// Every step.
    Aloud,
    /// Nothing until the end.
    Silent,
}

/// Tells the story.
pub(super) struct Teller {
    voice: Voice,
    step: Cell<u32>,
}

impl Teller {
    pub(super) fn new(voice: Voice) -> Self {
        Self {
            voice,
            step: Cell::new(0),
        }
    }

    /// A line on its own.
    pub(super) fn line(&self, text: &str) {
        if self.voice == Voice::Aloud {
            report::line(text);
        }
    }

    /// The next numbered step.
    pub(super) fn step(&self, title: &str) {
        self.step.set(self.step.get() + 1);
        self.line(&format!("\n{}. {title}", self.step.get()));
    }

    /// What is done or explained in a step.
    pub(super) fn say(&self, text: &str) {
        self.line(&format!("   {text}"));
    }

    /// What was really seen, in one or more lines.
    pub(super) fn saw(&self, text: &str) {
        self.line(&format!("   -> {}", text.replace('\n', "\n      ")));
    }
}
