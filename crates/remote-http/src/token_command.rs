//! A token that a program prints. It is run without a shell, for a bounded time, and what it
//! prints is never logged: neither its output nor its arguments, which may hold secrets too.

use std::fmt;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often a running program is asked whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A program that prints the token on its standard output, and what it is started with.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenCommand {
    program: String,
    args: Vec<String>,
    timeout: Duration,
}

/// Without the arguments, which may hold secrets.
impl fmt::Debug for TokenCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCommand")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl TokenCommand {
    /// A program and its arguments, exactly as given: no shell looks at them. (One that is wanted
    /// can be named: `sh`, `-c`, and the line.) Its end is waited for 10 seconds.
    pub fn new<T: Into<String>>(
        program: impl Into<String>,
        args: impl IntoIterator<Item = T>,
    ) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(10),
        }
    }

    /// Another longest wait for its end; then it is killed. The request's own time-out holds too.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What it prints, without white space around it; at most `most` bytes of it.
    pub(crate) fn run(&self, most: u64) -> Result<String, String> {
        let name = &self.program;
        let until = Instant::now() + self.timeout;
        let mut child = Command::new(name)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("the token command {name} cannot be started: {error}"))?;
        let printed = self.watch(&mut child, until, most);
        if printed.is_err() {
            // It may have ended by itself meanwhile; either way nothing of it is left.
            let _ = child.kill();
            let _ = child.wait();
        }
        printed
    }

    fn watch(&self, child: &mut Child, until: Instant, most: u64) -> Result<String, String> {
        let name = &self.program;
        let late = || format!("the token command {name} did not end in time");
        let (sender, printed) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            // Its own thread: a grandchild may keep the pipe open for longer than we wait.
            std::thread::spawn(move || {
                let mut text = String::new();
                let read = stdout.take(most).read_to_string(&mut text);
                let _ = sender.send(read.map(|_| text));
            });
        }
        let status = loop {
            let failed = |error| format!("the token command {name} cannot be watched: {error}");
            match child.try_wait().map_err(failed)? {
                Some(status) => break status,
                None if Instant::now() >= until => return Err(late()),
                None => std::thread::sleep(LOOK_AGAIN),
            }
        };
        if !status.success() {
            return Err(format!("the token command {name} failed: {status}"));
        }
        let left = until.saturating_duration_since(Instant::now());
        match printed.recv_timeout(left.max(LOOK_AGAIN)) {
            Ok(Ok(text)) => Ok(text.trim().to_owned()),
            Ok(Err(_)) => Err(format!("the token command {name} printed no text")),
            Err(_) => Err(late()),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(line: &str) -> TokenCommand {
        TokenCommand::new("sh", ["-c", line]).timeout(Duration::from_secs(5))
    }

    #[test]
    fn what_it_prints_is_trimmed() {
        assert_eq!(
            shell("echo '  secret  '; echo noise >&2").run(100),
            Ok("secret".to_owned())
        );
    }

    #[test]
    fn arguments_are_passed_on_as_they_are() {
        let command = TokenCommand::new("printf", ["%s", "$HOME `id` 'x"]);
        assert_eq!(command.run(100), Ok("$HOME `id` 'x".to_owned()));
    }

    #[test]
    fn its_errors_say_neither_what_it_printed_nor_its_arguments() {
        for command in [
            shell("echo canary; exit 3"),
            shell("echo canary >&2; kill -9 $$"),
            TokenCommand::new("/no/such/program", ["canary"]),
            shell("printf '\\377canary'"),
        ] {
            let error = command.run(100).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
            assert!(!format!("{command:?}").contains("canary"), "{command:?}");
        }
    }

    #[test]
    fn one_that_does_not_end_is_killed() {
        let started = Instant::now();
        let command = shell("sleep 60").timeout(Duration::from_millis(50));
        assert!(command.run(100).unwrap_err().contains("in time"));
        // It ended, but something that it started keeps the pipe open.
        let command = shell("sleep 60 & echo x").timeout(Duration::from_millis(200));
        assert!(command.run(100).unwrap_err().contains("in time"));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
