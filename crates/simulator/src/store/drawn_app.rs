//! What apps write into drawn tables. A write that the schema refuses does nothing, as one about a row that is not
//! there; what goes with a deleted row is seen by looking, since SQLite decides it.

use super::app::App;
use super::drawn::{self, Drawn, Key, Kind, Reference, To, field, quoted};
use super::rows::{Rows, read};
use super::secrets::VALUE;
use crate::reference::ledger::Row;
use crate::reference::values;
use crate::rng::Rng;
use rusqlite::types::Value as Sql;
use rusqlite::{params, params_from_iter};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

type Done = rusqlite::Result<()>;

/// Whether a statement was refused for what stands in the schema.
fn is_refused(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    code == Some(rusqlite::ErrorCode::ConstraintViolation)
}

impl App<'_> {
    fn drawn(&self, table: u8) -> Option<&Drawn> {
        self.setup.drawn.get(usize::from(table))
    }

    /// Does something whole or not at all: it says whether it could, and the schema may refuse it.
    pub(super) fn attempt(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<bool>,
    ) -> Done {
        let draft = self.draft.clone();
        let dangling = self.dangling()?;
        self.execute("SAVEPOINT attempt", [])?;
        let done = match work(self) {
            Ok(done) => done && self.dangling()? <= dangling,
            Err(error) if is_refused(&error) => false,
            Err(error) => return Err(error),
        };
        if !done {
            *self.draft = draft;
            self.execute("ROLLBACK TO attempt", [])?;
        }
        self.execute("RELEASE attempt", [])
    }

    /// How many rows refer to nothing, where SQLite does not say so at once.
    fn dangling(&self) -> rusqlite::Result<i64> {
        let mut references = self.setup.drawn.iter().flat_map(|one| &one.references);
        match references.any(|one| one.deferred) {
            true => self.one("SELECT count(*) FROM pragma_foreign_key_check", [], |row| {
                row.get(0)
            }),
            false => Ok(0),
        }
    }

    /// All rows of drawn tables by the names that they have for ever, and what stands in them.
    fn standing(&self) -> rusqlite::Result<BTreeMap<Row, Vec<String>>> {
        let mut all: BTreeMap<Row, Vec<String>> = BTreeMap::new();
        let beside = self.beside()?;
        for table in &self.setup.drawn {
            for (id, fields) in read(self.setup, self.conn, table.name())? {
                let made = fields["made"].as_str().unwrap_or_default().to_owned();
                let more = beside.get(&(table.name().to_owned(), id));
                let texts = fields.values().chain(more.into_iter().flatten());
                let texts = texts.filter_map(values::text);
                all.entry((table.name(), made)).or_default().extend(texts);
            }
        }
        Ok(all)
    }

    /// What is kept beside rows, since their tables lack the column.
    fn beside(&self) -> rusqlite::Result<BTreeMap<(String, String), Vec<Value>>> {
        let mut kept = self
            .conn
            .prepare_cached("SELECT entity_type, entity_id, fields FROM syncline_unknown_fields")?;
        let kept = kept.query_map([], |row| {
            let fields: String = row.get(2)?;
            let fields: Map<String, Value> = serde_json::from_str(&fields).unwrap_or_default();
            Ok((
                (row.get(0)?, row.get(1)?),
                fields.into_iter().map(|(_, value)| value).collect(),
            ))
        })?;
        kept.collect()
    }

    /// Deletes something, and notes which drawn rows went with it.
    pub(super) fn deleting(&mut self, work: impl FnOnce(&mut Self) -> Done) -> Done {
        if self.setup.drawn.is_empty() {
            return work(self);
        }
        self.attempt(|app| {
            let before = app.standing()?;
            work(app)?;
            let after = app.standing()?;
            for (row, texts) in before {
                if !after.contains_key(&row) {
                    app.draft.delete(row, texts);
                }
            }
            Ok(true)
        })
    }

    /// A new row.
    pub(super) fn add_row(&mut self, table: u8, dice: u16) -> Done {
        let mut rng = Rng::new(u64::from(dice) << 8 | u64::from(table));
        self.attempt(|app| app.insert(table, None, &mut rng))
    }

    fn insert(&mut self, n: u8, given: Option<Vec<Sql>>, rng: &mut Rng) -> rusqlite::Result<bool> {
        let Some(table) = self.drawn(n).cloned() else {
            return Ok(false);
        };
        let row = (table.name(), self.fresh("r"));
        let mut cells: Vec<(String, Sql)> = vec![("made".to_owned(), row.1.clone().into())];
        let key = match given {
            Some(key) => Some(key),
            None => self.new_key(&table, rng),
        };
        let mut later = None;
        let mut parents = Vec::new();
        for (which, reference) in table.references.iter().enumerate() {
            let columns = drawn::reference(&self.setup.drawn, usize::from(n), which).into_iter();
            let columns = columns.map(|(column, _)| column);
            if let (To::Drawn(to), true, None) = (reference.to, reference.deferred, &later)
                && to != n
                && rng.chance(30)
                && let Some(parent) = self.key_to_be(to, rng)?
            {
                cells.extend(columns.zip(parent.clone()));
                later = Some((to, parent, reference.clone()));
            } else if (reference.required || rng.chance(70))
                && let Some((parent, key)) = self.parent(reference.to, rng.draw() as u8)?
            {
                cells.extend(columns.zip(key));
                parents.push((reference.clone(), parent));
            } else if reference.required {
                return Ok(false);
            }
        }
        let names = drawn::key(&self.setup.drawn, usize::from(n)).into_iter();
        match (table.key, key) {
            (Key::Child, _) => {
                let number = rng.below(4) as i64 * 8 + i64::from(self.device);
                cells.push(("number".to_owned(), number.into()));
            }
            (_, key) => cells.extend(names.map(|(name, _)| name).zip(key.into_iter().flatten())),
        }
        let mut written = Vec::new();
        for column in table.columns.iter().filter(|one| !one.is_generated()) {
            let left_out = rng.chance(30) && column.rule != drawn::Rule::NotNull;
            if !left_out {
                let value = self.value(column.kind, table.strict, rng);
                cells.push((column.name().to_owned(), value));
                written.push(column.name());
            }
        }
        self.put(table.name(), &cells)?;
        self.draft.create(row.clone(), None);
        for (reference, parent) in parents {
            self.refer(&row, &reference, parent);
        }
        for column in written {
            for text in self.texts(&row, column)? {
                self.draft.write(row.clone(), None, text);
            }
        }
        let Some((to, key, reference)) = later else {
            return Ok(true);
        };
        let parent = (
            self.drawn(to).map_or("", Drawn::name),
            format!("r{}", *self.serial + 1),
        );
        self.refer(&row, &reference, parent);
        self.insert(to, Some(key), rng)
    }

    fn put(&self, table: &str, cells: &[(String, Sql)]) -> Done {
        let names: Vec<String> = cells.iter().map(|(name, _)| quoted(name)).collect();
        let marks = vec!["?"; cells.len()].join(", ");
        let sql = format!(
            "INSERT INTO {} ({}) VALUES ({marks})",
            quoted(table),
            names.join(", ")
        );
        self.execute(&sql, params_from_iter(cells.iter().map(|(_, value)| value)))
    }

    /// What the ledger is to know of a reference.
    fn refer(&mut self, row: &Row, reference: &Reference, parent: Row) {
        if reference.keeps() {
            self.draft.refer(parent.clone());
        }
        self.draft.knows(row.clone(), parent.clone());
        if reference.on_delete == drawn::Action::Cascade {
            self.draft.create(row.clone(), Some(parent));
        }
    }

    /// The n-th row of a table that something refers to: its name for ever, and its key.
    fn parent(&self, to: To, n: u8) -> rusqlite::Result<Option<(Row, Vec<Sql>)>> {
        let Some((table, name)) = to.table(&self.setup.drawn) else {
            return Ok(None);
        };
        let Some(made) = self.nth::<String>(&quoted(table), name, n)? else {
            return Ok(None);
        };
        let key = self.setup.key(table);
        let columns: Vec<String> = key.iter().map(|column| quoted(column)).collect();
        let columns = columns.join(", ");
        let sql = format!(
            "SELECT {columns} FROM {} WHERE {name} = ?1 ORDER BY {columns} LIMIT 1",
            quoted(table)
        );
        let cells = self.one(&sql, [&made], |row| {
            (0..key.len()).map(|at| row.get(at)).collect()
        });
        Ok(Some(((table, made), cells?)))
    }

    /// A key that no row has; none where SQLite or the parent decides it.
    fn new_key(&mut self, table: &Drawn, rng: &mut Rng) -> Option<Vec<Sql>> {
        *self.serial += 1;
        let serial = *self.serial;
        let number = match rng.chance(20) {
            true => i64::MIN + serial as i64,
            false => 100_000 + serial as i64,
        };
        let text = match rng.below(7) {
            0 => format!("{serial}"),
            1 => format!("-{serial}"),
            2 => format!("[{serial}"),
            3 => format!("\"{serial}\""),
            4 => format!("{{\"$hex\":\"{serial}\"}}"),
            5 => format!("ü '/?{serial}%20&"),
            _ => format!("x{serial}"),
        };
        let bytes = Sql::from(serial.to_be_bytes()[5..].to_vec());
        Some(match table.key {
            Key::Assigned | Key::Child => return None,
            Key::Number => vec![number.into()],
            Key::Text => vec![text.into()],
            Key::Blob => vec![bytes],
            Key::Pair => vec![text.into(), (serial as i64 % 5).into()],
            Key::Mixed => vec![number.into(), bytes],
        })
    }

    /// The key of a row that is made later.
    fn key_to_be(&mut self, to: u8, rng: &mut Rng) -> rusqlite::Result<Option<Vec<Sql>>> {
        let Some(table) = self.drawn(to).cloned() else {
            return Ok(None);
        };
        if table.key == Key::Assigned {
            let key = self.setup.key(table.name()).join("");
            let sql = format!(
                "SELECT coalesce(max({}), 0) + 1 FROM {}",
                quoted(&key),
                quoted(table.name())
            );
            return Ok(Some(vec![self.one(&sql, [], |row| row.get(0))?]));
        }
        Ok(self.new_key(&table, rng))
    }

    fn value(&mut self, kind: Kind, strict: bool, rng: &mut Rng) -> Sql {
        *self.serial += 1;
        let serial = *self.serial;
        let kind = match !strict && rng.chance(10) {
            true => Kind::Any,
            false => kind,
        };
        let end = *rng.pick(&["", "", "'\"\\", "é😀", "\n"]).unwrap_or(&"");
        let text = format!("{VALUE}{serial}{end}");
        let number = 7_000_000_000 + serial as i64;
        let integer = Sql::from(if rng.chance(30) {
            i64::MAX - number
        } else {
            number
        });
        let real = Sql::from(number as f64 + if rng.chance(50) { 0.5 } else { 0.0 });
        let bytes = Sql::from([text.as_bytes(), &[0, 0xff]].concat());
        match kind {
            Kind::Text => text.into(),
            Kind::Integer => integer,
            Kind::Real => real,
            Kind::Blob => bytes,
            Kind::Numeric => rng
                .pick(&[text.into(), integer, real])
                .cloned()
                .unwrap_or(Sql::Null),
            Kind::Any => rng
                .pick(&[text.into(), integer, real, bytes])
                .cloned()
                .unwrap_or(Sql::Null),
        }
    }

    /// What stands in a column of a row. (One whose create is not answered may be there twice.)
    fn texts(&self, (table, made): &Row, column: &str) -> rusqlite::Result<Vec<String>> {
        let rows: Rows = read(self.setup, self.conn, table)?;
        let of_it = rows
            .values()
            .filter(|fields| fields["made"].as_str() == Some(made));
        Ok(of_it
            .filter_map(|fields| values::text(fields.get(field(column)).unwrap_or(&Value::Null)))
            .collect())
    }

    /// Another value in a column, or none.
    pub(super) fn edit_row(&mut self, n: u8, row: u8, column: u8, dice: u16) -> Done {
        let Some(table) = self.drawn(n).cloned() else {
            return Ok(());
        };
        let columns: Vec<_> = table
            .columns
            .iter()
            .filter(|one| !one.is_generated())
            .collect();
        let made = self.nth::<String>(&quoted(table.name()), "made", row)?;
        let (Some(made), false) = (made, columns.is_empty()) else {
            return Ok(());
        };
        let column = columns[usize::from(column) % columns.len()];
        let mut rng = Rng::new(u64::from(dice));
        let value = match column.is_nullable() && rng.chance(20) {
            true => Sql::Null,
            false => self.value(column.kind, table.strict, &mut rng),
        };
        self.attempt(|app| {
            let row = (table.name(), made);
            for seen in app.texts(&row, column.name())? {
                app.draft.overwrite(seen);
            }
            let sql = format!(
                "UPDATE {} SET {} = ?2 WHERE made = ?1",
                quoted(table.name()),
                quoted(column.name())
            );
            app.execute(&sql, params![row.1, value])?;
            for text in app.texts(&row, column.name())? {
                app.draft.write(row.clone(), None, text);
            }
            Ok(true)
        })
    }

    /// Another parent, or none.
    pub(super) fn move_row(&mut self, n: u8, row: u8, which: u8, parent: u8) -> Done {
        let Some(table) = self.drawn(n).cloned() else {
            return Ok(());
        };
        let fixed = usize::from(table.key == Key::Child);
        let movable = table.references.len() - fixed.min(table.references.len());
        let made = self.nth::<String>(&quoted(table.name()), "made", row)?;
        let (Some(made), true) = (made, movable > 0) else {
            return Ok(());
        };
        let which = fixed + usize::from(which) % movable;
        let reference = &table.references[which];
        let columns = drawn::reference(&self.setup.drawn, usize::from(n), which);
        let whither = match parent % 4 == 3 && !reference.required {
            true => None,
            false => self.parent(reference.to, parent)?,
        };
        let key = match (&whither, reference.required) {
            (Some((_, key)), _) => key.clone(),
            (None, false) => vec![Sql::Null; columns.len()],
            (None, true) => return Ok(()),
        };
        self.attempt(|app| {
            for ((column, _), value) in columns.iter().zip(key) {
                let sql = format!(
                    "UPDATE {} SET {} = ?2 WHERE made = ?1",
                    quoted(table.name()),
                    quoted(column)
                );
                app.execute(&sql, params![made, value])?;
            }
            if let Some((parent, _)) = whither {
                app.refer(&(table.name(), made), reference, parent);
            }
            Ok(true)
        })
    }

    /// A row goes. Rows whose parent it is lose it first, where the schema looks at the end.
    pub(super) fn delete_row(&mut self, n: u8, row: u8) -> Done {
        let Some(table) = self.drawn(n).map(Drawn::name) else {
            return Ok(());
        };
        let Some(made) = self.nth::<String>(&quoted(table), "made", row)? else {
            return Ok(());
        };
        self.deleting(|app| {
            let key = app
                .parent(To::Drawn(n), row)?
                .map(|(_, key)| key)
                .unwrap_or_default();
            app.execute(
                &format!("DELETE FROM {} WHERE made = ?1", quoted(table)),
                [&made],
            )?;
            app.let_go(n, &key)
        })
    }

    /// Rows whose parent has just gone get none, where the schema looks at the end of the transaction.
    fn let_go(&mut self, parent: u8, key: &[Sql]) -> Done {
        for n in 0..self.setup.drawn.len() {
            let table = self.setup.drawn[n].clone();
            for (which, one) in table.references.iter().enumerate() {
                let waits = one.deferred && one.on_delete == drawn::Action::NoAction;
                if one.to != To::Drawn(parent) || one.required || !waits {
                    continue;
                }
                let columns = drawn::reference(&self.setup.drawn, n, which);
                let named = columns.iter().enumerate();
                let named = named.map(|(at, (name, _))| {
                    (
                        format!("{} = NULL", quoted(name)),
                        format!("{} = ?{}", quoted(name), at + 1),
                    )
                });
                let (set, is): (Vec<_>, Vec<_>) = named.unzip();
                let sql = format!(
                    "UPDATE {} SET {} WHERE {}",
                    quoted(table.name()),
                    set.join(", "),
                    is.join(" AND ")
                );
                self.execute(&sql, params_from_iter(key))?;
            }
        }
        Ok(())
    }
}
