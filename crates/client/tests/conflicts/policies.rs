//! What is decided by rule, as declared in code and in `syncline.toml`.

use crate::harness::{Device, World, assert_all, settle};
use std::sync::atomic::{AtomicU64, Ordering};
use syncline::protocol::Value;
use syncline::{
    Builder, ConfigFile, ConflictFilter, ConflictInput, ConflictRules, DeleteRule, FieldRule,
    Notice, Policy, Resolution, Settings, Syncline, Timestamp,
};

const TASK: &str = "CREATE TABLE task (
    id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER, note TEXT, at INTEGER)";

const ROWS: &str = "SELECT id, title, done, note FROM task ORDER BY id";

/// Ann and Ben with the same task, and rules for it.
fn pair(world: &World, rules: &ConflictRules) -> (Device, Device) {
    let device = |name: &str| {
        let rules = rules.clone();
        world.device(name, TASK, move |builder| {
            builder.conflict_rules("task", rules.clone())
        })
    };
    let (mut ann, mut ben) = (device("ann"), device("ben"));
    ann.sql("INSERT INTO task VALUES ('1', 'milk', 0, 'fresh', 10)");
    settle(&mut [&mut ann, &mut ben]);
    (ann, ben)
}

/// Ann's edits reach the server first.
fn meet(ann: &mut Device, ben: &mut Device) {
    ann.sync();
    settle(&mut [ben, ann]);
}

#[test]
fn each_policy_decides_what_both_wrote() {
    for (policy, row) in [
        (Policy::FieldMerge, "1|soy milk|1|cold"),
        (Policy::ServerWins, "1|oat milk|0|cold"),
        (Policy::ClientWins, "1|soy milk|1|fresh"),
        (Policy::LastWriterWins, "1|soy milk|1|fresh"),
    ] {
        let world = World::new();
        let (mut ann, mut ben) = pair(&world, &policy.into());
        ann.sql("UPDATE task SET title = 'oat milk', note = 'cold', at = 20");
        ben.sql("UPDATE task SET title = 'soy milk', done = 1, at = 21");
        meet(&mut ann, &mut ben);
        assert_all(&mut [&mut ann, &mut ben], ROWS, &[row]);
        let records = ben.alone(|sync| sync.conflicts(&ConflictFilter::default()).unwrap());
        let [record] = records.as_slice() else {
            panic!("{policy}: {records:#?}");
        };
        assert_eq!(record.resolution.as_deref(), Some(policy.as_str()));
        let told = |notice: &Notice| matches!(notice, Notice::ConflictResolved { .. });
        assert!(ben.notices.iter().any(told), "{policy}: {:?}", ben.notices);
    }
}

#[test]
fn the_later_of_two_rows_is_the_one_that_says_so() {
    let rules = ConflictRules {
        timestamp: Some(Timestamp {
            field: "at".to_owned(),
            unit: Default::default(),
        }),
        ..ConflictRules::from(Policy::LastWriterWins)
    };
    for (ann_at, row) in [(30, "1|oat milk|0|fresh"), (20, "1|soy milk|1|fresh")] {
        let world = World::new();
        let (mut ann, mut ben) = pair(&world, &rules);
        ann.sql(&format!(
            "UPDATE task SET title = 'oat milk', at = {ann_at}"
        ));
        ben.sql("UPDATE task SET title = 'soy milk', done = 1, at = 25");
        meet(&mut ann, &mut ben);
        assert_all(&mut [&mut ann, &mut ben], ROWS, &[row]);
    }
}

#[test]
fn a_delete_against_an_edit_goes_by_its_rule_in_both_directions() {
    for (rule, ends) in [
        (DeleteRule::DeleteWins, [&[] as &[&str], &[]]),
        (
            DeleteRule::EditWins,
            [&["1|oat milk|0|fresh"], &["1|oat milk|0|fresh"]],
        ),
    ] {
        let mut rules = ConflictRules::default();
        rules.deletes.here = Some(rule);
        rules.deletes.there = Some(rule);
        let (edit, delete) = ("UPDATE task SET title = 'oat milk'", "DELETE FROM task");
        for ((first, second), rows) in [(edit, delete), (delete, edit)].iter().zip(ends) {
            let world = World::new();
            let (mut ann, mut ben) = pair(&world, &rules);
            ann.sql(first);
            ben.sql(second);
            meet(&mut ann, &mut ben);
            assert_all(&mut [&mut ann, &mut ben], ROWS, rows);
        }
    }
}

