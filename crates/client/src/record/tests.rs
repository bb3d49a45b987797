//! Recordings stay within their bound, replay, replace nothing that is not theirs, and disturb nothing.

use super::*;
use std::sync::{Arc, Mutex};
use syncline_core::trace::Trace;
use syncline_core::{Config, Reason};
use syncline_protocol::ClientId;

/// A machine that is recorded, and asked for a sync again and again.
struct Recorded {
    machine: Machine,
    tape: Tape,
    now: Now,
}

impl Recorded {
    fn new(sink: impl TraceSink + 'static) -> Self {
        let recorder = Recorder::new(Redactor::hiding([1; 32]));
        Self {
            machine: Machine::new(Config::default(), ClientId::new("client"), 1),
            tape: Tape::new(recorder, Box::new(sink)),
            now: Now::default(),
        }
    }

    fn feed(&mut self, inputs: u32) {
        for n in 0..inputs {
            self.now.monotonic_ms += 1;
            let input = match n % 2 {
                0 => Input::Trigger(Reason::UserAsked),
                _ => Input::NetworkLost,
            };
            self.tape.before(&self.machine, &input, self.now);
            let effects = self.machine.handle(input, self.now);
            self.tape.after(&self.machine, &effects);
        }
    }
}

/// How many inputs a trace has; each has the effects that it had.
fn inputs(path: &Path) -> u64 {
    let text = std::fs::read(path).unwrap();
    let mut replay = Trace::read(&text).unwrap().replay();
    let mut inputs = 0;
    while let Some(step) = replay.step().unwrap() {
        assert!(step.is_same(), "{step:#?}");
        inputs = step.number;
    }
    inputs
}

#[test]
fn a_recording_stays_within_its_bound_and_has_the_newest_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let (path, beside) = (
        folder.path().join("a.trace"),
        folder.path().join("a.trace.1"),
    );
    let mut recorded = Recorded::new(TraceFile::new(&path, 4_000).unwrap());
    recorded.feed(10);
    assert!(!beside.exists());
    recorded.feed(1_000);
    let (newest, before) = (inputs(&path), inputs(&beside));
    assert!(
        newest + before >= 10 && newest + before < 200,
        "{newest} {before}"
    );
    for file in [&path, &beside] {
        let bytes = std::fs::metadata(file).unwrap().len();
        assert!(bytes < 6_000, "{bytes}");
    }
    let header = std::fs::read(&path).unwrap();
    let header = Trace::read(&header).unwrap().header;
    assert!(header.machine.is_some(), "it begins in the middle of a run");
}

#[test]
fn what_was_recorded_before_is_kept_beside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    for runs in 1..=3 {
        Recorded::new(TraceFile::new(&path, 1 << 20).unwrap()).feed(runs);
    }
    assert_eq!(inputs(&path), 3);
    assert_eq!(inputs(&folder.path().join("a.trace.1")), 2);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    Recorded::new(TraceFile::new(&path, 1 << 20).unwrap()).feed(1);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_no_trace_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    std::fs::write(&path, "SQLite format 3\0").unwrap();
    assert!(matches!(TraceFile::new(&path, 9), Err(Error::NotATrace(_))));
    assert!(matches!(
        TraceFile::new(folder.path(), 9),
        Err(Error::NotATrace(_))
    ));
    // Nor beside it.
    let path = folder.path().join("a.trace");
    std::fs::write(folder.path().join("a.trace.1"), "my notes").unwrap();
    assert!(matches!(TraceFile::new(&path, 9), Err(Error::NotATrace(_))));
    // What a process left that was killed in its first write is.
    let path = folder.path().join("cut.trace");
    for cut in ["", "{\"tr"] {
        std::fs::write(&path, cut).unwrap();
        assert!(TraceFile::new(&path, 9).is_ok());
    }
}

#[test]
fn a_place_that_cannot_be_written_disturbs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not there").join("a.trace");
    let mut recorded = Recorded::new(TraceFile::new(&path, 9).unwrap());
    recorded.feed(3);
    assert!(recorded.tape.ended && !path.exists());
}

/// Is full after so many lines.
#[derive(Clone, Default)]
struct Disk {
    lines: Arc<Mutex<Vec<String>>>,
    most: usize,
    asked: Arc<Mutex<usize>>,
}

impl TraceSink for Disk {
    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn keep(&mut self, line: &str) -> io::Result<()> {
        *self.asked.lock().unwrap() += 1;
        let mut lines = self.lines.lock().unwrap();
        if lines.len() >= self.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        lines.push(line.to_owned());
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    for most in 0..6 {
        let disk = Disk {
            most,
            ..Disk::default()
        };
        let mut recorded = Recorded::new(disk.clone());
        recorded.feed(5);
        assert!(recorded.tape.ended);
        assert_eq!(disk.lines.lock().unwrap().len(), most);
        assert_eq!(*disk.asked.lock().unwrap(), most + 1, "it is tried once");
        assert_eq!(recorded.now.monotonic_ms, 5, "the machine went on");
    }
}
