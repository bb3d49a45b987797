//! Laws of conflict decisions, over rows and rules drawn at random.

use crate::case::{derived, entity, mutation, real};
use crate::devices::World;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{
    Bound, ConflictCause, ConflictRules, Decision, DeleteRule, DeleteRules, FieldRule, Intent,
    Invariant, Lost, OwnedConflictInput, PendingMutation, Policy, Rebased, Rewrite, Settled,
    TimeUnit, Timestamp, changed,
};
use syncline_protocol::{ConflictReason, Fields, Operation, Value};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn simple_value() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), (0..4i64).prop_map(Value::Integer)]
}

/// Values that rules care about, and such that they do not expect.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => simple_value(),
        1 => any::<i64>().prop_map(Value::Integer),
        1 => any::<f64>().prop_map(Value::Real),
        1 => Just(Value::Real(f64::NAN)),
        2 => "[ab\n ]{0,6}".prop_map(Value::Text),
        1 => any::<String>().prop_map(Value::Text),
        2 => proptest::collection::vec(0..4u8, 0..4)
            .prop_map(|all| Value::Text(format!("{all:?}"))),
        1 => Just(Value::from("[{\"a\":[1e5,-0.0,null]},[[\"\\ud800\"]]]")),
        1 => Just(Value::from("2026-11-22T10:00:00Z")),
        1 => proptest::collection::vec(any::<u8>(), 0..3).prop_map(Value::Blob),
    ]
}

