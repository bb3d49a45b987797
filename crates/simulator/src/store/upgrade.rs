//! How the schema of an app changes while its devices are in use. A device has had some of the changes of its history, in
//! their order, and says how many in `PRAGMA user_version`; devices with more and with fewer live side by side.

use super::drawn::{self, Column, Drawn, quoted};
use super::rows::read;
use super::scenario::Setup;
use super::schema;
use crate::reference::values;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;
use syncline_core::Now;
use syncline_store::attach::attach;
use syncline_store::{StoreError, migrate};

/// A change of the schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Upgrade {
    /// A drawn table gets another column.
    AddColumn {
        /// Which table.
        table: u8,
        /// What column.
        column: Column,
    },
    /// One of its columns has another name from here on, and is the same on the wire.
    RenameColumn {
        /// Which table.
        table: u8,
        /// The number of the column's name.
        column: u8,
    },
    /// One of its columns goes.
    DropColumn {
        /// Which table.
        table: u8,
        /// The number of the column's name.
        column: u8,
    },
    /// It is made anew with an index, and its rows are copied.
    Rebuild {
        /// Which table.
        table: u8,
    },
    /// The last of the drawn tables is there from here on.
    NewTable,
}

/// Which column of the notes comes first, where there are notes.
const EXTRA: &str = "ALTER TABLE note ADD COLUMN extra TEXT";

/// How many changes a device has had.
pub(crate) fn version(app: &Connection) -> usize {
    let version = app.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    version.map_or(0, |version| version as usize)
}

fn apply(change: &Upgrade, drawn: &mut [Drawn]) {
    let (Upgrade::AddColumn { table, .. }
    | Upgrade::RenameColumn { table, .. }
    | Upgrade::DropColumn { table, .. }) = change
    else {
        return;
    };
    let Some(table) = drawn.get_mut(usize::from(*table)) else {
        return;
    };
    match change {
        Upgrade::AddColumn { column, .. } => table.columns.push(column.clone()),
        Upgrade::DropColumn { column, .. } => table.columns.retain(|one| one.name != *column),
        _ => {}
    }
    if let Upgrade::RenameColumn { column, .. } = change {
        let mut named = table.columns.iter_mut().filter(|one| one.name == *column);
        if let Some(named) = named.next() {
            named.renamed = true;
        }
    }
}

impl Setup {
    fn first(&self) -> usize {
        usize::from(self.tables.notes())
    }

    /// How many changes there are.
    pub(crate) fn changes(&self) -> usize {
        self.first() + self.upgrades.len()
    }

    /// What a device has that has had so many changes.
    pub(crate) fn at(&self, version: usize) -> Self {
        let mut now = self.clone();
        let done = version.saturating_sub(self.first());
        let (done, to_come) = self.upgrades.split_at(done.min(self.upgrades.len()));
        for change in done {
            apply(change, &mut now.drawn);
        }
        if to_come.contains(&Upgrade::NewTable) {
            now.drawn.pop();
        }
        now
    }

