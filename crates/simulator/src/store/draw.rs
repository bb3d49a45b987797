//! Draws tables. Attaching them and reading their schema takes longer than a history, so seeds that lie close together
//! share a few shapes; the steps are each seed's own.

use super::drawn::{Action, Column, Drawn, Key, Kind, Reference, Rule, To};
use super::generate::{ON_DELETE, POISON};
use super::scenario::{OnDelete, Poison, Rules, Setup, Tables};
use super::upgrade::Upgrade;
use crate::rng::Rng;

/// Of a hundred histories, how many have drawn tables.
const PERCENT: u64 = 10;
/// So many seeds that lie close together share so many shapes.
const NEIGHBOURS: u64 = 256;
const SHAPES: u64 = 3;

/// Gives a history drawn tables, if it is one that has any.
pub(super) fn into_setup(setup: &mut Setup) {
    let mut own = Rng::new(setup.seed ^ 0x6472_6177_6e00);
    if !own.chance(PERCENT) {
        return;
    }
    let shape = setup.seed / NEIGHBOURS * SHAPES + own.below(SHAPES);
    let mut rng = Rng::new(shape ^ 0x7368_6170_6500);
    let few = [Tables::Notes, Tables::Tree, Tables::Bank];
    setup.tables = *rng.pick(&few).unwrap_or(&Tables::Tree);
    setup.rules = *rng.pick(&Rules::ALL).unwrap_or(&Rules::Default);
    setup.on_delete = *rng.pick(&ON_DELETE).unwrap_or(&OnDelete::Cascade);
    let mut names: Vec<u8> = (0..8).collect();
    for n in 0..1 + rng.below(3) as u8 {
        let name = names.swap_remove(rng.index(names.len()));
        let drawn = table(&mut rng, setup.tables, n, name);
        setup.drawn.push(drawn);
    }
    if setup.drawn.len() > 1 && rng.chance(20) {
        setup.upgrades.push(Upgrade::NewTable);
    }
    if !setup.upgrades.is_empty() || own.chance(35) {
        for _ in 0..1 + own.below(3) {
            let change = upgrade(&mut own, setup);
            setup.upgrades.extend(change);
        }
    }
    let mut references = setup.drawn.iter().flat_map(|one| &one.references);
    if references.any(|one| one.to == To::Note) {
        // What refers to a row that never goes through waits with it.
        setup.poison = Poison::None;
    } else {
        setup.poison = *own.pick(&POISON).unwrap_or(&Poison::None);
    }
}

fn table(rng: &mut Rng, tables: Tables, n: u8, name: u8) -> Drawn {
    let mut references: Vec<Reference> = Vec::new();
    for _ in 0..rng.below(3) {
        let before = references.first().map(|one| one.to);
        references.push(reference(rng, tables, n, before));
    }
    let keys = [
        Key::Assigned,
        Key::Assigned,
        Key::Number,
        Key::Text,
        Key::Blob,
        Key::Pair,
        Key::Mixed,
        Key::Child,
    ];
    let mut key = *rng.pick(&keys).unwrap_or(&Key::Text);
    match references.first_mut() {
        Some(first) if key == Key::Child && first.to != To::Drawn(n) => {
            first.required = true;
            first.on_delete = action(rng, true);
        }
        _ if key == Key::Child => key = Key::Pair,
        _ => {}
    }
    let mut names: Vec<u8> = (0..12).collect();
    let columns = (0..1 + rng.below(4)).map(|_| Column {
        name: names.swap_remove(rng.index(names.len())),
        kind: *rng.pick(&Kind::ALL).unwrap_or(&Kind::Text),
        rule: *rng.pick(&Rule::ALL).unwrap_or(&Rule::Plain),
        renamed: false,
    });
    let columns = columns.collect();
    Drawn {
        name,
        key,
        without_rowid: key != Key::Assigned && rng.chance(40),
        strict: rng.chance(40),
        columns,
        references,
    }
}

fn reference(rng: &mut Rng, tables: Tables, n: u8, before: Option<To>) -> Reference {
    let kept = match tables {
        Tables::Notes => To::Note,
        Tables::Tree | Tables::All => *rng.pick(&[To::Project, To::Task]).unwrap_or(&To::Task),
        Tables::Bank => To::Drawn(n),
    };
    let to = match rng.below(10) {
        0..3 => before.unwrap_or(To::Drawn(n)),
        3..5 => To::Drawn(n),
        5..7 => kept,
        _ => To::Drawn(n.saturating_sub(1)),
    };
    let required = to != To::Drawn(n) && rng.chance(30);
    Reference {
        to,
        on_delete: action(rng, required),
        deferred: rng.chance(35),
        required,
    }
}

fn action(rng: &mut Rng, required: bool) -> Action {
    let all: &[Action] = match required {
        true => &[
            Action::Cascade,
            Action::Cascade,
            Action::Restrict,
            Action::NoAction,
        ],
        false => &[
            Action::Cascade,
            Action::SetNull,
            Action::SetDefault,
            Action::Restrict,
            Action::NoAction,
        ],
    };
    *rng.pick(all).unwrap_or(&Action::Cascade)
}

/// A change that is possible after those that are drawn already.
fn upgrade(rng: &mut Rng, setup: &Setup) -> Option<Upgrade> {
    let now = setup.at(setup.changes());
    let n = rng.index(now.drawn.len());
    let (table, columns) = (n as u8, &now.drawn[n].columns);
    let before = &setup.drawn[n].columns;
    let is_first = |one: &&Column| before.contains(one) && !one.is_generated();
    let first: Vec<&Column> = columns.iter().filter(is_first).collect();
    match rng.below(5) {
        0 | 1 => {
            let taken = |name: &u8| {
                let named = |one: &Column| one.name == *name;
                columns.iter().any(named) || before.iter().any(named)
            };
            let free: Vec<u8> = (0..12).filter(|name| !taken(name)).collect();
            let rules = [
                Rule::Plain,
                Rule::Plain,
                Rule::Default,
                Rule::Check,
                Rule::Generated { stored: false },
            ];
            let column = Column {
                name: *rng.pick(&free)?,
                kind: *rng.pick(&Kind::ALL)?,
                rule: *rng.pick(&rules)?,
                renamed: false,
            };
            Some(Upgrade::AddColumn { table, column })
        }
        2 => {
            let column = rng.pick(&first)?.name;
            Some(Upgrade::RenameColumn { table, column })
        }
        3 => {
            let is_free = |one: &&&Column| matches!(one.rule, Rule::Plain | Rule::Default);
            let free: Vec<&Column> = first.iter().filter(is_free).copied().collect();
            let column = rng.pick(&free)?.name;
            Some(Upgrade::DropColumn { table, column })
        }
        _ => Some(Upgrade::Rebuild { table }),
    }
}