fn fields_of(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Fields> {
    proptest::collection::vec(value, NAMES.len())
        .prop_map(|values| NAMES.into_iter().zip(values).collect())
}

/// Not every state mentions every field.
fn any_fields() -> impl Strategy<Value = Fields> {
    (
        fields_of(any_value()),
        proptest::collection::vec(0..8u8, NAMES.len()),
    )
        .prop_map(|(mut fields, absent)| {
            let named = NAMES.into_iter().zip(absent);
            for (name, _) in named.filter(|(_, draw)| *draw == 0) {
                fields.remove(name);
            }
            fields
        })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    proptest::sample::select(Policy::WORDS).prop_map(|(_, policy)| policy)
}

fn any_deletes() -> impl Strategy<Value = DeleteRules> {
    let rule = || proptest::option::of(proptest::sample::select(DeleteRule::WORDS));
    (rule(), rule()).prop_map(|(here, there)| DeleteRules {
        here: here.map(|(_, rule)| rule),
        there: there.map(|(_, rule)| rule),
    })
}

fn any_merge() -> impl Strategy<Value = BTreeMap<String, FieldRule>> {
    let rule = proptest::sample::select(FieldRule::WORDS).prop_map(|(_, rule)| rule);
    proptest::collection::btree_map(
        proptest::sample::select(&NAMES[..]).prop_map(str::to_owned),
        rule,
        0..4,
    )
}

fn any_rules() -> impl Strategy<Value = ConflictRules> {
    let timestamp = proptest::option::of(any::<bool>());
    let keys = proptest::collection::btree_set(proptest::sample::select(&NAMES[..]), 0..2);
    let least = proptest::option::weighted(0.2, -1..2i64);
    (
        any_policy(),
        any_merge(),
        any_deletes(),
        timestamp,
        keys,
        least,
    )
        .prop_map(
            |(policy, merge, deletes, seconds, keys, least)| ConflictRules {
                policy,
                merge,
                deletes,
                timestamp: seconds.map(|seconds| Timestamp {
                    field: "d".to_owned(),
                    unit: if seconds {
                        TimeUnit::Seconds
                    } else {
                        TimeUnit::Milliseconds
                    },
                }),
                natural_key: keys.into_iter().map(str::to_owned).collect(),
                invariants: least.into_iter().map(not_below).collect(),
            },
        )
}

fn not_below(least: i64) -> Invariant {
    Invariant {
        name: "not below".to_owned(),
        sum: vec!["a".to_owned(), "b".to_owned()],
        min: Some(Bound::Number(Value::Integer(least))),
        max: Some(Bound::Field("c".to_owned())),
    }
}

fn any_cause() -> impl Strategy<Value = ConflictCause> {
    let violation = |other| ConflictCause::Violation {
        constraint: "UNIQUE constraint failed: item.a".to_owned(),
        other,
    };
    prop_oneof![
        3 => Just(ConflictCause::Pull),
        3 => Just(ConflictCause::Push(ConflictReason::Stale)),
        1 => Just(violation(None)),
        1 => Just(violation(Some(entity(2)))),
    ]
}

prop_compose! {
    /// Any question, also such as a store would not ask.
    fn any_question()(
        base in proptest::option::weighted(0.8, any_fields()),
        local in proptest::option::weighted(0.8, any_fields()),
        remote in proptest::option::weighted(0.8, any_fields()),
        cause in any_cause(),
        server_time_ms in proptest::option::of(any::<i64>()),
        split in 0..4usize,
    ) -> OwnedConflictInput {
        let pending = split_up(derived(base.as_ref(), local.as_ref()), split);
        OwnedConflictInput { entity: entity(1), base, local, remote, pending, cause, server_time_ms }
    }
}

/// The same in several mutations, some of which write a field again, or in none at all.
fn split_up(pending: Vec<PendingMutation>, split: usize) -> Vec<PendingMutation> {
    let update = |one: &&PendingMutation| one.op == Operation::Update;
    match pending.first().filter(update) {
        _ if split == 0 => Vec::new(),
        Some(one) if split > 1 => {
            let before = (split > 2).then(|| mutation(9, Operation::Update, one.fields.clone()));
            let single = one
                .fields
                .iter()
                .enumerate()
                .map(|(number, (name, value))| {
                    let fields = [(name.clone(), value.clone())].into_iter().collect();
                    mutation(number, Operation::Update, fields)
                });
            before.into_iter().chain(single).collect()
        }
        _ => pending,
    }
}

fn apply(remote: Option<&Fields>, rebased: &Rebased) -> Option<Fields> {
    let written = rebased.each.iter().filter_map(|one| match one {
        Rewrite::Write(intent) => Some(intent),
        Rewrite::Supersede => None,
    });
    let all = written.chain(&rebased.new);
    all.fold(remote.cloned(), |state, Intent { op, fields }| match op {
        Operation::Delete => None,
        Operation::Create => Some(fields.clone()),
        Operation::Update => state.map(|mut state| {
            state.patch(fields);
            state
        }),
    })
}

fn settled(rules: &ConflictRules, question: &OwnedConflictInput) -> Option<Settled> {
    match real(rules, &question.input()) {
        Decision::Settled(settled) => Some(settled),
        Decision::Manual { .. } => None,
    }
}

/// What a side changed. Where the base does not mention a field, a NULL says nothing.
fn edits(base: Option<&Fields>, side: &Fields) -> Fields {
    let mut edits = changed(base.unwrap_or(&Fields::new()), side);
    for name in NAMES {
        let unknown = base.is_none_or(|base| !base.contains(name));
        if unknown && edits.get(name).is_some_and(Value::is_null) {
            edits.remove(name);
        }
    }
    edits
}

fn values(lost: &Lost) -> Fields {
    match lost {
        Lost::Values(values) => values.clone(),
        Lost::Nothing | Lost::Deletion => Fields::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any input gets an answer, the same every time, and it is sound: every mutation has its fate, every
    /// value can be synced or was there before, and what is still sent leads from the remote state to
    /// the row.
    #[test]
    fn every_question_has_one_sound_answer(rules in any_rules(), question in any_question()) {
        let decision = real(&rules, &question.input());
        prop_assert_eq!(&decision, &real(&rules, &question.input()));
        let Decision::Settled(settled) = decision else { return Ok(()) };
        prop_assert_eq!(settled.pending.each.len(), question.pending.len());
        let reached = apply(question.remote.as_ref(), &settled.pending);
        match (&reached, &settled.row) {
            // The server keeps fields that the row does not mention.
            (Some(reached), Some(row)) => prop_assert!(changed(reached, row).is_empty()),
            (reached, row) => prop_assert_eq!(reached, row),
        }
        let known = [&question.local, &question.remote];
        let known: BTreeSet<&str> = known.into_iter().flatten().flat_map(Fields::names).collect();
        let row = settled.row.clone().unwrap_or_default();
        prop_assert!(row.names().all(|name| known.contains(name)));
    }

    /// Each mutation keeps its place: a field is sent with the last one that writes it, and with the last
    /// of all if none does; no mutation sends anything else, but for what an earlier one adds to a sum.
    #[test]
    fn each_mutation_keeps_its_own_fields(rules in any_rules(), question in any_question()) {
        let Some(settled) = settled(&rules, &question) else { return Ok(()) };
        let (Some(row), Some(remote)) = (&settled.row, &question.remote) else { return Ok(()) };
        let pending = &question.pending;
        let mut expected = vec![Fields::new(); pending.len()];
        for (name, value) in &changed(remote, row) {
            let own = pending.iter().rposition(|one| one.fields.contains(name));
            if let Some(at) = own.or(pending.len().checked_sub(1)) {
                expected[at].insert(name.clone(), value.clone());
            }
        }
        let found = settled.pending.each.iter().enumerate().map(|(at, one)| match one {
            Rewrite::Supersede => Fields::new(),
            Rewrite::Write(intent) => {
                let mut fields = intent.fields.clone();
                for name in pending[at].fields.names().filter(|name| rules.adds_up(name)) {
                    if !expected[at].contains(name) {
                        fields.remove(name);
                    }
                }
                fields
            }
        });
        prop_assert_eq!(found.collect::<Vec<Fields>>(), expected);
    }

    /// Deciding once more, on what came of it, changes nothing and loses nothing.
    #[test]
    fn again_changes_nothing(rules in any_rules(), question in any_question()) {
        let Some(first) = settled(&rules, &question) else { return Ok(()) };
        let written = first.pending.each.iter().filter_map(|one| match one {
            Rewrite::Write(intent) => Some(intent),
            Rewrite::Supersede => None,
        });
        let pending = written.chain(&first.pending.new).enumerate();
        let pending = pending.map(|(number, Intent { op, fields })| mutation(number, *op, fields.clone()));
        let again = OwnedConflictInput {
            base: question.remote.clone(),
            local: first.row.clone(),
            pending: pending.collect(),
            cause: ConflictCause::Pull,
            ..question
        };
        // A create over a remembered deletion is a new question each time.
        if again.base.is_none() {
            return Ok(());
        }
        let Some(second) = settled(&rules, &again) else {
            return Err(TestCaseError::fail("a person is asked the second time"));
        };
        prop_assert!(!second.loses_something());
        match (&first.row, &second.row) {
            (Some(first), Some(second)) => prop_assert!(edits(Some(second), first).is_empty()),
            (first, second) => prop_assert_eq!(first, second),
        }
    }

    /// Field merge: a field that was not touched here ends as the server's.
    #[test]
    fn an_untouched_field_is_the_servers(
        merge in any_merge(), base in any_fields(), local in any_fields(), remote in any_fields(),
    ) {
        let rules = ConflictRules { merge, ..ConflictRules::default() };
        let mine = edits(Some(&base), &local);
        let question = pulled(Some(base), Some(local), Some(remote));
        let Some(settled) = settled(&rules, &question) else { return Ok(()) };
        let (row, remote) = (settled.row.unwrap(), question.remote.unwrap());
        for name in NAMES.iter().filter(|name| !mine.contains(name)) {
            prop_assert_eq!(row.get(name), remote.get(name));
        }
    }

    /// Field merge: edits of different fields give the same row whichever side is called local, and lose
    /// nothing.
    #[test]
    fn disjoint_edits_are_the_same_from_both_sides(
        merge in any_merge(), base in fields_of(any_value()), mine in fields_of(any_value()),
        theirs in fields_of(any_value()), split in 0..5usize,
    ) {
        let rules = ConflictRules { merge, ..ConflictRules::default() };
        let (mut left, mut right) = (base.clone(), base.clone());
        for (index, name) in NAMES.into_iter().enumerate() {
            let (side, from) = if index < split { (&mut left, &mine) } else { (&mut right, &theirs) };
            side.insert(name, from.get(name).unwrap().clone());
        }
        let one = pulled(Some(base.clone()), Some(left.clone()), Some(right.clone()));
        let other = pulled(Some(base), Some(right), Some(left));
        if let (Some(one), Some(other)) = (settled(&rules, &one), settled(&rules, &other)) {
            prop_assert!(!one.loses_something() && !other.loses_something());
            prop_assert_eq!(one.row, other.row);
        }
    }

    /// What a side changed is in the row, or in the record with its value.
    #[test]
    fn nothing_goes_without_a_record(rules in any_rules(), question in any_question()) {
        let Some(settled) = settled(&rules, &question) else { return Ok(()) };
        let base = question.base.as_ref();
        let sides = [
            (&question.local, &settled.lost_mine),
            (&question.remote, &settled.lost_theirs),
        ];
        for (side, lost) in sides {
            match (side, &settled.row) {
                (None, Some(_)) => prop_assert_eq!(lost == &Lost::Deletion, base.is_some()),
                (None, None) => prop_assert_eq!(lost, &Lost::Nothing),
                (Some(side), row) => {
                    let row = row.clone().unwrap_or_default();
                    for (name, value) in &edits(base, side) {
                        let there = row.get(name) == Some(value);
                        let recorded = values(lost);
                        prop_assert_eq!(recorded.get(name), Some(value).filter(|_| !there));
                    }
                }
            }
        }
    }

    /// Every field that both sides changed to different values has an outcome, and it tells the truth.
    #[test]
    fn every_contested_field_has_an_outcome(rules in any_rules(), question in any_question()) {
        let Some(settled) = settled(&rules, &question) else { return Ok(()) };
        let (Some(local), Some(remote), Some(row)) = (&question.local, &question.remote, &settled.row)
        else { return Ok(()) };
        let base = question.base.as_ref();
        let (mine, theirs) = (edits(base, local), edits(base, remote));
        for name in NAMES {
            let (Some(mine), Some(theirs)) = (mine.get(name), theirs.get(name)) else { continue };
            let outcome = settled.fields.get(name);
            prop_assert!(mine == theirs || outcome.is_some());
            let took = outcome.map(|one| one.took.as_str());
            prop_assert!(took != Some("mine") || row.get(name) == Some(mine));
            prop_assert!(took != Some("theirs") || row.get(name) == Some(theirs));
        }
    }
}

fn pulled(
    base: Option<Fields>,
    local: Option<Fields>,
    remote: Option<Fields>,
) -> OwnedConflictInput {
    OwnedConflictInput {
        entity: entity(1),
        pending: derived(base.as_ref(), local.as_ref()),
        base,
        local,
        remote,
        cause: ConflictCause::Pull,
        server_time_ms: None,
    }
}

/// What happens in a world of devices.
#[derive(Debug, Clone)]
enum Move {
    Write(usize, usize, Value),
    Delete(usize),
    Pull(usize),
    Push(usize),
}

fn any_moves(
    devices: usize,
    value: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        6 => (0..devices, 0..NAMES.len(), value)
            .prop_map(|(device, field, value)| Move::Write(device, field, value)),
        1 => (0..devices).prop_map(Move::Delete),
        3 => (0..devices).prop_map(Move::Pull),
        4 => (0..devices).prop_map(Move::Push),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the rules and however syncs interleave: everyone without an open conflict ends with the
    /// server's state, and every value ever written was on the server, is in a record, is in an open
    /// conflict, or was overwritten by the same device before anybody saw it.
    #[test]
    fn devices_end_equal_and_nothing_is_lost_unseen(
        rules in any_rules(), start in fields_of(simple_value()), moves in any_moves(4, any_value()),
    ) {
        let mut world = World::new(Some(start), 4, &rules, &real);
        let mut written = Written::default();
        for one in &moves {
            match one {
                Move::Write(device, field, value) => {
                    if value.validate().is_ok() {
                        written.write(&mut world, *device, NAMES[*field], value);
                    }
                }
                Move::Delete(device) => {
                    written.forget_own(*device);
                    world.delete(*device);
                }
                Move::Pull(device) => world.pull(*device),
                Move::Push(device) => world.push(*device),
            }
        }
        prop_assert_eq!(world.settle(), Ok(()));
        for device in world.devices.iter().filter(|device| device.open.is_none()) {
            prop_assert_eq!(&device.row, &world.server.row);
        }
        written.check(&world)?;
    }
}

/// Every value that an app wrote and that its device did not itself overwrite at once.
#[derive(Default)]
struct Written(Vec<(usize, String, Value)>);

impl Written {
    fn write(&mut self, world: &mut World<'_>, device: usize, name: &str, value: &Value) {
        let one = &world.devices[device];
        let created = one.row.is_none();
        // A row of a table has all its columns.
        let columns = NAMES.into_iter().filter(|_| created);
        let mut patch: Fields = columns.map(|column| (column, Value::Null)).collect();
        patch.insert(name, value.clone());
        // An unsent write of the same field is the device's own to overwrite.
        let unsent = one.pending.iter().any(|one| one.fields.contains(name));
        if created || unsent {
            self.0
                .retain(|(by, field, _)| *by != device || (!created && field != name));
        }
        let news = one.row.as_ref().and_then(|row| row.get(name)) != Some(value);
        world.write(device, &patch);
        if news && !value.is_null() {
            self.0.push((device, name.to_owned(), value.clone()));
        }
    }

    fn forget_own(&mut self, device: usize) {
        self.0.retain(|(by, _, _)| *by != device);
    }

    fn check(&self, world: &World<'_>) -> Result<(), TestCaseError> {
        for (by, name, value) in &self.0 {
            let has = |fields: &Fields| fields.get(name) == Some(value);
            let device = &world.devices[*by];
            let served = world.server.history.iter().flatten().any(has);
            let mut records = device.records.iter();
            let recorded = records.any(|one| has(&values(&one.lost_mine)));
            let waits = device.open.is_some() && device.row.as_ref().is_some_and(has);
            prop_assert!(
                served || recorded || waits,
                "{name} = {value:?} of {by} is nowhere"
            );
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add(usize, i64),
    Remove(usize, usize),
    Pull(usize),
    Push(usize),
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..4usize, -9..10i64).prop_map(|(device, by)| Step::Add(device, by)),
        2 => (0..4usize, 0..6usize).prop_map(|(device, what)| Step::Remove(device, what)),
        2 => (0..4usize).prop_map(Step::Pull),
        3 => (0..4usize).prop_map(Step::Push),
    ];
    proptest::collection::vec(step, 0..40)
}

fn one_rule(rule: FieldRule) -> ConflictRules {
    ConflictRules {
        merge: [("v".to_owned(), rule)].into_iter().collect(),
        ..ConflictRules::default()
    }
}

fn patch(value: Value) -> Fields {
    [("v", value)].into_iter().collect()
}

proptest! {
    /// A counter ends as the sum of all that was added, whoever synced when.
    #[test]
    fn counters_are_the_sum_of_all_differences(steps in any_steps()) {
        let rules = one_rule(FieldRule::Counter);
        let mut world = World::new(Some(patch(Value::Integer(100))), 4, &rules, &real);
        let mut sum = 100;
        for step in steps {
            match step {
                Step::Add(device, by) => {
                    let row = world.devices[device].row.clone().unwrap();
                    let Some(Value::Integer(now)) = row.get("v") else { panic!("{row:?}") };
                    world.write(device, &patch(Value::Integer(now + by)));
                    sum += by;
                }
                Step::Remove(..) => {}
                Step::Pull(device) => world.pull(device),
                Step::Push(device) => world.push(device),
            }
        }
        prop_assert_eq!(world.settle(), Ok(()));
        prop_assert_eq!(world.server.row, Some(patch(Value::Integer(sum))));
    }

    /// A set ends with all that was added and without all that was removed, whoever synced when.
    #[test]
    fn sets_keep_every_addition_and_removal(steps in any_steps()) {
        let rules = one_rule(FieldRule::Set);
        let start: Vec<u64> = (0..6).collect();
        let write = |all: &[u64]| patch(Value::Text(serde_json::to_string(all).unwrap()));
        let read = |row: &Option<Fields>| -> Vec<u64> {
            match row.as_ref().and_then(|row| row.get("v")) {
                Some(Value::Text(text)) => serde_json::from_str(text).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let mut world = World::new(Some(write(&start)), 4, &rules, &real);
        let mut expected: BTreeSet<u64> = start.into_iter().collect();
        let mut fresh = 6;
        for step in steps {
            match step {
                Step::Add(device, _) => {
                    let mut all = read(&world.devices[device].row);
                    all.push(fresh);
                    expected.insert(fresh);
                    fresh += 1;
                    world.write(device, &write(&all));
                }
                Step::Remove(device, what) => {
                    let mut all = read(&world.devices[device].row);
                    if what < all.len() {
                        expected.remove(&all.remove(what));
                        world.write(device, &write(&all));
                    }
                }
                Step::Pull(device) => world.pull(device),
                Step::Push(device) => world.push(device),
            }
        }
        prop_assert_eq!(world.settle(), Ok(()));
        let end: BTreeSet<u64> = read(&world.server.row).into_iter().collect();
        prop_assert_eq!(end, expected);
    }
}