    /// The columns of a table that nobody writes, now or later.
    pub(crate) fn computed(&self, table: &str) -> Vec<&'static str> {
        let Some(drawn) = self.drawn_table(table) else {
            return Vec::new();
        };
        let later = self.upgrades.iter().filter_map(|change| match change {
            Upgrade::AddColumn { table, column } if usize::from(*table) == drawn => Some(column),
            _ => None,
        });
        let all = self.drawn[drawn].columns.iter().chain(later);
        let computed = all.filter(|column| column.is_generated());
        computed.map(Column::name).collect()
    }

    /// The drawn change that comes after so many.
    fn next(&self, version: usize) -> Option<&Upgrade> {
        self.upgrades.get(version.checked_sub(self.first())?)
    }

    /// The script of the next change after so many.
    fn script(&self, version: usize) -> String {
        match self.next(version) {
            None => EXTRA.to_owned(),
            Some(change) => self.change(version, change),
        }
    }

    fn change(&self, version: usize, change: &Upgrade) -> String {
        let (before, after) = (self.at(version).drawn, self.at(version + 1).drawn);
        let alter =
            |table: u8| format!("ALTER TABLE {}", quoted(before[usize::from(table)].name()));
        match change {
            Upgrade::AddColumn { table, column } => {
                let strict = before[usize::from(*table)].strict;
                format!("{} ADD COLUMN {}", alter(*table), column.sql(strict))
            }
            Upgrade::RenameColumn { table, column } => {
                let name = |drawn: &[Drawn]| {
                    let mut columns = drawn[usize::from(*table)].columns.iter();
                    let named = columns.find(|one| one.name == *column);
                    quoted(named.map_or("", Column::name))
                };
                format!(
                    "{} RENAME COLUMN {} TO {}",
                    alter(*table),
                    name(&before),
                    name(&after)
                )
            }
            Upgrade::DropColumn { table, column } => {
                let mut columns = before[usize::from(*table)].columns.iter();
                let named = columns.find(|one| one.name == *column);
                let name = quoted(named.map_or("", Column::name));
                format!("{} DROP COLUMN {name}", alter(*table))
            }
            Upgrade::Rebuild { table } => drawn::rebuild(&before, usize::from(*table)),
            Upgrade::NewTable => drawn::create(&after, after.len() - 1),
        }
    }

    /// Leaves out of two states of a row, here and there, what may differ between apps of different versions: a column that
    /// came later is as its default says where nobody wrote it, and one that went is only where it was not yet gone.
    pub(crate) fn comparable(
        &self,
        table: &str,
        here: &mut Map<String, Value>,
        there: &mut Map<String, Value>,
    ) {
        if table == "note" && here.get("extra") == Some(&Value::Null) {
            here.remove("extra");
        }
        let Some(drawn) = self.drawn_table(table) else {
            return;
        };
        for change in &self.upgrades {
            match change {
                Upgrade::AddColumn { table, column } if usize::from(*table) == drawn => {
                    let field = column.field();
                    let unsaid = [column.unsaid(), Value::Null];
                    if !there.contains_key(field)
                        && here.get(field).is_some_and(|here| unsaid.contains(here))
                    {
                        here.remove(field);
                    }
                }
                Upgrade::DropColumn { table, column } if usize::from(*table) == drawn => {
                    let columns = &self.drawn[drawn].columns;
                    let dropped = columns.iter().filter(|one| one.name == *column);
                    for field in dropped.map(Column::field) {
                        if !here.contains_key(field) || !there.contains_key(field) {
                            here.remove(field);
                            there.remove(field);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// Does the next change to a file that has had so many.
pub(crate) fn change(setup: &Setup, version: usize, path: &Path) -> Result<(), StoreError> {
    let noted = format!("PRAGMA user_version = {}", version + 1);
    let script = setup.script(version);
    if setup.next(version) != Some(&Upgrade::NewTable) {
        return migrate::migrate(path, &format!("{script}; {noted}")).map(drop);
    }
    // Where it failed half-way, the table is there.
    let script = script.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ");
    migrate::migrate(path, &script.replace(" INDEX ", " INDEX IF NOT EXISTS "))?;
    let mut conn = Connection::open(path)?;
    attach(&mut conn, &schema::request(), Now::default())?;
    migrate::migrate(path, &noted).map(drop)
}

/// What stands in a column that the next change takes away: whoever makes it gives that up.
pub(crate) fn given_up(setup: &Setup, version: usize, app: &Connection) -> Vec<String> {
    let Some(Upgrade::DropColumn { table, column }) = setup.next(version) else {
        return Vec::new();
    };
    let now = setup.at(version);
    // A scenario that was made smaller may lack it.
    let Some(table) = now.drawn.get(usize::from(*table)) else {
        return Vec::new();
    };
    let dropped = table.columns.iter().find(|one| one.name == *column);
    let rows = read(&now, app, table.name()).unwrap_or_default();
    let values = rows.values().filter_map(|row| row.get(dropped?.field()));
    values.filter_map(values::text).collect()
}
