//! Words for the report: what happened, without its values.

use super::server::StorageFault;
use syncline::Input;
use syncline_core::RemoteAnswer;

pub(super) fn storage_fault(fault: StorageFault) -> &'static str {
    match fault {
        StorageFault::Busy => "server: storage busy",
        StorageFault::Full => "server: storage full",
        StorageFault::DieBeforeCommit => "server: dies before a commit",
        StorageFault::CommitUnknown => "server: committed, told to have failed",
    }
}

pub(super) fn input_kind(input: &Input) -> &'static str {
    match input {
        Input::Trigger(_) => "trigger",
        Input::NetworkLost => "network lost",
        Input::Constraints(_) => "constraints",
        Input::Pause => "pause",
        Input::Resume => "resume",
        Input::Pass(Some(_)) => "pass",
        Input::Pass(None) => "pass ends",
        Input::Live(_) => "live",
        Input::Tick => "tick",
        Input::Store(_) => "store",
        Input::Remote(_, answer) => remote_kind(answer),
        Input::Credentials(Ok(())) => "credentials",
        Input::Credentials(Err(_)) => "no credentials",
        Input::Stop => "stop",
    }
}

fn remote_kind(answer: &RemoteAnswer) -> &'static str {
    match answer {
        RemoteAnswer::Hello(Ok(_)) => "hello",
        RemoteAnswer::Hello(Err(_)) => "hello failed",
        RemoteAnswer::Push(Ok(_)) => "pushed",
        RemoteAnswer::Push(Err(_)) => "push failed",
        RemoteAnswer::Cancel(Ok(_)) => "cancelled",
        RemoteAnswer::Cancel(Err(_)) => "cancel failed",
        RemoteAnswer::Register(Ok(())) => "registered",
        RemoteAnswer::Register(Err(_)) => "register failed",
        RemoteAnswer::Fetch(Ok(_)) => "fetched",
        RemoteAnswer::Fetch(Err(_)) => "fetch failed",
        RemoteAnswer::Pull(Ok(_)) => "page",
        RemoteAnswer::Pull(Err(_)) => "pull failed",
    }
}

pub(super) fn short(input: &Input) -> String {
    let mut text = format!("{input:?}");
    let mut end = text.len().min(200);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