/// Everything that a field can have, in the words of the file.
#[test]
fn a_file_says_field_by_field_how_both_edits_become_one() {
    let schema =
        "CREATE TABLE item (id INTEGER PRIMARY KEY, title TEXT, stock INTEGER, best INTEGER,
                      worst INTEGER, tags TEXT, notes TEXT, line TEXT)";
    let config = "
        [types.item]
        [types.item.merge]
        title = 'theirs'
        stock = 'counter'
        best = 'max'
        worst = 'min'
        tags = 'set'
        notes = 'text'
        line = 'text-words'";
    let world = World::new();
    let device = |name: &str| {
        world.device(name, schema, |builder| {
            let read = ConfigFile::parse(config, "syncline.toml").unwrap();
            builder.with_config(read)
        })
    };
    let (mut ann, mut ben) = (device("ann"), device("ben"));
    ann.sql(
        "INSERT INTO item VALUES (1, 'nail', 10, 5, 5, '[\"a\",\"b\"]',
             'one' || char(10) || 'two' || char(10) || 'three', 'the old red barn')",
    );
    settle(&mut [&mut ann, &mut ben]);
    ann.sql(
        "UPDATE item SET title = 'screw', stock = stock + 4, best = 8, worst = 4, tags = '[\"a\",\"b\",\"c\"]',
             notes = 'ONE' || char(10) || 'two' || char(10) || 'three', line = 'the new red barn'",
    );
    ben.sql(
        "UPDATE item SET title = 'bolt', stock = stock - 3, best = 7, worst = 3, tags = '[\"b\",\"d\"]',
             notes = 'one' || char(10) || 'two' || char(10) || 'THREE', line = 'the old red house'",
    );
    meet(&mut ann, &mut ben);
    let rows = "SELECT title, stock, best, worst, replace(notes, char(10), '/'), line FROM item";
    let row = "screw|11|8|3|ONE/two/THREE|the new red house";
    assert_all(&mut [&mut ann, &mut ben], rows, &[row]);
    let tags = "SELECT value FROM item, json_each(tags) ORDER BY value";
    assert_all(&mut [&mut ann, &mut ben], tags, &["b", "c", "d"]);
}

#[test]
fn the_same_thing_created_twice_becomes_one_with_everything_that_refers_to_it() {
    let schema = "CREATE TABLE tag (id TEXT PRIMARY KEY NOT NULL, word TEXT UNIQUE, colour TEXT);
        CREATE TABLE page (id TEXT PRIMARY KEY NOT NULL, tag TEXT REFERENCES tag (id))";
    let world = World::new();
    let device = |name: &str| {
        world.device(name, schema, |builder| {
            let rules = ConflictRules {
                natural_key: ["word".to_owned()].into(),
                ..ConflictRules::default()
            };
            builder.conflict_rules("tag", rules)
        })
    };
    let (mut ann, mut ben) = (device("ann"), device("ben"));
    settle(&mut [&mut ann, &mut ben]);
    ann.sql("INSERT INTO tag VALUES ('a', 'urgent', 'red'); INSERT INTO page VALUES ('p', 'a')");
    ben.sql("INSERT INTO tag VALUES ('b', 'urgent', 'red'); INSERT INTO page VALUES ('q', 'b')");
    meet(&mut ann, &mut ben);
    let both = &mut [&mut ann, &mut ben];
    assert_all(both, "SELECT id, word, colour FROM tag", &["a|urgent|red"]);
    assert_all(
        both,
        "SELECT id, tag FROM page ORDER BY id",
        &["p|a", "q|a"],
    );
    let told = |notice: &Notice| matches!(notice, Notice::IdChanged { old, new, .. } if old.as_str() == "b" && new.as_str() == "a");
    assert!(ben.notices.iter().any(told), "{:?}", ben.notices);
}

