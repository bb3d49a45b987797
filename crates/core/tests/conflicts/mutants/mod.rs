//! Every fixture kills at least one deliberate mutant of the resolver (one that fewer than half of the
//! fixtures notice), and every mutant is killed. The mutants are made here, out of the real decision:
//! product code has no switches for them.
//!
//! | file | what its mutants get wrong |
//! |---|---|
//! | `inputs.rs` | what they are asked: sides swapped, a base forgotten, NULL taken for absent |
//! | `declared.rs` | what was declared: another policy, another field rule, no invariants |
//! | `merges.rs` | how a field is merged: a counter without its base, a set without removals |
//! | `outcomes.rs` | what follows: losses not recorded, mutations out of place |

mod declared;
mod inputs;
mod merges;
mod outcomes;

use crate::case::real;
use crate::fixtures::{Fixture, shipped};
use syncline_core::{ConflictInput, ConflictRules, Decision};

pub(crate) type Decide = Box<dyn Fn(&ConflictRules, &ConflictInput<'_>) -> Decision>;

/// A name for what is wrong with it, and the wrong decision.
pub(crate) struct Mutant {
    name: String,
    decide: Decide,
}

pub(crate) fn mutant(
    name: &str,
    decide: impl Fn(&ConflictRules, &ConflictInput<'_>) -> Decision + 'static,
) -> Mutant {
    Mutant {
        name: name.to_owned(),
        decide: Box::new(decide),
    }
}

fn all() -> Vec<Mutant> {
    let groups = [
        inputs::mutants(),
        declared::mutants(),
        merges::mutants(),
        outcomes::mutants(),
    ];
    groups.into_iter().flatten().collect()
}

#[test]
fn every_fixture_kills_a_mutant_and_every_mutant_is_killed() {
    let (fixtures, mutants) = (shipped(), all());
    assert!(mutants.len() >= 40, "only {} mutants", mutants.len());
    assert!(fixtures.iter().all(|one| one.check(&real).is_ok()));
    let matrix: Vec<Vec<bool>> = fixtures
        .iter()
        .map(|fixture| {
            let killed = |mutant: &Mutant| fixture.check(&*mutant.decide).is_err();
            mutants.iter().map(killed).collect()
        })
        .collect();
    let kills = |mutant: usize| matrix.iter().filter(|row| row[mutant]).count();
    let alive = mutants.iter().enumerate();
    let alive = alive.filter(|(number, _)| kills(*number) == 0);
    let alive: Vec<&str> = alive.map(|(_, mutant)| mutant.name.as_str()).collect();
    // What half of the fixtures notice shows little about any of them.
    let sharp: Vec<usize> = (0..mutants.len())
        .filter(|one| kills(*one) * 2 <= fixtures.len())
        .collect();
    let idle = fixtures.iter().zip(&matrix);
    let idle = idle.filter(|(_, row)| !sharp.iter().any(|mutant| row[*mutant]));
    let idle: Vec<&str> = idle.map(|(fixture, _)| Fixture::name(fixture)).collect();
    assert!(idle.is_empty(), "fixtures that kill nothing: {idle:#?}");
    assert!(alive.is_empty(), "mutants that live: {alive:#?}");
}
