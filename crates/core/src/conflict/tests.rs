//! Laws of conflict decisions.

use super::*;
use crate::Intent;
use proptest::prelude::*;
use syncline_protocol::{EntityId, EntityType, Value};

fn entity() -> EntityRef {
    EntityRef {
        entity_type: EntityType::new("task"),
        id: EntityId::from(1),
    }
}

fn any_fields() -> impl Strategy<Value = Fields> {
    let value = prop_oneof![Just(Value::Null), (0..3i64).prop_map(Value::Integer)];
    proptest::collection::vec(value, 3)
        .prop_map(|values| ["a", "b", "c"].into_iter().zip(values).collect())
}

fn any_state() -> impl Strategy<Value = Option<Fields>> {
    proptest::option::weighted(0.8, any_fields())
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::FieldMerge),
        Just(Policy::ServerWins),
        Just(Policy::ClientWins)
    ]
}

fn decide_with(policy: Policy, states: &[Option<Fields>; 3]) -> Decision {
    let [base, local, remote] = states;
    let (entity, rules) = (entity(), ConflictRules::from(policy));
    let pending = pending(base.as_ref(), local.as_ref());
    let input = ConflictInput {
        entity: &entity,
        base: base.as_ref(),
        local: local.as_ref(),
        remote: remote.as_ref(),
        pending: &pending,
        cause: &ConflictCause::Pull,
        server_time_ms: None,
    };
    decide(&rules, &rules, &input)
}

/// Mutations that lead from the base to the local row, one for each field.
fn pending(base: Option<&Fields>, local: Option<&Fields>) -> Vec<PendingMutation> {
    let intents = match (base, local) {
        (None, None) => Vec::new(),
        (None, Some(local)) => vec![(Operation::Create, local.clone())],
        (Some(_), None) => vec![(Operation::Delete, Fields::new())],
        (Some(base), Some(local)) => changed(base, local)
            .into_iter()
            .map(|field| (Operation::Update, [field].into_iter().collect()))
            .collect(),
    };
    let numbered = intents.into_iter().enumerate();
    numbered
        .map(|(number, (op, fields))| PendingMutation {
            mutation: format!("m{number}"),
            op,
            fields,
        })
        .collect()
}

fn apply(remote: Option<&Fields>, rebased: &Rebased) -> Option<Fields> {
    let written = rebased.each.iter().filter_map(|one| match one {
        Rewrite::Write(intent) => Some(intent),
        Rewrite::Supersede => None,
    });
    written
        .chain(&rebased.new)
        .fold(remote.cloned(), |state, Intent { op, fields }| match op {
            Operation::Delete => None,
            Operation::Create => Some(fields.clone()),
            Operation::Update => state.map(|mut state| {
                state.patch(fields);
                state
            }),
        })
}

proptest! {
    /// What is pushed on top of the remote state gives exactly the local row: both sides end equal.
    #[test]
    fn the_remaining_mutation_leads_from_remote_to_row(
        policy in any_policy(), base in any_state(), local in any_state(), remote in any_state(),
    ) {
        let states = [base, local, remote];
        if let Decision::Settled(rebased) = decide_with(policy, &states) {
            prop_assert_eq!(apply(states[2].as_ref(), &rebased.pending), rebased.row);
        }
    }

    /// A field that was not touched here ends as the server's, whatever the server did to it.
    #[test]
    fn field_merge_takes_untouched_fields_from_the_server(
        base in any_fields(), local in any_fields(), remote in any_fields(),
    ) {
        let states = [Some(base.clone()), Some(local.clone()), Some(remote.clone())];
        let Decision::Settled(rebased) = decide_with(Policy::FieldMerge, &states) else {
            return Err(TestCaseError::fail("field merge never asks a person"));
        };
        let row = rebased.row.unwrap();
        for name in ["a", "b", "c"] {
            let touched = local.get(name) != base.get(name);
            let expected = if touched { &local } else { &remote };
            prop_assert_eq!(row.get(name), expected.get(name));
        }
    }

    /// Edits of different fields give the same row whichever side is called local.
    #[test]
    fn field_merge_of_disjoint_edits_is_the_same_from_both_sides(
        base in any_fields(), mine in any_fields(), theirs in any_fields(), split in 0..4usize,
    ) {
        let names = ["a", "b", "c"];
        let (mut left, mut right) = (base.clone(), base.clone());
        for (index, name) in names.iter().enumerate() {
            let (side, from) = if index < split { (&mut left, &mine) } else { (&mut right, &theirs) };
            side.insert(*name, from.get(name).unwrap().clone());
        }
        let row = |local: &Fields, remote: &Fields| {
            match decide_with(Policy::FieldMerge, &[Some(base.clone()), Some(local.clone()), Some(remote.clone())]) {
                Decision::Settled(rebased) => (rebased.row.clone(), rebased.loses_something()),
                Decision::Manual { .. } => (None, true),
            }
        };
        let (one, lossy) = row(&left, &right);
        prop_assert!(!lossy);
        prop_assert_eq!(one, row(&right, &left).0);
    }

    /// Nothing is dropped without being called a loss.
    #[test]
    fn a_dropped_edit_is_a_loss(
        policy in any_policy(), base in any_fields(), local in any_fields(), remote in any_fields(),
    ) {
        let states = [Some(base.clone()), Some(local.clone()), Some(remote.clone())];
        if let Decision::Settled(rebased) = decide_with(policy, &states) {
            let row = rebased.row.clone().unwrap();
            let kept = |side: &Fields| changed(&base, side).iter().all(|(n, v)| row.get(n) == Some(v));
            prop_assert_eq!(!rebased.loses_something(), kept(&local) && kept(&remote));
        }
    }
}

#[test]
fn a_delete_wins_over_an_edit_both_ways_and_is_recorded() {
    let base: Fields = [("a", 1i64)].into_iter().collect();
    let edit: Fields = [("a", 2i64)].into_iter().collect();
    for (local, remote, op) in [
        (Some(edit.clone()), None, None),
        (None, Some(edit), Some(Operation::Delete)),
    ] {
        let Decision::Settled(rebased) =
            decide_with(Policy::FieldMerge, &[Some(base.clone()), local, remote])
        else {
            panic!("decided by rule")
        };
        assert_eq!(rebased.row, None);
        let written = rebased.pending.each.iter().find_map(|one| match one {
            Rewrite::Write(intent) => Some(intent.op),
            Rewrite::Supersede => None,
        });
        assert_eq!(written, op);
        assert!(rebased.loses_something());
    }
}

#[test]
fn two_creates_of_one_id_wait_for_a_person_unless_they_are_equal() {
    let mine: Fields = [("a", 1i64)].into_iter().collect();
    let theirs: Fields = [("a", 2i64)].into_iter().collect();
    for policy in [Policy::FieldMerge, Policy::ServerWins, Policy::ClientWins] {
        let differing = decide_with(policy, &[None, Some(mine.clone()), Some(theirs.clone())]);
        assert!(matches!(differing, Decision::Manual { .. }));
        let equal = decide_with(policy, &[None, Some(mine.clone()), Some(mine.clone())]);
        assert!(
            matches!(equal, Decision::Settled(settled) if settled.pending.each == [Rewrite::Supersede])
        );
    }
}
