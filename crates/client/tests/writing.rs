//! Writes through the handle: what is said of them, and what is refused.
#![allow(clippy::unwrap_used)] // helpers of tests

use rusqlite::Connection;
use syncline::protocol::Command;
use syncline::{Error, Grouping, Lane, Settings, Syncline, Which, WriteOptions};

struct Home {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    sync: Syncline,
}

fn home(settings: Settings) -> Home {
    home_of(
        "CREATE TABLE task (id INTEGER PRIMARY KEY, title TEXT)",
        settings,
    )
}

fn home_of(schema: &str, settings: Settings) -> Home {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let app = Connection::open(&path).unwrap();
    app.execute_batch(schema).unwrap();
    let builder = Syncline::builder(&path)
        .remote("http://127.0.0.1:1")
        .attach(["task"]);
    let sync = builder.settings(settings).open().unwrap();
    Home {
        _folder: folder,
        path,
        sync,
    }
}

impl Home {
    fn insert(&self, options: &WriteOptions, titles: &[String]) -> Result<Vec<String>, Error> {
        let recorded = self.sync.write_with(options, |tx| {
            for title in titles {
                tx.execute("INSERT INTO task (title) VALUES (?1)", [title])?;
            }
            Ok::<_, Error>(())
        })?;
        Ok(recorded
            .mutations
            .iter()
            .map(|one| one.as_str().to_owned())
            .collect())
    }

    fn text(&self, sql: &str) -> String {
        let app = Connection::open(&self.path).unwrap();
        app.query_row(sql, [], |row| row.get::<_, Option<String>>(0))
            .unwrap()
            .unwrap_or_default()
    }
}

#[test]
fn what_is_said_of_a_write_stands_in_its_entries() {
    let home = home(Settings::default());
    let first = home
        .insert(&WriteOptions::default(), &["a".to_owned()])
        .unwrap();
    let options = WriteOptions {
        lane: Some(Lane::Urgent),
        grouping: Grouping::Together,
        depends_on: vec![first[0].as_str().into()],
        command: None,
    };
    let second = home
        .insert(&options, &["b".to_owned(), "c".to_owned()])
        .unwrap();
    assert_eq!(second.len(), 2);
    let command = WriteOptions {
        command: Some(Command {
            name: "ship".to_owned(),
            args: Default::default(),
        }),
        ..WriteOptions::default()
    };
    home.insert(&command, &["d".to_owned()]).unwrap();
    let told = "SELECT group_concat(seq || ':' || ifnull(lane, '-') || (group_id IS NOT NULL) || ifnull(depends_on, '') || ifnull(command, ''), ' ')
                  FROM (SELECT * FROM syncline_outbox ORDER BY seq)";
    let depends = format!("[\"{}\"]", first[0]);
    assert_eq!(
        home.text(told),
        format!("1:-0 2:01{depends} 3:01{depends} 4:-0{{\"name\":\"ship\"}}")
    );
    assert_eq!(
        home.text("SELECT CAST(count(DISTINCT group_id) AS TEXT) FROM syncline_outbox"),
        "1"
    );
    // A command is of one entity.
    let two = home.insert(&command, &["e".to_owned(), "f".to_owned()]);
    assert!(matches!(two, Err(Error::NotOneEntity(2))), "{two:?}");
    assert_eq!(home.text("SELECT CAST(count(*) AS TEXT) FROM task"), "4");
}

#[test]
fn what_the_server_would_never_take_is_refused_when_written() {
    let home = home(Settings::default());
    let large = vec!["x".repeat(2_000)];
    home.insert(&WriteOptions::default(), &large).unwrap();
    // As the server's greeting leaves it.
    let limits = r#"{"push_mutations":3,"push_bytes":8000,"mutation_bytes":1000,"page_changes":9}"#;
    let app = Connection::open(&home.path).unwrap();
    app.execute("INSERT INTO syncline_meta VALUES ('limits', ?1)", [limits])
        .unwrap();
    let refused = home.insert(&WriteOptions::default(), &large).unwrap_err();
    assert!(
        refused.to_string().contains("the server takes 1000"),
        "{refused}"
    );
    let together = WriteOptions {
        grouping: Grouping::Together,
        ..WriteOptions::default()
    };
    let four: Vec<String> = (0..4).map(|n| n.to_string()).collect();
    assert!(matches!(
        home.insert(&together, &four),
        Err(Error::TooLarge(_))
    ));
    home.insert(&WriteOptions::default(), &four).unwrap();
    home.insert(&together, &four[..3]).unwrap();
    // Plain SQL is never broken.
    app.execute("INSERT INTO task (title) VALUES (?1)", [&large[0]])
        .unwrap();
}

