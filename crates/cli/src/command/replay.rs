//! `syncline replay`: runs a trace through the machine again, up to the first difference.

use crate::{Exit, Failure, Global, Report, report};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use syncline::trace::{After, Step, Trace, TraceError};

/// No trace is larger.
const MOST_BYTES: u64 = 1 << 30;

/// How much of an input or an effect is shown as text.
const SHOWN_CHARS: usize = 2_000;

/// Run a trace through the state machine again, up to the first difference
///
/// A trace is what `run --record` and `sync --record` write. Ends with 0 when every effect is the one
/// that was recorded, with 1 at the first that is another. Needs neither database nor network.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The trace
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Stop after so many inputs
    #[arg(long, value_name = "N")]
    until: Option<u64>,
    /// Print every input, and what came of it
    #[arg(long)]
    print: bool,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<Report, Failure> {
    let bytes = read(&args.file)?;
    let trace = Trace::read(&bytes).map_err(refused)?;
    let header = trace.header.clone();
    let mut replay = trace.replay();
    let (mut inputs, mut steps, mut difference) = (0, Vec::new(), None);
    while args.until.is_none_or(|until| inputs < until) {
        let Some(step) = replay.step().map_err(refused)? else {
            break;
        };
        inputs = step.number;
        if args.print {
            match global.json {
                true => steps.push(as_json(&step)),
                false => report::line(&describe(&step)),
            }
        }
        if !step.is_same() {
            difference = Some(step);
            break;
        }
    }
    let mut told = match &difference {
        Some(step) => differing(step),
        None => {
            let state = replay.machine().state();
            format!(
                "the same: {inputs} inputs, and every effect is the one that was recorded; the machine is {state}\n"
            )
        }
    };
    if replay.is_torn() {
        told.push_str("the last line is cut, as by a process that was killed: it was left out\n");
    }
    if header.core != env!("CARGO_PKG_VERSION") {
        let _ = writeln!(told, "recorded by version {}", header.core);
    }
    let mut json = json!({
        "file": args.file.display().to_string(),
        "core": header.core,
        "protocol": header.protocol,
        "client": header.client,
        "values": header.values,
        "inputs": inputs,
        "same": difference.is_none(),
        "torn": replay.is_torn(),
        "difference": difference.as_ref().map(as_json),
    });
    if args.print {
        json["steps"] = Value::Array(steps);
    }
    let report = Report::new(told, &json)?;
    Ok(match difference {
        Some(_) => report.exit(Exit::Failed),
        None => report,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::new(
            "cannot-read",
            format!("{} cannot be read: {error}", path.display()),
        )
    };
    let found = std::fs::metadata(path).map_err(cannot)?;
    if found.len() > MOST_BYTES {
        let message = format!("{} is too large to be a trace", path.display());
        return Err(Failure::new("not-a-trace", message));
    }
    std::fs::read(path).map_err(cannot)
}

fn refused(error: TraceError) -> Failure {
    let message = error.to_string();
    match error {
        TraceError::NotATrace(_) => Failure::new("not-a-trace", message)
            .hint("a trace is what `syncline run --record FILE` writes"),
        TraceError::Newer(_) => Failure::new("newer-trace", message),
        _ => Failure::new("damaged-trace", message)
            .hint("--until replays what comes before; a copy that was not cut or edited helps"),
    }
}

fn as_json(step: &Step) -> Value {
    json!({
        "number": step.number,
        "line": step.line,
        "now": { "monotonic_ms": step.now.monotonic_ms, "unix_ms": step.now.unix_ms },
        "state": step.state,
        "input": step.input,
        "recorded": step.recorded,
        "replayed": step.replayed,
        "effects": step.effects,
    })
}

/// One step, whatever came of it.
fn describe(step: &Step) -> String {
    let mut told = format!(
        "{}. {} at {} ms (unix {}): {}\n",
        step.number,
        step.state,
        step.now.monotonic_ms,
        step.now.unix_ms,
        short(&step.input)
    );
    if let Some(after) = &step.replayed {
        told.push_str(&after_text(after, None));
    }
    told.trim_end().to_owned()
}

fn differing(step: &Step) -> String {
    let mut told = format!(
        "DIFFERENT at input {} (line {} of the trace), at {} ms (unix {})\nstate:    {}\ninput:    {}\n",
        step.number,
        step.line,
        step.now.monotonic_ms,
        step.now.unix_ms,
        step.state,
        short(&step.input)
    );
    let first = first_difference(step);
    match &step.recorded {
        Some(recorded) => {
            let _ = write!(told, "recorded:\n{}", after_text(recorded, first));
        }
        None => told.push_str("recorded: nothing, the process ended there\n"),
    }
    match &step.replayed {
        Some(replayed) => {
            let _ = write!(told, "now:\n{}", after_text(replayed, first));
        }
        None => told.push_str("now: the machine panics\n"),
    }
    if let Some(effect) = first.and_then(|first| step.effects.get(first)) {
        let _ = writeln!(told, "that effect in full, now:\n  {}", short(effect));
    }
    told
}

/// Which effect is the first that differs, if one does.
fn first_difference(step: &Step) -> Option<usize> {
    let (recorded, replayed) = (step.recorded.as_ref()?, step.replayed.as_ref()?);
    let most = recorded.out.len().max(replayed.out.len());
    (0..most).find(|n| recorded.out.get(*n) != replayed.out.get(*n))
}

fn after_text(after: &After, marked: Option<usize>) -> String {
    let mut told = format!("  -> {}", after.state);
    match after.wake {
        Some((at, why)) => {
            let why = serde_json::to_value(why).unwrap_or_default();
            let _ = writeln!(
                told,
                ", to be woken at {at} ms ({})",
                why.as_str().unwrap_or_default()
            );
        }
        None => told.push_str(", not to be woken\n"),
    }
    for (n, effect) in after.out.iter().enumerate() {
        let mark = if marked == Some(n) { '*' } else { ' ' };
        let _ = writeln!(told, "  {mark} {effect}");
    }
    told
}

/// As JSON, cut where it gets long; `--json` has all of it.
fn short(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{} … ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}
