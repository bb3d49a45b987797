//! Log lines on stderr, set up once per process. Only Syncline's own: what libraries say at these
//! levels could quote a header, and a header can be a token.
//!
//! What others made up (an id, a server's words) never breaks a line, moves the cursor of a terminal
//! or fills the disk: control characters are shown as what they are, and long texts are cut where
//! they come in. What is in rows is only shown where `--log-values` asks for it, and that includes
//! the words of a panic.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Whether log lines may show what is in rows.
static VALUES: AtomicBool = AtomicBool::new(false);

/// The longest text of others that goes into a line, in characters.
const MAX_CHARS: usize = 400;

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is still to be told elsewhere at the end of the process.
pub(crate) struct Logging {
    #[cfg(feature = "otel")]
    sending: Option<crate::otlp::Sending>,
}

impl Logging {
    /// Tells it, within bounds.
    pub(crate) fn end(self) {
        #[cfg(feature = "otel")]
        drop(self.sending);
    }
}

/// Starts logging: warnings, and more with each `-v`.
pub(crate) fn start(verbose: u8, form: Form, values: bool) -> Logging {
    VALUES.store(values, Ordering::Relaxed);
    let filter = EnvFilter::new(match verbose {
        0 => "error,syncline=warn",
        1 => "error,syncline=info",
        2 => "error,syncline=debug",
        _ => "error,syncline=trace",
    });
    let lines = fmt::layer().with_ansi(false);
    let lines = match form {
        Form::Text => lines
            .with_target(false)
            .with_writer(|| OneLine(io::stderr()))
            .boxed(),
        Form::Json => lines
            .with_writer(io::stderr)
            .json()
            .flatten_event(true)
            .boxed(),
    };
    let logging = begin(lines.with_filter(filter));
    std::panic::set_hook(Box::new(panicked));
    logging
}

#[cfg(not(feature = "otel"))]
fn begin(lines: impl Layer<Registry> + Send + Sync) -> Logging {
    // An error means that the process logs already, which is as good.
    let _ = tracing_subscriber::registry().with(lines).try_init();
    Logging {}
}

#[cfg(feature = "otel")]
fn begin(lines: impl Layer<Registry> + Send + Sync) -> Logging {
    let (spans, sending) = crate::otlp::start().unzip();
    let own = || EnvFilter::new("off,syncline=debug");
    let spans = spans.map(|spans| spans.with_filter(own()));
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .try_init();
    Logging { sending }
}

/// Whether log lines may show what is in rows.
pub(crate) fn shows_values() -> bool {
    VALUES.load(Ordering::Relaxed)
}

/// A text that may quote a row, for a log line: only where that was asked for.
pub(crate) fn private(text: &str) -> Option<String> {
    shows_values().then(|| text.chars().take(MAX_CHARS).collect())
}

/// What a panic says may quote a row; where it happened does not.
fn panicked(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    let payload = panic.payload();
    let words = payload.downcast_ref::<&str>().copied();
    let words = words.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let words = words.and_then(private);
    tracing::error!(place, words, "a defect of syncline: please report it");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        for line in trace.to_string().lines() {
            tracing::error!("{line}");
        }
    }
}

/// Writes each event, which comes as one piece that ends its line, on one line.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.0.write_all(one_line(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn one_line(event: &str) -> Cow<'_, str> {
    let line = event.strip_suffix('\n').unwrap_or(event);
    if !line.chars().any(char::is_control) {
        return Cow::Borrowed(event);
    }
    let mut tame = String::with_capacity(event.len() + 16);
    for c in line.chars() {
        match c.is_control() {
            // Writing to a String cannot fail.
            true => drop(write!(tame, "{}", c.escape_default())),
            false => tame.push(c),
        }
    }
    tame.push_str(&event[line.len()..]);
    Cow::Owned(tame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_quotes() {
        let mut written = OneLine(Vec::new());
        written
            .write_all("WARN a\r\nWARN forged\u{9b}31m\u{1b}[2J ü\n".as_bytes())
            .unwrap();
        assert_eq!(
            String::from_utf8(written.0).unwrap(),
            "WARN a\\r\\nWARN forged\\u{9b}31m\\u{1b}[2J ü\n"
        );
        assert!(matches!(one_line("plain\n"), Cow::Borrowed("plain\n")));
    }
}
