//! A child process that never outlives its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A running child. Dropping it kills it, by its id.
pub struct Running {
    name: String,
    child: Child,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
}

/// A child that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How; `None` within means by a signal.
    pub status: ExitStatus,
    /// The lines of its standard output that nobody took before.
    pub lines: Vec<String>,
    /// Its standard error.
    pub errors: String,
}

impl Ended {
    /// The lines in one text.
    pub fn output(&self) -> String {
        self.lines.join("\n")
    }

    /// Panics unless it ended with status 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "{self:?}");
        self
    }
}

impl Running {
    /// Starts it with both outputs read and nothing on its standard input.
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_input(command, "")
    }

    /// Starts it with this text on its standard input.
    pub fn start_with_input(command: &mut Command, input: &str) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                // A line that breaks off is none; the test is gone when nobody listens.
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let (mut stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&errors));
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..count]).into_owned();
                sink.lock().unwrap().push_str(&text);
            }
        });
        let mut stdin = child.stdin.take().unwrap();
        // A child that has ended already reads nothing; its end tells more.
        let _ = stdin.write_all(input.as_bytes());
        Self {
            name,
            child,
            lines,
            errors,
        }
    }

    /// The next line of its standard output; `None` when there will be no more.
    pub fn next_line(&self, within: Duration) -> Option<String> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!(
                    "{} says nothing for {within:?}: {}",
                    self.name,
                    self.errors()
                )
            }
        }
    }

    /// The rest of the first line that begins with `start`, if there is one before its end.
    pub fn line_after(&self, start: &str, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        loop {
            let line = self.next_line(deadline.saturating_duration_since(Instant::now()))?;
            if let Some(rest) = line.strip_prefix(start) {
                return Some(rest.to_owned());
            }
        }
    }

    /// Its standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Waits for its end.
    pub fn wait(mut self, within: Duration) -> Ended {
        let deadline = Instant::now() + within;
        let mut lines = Vec::new();
        // Its output ends when it does.
        while let Some(line) = self.next_line(deadline.saturating_duration_since(Instant::now())) {
            lines.push(line);
        }
        self.reap(deadline, lines)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL and takes what it had said before.
    pub fn kill(mut self) -> Ended {
        // It may have ended by itself.
        let _ = self.child.kill();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut lines = Vec::new();
        while let Some(line) = self.next_line(deadline.saturating_duration_since(Instant::now())) {
            lines.push(line);
        }
        self.reap(deadline, lines)
    }

    fn reap(&mut self, deadline: Instant, lines: Vec<String>) -> Ended {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let errors = self.errors();
                return Ended {
                    status,
                    lines,
                    errors,
                };
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
