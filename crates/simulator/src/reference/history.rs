//! Histories (F:S27): whether what apps read can be, given what apps wrote and in which order the server did it.
//!
//! What the engine promises of a row is one order for everybody, the server's, in which each device moves forward
//! only (monotonic reads, monotonic writes); that a device shows what it wrote until somebody writes over it who
//! may (read your writes); and that a device at the head of the feed shows all rows as they were there or later, so that
//! no write shows without the ones that its writer had seen (writes follow reads).
//!
//! As with Elle, all values are unique, so that each read says which writes it saw, and which it did not. The server
//! numbers its effects, so that an order need not be guessed: a cycle is a device that shows a state which the
//! server left before another one that this device must have seen (`look.rs`). The set of a row is a list to which elements are
//! only appended: its rule says where they go.
//!
//! An element that is missing is *lost* only if it was written, nobody took it out, and no device still has it to
//! send: then it is *not yet visible*.

mod look;
#[cfg(test)]
mod tests;

pub use look::Shown;

use super::ledger::{Draft, Row};
use super::server::Name;
use crate::level::Broken;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The name of the invariant.
const HISTORIES: &str = "F:S27";
/// Columns with values that are unique.
const VALUES: [&str; 4] = ["title", "body", "name", "extra"];
/// The column with a set of them.
const SET: &str = "tags";

/// Tables whose ids SQLite and the server assign, and one whose key has such an id in it.
const ASSIGNED: [&str; 3] = ["project", "task", "step"];

type Fields = Map<String, Value>;
type Check = Result<(), Broken>;

/// What is declared about notes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Declared {
    /// Additions and removals of both sides stand.
    pub sets: bool,
    /// The row of who comes second stands as a whole, with what others had written over.
    pub documents: bool,
}

/// A state of a row that the server left.
#[derive(Debug, Clone)]
struct Version {
    position: i64,
    /// Who brought it about, if it was somebody in this history.
    by: Option<usize>,
    /// None: it is deleted.
    fields: Option<Fields>,
}

/// Who wrote a value, and into which row.
#[derive(Debug, Clone)]
struct Written {
    device: usize,
    row: Name,
    /// It is an element of the row's set.
    element: bool,
}

/// What one device saw of a server's history, with one file.
#[derive(Debug, Default)]
struct Session {
    /// The earliest effect on a row that it may be showing.
    floors: BTreeMap<Name, i64>,
    /// The last effect that its own requests had on a row.
    own: BTreeMap<Name, i64>,
    /// Up to where it was told that it has everything.
    head: i64,
    /// Values that it looked into.
    known: BTreeSet<String>,
    /// Its own values that it has not written over.
    mine: BTreeMap<Name, BTreeSet<String>>,
    /// Elements of sets that it saw or put there.
    elements: BTreeMap<Name, BTreeSet<String>>,
}

/// Everything that was written, done and seen.
#[derive(Debug, Default)]
pub struct History {
    declared: Declared,
    /// How many histories of the server there were before this.
    earlier: u64,
    versions: BTreeMap<Name, Vec<Version>>,
    /// Values and elements that apps committed.
    written: BTreeMap<String, Written>,
    /// Those of transactions that were rolled back.
    undone: BTreeSet<String>,
    /// Those that the server ever had, and from where on.
    effective: BTreeMap<String, i64>,
    /// Elements that were taken out, and in which files.
    removed: BTreeMap<String, BTreeSet<usize>>,
    sessions: BTreeMap<usize, Session>,
    /// From which device's file one was copied.
    copies: BTreeMap<usize, usize>,
    /// Where a device was told that what a copy of its file may have done was done: it shows once the feed brings it.
    to_come: BTreeMap<(usize, Name), i64>,
}

/// The tables whose rows are followed, as each history has them.
const FOLLOWED: [&str; 5] = ["note", "project", "task", "step", "account"];

/// Whether the rows of a table are followed.
pub fn follows(table: &str) -> bool {
    FOLLOWED.contains(&table)
}

fn broken<T>(detail: String) -> Result<T, Broken> {
    Err(Broken::new(HISTORIES, detail))
}

fn owned(row: &Row) -> Name {
    (row.0.to_owned(), row.1.clone())
}

/// The name for ever of a row that the server or a device has.
fn row_of(name: &Name, fields: &Fields) -> Name {
    let made = fields.get("made").and_then(Value::as_str);
    (name.0.clone(), made.unwrap_or(&name.1).to_owned())
}

/// The elements of a row's set, in their order.
fn elements(fields: &Fields) -> Vec<String> {
    let text = fields.get(SET).and_then(Value::as_str).unwrap_or("[]");
    serde_json::from_str(text).unwrap_or_default()
}

/// The values that stand in a row.
fn values(fields: &Fields) -> impl Iterator<Item = &str> {
    (VALUES.iter()).filter_map(|column| fields.get(*column).and_then(Value::as_str))
}

