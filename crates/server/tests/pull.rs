//! Pulls: snapshot, then feed; nothing missed whatever happens in between; cursors are the server's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use syncline_protocol::{ChangeKind, Mutation, Operation, PagePhase};
use syncline_server::{ServerConfig, Storage};

#[test]
fn an_empty_scope_is_one_page() {
    let server = server();
    let page = server.pull(&ann(), None, 10);
    assert_eq!(page.end.count, 0);
    assert_eq!(
        (page.end.phase, page.end.position),
        (PagePhase::SnapshotEnd, 0)
    );
    assert!(page.end.at_head);
    let next = server.pull(&ann(), Some(&page.end.cursor), 10);
    assert_eq!((next.end.phase, next.end.position), (PagePhase::Feed, 0));
    assert!(next.end.at_head && next.end.count == 0);
}

#[test]
fn a_snapshot_is_pinned_and_the_feed_goes_on_from_there() {
    let server = server();
    let names = ["d", "b", "a", "c"].map(|id| create(id, id, id));
    server.push(&ann(), &names);
    server.push(&ann(), &[delete("k5", "d", at(4))]);

    let first = server.pull(&ann(), None, 2);
    assert_eq!(first.ids(), ["a", "b"], "in key order");
    assert_eq!(
        (first.end.phase, first.end.position),
        (PagePhase::Snapshot, 5)
    );
    // Between the pages: one behind the cursor changes, one before it is made, one goes.
    server.push(
        &ann(),
        &[
            update("k6", "a", at(5), "a2"),
            create("k7", "aa", "aa"),
            delete("k8", "c", at(5)),
        ],
    );
    let second = server.pull(&ann(), Some(&first.end.cursor), 2);
    assert_eq!(second.ids(), [""; 0]);
    assert_eq!(
        (second.end.phase, second.end.position),
        (PagePhase::SnapshotEnd, 5)
    );
    assert!(!second.end.at_head, "the head has moved since");

    let third = server.pull(&ann(), Some(&second.end.cursor), 2);
    assert_eq!(third.ids(), ["a", "aa"]);
    assert_eq!((third.end.phase, third.end.position), (PagePhase::Feed, 7));
    assert!(!third.end.at_head);
    let fourth = server.pull(&ann(), Some(&third.end.cursor), 2);
    assert_eq!(fourth.ids(), ["c"]);
    assert_eq!(fourth.changes[0].kind, ChangeKind::Delete);
    assert!(fourth.end.at_head && fourth.end.position == 8);
    // A cursor can be used again: it is a place, not a session.
    assert_eq!(server.pull(&ann(), Some(&third.end.cursor), 2).ids(), ["c"]);
}

#[test]
fn at_the_head_the_position_is_the_head_even_where_no_row_stands() {
    let server = server();
    let cursor = server.pull(&ann(), None, 9).end.cursor;
    server.push(
        &ann(),
        &[
            create("k1", "a", "1"),
            create("k2", "b", "1"),
            update("k3", "a", after("k1"), "2"),
        ],
    );
    let page = server.pull(&ann(), Some(&cursor), 9);
    assert_eq!(page.ids(), ["b", "a"]);
    assert_eq!(page.end.position, 3);
    let exact = server.pull(&ann(), Some(&cursor), 2);
    assert!(exact.end.at_head, "exactly full is still the head");
    // A snapshot that ends exactly at its limit ends there too.
    assert_eq!(
        server.pull(&ann(), None, 2).end.phase,
        PagePhase::SnapshotEnd
    );
}

#[test]
fn a_page_is_bounded_by_bytes_and_by_the_servers_limit() {
    let server = server();
    let large = "x".repeat(200_000);
    for nth in 0..8 {
        let id = format!("id{nth}");
        server.push(&ann(), &[create(&id, &id, &large)]);
    }
    let page = server.pull(&ann(), None, 1000);
    assert_eq!((page.end.count, page.end.phase), (6, PagePhase::Snapshot));
    let rest = server.pull(&ann(), Some(&page.end.cursor), 1000);
    assert_eq!(
        (rest.end.count, rest.end.phase),
        (2, PagePhase::SnapshotEnd)
    );

    let mut config = ServerConfig::default();
    config.limits.page_changes = 3;
    let server = Server::new(syncline_server::MemoryStorage::new(EPOCH), config);
    server.push(&ann(), &["a", "b", "c", "d"].map(|id| create(id, id, id)));
    assert_eq!(server.pull(&ann(), None, 1000).end.count, 3);
}