/// A1: the whole write is taken back, and what is wrong with it is told.
#[test]
fn what_no_server_could_ever_take_is_refused_when_written() {
    let schema = "CREATE TABLE task (id BLOB PRIMARY KEY, title TEXT)";
    let home = home_of(schema, Settings::default());
    let counts = "SELECT (SELECT count(*) FROM task) || ' rows, ' ||
                         (SELECT count(*) FROM syncline_outbox) || ' entries'";
    for (row, why) in [
        ("'a', 'x' || char(0)", "title: text contains U+0000"),
        ("'a', CAST(x'ff' AS TEXT)", "title: text is not valid UTF-8"),
        ("NULL, 'x'", "the key is NULL"),
        ("1.5, 'x'", "the key is a floating-point number"),
        (
            "'a' || char(0), 'x'",
            "the id contains the control character U+0000",
        ),
        ("CAST(x'ff' AS TEXT), 'x'", "text is not valid UTF-8"),
    ] {
        let refused = home.sync.write(|tx| {
            tx.execute_batch("INSERT INTO task VALUES ('good', 'fine')")?;
            tx.execute_batch(&format!("INSERT INTO task VALUES ({row})"))?;
            Ok::<_, Error>(())
        });
        let told = matches!(&refused, Err(Error::Unsyncable(told)) if told.starts_with(why));
        assert!(told, "{row}: {refused:?}");
        assert_eq!(home.text(counts), "0 rows, 0 entries", "{row}");
    }
    let good = "INSERT INTO task VALUES ('good', 'fine')";
    let taken = home
        .sync
        .write(|tx| Ok::<_, Error>(tx.execute_batch(good)?));
    taken.unwrap();
    assert_eq!(home.text(counts), "1 rows, 1 entries");
}

#[test]
fn a_full_outbox_pushes_back() {
    let mut settings = Settings::default();
    settings.set("outbox_rows", 3).unwrap();
    let home = home(settings);
    let titles: Vec<String> = (0..3).map(|n| n.to_string()).collect();
    home.insert(&WriteOptions::default(), &titles).unwrap();
    let full = home.insert(&WriteOptions::default(), &titles[..1]);
    assert!(
        matches!(full, Err(Error::OutboxFull { rows: 4 })),
        "{full:?}"
    );
    let app = Connection::open(&home.path).unwrap();
    app.execute("INSERT INTO task (title) VALUES ('by plain SQL')", [])
        .unwrap();
    assert_eq!(
        home.text("SELECT CAST(count(*) AS TEXT) FROM syncline_outbox"),
        "4"
    );
}

#[test]
fn what_waits_can_be_listed_looked_at_and_exported_whatever_happens_meanwhile() {
    let home = home(Settings::default());
    let titles = ["a", "b", "c"].map(str::to_owned);
    let recorded = home.insert(&WriteOptions::default(), &titles).unwrap();
    let (first, all) = home.sync.outbox(Which::All, 1).unwrap();
    assert_eq!((first.len(), all), (1, 3));
    assert_eq!(first[0].mutation, recorded[0]);
    let detail = home.sync.outbox_entry(first[0].seq).unwrap();
    assert_eq!(detail.payload.unwrap().get("title"), Some(&"a".into()));
    assert!(home.sync.outbox_entry(99).is_err());
    let mut exported = Vec::new();
    let count = home.sync.export_outbox(Which::All, |entry| {
        exported.push(entry.entry.mutation.clone());
        // As if the engine settled the rest while the first is written somewhere.
        if exported.len() == 1 {
            home.text("DELETE FROM syncline_outbox RETURNING 'gone'");
        }
        Ok::<_, Error>(())
    });
    assert_eq!((count.unwrap(), exported), (3, recorded));
    let (_, left) = home.sync.outbox(Which::DeadLetters, 9).unwrap();
    assert_eq!(left, 0);
}
