//! F:S19: what a tenant is answered is the same whatever another tenant does meanwhile, byte for byte. Both use the
//! same ids, keys and client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests

mod common;

use common::*;
use proptest::prelude::*;
use syncline_protocol::{EntityId, Mutation};
use syncline_server::{IdAssignment, MemoryStorage, Request, ServerConfig, TypeConfig};

/// One request, of one of the two.
#[derive(Debug, Clone)]
struct Act {
    by_other: bool,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// Mutations with these keys: what, of which row, based on which position.
    Push(Vec<(u8, u8, u8, i64)>),
    /// From the beginning, or from where the tenant's last page ended; so many changes.
    Pull(bool, u8),
    Read(u8),
    Digest,
    Types,
    Hello,
    Wait(u32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let mutation = (0u8..6, 0u8..5, 0u8..4, 0i64..12);
    let what = prop_oneof![
        6 => proptest::collection::vec(mutation, 1..4).prop_map(What::Push),
        3 => (any::<bool>(), 1u8..4).prop_map(|(from_start, limit)| What::Pull(from_start, limit)),
        1 => (0u8..4).prop_map(What::Read),
        1 => Just(What::Digest),
        1 => Just(What::Types),
        1 => Just(What::Hello),
        1 => (0u32..100_000_000).prop_map(What::Wait),
    ];
    let act = (any::<bool>(), what).prop_map(|(by_other, what)| Act { by_other, what });
    proptest::collection::vec(act, 1..40)
}

/// Notes get their ids from the server, and no two have the same title.
fn config() -> ServerConfig {
    let mut config = ServerConfig::default();
    config
        .types
        .insert("task".to_owned(), TypeConfig::default());
    let note = TypeConfig {
        id: IdAssignment::Integer,
        unique: vec![vec!["title".to_owned()]],
        ..TypeConfig::default()
    };
    config.types.insert("note".to_owned(), note);
    config
}

fn mutation((key, what, row, position): (u8, u8, u8, i64)) -> Mutation {
    let (key, id) = (format!("k{key}"), row.to_string());
    let title = format!("title {what}{row}");
    match what {
        0 => create(&key, &id, &title),
        1 => update(&key, &id, at(position), &title),
        2 => delete(&key, &id, at(position)),
        3 => update(&key, &id, version(position), &title),
        _ => Mutation {
            entity_type: "note".into(),
            id: EntityId::from(i64::from(row)),
            ..create(&key, &id, &format!("title {row}"))
        },
    }
}

/// What the first tenant was answered.
fn answers(acts: &[Act], with_other: bool) -> Vec<(u16, String)> {
    let server = Server::new(MemoryStorage::new(EPOCH), config());
    let callers = [ann(), Caller::new("other", "eve", PHONE)];
    let mut cursors: [Option<String>; 2] = [None, None];
    let mut answers = Vec::new();
    for act in acts {
        if let What::Wait(ms) = act.what {
            server.now_ms.set(server.now_ms.get() + i64::from(ms));
            continue;
        }
        if act.by_other && !with_other {
            continue;
        }
        let nth = usize::from(act.by_other);
        let request = request(&server, &callers[nth], &act.what, &mut cursors[nth]);
        let response = server.send(&request);
        if let (What::Pull(..), 200) = (&act.what, response.status) {
            cursors[nth] = Some(read_page(&response.body).end.cursor);
        }
        if !act.by_other {
            let headers = format!("{:?}", response.headers);
            answers.push((response.status, headers + &text(&response)));
        }
    }
    answers
}

fn request(
    server: &Server<MemoryStorage>,
    caller: &Caller,
    what: &What,
    cursor: &mut Option<String>,
) -> Request {
    let get = |target: &str| server.request(caller, "GET", target);
    match what {
        What::Push(mutations) => {
            let mut keys = std::collections::BTreeSet::new();
            let once = mutations.iter().filter(|one| keys.insert(one.0));
            let mutations: Vec<Mutation> = once.copied().map(mutation).collect();
            let push = serde_json::to_vec(&whole(caller, &mutations)).unwrap();
            server.request(caller, "POST", "/v1/push").json(push)
        }
        What::Pull(from_start, limit) => {
            if *from_start {
                *cursor = None;
            }
            let from = cursor.as_ref().map(|cursor| format!("&cursor={cursor}"));
            let from = from.unwrap_or_default();
            get(&format!("/v1/pull?scope=default&limit={limit}{from}"))
        }
        What::Read(row) => get(&format!("/v1/entities/task/{row}")),
        What::Digest => get("/v1/digest?scope=default&type=task"),
        What::Types => get("/v1/types"),
        What::Hello | What::Wait(_) => get("/v1/hello"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn what_another_tenant_does_changes_no_answer(acts in acts()) {
        prop_assert_eq!(answers(&acts, true), answers(&acts, false));
    }
}
