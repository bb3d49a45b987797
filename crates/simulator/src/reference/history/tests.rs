//! Histories made by hand: each thing that must not be is found, and what may be is not taken for it.
#![allow(clippy::unwrap_used)] // helpers of tests

use super::*;
use serde_json::json;

const SETS: Declared = Declared {
    sets: true,
    documents: false,
};

/// One note, two devices, a server.
struct Told {
    history: History,
    open: BTreeSet<Name>,
    may_lack: bool,
}

fn name() -> Name {
    ("note".to_owned(), "n".to_owned())
}

fn row() -> Row {
    ("note", "n".to_owned())
}

fn state(title: &str, tags: &[&str]) -> Fields {
    let tags = serde_json::to_string(tags).unwrap();
    let state = json!({"title": title, "tags": tags});
    state.as_object().cloned().unwrap()
}

impl Told {
    /// Device 0 made the note with the title `a`, and device 1 has it.
    fn begin(declared: Declared) -> Self {
        let mut told = Self {
            history: History::new(declared),
            open: BTreeSet::new(),
            may_lack: false,
        };
        told.commit(0, |draft| {
            draft.create(row(), None);
            draft.write(row(), None, "a".to_owned());
        });
        told.does(0, 1, Some(state("a", &[]))).unwrap();
        told.sees(0, Some(state("a", &[]))).unwrap();
        told.sees(1, Some(state("a", &[]))).unwrap();
        told
    }

    fn commit(&mut self, device: usize, write: impl FnOnce(&mut Draft)) {
        let mut draft = Draft::default();
        write(&mut draft);
        self.history.wrote(device, &draft);
    }

    fn title(&mut self, device: usize, seen: &str, title: &str) {
        self.commit(device, |draft| {
            draft.write(row(), Some(seen.to_owned()), title.to_owned());
        });
    }

    fn tag(&mut self, device: usize, element: &str) {
        self.commit(device, |draft| draft.tag(row(), element.to_owned()));
    }

    fn untag(&mut self, device: usize, element: &str) {
        self.commit(device, |draft| draft.untag(row(), element.to_owned()));
    }

    /// The server does something for a device.
    fn does(&mut self, device: usize, position: i64, fields: Option<Fields>) -> Check {
        let state = (position, fields.as_ref());
        self.history
            .effect(device, (&name(), true), state, |_| false)
    }

    /// What of the device's own does not stand.
    fn looks(
        &mut self,
        device: usize,
        fields: Option<Fields>,
    ) -> Result<Vec<(Name, String)>, Broken> {
        let may_lack = self.may_lack;
        let shown = Shown {
            rows: fields.iter().map(|fields| (name(), fields)).collect(),
            open: Some(&self.open),
            same: &|_, here, there| here == there,
            may_lack: &|_| may_lack,
        };
        self.history.look(device, &shown)
    }

    fn sees(&mut self, device: usize, fields: Option<Fields>) -> Check {
        self.looks(device, fields).map(|_| ())
    }

    /// The note is dirty: the device shows something of its own.
    fn sees_pending(&mut self, device: usize, fields: Option<Fields>) -> Check {
        self.open.insert(name());
        let seen = self.sees(device, fields);
        self.open.clear();
        seen
    }

    fn ends(&self, fields: &Fields, waits: Option<usize>) -> Check {
        let alive = [(name(), fields.clone())];
        let alive = alive.iter().map(|(name, fields)| (name, fields));
        (self.history).nothing_lost(alive, |_| self.may_lack, |_| waits)
    }
}

fn found(check: Check, words: &str) {
    let broken = check.expect_err("nothing was found");
    assert_eq!(broken.invariant, HISTORIES);
    assert!(broken.detail.contains(words), "{}", broken.detail);
}

#[test]
fn what_nobody_wrote_is_not_read() {
    let mut told = Told::begin(SETS);
    found(told.sees(1, Some(state("x", &[]))), "nobody wrote it");
    found(told.does(0, 2, Some(state("x", &[]))), "nobody wrote it");
    found(told.does(0, 2, Some(state("a", &["x"]))), "nobody wrote it");
}

#[test]
fn what_was_rolled_back_is_not_read() {
    let mut told = Told::begin(SETS);
    let mut draft = Draft::default();
    draft.write(row(), Some("a".to_owned()), "b".to_owned());
    told.history.undid(&draft);
    found(told.sees_pending(0, Some(state("b", &[]))), "rolled back");
}

