//! What is claimed at the end comes from the files: a story cut short keeps few promises, and a
//! row corrupted in one file is never called converged.

use super::*;
use crate::demo::outcome::Outcome;
use crate::demo::rows::Difference;
use crate::demo::summary;
use crate::demo::teller::Voice;
use rusqlite::Connection;

#[test]
fn a_row_corrupted_in_one_file_is_not_converged() {
    let folder = tempfile::tempdir().unwrap();
    let teller = Teller::new(Voice::Silent);
    let mut story = Story::begin(folder.path(), &teller).unwrap();
    story.create_offline().unwrap();
    story.sync_first().unwrap();
    story.laptop.stop();
    story.phone.stop();
    let outcome = Outcome::measure(&story).unwrap();
    assert!(outcome.converged);
    assert!(!outcome.all_kept(), "most of the story did not happen");

    // Without its capture trigger the row changes behind the engine's back.
    let intruder = Connection::open(&story.phone.path).unwrap();
    let triggers: Vec<String> = intruder
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(!triggers.is_empty());
    for trigger in triggers {
        let drop = format!("DROP TRIGGER \"{trigger}\"");
        intruder.execute_batch(&drop).unwrap();
    }
    intruder
        .execute_batch("UPDATE task SET priority = 1 WHERE id = 'bulbs'")
        .unwrap();
    let outcome = Outcome::measure(&story).unwrap();
    assert!(!outcome.converged);
    let json = outcome.json(Duration::from_secs(1), None);
    assert_eq!(json["converged"], false);
    let [laptop, phone] = &outcome.devices;
    assert!(laptop.agrees());
    let [Difference { name, refused, .. }] = phone.differences.as_slice() else {
        panic!("one row differs, not {:?}", phone.differences);
    };
    assert_eq!((name, *refused), (&Name::task("bulbs"), false));
    let text = summary::write(&outcome, Duration::from_secs(1), None);
    assert!(text.contains("priority 1 (DIFFERS)"), "{text}");
    assert!(text.contains("NOT converged"), "{text}");
    story.end();
}