/// The longer title stands; an app can say so in a closure.
fn longer(input: &syncline::ConflictInput<'_>) -> Resolution {
    let length = |fields: Option<&syncline::protocol::Fields>| match fields
        .and_then(|fields| fields.get("title"))
    {
        Some(Value::Text(text)) => text.len(),
        _ => 0,
    };
    match length(input.local) > length(input.remote) {
        true => Resolution::ClientWins,
        false => Resolution::ServerWins,
    }
}

/// Resolvers get a minute: printing a panic alone can take longer than they have by default.
fn patient(builder: Builder) -> Builder {
    let mut settings = Settings::default();
    settings.set("resolver_deadline_ms", 60_000).unwrap();
    builder.settings(settings)
}

#[test]
fn a_closure_decides() {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let world = World::new();
    let device = |name: &str| {
        world.device(name, TASK, |builder| {
            patient(builder).resolve_with("task", "longer-title", |input| {
                ASKED.fetch_add(1, Ordering::Relaxed);
                longer(input)
            })
        })
    };
    let (mut ann, mut ben) = (device("ann"), device("ben"));
    ann.sql("INSERT INTO task VALUES ('1', 'milk', 0, 'fresh', 10)");
    settle(&mut [&mut ann, &mut ben]);
    ann.sql("UPDATE task SET title = 'buttermilk'");
    ben.sql("UPDATE task SET title = 'oat milk', done = 1");
    meet(&mut ann, &mut ben);
    let row = ["1|buttermilk|0|fresh"];
    assert_all(&mut [&mut ann, &mut ben], ROWS, &row);
    assert!(ASKED.load(Ordering::Relaxed) > 0);
    let records = ben.alone(|sync| sync.conflicts(&ConflictFilter::default()).unwrap());
    assert_eq!(records[0].resolution.as_deref(), Some("longer-title"));
}

#[test]
fn a_resolver_that_panics_leaves_the_conflict_to_a_person() {
    let world = World::new();
    let device = |name: &str| {
        world.device(name, TASK, |builder| {
            let hasty = |_: &ConflictInput<'_>| panic!("not thought of");
            patient(builder).resolve_with("task", "hasty", hasty)
        })
    };
    let (mut ann, mut ben) = (device("ann"), device("ben"));
    ann.sql("INSERT INTO task VALUES ('1', 'milk', 0, 'fresh', 10)");
    settle(&mut [&mut ann, &mut ben]);
    ann.sql("UPDATE task SET title = 'buttermilk'");
    ben.sql("UPDATE task SET title = 'oat milk'");
    meet(&mut ann, &mut ben);
    let reason = ben.conflict().conflict.showed.reason.unwrap();
    assert!(reason.contains("not thought of"), "{reason}");
    ben.decide(syncline::Choice::Mine);
    settle(&mut [&mut ben, &mut ann]);
    assert_all(&mut [&mut ann, &mut ben], ROWS, &["1|oat milk|0|fresh"]);
}

/// Rules alone leave everything else as it was declared, and need no address.
#[test]
fn rules_are_taken_over_by_a_table_attached_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = rusqlite::Connection::open(&path).unwrap();
    app.execute_batch(TASK).unwrap();
    let config = "remote.url = 'http://127.0.0.1:1'
        [types.todo]
        table = 'task'
        leave_out = ['note']
        fields = { title = 'name' }";
    let first = ConfigFile::parse(config, "syncline.toml").unwrap();
    let state = folder.path().join("state");
    let builder = || Syncline::builder(&path).state_dir(&state);
    builder().with_config(first).attach_only().unwrap();
    let declared = || -> (String, String, String) {
        let sql = "SELECT name, conflict_rules, options FROM syncline_entity_type";
        let row = app.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        row.unwrap()
    };
    let (_, _, options) = declared();
    let merging = |column: &str| ConflictRules {
        merge: [(column.to_owned(), FieldRule::Theirs)].into(),
        ..ConflictRules::default()
    };
    let report = builder().conflict_rules("TASK", merging("title"));
    assert_eq!(report.attach_only().unwrap().updated, ["task"]);
    let rules = r#"{"merge":{"name":"theirs"}}"#.to_owned();
    assert_eq!(declared(), ("todo".to_owned(), rules, options));
    for (column, told) in [("titel", "no synced column"), ("note", "no synced column")] {
        let refused = builder()
            .conflict_rules("task", merging(column))
            .attach_only();
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains(told) && message.contains(column),
            "{message}"
        );
    }
}
