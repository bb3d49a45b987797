//! A flight recorder's trace that somebody else has written.

use std::time::Duration;
use syncline_core::trace::{Recorder, Redactor, Trace};
use syncline_core::{
    Config, Input, Machine, Now, Reason, RemoteAnswer, RemoteError, RequestId, StoreAnswer,
};
use syncline_protocol::ClientId;

/// Replaying stops here: a trace may be as long as it likes.
const MOST_STEPS: usize = 200;

/// Replayed twice, a trace says the same. A machine that somebody else has written down is only read:
/// what it does is not ours to answer for.
pub(crate) fn trace_file(data: &[u8]) {
    let Ok(trace) = Trace::read(data) else { return };
    if trace.header.machine.is_some() || trace.header.config != Config::default() {
        return;
    }
    let replayed = |trace: Trace<'_>| {
        let (mut replay, mut said) = (trace.replay(), Vec::new());
        for _ in 0..MOST_STEPS {
            match replay.step() {
                Ok(Some(step)) => said.push(format!("{step:?}")),
                Ok(None) => break,
                Err(error) => {
                    said.push(error.to_string());
                    break;
                }
            }
        }
        said
    };
    assert_eq!(replayed(trace.clone()), replayed(trace), "replayed twice");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let inputs = [
        Input::Trigger(Reason::AppStart),
        Input::Store(StoreAnswer::Acquired),
        Input::Remote(
            RequestId(1),
            RemoteAnswer::Hello(Err(RemoteError::Transient {
                status: 503,
                detail: "busy".to_owned(),
                retry_after: Some(Duration::from_secs(3)),
                overloaded: true,
            })),
        ),
        Input::Tick,
        Input::NetworkLost,
        Input::Pause,
        Input::Resume,
        Input::Stop,
    ];
    let mut machine = Machine::new(Config::default(), ClientId::new("client"), 7);
    let mut recorder = Recorder::new(Redactor::hiding([7; 32]).showing_values());
    let mut lines = vec![recorder.header(&machine)];
    for (nth, input) in inputs.into_iter().enumerate() {
        let now = Now {
            monotonic_ms: nth as u64 * 700,
            unix_ms: 1_800_000_000_000,
        };
        lines.push(recorder.before(&input, now));
        let effects = machine.handle(input, now);
        lines.push(recorder.after(&machine, &effects));
    }
    let text: String = lines
        .iter()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    let cut = text.len() - 20;
    vec![text.clone().into_bytes(), text.as_bytes()[..cut].to_vec()]
}