#[test]
fn a_page_ends_with_the_change_that_fills_the_bytes_asked_for() {
    let server = server();
    let names = ["a", "b", "c"].map(|id| create(id, id, &"x".repeat(300)));
    server.push(&ann(), &names);
    let (mut target, mut sizes) = ("/v1/pull?bytes=400".to_owned(), Vec::new());
    loop {
        let page = read_page(&server.get(&ann(), &target).body);
        sizes.push(page.end.count);
        if page.end.at_head {
            break;
        }
        target = format!("/v1/pull?bytes=400&cursor={}", page.end.cursor);
    }
    assert_eq!(sizes, [1, 1, 1]);
}

#[test]
fn a_cursor_is_refused_rather_than_bent() {
    let server = server();
    server.push(&ann(), &["a", "b", "c"].map(|id| create(id, id, id)));
    let snapshot = server.pull(&ann(), None, 1).end.cursor;
    let feed = server.pull(&ann(), None, 9).end.cursor;
    let pull = |caller: &Caller, cursor: &str| {
        server.get(caller, &format!("/v1/pull?scope=default&cursor={cursor}"))
    };
    for cursor in [&snapshot, &feed] {
        assert_eq!(pull(&ann(), cursor).status, 200);
        for at in 0..cursor.len() {
            let mut forged = cursor.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            expect(&pull(&ann(), &forged), 400, "cursor-invalid");
            expect(&pull(&ann(), &cursor[..at]), 400, "cursor-invalid");
        }
        expect(&pull(&ann(), &format!("{cursor}A")), 400, "cursor-invalid");
        let other = Caller::new("other", "ann", PHONE);
        expect(&pull(&other, cursor), 403, "cursor-foreign");
        // Someone else of the same tenant may go on from it: it names no person.
        assert_eq!(
            pull(&Caller::new("acme", "bob", LAPTOP), cursor).status,
            200
        );
    }
    for garbage in ["x", "%00", "%F0%9F%A5%9B", &"A".repeat(5000)] {
        expect(&pull(&ann(), garbage), 400, "cursor-invalid");
    }
    expect(
        &server.get(&ann(), "/v1/pull?scope=nope"),
        403,
        "scope-forbidden",
    );
}

#[test]
fn a_cursor_that_means_nothing_any_more_is_gone() {
    let server = server();
    server.push(&ann(), &["a", "b", "c"].map(|id| create(id, id, id)));
    let old = server.pull(&ann(), None, 1).end.cursor;
    server.push(&ann(), &[delete("k4", "a", at(3)), create("k5", "e", "e")]);
    let recent = server.pull(&ann(), None, 9).end.cursor;
    let pull = |cursor: &str| server.get(&ann(), &format!("/v1/pull?cursor={cursor}"));
    let storage = server.service.storage();
    let scope = "default".into();

    storage
        .write(|tx| tx.raise_horizon("acme", &scope, 4))
        .unwrap();
    expect(&pull(&old), 410, "cursor-expired");
    assert_eq!(pull(&recent).status, 200);
    // Forgetting the tombstone does not make versions fall.
    assert_eq!(server.push_one(&ann(), &create("k6", "a", "a")), applied(6));

    // A storage restored from an older backup, its epoch left as it was.
    let restored = common::server();
    expect(
        &restored.get(&ann(), &format!("/v1/pull?cursor={recent}")),
        410,
        "rewound",
    );
    storage.write(|tx| tx.set_epoch(&"another".into())).unwrap();
    expect(&pull(&recent), 410, "epoch-changed");
    assert_eq!(server.pull(&ann(), None, 9).end.count, 4);
}

