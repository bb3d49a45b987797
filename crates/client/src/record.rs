//! The flight recorder: keeps a trace of the engine's machine, in a file or elsewhere.
//!
//! It never disturbs the sync: what cannot be kept is told once, and the recording ends. Without a
//! recorder nothing is spent. `docs/trace.md` describes what is kept, and what is hidden.

use crate::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use syncline_core::trace::{Recorder, Redactor};
use syncline_core::{Effect, Input, Machine, Now};

/// How large the two files of a recording become together, unless set otherwise.
const MAX_BYTES: u64 = 64 << 20;

/// The smallest bound: a trace has to hold a machine, with the batches that it sends, and some inputs.
const LEAST_BYTES: u64 = 1 << 20;

/// What every trace begins with.
const BEGINNING: &[u8] = b"{\"trace\":";

/// Where a recording goes, and what it shows; see [`Builder::record`](crate::Builder::record).
#[derive(Debug, Clone)]
pub struct Recording {
    path: PathBuf,
    values: bool,
    max_bytes: u64,
}

impl Recording {
    /// Into this file, which only its owner may read. What was recorded into it before is kept beside
    /// it, under the same name with `.1` at its end, in place of what was recorded before that.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            values: false,
            max_bytes: MAX_BYTES,
        }
    }

    /// Shows the values of rows, and texts that may have some in them. Tokens and the names of people
    /// are hidden all the same.
    #[must_use]
    pub fn showing_values(mut self) -> Self {
        self.values = true;
        self
    }

    /// How large the file and the one beside it may become together; 64 MiB unless set, 1 MiB at least. At half of it
    /// the file is put beside, and a new one begins with the machine as it stands: the newest half is
    /// always there. One input more than fits is still written.
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes.max(LEAST_BYTES);
        self
    }

    pub(crate) fn start(&self) -> Result<(Recorder, TraceFile), Error> {
        let file = TraceFile::new(&self.path, self.max_bytes / 2)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(Error::Random)?;
        let redactor = match self.values {
            true => Redactor::hiding(key).showing_values(),
            false => Redactor::hiding(key),
        };
        Ok((Recorder::new(redactor), file))
    }
}

/// Where the lines of a trace go.
pub trait TraceSink: Send {
    /// A trace begins; what was kept before is another one.
    fn begin(&mut self) -> io::Result<()>;

    /// Keeps a line, at best at once.
    fn keep(&mut self, line: &str) -> io::Result<()>;

    /// Whether a new trace is to begin before the next input.
    fn is_full(&self) -> bool {
        false
    }
}

/// A recording under way.
pub(crate) struct Tape {
    recorder: Recorder,
    sink: Box<dyn TraceSink>,
    begun: bool,
    ended: bool,
}

impl Tape {
    pub(crate) fn new(recorder: Recorder, sink: Box<dyn TraceSink>) -> Self {
        Self {
            recorder,
            sink,
            begun: false,
            ended: false,
        }
    }

    /// Before the machine gets an input.
    pub(crate) fn before(&mut self, machine: &Machine, input: &Input, now: Now) {
        if self.ended {
            return;
        }
        if !self.begun || self.sink.is_full() {
            self.begun = true;
            let header = self.recorder.header(machine);
            let begun = self.sink.begin().and_then(|()| self.sink.keep(&header));
            self.unless_failed(begun);
        }
        let line = self.recorder.before(input, now);
        self.keep(&line);
    }

    /// After it.
    pub(crate) fn after(&mut self, machine: &Machine, effects: &[Effect]) {
        if !self.ended {
            let line = self.recorder.after(machine, effects);
            self.keep(&line);
        }
    }

    fn keep(&mut self, line: &str) {
        if !self.ended {
            let kept = self.sink.keep(line);
            self.unless_failed(kept);
        }
    }

    fn unless_failed(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            self.ended = true;
            tracing::warn!(%error, "the recording ends here, since it cannot be written; the sync goes on");
        }
    }
}

/// A trace in a file, and the one before it beside it.
pub(crate) struct TraceFile {
    path: PathBuf,
    beside: PathBuf,
    most: u64,
    file: Option<File>,
    written: u64,
}

impl TraceFile {
    fn new(path: &Path, most: u64) -> Result<Self, Error> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".1");
        let beside = PathBuf::from(beside);
        for place in [path, &beside] {
            if !may_be_replaced(place) {
                return Err(Error::NotATrace(place.to_owned()));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            beside,
            most,
            file: None,
            written: 0,
        })
    }
}

impl TraceSink for TraceFile {
    fn begin(&mut self) -> io::Result<()> {
        self.file = None;
        match std::fs::rename(&self.path, &self.beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        self.file = Some(options.open(&self.path)?);
        self.written = 0;
        Ok(())
    }

    fn keep(&mut self, line: &str) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(line.as_bytes())?;
        self.written += line.len() as u64;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.written >= self.most
    }
}

/// Nothing is there, or a trace. What cannot be read fails when it is to be replaced.
fn may_be_replaced(path: &Path) -> bool {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return false,
        Err(_) => return true,
    }
    let mut begins = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(BEGINNING.len() as u64).read_to_end(&mut begins));
    read.is_err() || BEGINNING.starts_with(&begins)
}

#[cfg(test)]
mod tests;
