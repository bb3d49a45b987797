//! What a device reads: pages, answers to pushes, live events, `syncline.toml`.

use crate::texts;
use std::path::Path;
use syncline::ConfigFile;
use syncline_core::{PageChange, check_answer, unstorable};
use syncline_protocol::{PullLine, PushResponse};
use syncline_remote_http::fuzzing;

/// `syncline.toml`: read twice it says the same, and a refusal says why.
pub(crate) fn client_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let read = || ConfigFile::parse(text, Path::new("syncline.toml"));
    match (read(), read()) {
        (Ok(one), Ok(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            assert!(one.to_string().contains("syncline.toml"), "{one}");
        }
        _ => panic!("read and refused"),
    }
}

pub(crate) fn config_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "",
        "[remote]\nurl = \"https://sync.example.org\"\ntoken_file = \"token\"\n",
        "[sync]\npoll_interval = \"30s\"\norder = \"push-then-pull\"\n",
        "[push]\nmutations = 10\n[pull]\nchanges = 100\nmode = \"checkpoint\"\n",
        "[types.task]\ntable = \"task\"\npolicy = \"field-merge\"\n[types.task.merge]\nn = \"counter\"\n",
        "[types.task]\nid = \"provisional\"\nlane = \"urgent\"\nnatural_key = [\"title\"]\n",
    ])
}

/// A page of a pull, in one piece and byte by byte: the same page, or the same refusal.
pub(crate) fn pull_page(data: &[u8]) {
    let whole = fuzzing::page(data, 100, data.len().max(1));
    let pieces = fuzzing::page(data, 100, 1);
    assert_eq!(whole, pieces, "pieces make a difference");
    let Ok(page) = whole else { return };
    assert_eq!(
        page.end.count,
        page.changes.len(),
        "a page of another length"
    );
    let judged = check_answer(&page, 100);
    assert_eq!(judged, check_answer(&page, 100));
    for change in &page.changes {
        let PageChange::Valid(change) = change else {
            continue;
        };
        // What was understood can be told again, and means the same.
        let line = serde_json::to_vec(&PullLine::Change(change.clone())).unwrap();
        let again: PullLine = serde_json::from_slice(&line).expect("what was written is read");
        assert_eq!(again, PullLine::Change(change.clone()));
        assert_eq!(unstorable(change), unstorable(change));
    }
}

pub(crate) fn page_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "{\"page\":{\"count\":0,\"cursor\":\"c\",\"position\":0,\"at_head\":true,\"epoch\":\"e\",\"phase\":\"feed\"}}\n",
        "{\"change\":{\"type\":\"task\",\"id\":\"1\",\"op\":\"upsert\",\"version\":\"1\",\"position\":1,\"fields\":{\"title\":\"x\",\"n\":null,\"r\":0.5,\"b\":{\"$blob\":\"AP8\"}}}}\n{\"page\":{\"count\":1,\"cursor\":\"c\",\"position\":1,\"at_head\":true,\"epoch\":\"e\",\"phase\":\"snapshot\"}}\n",
        "{\"change\":{\"type\":\"task\",\"id\":\"1\",\"op\":\"delete\",\"version\":\"2\",\"position\":2,\"key\":\"k\"}}\n{\"page\":{\"count\":1,\"cursor\":\"c\",\"position\":2,\"at_head\":false,\"epoch\":\"e\",\"phase\":\"feed\"}}",
        "{\"change\":{\"type\":\"new\",\"what\":1}}\n\n{\"page\":{\"count\":1,\"cursor\":\"c\",\"position\":2,\"at_head\":true,\"epoch\":\"e\",\"phase\":\"feed\"}}\n",
    ])
}

/// The answer to a push: a struct and a tree read it alike, and it can be written again.
pub(crate) fn push_response(data: &[u8]) {
    let Ok(read) = serde_json::from_slice::<PushResponse>(data) else {
        return;
    };
    let written = serde_json::to_vec(&read).unwrap();
    let again: PushResponse = serde_json::from_slice(&written).expect("what was written is read");
    assert_eq!(again, read);
}

pub(crate) fn response_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "{\"epoch\":\"e\",\"results\":[]}",
        "{\"epoch\":\"e\",\"token\":\"t\",\"results\":[{\"key\":\"a\",\"outcome\":\"applied\",\"version\":\"1\",\"position\":1,\"fields\":{\"n\":1},\"id\":\"7\"},{\"key\":\"b\",\"outcome\":\"expired\",\"duplicate\":true}]}",
        "{\"epoch\":\"e\",\"results\":[{\"key\":\"a\",\"outcome\":\"conflict\",\"reason\":\"stale\",\"remote\":{\"version\":\"2\",\"position\":2,\"fields\":{\"t\":\"x\"}}}]}",
        "{\"epoch\":\"e\",\"results\":[{\"key\":\"a\",\"outcome\":\"rejected\",\"code\":\"validation\",\"detail\":\"no\",\"errors\":[{\"field\":\"/t\",\"detail\":\"x\"}]},{\"key\":\"b\",\"outcome\":\"retry\",\"detail\":\"busy\",\"retry_after_ms\":5},{\"key\":\"c\",\"outcome\":\"skipped\",\"because\":\"b\"}]}",
    ])
}

/// A live stream, in one piece and byte by byte: the same heads, and nothing grows without bound.
pub(crate) fn live_events(data: &[u8]) {
    let whole = fuzzing::events(data, data.len().max(1));
    let pieces = fuzzing::events(data, 1);
    assert_eq!(whole, pieces, "pieces make a difference");
    let (heads, _) = whole;
    assert!(heads.len() <= data.len() / 10, "more heads than bytes");
}

pub(crate) fn event_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "event: head\ndata: {\"scope\":\"default\",\"epoch\":\"e\",\"position\":3}\n\n",
        ": hello\n\nevent: head\r\ndata: {\"scope\":\"default\",\r\ndata: \"epoch\":\"e\",\"position\":3}\r\n\r\n",
        "\u{feff}event:other\ndata\n\nid: 1\nretry: 5\n\n",
        "data: {}\revent: head\r\r",
    ])
}