#[test]
fn tenants_do_not_see_each_other() {
    let server = server();
    let other = Caller::new("other", "eve", LAPTOP);
    server.push(&ann(), &["a", "b"].map(|id| create(id, id, "secret")));
    let page = server.pull(&other, None, 10);
    assert_eq!((page.end.count, page.end.position), (0, 0));
    // The same answers as for what exists nowhere.
    let foreign = server.push_one(&other, &update("k1", "a", at(2), "x"));
    let absent = server.push_one(&other, &update("k2", "nowhere", at(2), "x"));
    assert_eq!(foreign, absent);
    assert_eq!(
        server.push_one(&other, &create("k3", "a", "mine")),
        applied(1)
    );
    assert_eq!(
        change_title(&server.pull(&ann(), None, 1).changes[0]).unwrap(),
        "secret"
    );
}

/// What a simple client knows of the scope.
#[derive(Default)]
struct Client {
    rows: BTreeMap<String, (i64, String)>,
    cursor: Option<String>,
}

impl Client {
    /// Applies a page as the protocol says; true at the head.
    fn pull(&mut self, server: &Server<impl Storage>, limit: usize) -> bool {
        let page = server.pull(&ann(), self.cursor.as_deref(), limit);
        assert!(page.end.count <= limit);
        for change in &page.changes {
            let id = change.id.as_str().to_owned();
            match change_title(change) {
                Some(title) => self.rows.insert(id, (change.position, title)),
                None => self.rows.remove(&id),
            };
        }
        self.cursor = Some(page.end.cursor);
        page.end.at_head
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The n-th client pulls a page with this limit.
    Pull(usize, usize),
    /// Someone writes: entity, operation.
    Write(u8, u8),
    /// The n-th client throws everything away.
    Forget(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_usize, 1..4_usize).prop_map(|(client, limit)| Step::Pull(client, limit)),
        5 => (0..12_u8, 0..4_u8).prop_map(|(id, op)| Step::Write(id, op)),
        1 => (0..2_usize).prop_map(Step::Forget),
    ]
}

/// The state that the server should have, kept beside it.
type Truth = BTreeMap<String, (i64, Option<String>)>;

fn write(
    server: &Server<impl Storage>,
    truth: &mut Truth,
    head: &mut i64,
    id: u8,
    op: u8,
    key: &str,
) {
    let id = format!("id{id}");
    let known = truth.get(&id).cloned();
    let base = known.as_ref().map(|(seq, _)| version(*seq));
    let alive = known.is_some_and(|(_, title)| title.is_some());
    let op = match (alive, op) {
        (false, _) => Operation::Create,
        (true, 0) => Operation::Delete,
        (true, _) => Operation::Update,
    };
    let title = (op != Operation::Delete).then(|| key.to_owned());
    let fields = title.as_ref().map_or(
        serde_json::json!({}),
        |title| serde_json::json!({ "title": title }),
    );
    let mutation: Mutation = mutation(key, op, &id, base, fields);
    *head += 1;
    assert_eq!(server.push_one(&ann(), &mutation), applied(*head));
    truth.insert(id, (*head, title));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is written between pages of whatever size, a client that has read to the head has
    /// exactly the rows of the server.
    #[test]
    fn nothing_is_missed_between_pages(steps in proptest::collection::vec(any_step(), 1..60)) {
        let server = server();
        let (mut truth, mut head) = (Truth::new(), 0);
        let mut clients = [Client::default(), Client::default()];
        for (nth, step) in steps.iter().enumerate() {
            match step {
                Step::Pull(client, limit) => {
                    if clients[*client].pull(&server, *limit) {
                        prop_assert_eq!(&clients[*client].rows, &alive(&truth));
                    }
                }
                Step::Write(id, op) => {
                    write(&server, &mut truth, &mut head, *id, *op, &format!("k{nth}"));
                }
                Step::Forget(client) => clients[*client] = Client::default(),
            }
        }
        for client in &mut clients {
            while !client.pull(&server, 2) {}
            prop_assert_eq!(&client.rows, &alive(&truth));
        }
    }
}

fn alive(truth: &Truth) -> BTreeMap<String, (i64, String)> {
    truth
        .iter()
        .filter_map(|(id, (seq, title))| Some((id.clone(), (*seq, title.clone()?))))
        .collect()
}