impl History {
    /// Nothing has happened.
    pub fn new(declared: Declared) -> Self {
        Self {
            declared,
            ..Self::default()
        }
    }

    /// An app committed a transaction.
    pub fn wrote(&mut self, device: usize, draft: &Draft) {
        let session = self.sessions.entry(device).or_default();
        for (value, row) in draft.written.iter().filter(|(_, row)| follows(row.0)) {
            let row = owned(row);
            let mine = session.mine.entry(row.clone()).or_default();
            mine.insert(value.clone());
            let written = Written {
                device,
                row,
                element: false,
            };
            self.written.insert(value.clone(), written);
        }
        for (row, element) in &draft.tagged {
            let row = owned(row);
            let seen = session.elements.entry(row.clone()).or_default();
            seen.insert(element.clone());
            let written = Written {
                device,
                row,
                element: true,
            };
            self.written.insert(element.clone(), written);
        }
        for value in &draft.overwritten {
            let row = self.written.get(value).map(|written| &written.row);
            if let Some(mine) = row.and_then(|row| session.mine.get_mut(row)) {
                mine.remove(value);
            }
        }
        for row in &draft.deleted {
            session.forget(&owned(row));
        }
        let file = self.file_of(device);
        for (_, element) in &draft.untagged {
            let files = self.removed.entry(element.clone()).or_default();
            files.insert(file);
        }
    }

    /// An app rolled a transaction back.
    pub fn undid(&mut self, draft: &Draft) {
        let values = draft.written.iter().map(|(value, _)| value);
        let elements = draft.tagged.iter().map(|(_, element)| element);
        self.undone.extend(values.chain(elements).cloned());
    }

    /// A device begins with a copy of another one's file.
    pub fn copied(&mut self, from: usize, to: usize) {
        self.copies.insert(to, self.file_of(from));
    }

    /// A device's file is an older one: it saw nothing yet.
    pub fn file_replaced(&mut self, device: usize) {
        self.sessions.remove(&device);
        self.to_come.retain(|(owner, _), _| *owner != device);
    }

    /// A device was told that what it asked for was done before, perhaps by a copy of its file on something else.
    pub fn done_before(&mut self, device: usize, name: Name, position: i64) {
        let at = self.to_come.entry((device, name)).or_default();
        *at = position.max(*at);
    }

    /// Whether that is to come, at a device that stands at this position.
    pub fn is_to_come(&self, device: usize, name: &Name, position: i64) -> bool {
        let at = self.to_come.get(&(device, name.clone()));
        at.is_some_and(|at| *at > position)
    }

