//! The harness is tested with every change: models of store and server that do wrong, in ways in which a
//! real one could, are found out within few seeds, under the right name. Bugs in the product itself are
//! planted by `cargo xtask bugs`.

use super::file::{Cursor, EntryState, Fact, File};
use super::plan::draw;
use super::play_out;
use super::world::World;
use crate::level::Broken;
use syncline_protocol::Fields;

type Act = fn(&mut World) -> Result<(), Broken>;

/// Within so many seeds.
const MOST_SEEDS: u64 = 200;

fn each_file(world: &mut World, mut act: impl FnMut(&mut File)) {
    world.files.iter_mut().for_each(&mut act);
}

/// A lost answer and the same push again: two effects.
fn forgets_keys(world: &mut World) -> Result<(), Broken> {
    world.server.forget_keys();
    Ok(())
}

/// Deletions are gone, and the horizon stays where it is.
fn skips_tombstones(world: &mut World) -> Result<(), Broken> {
    world.server.rows.retain(|_, row| row.fields.is_some());
    Ok(())
}

/// What is on its way counts as done.
fn books_the_batch(world: &mut World) -> Result<(), Broken> {
    each_file(world, |file| {
        let sent = |state| state == EntryState::InFlight;
        let done = file.outbox.values().filter(|entry| sent(entry.state));
        let done: Vec<_> = done
            .map(|entry| (entry.seq, entry.mutation.clone()))
            .collect();
        for (seq, mutation) in done {
            file.outbox.remove(&seq);
            file.facts.push(Fact::Applied(mutation));
        }
    });
    (0..world.files.len()).try_for_each(|at| world.tell(at))
}

/// An entry is gone, and nobody says why.
fn drops_entries(world: &mut World) -> Result<(), Broken> {
    each_file(world, |file| {
        if file.outbox.len() > 2 {
            file.outbox.pop_last();
        }
    });
    Ok(())
}

/// What is sent again under a key is written anew.
fn writes_anew(world: &mut World) -> Result<(), Broken> {
    each_file(world, |file| {
        for entry in file.outbox.values_mut() {
            if let Some(frozen) = &mut entry.frozen {
                frozen.push(' ');
            }
        }
    });
    Ok(())
}

/// The cursor passes changes that nobody has applied.
fn moves_the_cursor(world: &mut World) -> Result<(), Broken> {
    let head = world.server.head;
    let text = format!("{}:f:{head}", world.server.epoch_name());
    each_file(world, |file| {
        if let Some(cursor) = file.cursor.as_mut().filter(|one| !one.in_snapshot) {
            *cursor = Cursor {
                text: text.clone(),
                position: head,
                in_snapshot: false,
            };
        }
    });
    Ok(())
}

/// A row is emptied that nobody has written.
fn loses_values(world: &mut World) -> Result<(), Broken> {
    each_file(world, |file| {
        let clean = |file: &File, id| file.of_entity(id).next().is_none();
        let first = file.rows.keys().find(|id| clean(file, id)).cloned();
        if let Some(first) = first {
            file.rows.insert(first, Fields::new());
        }
    });
    Ok(())
}

/// The seed at which it is found out, and what breaks.
fn found(act: Act) -> Option<(u64, Broken)> {
    (0..MOST_SEEDS).find_map(|seed| {
        let (setup, steps) = draw(seed);
        let played = play_out(World::new(setup), &steps, &mut |world| act(world));
        Some((seed, played.broken?))
    })
}

#[test]
fn models_that_do_wrong_are_found_out() {
    let wrong: [(&str, Act, &[&str]); 7] = [
        ("forgets keys", forgets_keys, &["F:S4"]),
        ("skips tombstones", skips_tombstones, &["F:S8", "F:S11"]),
        ("books the batch", books_the_batch, &["F:S4"]),
        ("drops entries", drops_entries, &["F:S3"]),
        ("writes anew", writes_anew, &["D:E3"]),
        ("moves the cursor", moves_the_cursor, &["F:S8"]),
        ("loses values", loses_values, &["F:S8"]),
    ];
    for (what, act, names) in wrong {
        let (seed, broken) = found(act).unwrap_or_else(|| panic!("{what}: not found out"));
        println!("{what}: seed {seed} breaks {}", broken.invariant);
        assert!(names.contains(&broken.invariant), "{what}: {broken:?}");
    }
}

/// None of it comes from the harness itself.
#[test]
fn models_that_do_right_are_not() {
    assert_eq!(found(|_| Ok(())), None);
}
