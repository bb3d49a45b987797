//! What apps wrote, and what must have become of it. Every value that is written is unique in its
//! history, so that where it ends can be told: it stands, or somebody wrote over it who saw it, or a
//! conflict record keeps it. Sums of counters and balances are kept exactly.

use std::collections::{BTreeMap, BTreeSet};

/// What one transaction of an app's did; taken over when it is committed.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub(super) written: Vec<(String, Row)>,
    pub(super) overwritten: Vec<String>,
    created: Vec<(Row, Option<Row>)>,
    referred: Vec<Row>,
    known: Vec<(Row, Row)>,
    pub(super) deleted: Vec<Row>,
    added: Vec<(Row, i64)>,
    pub(super) tagged: Vec<(Row, String)>,
    pub(super) untagged: Vec<(Row, String)>,
}

/// A table and the name of a row for ever.
pub type Row = (&'static str, String);

/// What was confirmed to a file and stood in its journal when a backup that has none of it took its place: nobody
/// offers it again to a server that loses it as well.
#[derive(Debug, Clone, Default)]
pub struct GivenUp {
    /// Rows that were made.
    pub created: BTreeSet<Row>,
    /// Rows that were changed.
    pub edited: BTreeSet<Row>,
    /// Rows that were deleted.
    pub deleted: BTreeSet<Row>,
    /// Values that were written.
    pub values: BTreeSet<String>,
}

/// What all apps wrote and committed.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Values that stood somewhere, with their rows.
    pub written: BTreeMap<String, Row>,
    /// Values that somebody wrote over, or deleted, who saw them.
    pub overwritten: BTreeSet<String>,
    /// Rows with the row that they belonged to when they were made, or moved later.
    pub created: BTreeMap<Row, BTreeSet<Row>>,
    /// Rows that stay as long as another refers to them, and that one did.
    pub referred: BTreeSet<Row>,
    /// What a row refers to, or did: it comes back with the row, where the row does for another's sake.
    pub known: BTreeMap<Row, BTreeSet<Row>>,
    /// Rows that somebody deleted.
    pub deleted: BTreeSet<Row>,
    /// Rows that somebody may have taken for an earlier one of the same id.
    pub mistaken: BTreeSet<Row>,
    /// Rows of which nobody can say whether what is part of one is part of another of that id.
    pub ambiguous: BTreeSet<Row>,
    /// Rows whose create stood in two files when one was copied, or in a backup that was put back. Whoever deletes such a row before it has
    /// sent anything of it sends nothing at all: it cannot know that the other file has made the row for
    /// everybody, or will, and a row that one of two devices offers is not to be lost.
    pub copied: BTreeSet<Row>,
    /// Rows with edits that stood in two files when one was copied, or in a backup that was put back. Whoever takes an
    /// edit back before it was sent sends nothing at all, as with a row.
    pub edited_twice: BTreeSet<Row>,
    /// What only the server has for certain.
    pub given_up: GivenUp,
    /// Rows of which an edit may be lost: their numbers and sets are no longer known.
    pub unsure: BTreeSet<Row>,
    /// Rows about which a person gave up what they had written: what stands in them is whatever the server has.
    pub let_go: BTreeSet<Row>,
    /// What was added to the number of a row.
    pub sums: BTreeMap<Row, i64>,
    /// Elements that were put into the set of a row.
    pub tagged: BTreeMap<Row, BTreeSet<String>>,
    /// Elements that were taken out of it.
    pub untagged: BTreeMap<Row, BTreeSet<String>>,
}

impl Draft {
    /// A value is written into a row where another was seen.
    pub fn write(&mut self, row: Row, seen: Option<String>, value: String) {
        self.overwritten.extend(seen);
        self.written.push((value, row));
    }

    /// A value goes that was seen.
    pub fn overwrite(&mut self, seen: String) {
        self.overwritten.push(seen);
    }

    /// A row is made, perhaps as part of another.
    pub fn create(&mut self, row: Row, parent: Option<Row>) {
        self.created.push((row, parent));
    }

