//! Words for the report: what happened, without its values.

use super::fault::NetFault;
use super::server::StorageFault;
use syncline::Input;
use syncline_core::RemoteAnswer;

pub(super) fn storage_fault(fault: StorageFault) -> &'static str {
    match fault {
        StorageFault::Busy => "server: storage busy",
        StorageFault::Full => "server: storage full",
        StorageFault::DieBeforeCommit => "server: dies before a commit",
        StorageFault::DieAfterCommit => "server: dies after a commit",
        StorageFault::CommitUnknown => "server: committed, told to have failed",
    }
}

/// What happens to devices and to the server, by the names under which it is counted.
const HAPPENS: [&str; 35] = [
    "device: another account",
    "device: bounded pass",
    "device: clock jumps",
    "device: cloned",
    "device: dies",
    "device: dies during store work",
    "device: disk full",
    "device: file locked by another program",
    "device: file restored",
    "device: i/o error",
    "device: lease taken over",
    "device: may only read",
    "device: metered network",
    "device: network lost",
    "device: paused",
    "device: process stands still",
    "device: restarted",
    "device: schema upgraded",
    "device: second process",
    "device: sleeps",
    "network: offline",
    "server: committed, told to have failed",
    "server: dies after a commit",
    "server: dies before a commit",
    "server: down",
    "server: fails on a mutation",
    "server: forgets",
    "server: hangs on a mutation",
    "server: hangs up on a mutation",
    "server: new history",
    "server: refuses a mutation for good",
    "server: restarted",
    "server: restored from a backup",
    "server: storage busy",
    "server: storage full",
];

/// Every kind of fault that there is.
pub(super) fn faults() -> Vec<&'static str> {
    let network = NetFault::ALL.iter().map(|fault| fault.name());
    network.chain(HAPPENS).collect()
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
