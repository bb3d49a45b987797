//! What is decided from values: ids and conflicts.

use crate::texts;
use std::collections::BTreeMap;
use syncline_core::{
    ConflictCause, ConflictInput, ConflictRules, Decision, DeleteRule, EntityRef, FieldRule,
    PendingMutation, Policy, decide,
};
use syncline_protocol::{ConflictReason, EntityId, Fields, KeyPart, Operation, Value};

/// The grammar of ids: one text for each key, and one key for each text.
pub(crate) fn entity_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = EntityId::parse(text) {
        assert_eq!(id.as_str(), text, "silently made another");
        let parts = id.parts();
        assert!(!parts.is_empty());
        assert_eq!(EntityId::from_parts(&parts).as_ref(), Ok(&id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<EntityId>(&json).unwrap(), id);
    }
    // The same bytes as a key: if it has an id, that id is its alone.
    for part in [KeyPart::Text(text.to_owned()), KeyPart::Blob(data.to_vec())] {
        for parts in [vec![part.clone()], vec![part.clone(), KeyPart::Integer(1)]] {
            if let Ok(id) = EntityId::from_parts(&parts) {
                assert_eq!(id.parts(), parts, "two keys have the id {id}");
            }
        }
    }
}

pub(crate) fn id_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "1",
        "-9223372036854775808",
        "task-1",
        "[1,\"a\"]",
        "x'00ff'",
        "[\"x\",{\"$blob\":\"AP8\"}]",
        "\"1\"",
        " 1",
        "é",
        "[[1]]",
    ])
}

/// Reads choices from bytes; zeros when there are no more.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> u8 {
        let first = self.0.split_first();
        let (byte, rest) = first.map_or((0, [].as_slice()), |(byte, rest)| (*byte, rest));
        self.0 = rest;
        byte
    }

    fn of<T: Clone>(&mut self, among: &[T]) -> T {
        among[usize::from(self.next()) % among.len()].clone()
    }

    fn value(&mut self) -> Value {
        match self.next() % 12 {
            0 => Value::Null,
            1 => Value::Integer(i64::from(self.next())),
            2 => self.of(&[Value::Integer(i64::MIN), Value::Integer(i64::MAX)]),
            3 => self.of(&[
                Value::Real(0.1),
                Value::Real(-0.0),
                Value::Real(1e300),
                Value::Real(f64::MAX),
            ]),
            4 => Value::Blob(vec![self.next(); 2]),
            5 => Value::Text(format!("[{},{},\"x\"]", self.next(), self.next())),
            6 => Value::Text("2026-11-01T00:00:00Z".to_owned()),
            7 => {
                let length = usize::from(self.next() % 24).min(self.0.len());
                let (text, rest) = self.0.split_at(length);
                self.0 = rest;
                Value::Text(String::from_utf8_lossy(text).into_owned())
            }
            8 => Value::Text("one\ntwo\nthree\n".to_owned()),
            9 => Value::Text("one\n2\nthree\nfour".to_owned()),
            10 => Value::Text(String::new()),
            _ => Value::Text("[1, [2], {\"a\": 1}]".to_owned()),
        }
    }

    fn state(&mut self) -> Option<Fields> {
        match self.next() % 4 {
            0 => None,
            _ => Some(
                ["a", "b", "at"]
                    .map(|name| (name, self.value()))
                    .into_iter()
                    .collect(),
            ),
        }
    }
}

/// A conflict of any shape under any declared rules: the same decision twice, never an invented
/// field, and what a policy says is what comes out.
pub(crate) fn resolver_input(data: &[u8]) {
    let mut choices = Choices(data);
    let rules = rules(&mut choices);
    let (base, local, remote) = (choices.state(), choices.state(), choices.state());
    let pending: Vec<PendingMutation> = (0..choices.next() % 3)
        .map(|nth| PendingMutation {
            mutation: format!("m{nth}"),
            op: choices.of(&[Operation::Update, Operation::Create, Operation::Delete]),
            fields: choices.state().unwrap_or_default(),
        })
        .collect();
    let entity = EntityRef {
        entity_type: "task".into(),
        id: EntityId::parse("1").unwrap(),
    };
    let cause = choices.of(&[
        ConflictCause::Pull,
        ConflictCause::Push(ConflictReason::Stale),
        ConflictCause::Push(ConflictReason::Exists),
        ConflictCause::Push(ConflictReason::Deleted),
        ConflictCause::Push(ConflictReason::Missing),
        ConflictCause::Violation {
            constraint: "UNIQUE constraint failed: task.a".to_owned(),
            other: None,
        },
    ]);
    let input = ConflictInput {
        entity: &entity,
        base: base.as_ref(),
        local: local.as_ref(),
        remote: remote.as_ref(),
        pending: &pending,
        cause: &cause,
        server_time_ms: choices.of(&[None, Some(1_800_000_000_000)]),
    };
    let decision = decide(&rules, &rules, &input);
    assert_eq!(decision, decide(&rules, &rules, &input), "decided twice");
    let Decision::Settled(settled) = decision else {
        return;
    };
    if let Some(row) = &settled.row {
        for (name, value) in row {
            let known = [&base, &local, &remote]
                .into_iter()
                .flatten()
                .any(|state| state.get(name).is_some());
            assert!(known, "an invented field {name}");
            assert!(
                !matches!(value, Value::Real(real) if real.is_nan()),
                "not a number"
            );
        }
    }
    let op = |op: Operation| move |one: &PendingMutation| one.op == op;
    let gone = pending.iter().position(op(Operation::Delete));
    let made = pending.iter().rposition(op(Operation::Create));
    // Deleted on both sides, and made anew here: that is another row.
    let is_another = remote.is_none() && gone.zip(made).is_some_and(|(gone, made)| gone < made);
    let disputed = local != remote && local != base && remote != base && !is_another;
    if disputed && rules.policy == Policy::ServerWins && rules.deletes == Default::default() {
        assert_eq!(settled.row, remote, "the server wins");
    }
}

fn rules(choices: &mut Choices<'_>) -> ConflictRules {
    let mut rules = ConflictRules {
        policy: choices.of(&[
            Policy::FieldMerge,
            Policy::ServerWins,
            Policy::ClientWins,
            Policy::LastWriterWins,
            Policy::Manual,
        ]),
        ..ConflictRules::default()
    };
    let field_rules = [
        FieldRule::Mine,
        FieldRule::Theirs,
        FieldRule::Max,
        FieldRule::Min,
        FieldRule::Counter,
        FieldRule::Set,
        FieldRule::Text,
        FieldRule::TextWords,
        FieldRule::Manual,
    ];
    rules.merge =
        BTreeMap::from(["a", "b"].map(|name| (name.to_owned(), choices.of(&field_rules))));
    let deletes = [
        None,
        Some(DeleteRule::DeleteWins),
        Some(DeleteRule::EditWins),
        Some(DeleteRule::Manual),
    ];
    rules.deletes.here = choices.of(&deletes);
    rules.deletes.there = choices.of(&deletes);
    if choices.next() % 2 == 1 {
        rules.natural_key = ["a".to_owned()].into();
    }
    rules
}

pub(crate) fn resolver_seeds() -> Vec<Vec<u8>> {
    let mut dice = fastrand::Rng::with_seed(5);
    let random = |_| (0..64).map(|_| dice.u8(..)).collect();
    (0..12).map(random).collect()
}