#[test]
fn what_stands_in_another_row_is_not_read_in_this_one() {
    let mut told = Told::begin(SETS);
    told.commit(0, |draft| {
        draft.write(("note", "other".to_owned()), None, "b".to_owned());
    });
    found(told.sees(0, Some(state("b", &[]))), "was written into");
}

#[test]
fn a_restored_server_may_give_an_assigned_id_to_another_row() {
    let mut told = Told::begin(SETS);
    told.commit(0, |draft| {
        draft.write(("task", "one".to_owned()), None, "b".to_owned());
    });
    let other = json!({"made": "two", "name": "b"});
    let task = ("task".to_owned(), "1".to_owned());
    let does = |history: &mut History| {
        let state = (2, other.as_object());
        history.effect(0, (&task, true), state, |_| false)
    };
    found(does(&mut told.history), "was written into");
    told.history.begins(std::iter::empty());
    does(&mut told.history).unwrap();
}

#[test]
fn what_has_not_reached_the_server_is_read_where_it_was_written_only() {
    let mut told = Told::begin(SETS);
    told.title(0, "a", "b");
    told.sees_pending(0, Some(state("b", &[]))).unwrap();
    found(
        told.sees_pending(1, Some(state("b", &[]))),
        "of which the server has nothing",
    );
    // A copy of the file has it as well.
    told.history.copied(0, 2);
    told.sees_pending(2, Some(state("b", &[]))).unwrap();
}

#[test]
fn a_device_does_not_go_back_to_what_it_has_seen_before() {
    let mut told = Told::begin(SETS);
    told.title(0, "a", "b");
    told.does(0, 2, Some(state("b", &[]))).unwrap();
    told.sees(1, Some(state("a", &[]))).unwrap();
    told.sees(1, Some(state("b", &[]))).unwrap();
    found(told.sees(1, Some(state("a", &[]))), "after it showed");
}

#[test]
fn an_older_file_may_show_what_it_had() {
    let mut told = Told::begin(SETS);
    told.title(0, "a", "b");
    told.does(0, 2, Some(state("b", &[]))).unwrap();
    told.sees(1, Some(state("b", &[]))).unwrap();
    told.history.file_replaced(1);
    told.sees(1, Some(state("a", &[]))).unwrap();
}

#[test]
fn a_row_that_was_deleted_does_not_show_again() {
    let mut told = Told::begin(SETS);
    told.commit(0, |draft| draft.delete(row(), ["a".to_owned()]));
    told.does(0, 2, None).unwrap();
    told.sees(1, None).unwrap();
    found(told.sees(1, Some(state("a", &[]))), "after it showed");
}

#[test]
fn what_a_device_got_through_shows_once_nothing_is_pending() {
    let mut told = Told::begin(SETS);
    told.title(0, "a", "b");
    told.does(0, 2, Some(state("b", &[]))).unwrap();
    found(told.sees(0, Some(state("a", &[]))), "its own request had");
}

#[test]
fn at_the_head_everything_shows() {
    let mut told = Told::begin(SETS);
    told.title(0, "a", "b");
    told.does(0, 2, Some(state("b", &[]))).unwrap();
    told.title(0, "b", "c");
    told.does(0, 3, Some(state("c", &[]))).unwrap();
    // Of what came later it may know, or not.
    told.history.told_head(1, 2);
    told.sees(1, Some(state("b", &[]))).unwrap();
    told.sees(1, Some(state("c", &[]))).unwrap();
    let mut told = Told::begin(SETS);
    told.title(0, "a", "b");
    told.does(0, 2, Some(state("b", &[]))).unwrap();
    told.history.told_head(1, 2);
    found(
        told.sees(1, Some(state("a", &[]))),
        "it was told that it has everything",
    );
}

#[test]
fn a_state_that_the_server_never_left_shows_only_while_something_is_pending() {
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    told.title(0, "a", "b");
    told.does(0, 2, Some(state("b", &["t1"]))).unwrap();
    let torn = state("b", &[]);
    found(told.sees(1, Some(torn)), "the server never left it so");
}

#[test]
fn a_new_history_of_the_server_may_begin_with_less() {
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    told.does(0, 2, Some(state("a", &["t1"]))).unwrap();
    told.sees(1, Some(state("a", &["t1"]))).unwrap();
    let restored = state("a", &[]);
    let of_it = [(name(), restored.clone())];
    let rows = of_it.iter().map(|(name, fields)| (name, 1, Some(fields)));
    told.history.begins(rows);
    told.sees(1, Some(restored)).unwrap();
    // What has not reached any server stands all the same.
    told.tag(1, "t2");
    told.sees_pending(1, Some(state("a", &["t2"]))).unwrap();
    found(
        told.sees_pending(1, Some(state("a", &[]))),
        "before it has reached the server",
    );
}