    /// Another row refers to a row, which stays as long as one does.
    pub fn refer(&mut self, row: Row) {
        self.referred.push(row);
    }

    /// A row refers to another.
    pub fn knows(&mut self, row: Row, parent: Row) {
        self.known.push((row, parent));
    }

    /// A row is deleted with these values in it.
    pub fn delete(&mut self, row: Row, seen: impl IntoIterator<Item = String>) {
        self.overwritten.extend(seen);
        self.deleted.push(row);
    }

    /// Something is added to a row's number.
    pub fn add(&mut self, row: Row, by: i64) {
        self.added.push((row, by));
    }

    /// An element comes into a row's set.
    pub fn tag(&mut self, row: Row, element: String) {
        self.tagged.push((row, element));
    }

    /// One goes.
    pub fn untag(&mut self, row: Row, element: String) {
        self.untagged.push((row, element));
    }
}

impl Ledger {
    /// A transaction was committed.
    pub fn commit(&mut self, draft: Draft) {
        self.written.extend(draft.written);
        self.overwritten.extend(draft.overwritten);
        for (row, parent) in draft.created {
            self.created.entry(row).or_default().extend(parent);
        }
        self.referred.extend(draft.referred);
        for (row, parent) in draft.known {
            self.known.entry(row).or_default().insert(parent);
        }
        self.deleted.extend(draft.deleted);
        for (row, by) in draft.added {
            *self.sums.entry(row).or_default() += by;
        }
        for (row, element) in draft.tagged {
            self.tagged.entry(row).or_default().insert(element);
        }
        for (row, element) in draft.untagged {
            self.untagged.entry(row).or_default().insert(element);
        }
    }

    /// The server was restored, and may have lost what was given up.
    pub fn lose_given_up(&mut self) {
        let lost = std::mem::take(&mut self.given_up);
        self.mistaken.extend(lost.created);
        self.unsure.extend(lost.edited);
        self.copied.extend(lost.deleted);
        self.overwritten.extend(lost.values);
    }

    /// Whether a row was deleted or mistaken, or something that it was ever part of.
    pub fn may_be_gone(&self, row: &Row) -> bool {
        self.is_gone(row) || self.may_be_orphaned(row)
    }

    fn is_gone(&self, row: &Row) -> bool {
        let sets = [&self.deleted, &self.mistaken, &self.let_go];
        sets.iter().any(|rows| rows.contains(row))
    }

    /// Whether something was deleted that the row was ever part of, or that may have been taken for that.
    pub fn may_be_orphaned(&self, row: &Row) -> bool {
        let parents = self.created.get(row).into_iter().flatten();
        (closure(&self.created, parents).into_iter())
            .any(|above| self.ambiguous.contains(above) || self.is_gone(above))
    }

    /// Rows that may be there although they were deleted, since another refers to them, or to one that they belong to.
    pub fn may_come_back(&self) -> BTreeSet<&Row> {
        closure(&self.known, &self.referred)
    }

    /// Values that stand nowhere: not among `standing`, in no record, nobody wrote over them who saw
    /// them, and their row did not go with what it was part of.
    pub fn lost(
        &self,
        standing: &BTreeSet<String>,
        recorded: impl Fn(&str) -> bool,
    ) -> Vec<(&String, &Row)> {
        (self.written.iter())
            .filter(|(value, _)| !self.overwritten.contains(*value) && !standing.contains(*value))
            .filter(|(value, row)| !recorded(value) && !self.may_be_orphaned(row))
            .filter(|(_, row)| !self.mistaken.contains(*row) && !self.let_go.contains(*row))
            .collect()
    }
}

/// These rows, and all that they lead to.
fn closure<'a>(
    links: &'a BTreeMap<Row, BTreeSet<Row>>,
    from: impl IntoIterator<Item = &'a Row>,
) -> BTreeSet<&'a Row> {
    let mut all = BTreeSet::new();
    let mut next: Vec<&Row> = from.into_iter().collect();
    while let Some(row) = next.pop() {
        if all.insert(row) {
            next.extend(links.get(row).into_iter().flatten());
        }
    }
    all
}
