//! What waits for a person, and what a person decides.

use crate::harness::{Device, World, assert_all, settle};
use std::collections::BTreeMap;
use syncline::protocol::Value;
use syncline::{
    ChangedBy, Choice, ConflictRules, ConflictState, FieldChoice, FieldRule, Invariant, Notice,
    Policy, Side,
};

const TASK: &str = "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER);
    CREATE TABLE step (id TEXT PRIMARY KEY NOT NULL, task TEXT REFERENCES task (id))";

const ROWS: &str = "SELECT id, title, done FROM task ORDER BY id";

fn pair(world: &World, rules: &ConflictRules) -> (Device, Device) {
    let device = |name: &str| {
        let rules = rules.clone();
        world.device(name, TASK, move |builder| {
            builder.conflict_rules("task", rules.clone())
        })
    };
    let (mut ann, mut ben) = (device("ann"), device("ben"));
    ann.sql("INSERT INTO task VALUES ('1', 'milk', 0), ('2', 'bread', 0)");
    settle(&mut [&mut ann, &mut ben]);
    (ann, ben)
}

/// Ann's title is on the server; Ben's waits for a person.
fn disputed(world: &World) -> (Device, Device) {
    let (mut ann, mut ben) = pair(world, &Policy::Manual.into());
    ann.sql("UPDATE task SET title = 'oat milk' WHERE id = '1'");
    ann.sync();
    ben.sql(
        "UPDATE task SET title = 'soy milk' WHERE id = '1'; UPDATE task SET done = 1 WHERE id = '2'",
    );
    ben.sync();
    (ann, ben)
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

#[test]
fn a_conflict_pauses_its_own_row_and_shows_both_sides() {
    let world = World::new();
    let (mut ann, mut ben) = disputed(&world);
    let told = |notice: &Notice| matches!(notice, Notice::ConflictOpened { .. });
    assert_eq!(ben.notices.iter().filter(|one| told(one)).count(), 1);
    let detail = ben.conflict();
    let title = detail
        .fields
        .iter()
        .find(|one| one.name == "title")
        .unwrap();
    assert_eq!(title.base, Some(text("milk")));
    assert_eq!(title.mine, Some(text("soy milk")));
    assert_eq!(title.theirs, Some(text("oat milk")));
    assert_eq!(title.changed_by, ChangedBy::Both);
    let done = detail.fields.iter().find(|one| one.name == "done").unwrap();
    assert_eq!(done.changed_by, ChangedBy::Nobody);
    let would = |policy: &str| {
        let mut all = detail.policies.iter();
        let one = all.find(|one| one.policy == policy).unwrap();
        one.row.as_ref().and_then(|row| row.get("title")).cloned()
    };
    assert_eq!(would("server-wins"), Some(text("oat milk")));
    assert_eq!(would("client-wins"), Some(text("soy milk")));
    // The other row went through.
    ann.sync();
    assert_eq!(ann.rows(ROWS), ["1|oat milk|0", "2|bread|1"]);
}

#[test]
fn each_choice_of_a_person_reaches_everyone() {
    let fields =
        |choice: FieldChoice| Choice::Fields(BTreeMap::from([("title".to_owned(), choice)]));
    let document = [("title", text("tea")), ("done", Value::Integer(1))];
    for (choice, row) in [
        (Choice::Mine, "1|soy milk|0"),
        (Choice::Theirs, "1|oat milk|0"),
        (fields(FieldChoice::Mine), "1|soy milk|0"),
        (fields(FieldChoice::Theirs), "1|oat milk|0"),
        (
            fields(FieldChoice::Value(text("rice milk"))),
            "1|rice milk|0",
        ),
        (Choice::Document(document.into_iter().collect()), "1|tea|1"),
        (Choice::Delete, ""),
    ] {
        let world = World::new();
        let (mut ann, mut ben) = disputed(&world);
        ben.decide(choice.clone());
        settle(&mut [&mut ben, &mut ann]);
        let rows: Vec<&str> = [row, "2|bread|1"]
            .into_iter()
            .filter(|row| !row.is_empty())
            .collect();
        assert_all(&mut [&mut ann, &mut ben], ROWS, &rows);
    }
}

#[test]
fn a_conflict_whose_remote_moves_on_is_refreshed_and_decided_on_the_newest() {
    let world = World::new();
    let (mut ann, mut ben) = disputed(&world);
    let first = ben.conflict().conflict.id;
    ann.sql("UPDATE task SET done = 7 WHERE id = '1'");
    ann.sync();
    ben.sync();
    let refreshed = ben.conflict();
    assert_eq!(refreshed.conflict.id, first, "not a second one");
    let done = refreshed
        .fields
        .iter()
        .find(|one| one.name == "done")
        .unwrap();
    assert_eq!(done.theirs, Some(Value::Integer(7)));
    // It moves on once more, unseen, before the decision is sent.
    ann.sql("UPDATE task SET title = 'almond milk' WHERE id = '1'");
    ann.sync();
    ben.decide(Choice::Fields(BTreeMap::from([(
        "title".to_owned(),
        FieldChoice::Mine,
    )])));
    ben.sync();
    let again = ben.conflict();
    let title = again.fields.iter().find(|one| one.name == "title").unwrap();
    assert_eq!(
        title.theirs,
        Some(text("almond milk")),
        "a person decides again"
    );
    ben.decide(Choice::Mine);
    settle(&mut [&mut ben, &mut ann]);
    let rows = ["1|soy milk|7", "2|bread|1"];
    assert_all(&mut [&mut ann, &mut ben], ROWS, &rows);
}

#[test]
fn a_decision_is_taken_back_until_it_is_sent() {
    let world = World::new();
    let (mut ann, mut ben) = disputed(&world);
    let id = ben.conflict().conflict.id;
    ben.alone(|sync| {
        sync.resolve_conflict_blocking(id, Choice::Theirs).unwrap();
        let twice = sync
            .resolve_conflict_blocking(id, Choice::Mine)
            .unwrap_err();
        assert!(twice.to_string().contains("already"), "{twice}");
    });
    assert_eq!(ben.row(ROWS), "1|oat milk|0");
    ben.alone(|sync| sync.undo_resolution_blocking(id).unwrap());
    assert_eq!(ben.row(ROWS), "1|soy milk|0");
    assert_eq!(ben.conflict().conflict.state, ConflictState::Open);
    ben.decide(Choice::Mine);
    settle(&mut [&mut ben, &mut ann]);
    ben.alone(|sync| {
        let late = sync.undo_resolution_blocking(id).unwrap_err();
        assert!(late.to_string().contains("too late"), "{late}");
        let nothing = sync
            .resolve_conflict_blocking(99, Choice::Mine)
            .unwrap_err();
        assert!(nothing.to_string().contains("99"), "{nothing}");
    });
    let rows = ["1|soy milk|0", "2|bread|1"];
    assert_all(&mut [&mut ann, &mut ben], ROWS, &rows);
}

#[test]
fn what_breaks_an_invariant_waits_for_a_person() {
    let rules = ConflictRules {
        merge: [("done".to_owned(), FieldRule::Counter)].into(),
        invariants: vec![Invariant {
            name: "never less than nothing".to_owned(),
            sum: vec!["done".to_owned()],
            min: Some(syncline::Bound::Number(Value::Integer(0))),
            max: None,
        }],
        ..ConflictRules::default()
    };
    let world = World::new();
    let (mut ann, mut ben) = pair(&world, &rules);
    ann.sql("UPDATE task SET done = 5 WHERE id = '1'");
    settle(&mut [&mut ann, &mut ben]);
    ann.sql("UPDATE task SET done = done - 3 WHERE id = '1'");
    ben.sql("UPDATE task SET done = done - 4 WHERE id = '1'");
    ann.sync();
    ben.sync();
    let detail = ben.conflict();
    let reason = detail.conflict.showed.reason.clone().unwrap();
    assert!(reason.contains("never less than nothing"), "{reason}");
    let id = detail.conflict.id;
    let done = |value| {
        let value = FieldChoice::Value(Value::Integer(value));
        Choice::Fields(BTreeMap::from([("done".to_owned(), value)]))
    };
    ben.alone(|sync| {
        let broken = sync.resolve_conflict_blocking(id, done(-1)).unwrap_err();
        let told = broken.to_string();
        assert!(told.contains("never less than nothing"), "{told}");
        sync.resolve_conflict_blocking(id, done(0)).unwrap();
    });
    settle(&mut [&mut ben, &mut ann]);
    let rows = ["1|milk|0", "2|bread|0"];
    assert_all(&mut [&mut ann, &mut ben], ROWS, &rows);
}

const ROOM: &str = "CREATE TABLE room (id TEXT PRIMARY KEY NOT NULL, name TEXT UNIQUE)";

const ROOMS: &str = "SELECT id, name FROM room ORDER BY id";

/// Both made a blue room, and one name is for one room only.
fn two_blue_rooms(world: &World) -> (Device, Device) {
    let (mut ann, mut ben) = (
        world.device("ann", ROOM, |builder| builder),
        world.device("ben", ROOM, |builder| builder),
    );
    settle(&mut [&mut ann, &mut ben]);
    ann.sql("INSERT INTO room VALUES ('a', 'blue')");
    ben.sql("INSERT INTO room VALUES ('b', 'blue'), ('c', 'green')");
    ann.sync();
    ben.sync();
    (ann, ben)
}

#[test]
fn of_two_offline_creates_with_one_unique_value_the_second_waits_for_a_person() {
    let world = World::with_server("[types.room]\nunique = [['name']]");
    let (mut ann, mut ben) = two_blue_rooms(&world);
    let detail = ben.conflict();
    assert_eq!(detail.conflict.showed.side, Side::Violation);
    assert_eq!(detail.conflict.entity_id, "b");
    let constraint = detail.conflict.showed.constraint.clone().unwrap();
    assert!(constraint.contains("room.name"), "{constraint}");
    let name = FieldChoice::Value(text("blue two"));
    ben.decide(Choice::Fields(BTreeMap::from([("name".to_owned(), name)])));
    let rows = ["a|blue", "b|blue two", "c|green"];
    assert_eq!(ben.rows(ROOMS), rows, "what had waited is there at once");
    settle(&mut [&mut ben, &mut ann]);
    assert_all(&mut [&mut ann, &mut ben], ROOMS, &rows);
}

/// A server that was told nothing takes both; each device is told what has no place there.
#[test]
fn where_the_server_takes_both_an_ordinary_edit_makes_room() {
    let world = World::new();
    let (mut ann, mut ben) = two_blue_rooms(&world);
    ann.sync();
    let other = |detail: &syncline::ConflictDetails| {
        let other = detail.conflict.showed.other.clone();
        (
            detail.conflict.entity_id.clone(),
            other.map(|other| other.entity_id),
        )
    };
    assert_eq!(
        other(&ben.conflict()),
        ("a".to_owned(), Some("b".to_owned()))
    );
    assert_eq!(
        other(&ann.conflict()),
        ("b".to_owned(), Some("a".to_owned()))
    );
    ben.sql("UPDATE room SET name = 'blue two' WHERE id = 'b'");
    settle(&mut [&mut ben, &mut ann]);
    let rows = ["a|blue", "b|blue two", "c|green"];
    assert_all(&mut [&mut ann, &mut ben], ROOMS, &rows);
}