#[test]
fn an_element_that_was_seen_stays_until_somebody_takes_it_out() {
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    told.does(0, 2, Some(state("a", &["t1"]))).unwrap();
    told.sees(1, Some(state("a", &["t1"]))).unwrap();
    told.untag(0, "t1");
    told.sees_pending(1, Some(state("a", &[]))).unwrap();
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    told.does(0, 2, Some(state("a", &["t1"]))).unwrap();
    told.sees(1, Some(state("a", &["t1"]))).unwrap();
    let gone = Some(state("a", &[]));
    found(told.sees_pending(1, gone.clone()), "nobody took it out");
    // Where nobody promises that sets are merged, or the row was given up, nothing is promised.
    told.may_lack = true;
    told.sees(1, Some(state("a", &["t1"]))).unwrap();
    told.sees_pending(1, gone.clone()).unwrap();
    let mut told = Told::begin(Declared::default());
    told.tag(0, "t1");
    told.sees_pending(0, Some(state("a", &["t1"]))).unwrap();
    told.sees_pending(0, gone).unwrap();
}

#[test]
fn an_element_does_not_vanish_before_it_was_sent() {
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    found(
        told.sees_pending(0, Some(state("a", &[]))),
        "before it has reached the server",
    );
}

#[test]
fn a_value_that_vanishes_before_it_was_sent_is_handed_back() {
    let mut told = Told::begin(SETS);
    told.title(0, "a", "b");
    told.open.insert(name());
    let gone = told.looks(0, Some(state("a", &[]))).unwrap();
    assert_eq!(gone, [(name(), "b".to_owned())]);
    // Once only; and not what its own app has written over.
    assert_eq!(told.looks(0, Some(state("a", &[]))).unwrap(), []);
    told.title(0, "a", "c");
    told.title(0, "c", "d");
    assert_eq!(told.looks(0, Some(state("d", &[]))).unwrap(), []);
}

#[test]
fn the_server_loses_no_element() {
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    told.does(0, 2, Some(state("a", &["t1"]))).unwrap();
    found(told.does(1, 3, Some(state("a", &[]))), "t1 is lost");
    told.untag(0, "t1");
    // It was taken out on the other device, which has not said so yet.
    found(told.does(1, 3, Some(state("a", &[]))), "t1 is lost");
    told.does(0, 3, Some(state("a", &[]))).unwrap();
    found(
        told.does(1, 4, Some(state("a", &["t1"]))),
        "after it was taken out",
    );
}

#[test]
fn elements_keep_their_order() {
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    told.does(0, 2, Some(state("a", &["t1"]))).unwrap();
    told.tag(1, "t2");
    found(
        told.does(1, 3, Some(state("a", &["t2", "t1"]))),
        "change places",
    );
    told.does(1, 3, Some(state("a", &["t1", "t2"]))).unwrap();
}

#[test]
fn a_value_that_was_written_over_does_not_come_back() {
    let mut told = Told::begin(SETS);
    told.title(1, "a", "b");
    told.does(1, 2, Some(state("b", &[]))).unwrap();
    found(told.does(0, 3, Some(state("a", &[]))), "again at 3");
    // Unless the row was made anew meanwhile, or whole rows stand.
    told.does(0, 3, None).unwrap();
    told.does(0, 4, Some(state("a", &[]))).unwrap();
    let documents = Declared {
        documents: true,
        ..SETS
    };
    let mut told = Told::begin(documents);
    told.title(1, "a", "b");
    told.does(1, 2, Some(state("b", &[]))).unwrap();
    told.does(0, 3, Some(state("a", &[]))).unwrap();
}

#[test]
fn what_is_lost_is_told_from_what_is_not_visible_yet() {
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    let without = state("a", &[]);
    found(told.ends(&without, Some(0)), "not yet visible: device 0");
    found(told.ends(&without, None), "never reached the server");
    told.does(0, 2, Some(state("a", &["t1"]))).unwrap();
    told.sees(1, Some(state("a", &["t1"]))).unwrap();
    found(told.ends(&without, None), "lost: it was there at 2");
    told.ends(&state("a", &["t1"]), None).unwrap();
    told.untag(1, "t1");
    told.ends(&without, None).unwrap();
    let mut told = Told::begin(SETS);
    told.tag(0, "t1");
    told.may_lack = true;
    told.ends(&without, None).unwrap();
}