    /// The server's history is another one, which begins with these rows.
    pub fn begins<'a>(&mut self, rows: impl Iterator<Item = (&'a Name, i64, Option<&'a Fields>)>) {
        self.earlier += 1;
        self.to_come.clear();
        let version = |position, fields: Option<&Fields>| Version {
            position,
            by: None,
            fields: fields.cloned(),
        };
        self.versions = rows
            .filter(|(name, ..)| follows(&name.0))
            .map(|(name, position, fields)| (name.clone(), vec![version(position, fields)]))
            .collect();
        for session in self.sessions.values_mut() {
            session.floors.clear();
            session.own.clear();
            session.head = 0;
        }
    }

    /// Copies of one file have one number.
    fn file_of(&self, device: usize) -> usize {
        self.copies.get(&device).copied().unwrap_or(device)
    }

    /// The server did what a device asked for. `sent_as`: whether the device has the row under that id, which the server may
    /// have chosen just now. `twice`: the row has edits that stood in two files.
    pub fn effect(
        &mut self,
        device: usize,
        (name, sent_as): (&Name, bool),
        (position, fields): (i64, Option<&Fields>),
        twice: impl Fn(&Name) -> bool,
    ) -> Check {
        if !follows(&name.0) {
            return Ok(());
        }
        if let Some(fields) = fields {
            let row = row_of(name, fields);
            let set = elements(fields);
            for value in values(fields).chain(set.iter().map(String::as_str)) {
                self.was_written(value, &row, "the server has")?;
                self.effective.entry(value.to_owned()).or_insert(position);
            }
            self.goes_forward(device, name, position, fields)?;
            if self.declared.sets && name.0 == "note" {
                self.appends(device, name, (position, &set), twice(&row))?;
            }
        }
        let version = Version {
            position,
            by: Some(device),
            fields: fields.cloned(),
        };
        self.versions.entry(name.clone()).or_default().push(version);
        if sent_as {
            let session = self.sessions.entry(device).or_default();
            session.own.insert(name.clone(), position);
        }
        Ok(())
    }

    /// A value was committed by somebody, into that very row.
    fn was_written(&self, value: &str, row: &Name, who: &str) -> Check {
        if self.undone.contains(value) {
            return broken(format!(
                "{who} {value} in {row:?}, and who wrote it rolled back"
            ));
        }
        // A restored server may give the id of a row that it lost to another one: what was not sent by then means that.
        let given_anew = self.earlier > 0 && ASSIGNED.contains(&row.0.as_str());
        match self.written.get(value) {
            Some(written) if written.row == *row => Ok(()),
            Some(written) if given_anew && written.row.0 == row.0 => Ok(()),
            Some(written) => broken(format!(
                "{who} {value} in {row:?}, and it was written into {:?}",
                written.row
            )),
            None => broken(format!("{who} {value} in {row:?}, and nobody wrote it")),
        }
    }

    /// The states of a row since it was made, the last first.
    fn life(&self, name: &Name) -> impl Iterator<Item = &Fields> {
        let all = self.versions.get(name).into_iter().flatten().rev();
        all.map_while(|version| version.fields.as_ref())
    }

    /// A value that was written over does not come back: who wrote over it had seen it, or was told of the conflict.
    fn goes_forward(&self, device: usize, name: &Name, position: i64, fields: &Fields) -> Check {
        if self.declared.documents && name.0 == "note" {
            return Ok(());
        }
        for column in VALUES {
            let value = |fields: &Fields| fields.get(column).cloned().unwrap_or_default();
            let (now, mut before) = (value(fields), self.life(name).map(value));
            let Some(last) = before.next() else {
                return Ok(());
            };
            if now.is_string() && last != now && before.any(|was| was == now) {
                return broken(format!(
                    "{name:?} has {now} as its {column} again at {position}, by device {device}, where {last} had taken \
                     its place: the one was written before the other, and after it"
                ));
            }
        }
        Ok(())
    }

    /// Elements go only where they were taken out of the file that says so; new ones come last, and none a second
    /// time.
    fn appends(
        &self,
        device: usize,
        name: &Name,
        (position, now): (i64, &[String]),
        twice: bool,
    ) -> Check {
        let mut life = self.life(name).map(elements);
        let Some(before) = life.next() else {
            return Ok(());
        };
        let file = self.file_of(device);
        let has_removed = |element: &String| {
            let files = self.removed.get(element);
            files.is_some_and(|files| self.earlier > 0 || files.contains(&file))
        };
        if let Some(lost) = (before.iter()).find(|one| !now.contains(one) && !has_removed(one)) {
            return broken(format!(
                "{lost} is lost: {name:?} had it since {:?}, device {device} left it out at {position}, and nobody took it out there",
                self.effective.get(lost)
            ));
        }
        let kept: Vec<&String> = before.iter().filter(|one| now.contains(one)).collect();
        if !now.iter().take(kept.len()).eq(kept.iter().copied()) {
            return broken(format!(
                "elements of {name:?} change places at {position}, by device {device}: {before:?}, then {now:?}"
            ));
        }
        let again = |one: &&String| !before.contains(one) && self.removed.contains_key(*one);
        let may_be = twice || self.earlier > 0;
        if !may_be
            && let Some(one) = now.iter().find(again)
            && life.any(|earlier| earlier.contains(one))
        {
            return broken(format!(
                "{one} is in {name:?} again at {position}, by device {device}, after it was taken out"
            ));
        }
        Ok(())
    }

    /// In the end: an element that nobody took out stands, or waits on a device, or is lost. `waits`: where it is still to be
    /// sent from.
    pub fn nothing_lost<'a>(
        &self,
        alive: impl Iterator<Item = (&'a Name, &'a Fields)>,
        may_lack: impl Fn(&Name) -> bool,
        waits: impl Fn(&str) -> Option<usize>,
    ) -> Check {
        if !self.declared.sets {
            return Ok(());
        }
        let rows = alive.filter(|(name, _)| name.0 == "note" && !may_lack(name));
        let standing: BTreeMap<&Name, Vec<String>> =
            (rows.map(|(name, fields)| (name, elements(fields)))).collect();
        let elements = self.written.iter().filter(|(_, written)| written.element);
        for (element, written) in elements {
            let Some(stands) = standing.get(&written.row) else {
                continue;
            };
            if stands.contains(element) || self.removed.contains_key(element) {
                continue;
            }
            let what = format!(
                "{element}, which device {} put into {:?},",
                written.device, written.row
            );
            let fate = match (waits(element), self.effective.get(element)) {
                (Some(device), _) => format!("{what} is not yet visible: device {device} has it"),
                (None, Some(position)) => {
                    let all = self.sessions.iter();
                    let saw = all.filter(|(_, session)| session.has_seen(&written.row, element));
                    let saw: Vec<&usize> = saw.map(|(device, _)| device).collect();
                    format!(
                        "{what} is lost: it was there at {position}, and devices {saw:?} saw it"
                    )
                }
                (None, None) => format!("{what} is lost: it never reached the server"),
            };
            return broken(fate);
        }
        Ok(())
    }
}

impl Session {
    /// It has no row of that name any more.
    fn forget(&mut self, row: &Name) {
        self.mine.remove(row);
        self.elements.remove(row);
    }

    fn has_seen(&self, row: &Name, element: &str) -> bool {
        let elements = self.elements.get(row);
        elements.is_some_and(|elements| elements.contains(element))
    }
}
