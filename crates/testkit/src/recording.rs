//! Traces of what happens in a world, kept in memory.

use crate::world::World;
use std::sync::{Arc, Mutex};
use syncline::TraceSink;
use syncline::trace::Recorder;

/// Keeps traces in memory.
#[derive(Clone, Default)]
pub(crate) struct Traces(pub(crate) Arc<Mutex<Vec<String>>>);

impl TraceSink for Traces {
    fn begin(&mut self) -> std::io::Result<()> {
        self.0.lock().unwrap().push(String::new());
        Ok(())
    }

    fn keep(&mut self, line: &str) -> std::io::Result<()> {
        self.0.lock().unwrap().last_mut().unwrap().push_str(line);
        Ok(())
    }
}

impl World {
    /// Engines started from here on are recorded.
    pub fn record(&mut self, recorder: fn() -> Recorder) {
        self.recorder = Some(recorder);
    }

    /// The traces of a device, one for each start of its engine.
    pub fn traces(&mut self, name: &str) -> Vec<String> {
        self.get(name).traces.0.lock().unwrap().clone()
    }
}
