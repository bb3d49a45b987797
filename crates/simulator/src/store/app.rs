//! What apps write: plain SQL on a connection of their own, and what of it the ledger is told. A write
//! about a row that is not there does nothing.

use super::scenario::{OnDelete, Setup, Write};
use super::secrets::VALUE;
use crate::reference::ledger::Draft;
use rusqlite::{Connection, OptionalExtension, Row, params};

type Done = rusqlite::Result<()>;

/// One transaction of an app's.
pub(crate) struct App<'a> {
    /// Its connection, inside a transaction.
    pub(crate) conn: &'a Connection,
    /// Which device.
    pub(crate) device: u8,
    /// Counts what is written; no two values of a history are the same.
    pub(crate) serial: &'a mut u64,
    /// What there is from the beginning.
    pub(crate) setup: &'a Setup,
    /// What it did so far.
    pub(crate) draft: &'a mut Draft,
}

impl App<'_> {
    pub(super) fn execute(&self, sql: &str, params: impl rusqlite::Params) -> Done {
        self.conn.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.conn.prepare_cached(sql)?.query_row(params, read)
    }

    pub(super) fn fresh(&mut self, prefix: &str) -> String {
        *self.serial += 1;
        format!("{prefix}{}", self.serial)
    }

    /// A key column of the n-th row that is there.
    pub(super) fn nth<T: rusqlite::types::FromSql>(
        &self,
        table: &str,
        column: &str,
        n: u8,
    ) -> rusqlite::Result<Option<T>> {
        let count: i64 = self.one(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })?;
        if count == 0 {
            return Ok(None);
        }
        let sql = format!("SELECT {column} FROM {table} ORDER BY 1 LIMIT 1 OFFSET ?1 + 0");
        let offset = i64::from(n) % count;
        self.one(&sql, [offset], |row| row.get(0)).optional()
    }

    /// Writes.
    pub(crate) fn write(&mut self, write: Write) -> Done {
        match write {
            Write::AddNote => self.add_note(""),
            Write::AddPoison { kind } => self.add_note(kind.mark()),
            Write::Title { row } => self.set_note(row, "title", ""),
            Write::Poison { row, kind } => self.set_note(row, "title", kind.mark()),
            Write::Body { row } => self.set_note(row, "body", ""),
            Write::Stock { row, by } => self.stock(row, by),
            Write::Tag { row } => self.tag(row),
            Write::Untag { row } => self.untag(row),
            Write::Extra { row } => match self.has_extra()? {
                true => self.set_note(row, "extra", ""),
                false => Ok(()),
            },
            Write::DeleteNote { row } => self.deleting(|app| app.delete_note(row)),
            Write::AddProject => self.add_project(),
            Write::NameProject { row } => self.set_name("project", row),
            Write::DeleteProject { row } => self.deleting(|app| app.delete_project(row)),
            Write::AddTask { row } => self.add_task(row),
            Write::NameTask { row } => self.set_name("task", row),
            Write::DeleteTask { row } => match self.nth("task", "made", row)? {
                Some(made) => self.deleting(|app| app.delete_task(made)),
                None => Ok(()),
            },
            Write::MoveTask { row, project } => self.move_task(row, project),
            Write::PutStep { row, number } => self.put_step(row, number),
            Write::OpenAccount => self.open_account(),
            Write::Deposit { row, amount } => self.deposit(row, amount),
            Write::Transfer { row, amount } => self.transfer(row, amount),
            Write::AddRow { table, dice } => self.add_row(table, dice),
            Write::EditRow {
                table,
                row,
                column,
                dice,
            } => self.edit_row(table, row, column, dice),
            Write::MoveRow {
                table,
                row,
                reference,
                parent,
            } => self.move_row(table, row, reference, parent),
            Write::DeleteRow { table, row } => self.delete_row(table, row),
        }
    }

    fn add_note(&mut self, mark: &str) -> Done {
        let id = self.fresh(&format!("n{}x", self.device));
        let (title, body) = (self.fresh(VALUE) + mark, self.fresh(VALUE));
        self.execute(
            "INSERT INTO note (id, title, body, stock, tags, weight) VALUES (?1, ?2, ?3, 0, '[]', 0.1)",
            params![id, title, body],
        )?;
        let row = ("note", id);
        self.draft.create(row.clone(), None);
        self.draft.write(row.clone(), None, title);
        self.draft.write(row, None, body);
        Ok(())
    }

    fn set_note(&mut self, row: u8, column: &str, mark: &str) -> Done {
        let Some(id) = self.nth::<String>("note", "id", row)? else {
            return Ok(());
        };
        let value = self.fresh(VALUE) + mark;
        let seen = self.one(
            &format!("SELECT {column} FROM note WHERE id = ?1"),
            [&id],
            |row| row.get(0),
        )?;
        self.execute(
            &format!("UPDATE note SET {column} = ?2 WHERE id = ?1"),
            params![id, value],
        )?;
        self.draft.write(("note", id), seen, value);
        Ok(())
    }

    fn stock(&mut self, row: u8, by: i8) -> Done {
        let Some(id) = self.nth::<String>("note", "id", row)? else {
            return Ok(());
        };
        self.execute(
            "UPDATE note SET stock = stock + ?2, weight = weight + 0.1 WHERE id = ?1",
            params![id, by],
        )?;
        self.draft.add(("note", id), i64::from(by));
        Ok(())
    }

    fn tag(&mut self, row: u8) -> Done {
        let Some(id) = self.nth::<String>("note", "id", row)? else {
            return Ok(());
        };
        let tag = self.fresh("t");
        self.execute(
            "UPDATE note SET tags = json_insert(tags, '$[#]', ?2) WHERE id = ?1",
            params![id, tag],
        )?;
        self.draft.tag(("note", id), tag);
        Ok(())
    }

    fn untag(&mut self, row: u8) -> Done {
        let Some(id) = self.nth::<String>("note", "id", row)? else {
            return Ok(());
        };
        let first: Option<String> = self.one(
            "SELECT json_extract(tags, '$[0]') FROM note WHERE id = ?1",
            [&id],
            |row| row.get(0),
        )?;
        if let Some(tag) = first {
            self.execute(
                "UPDATE note SET tags = json_remove(tags, '$[0]') WHERE id = ?1",
                [&id],
            )?;
            self.draft.untag(("note", id), tag);
        }
        Ok(())
    }

    /// Whether this device's app is the newer one.
    fn has_extra(&self) -> rusqlite::Result<bool> {
        self.one(
            "SELECT count(*) FROM pragma_table_info('note') WHERE name = 'extra'",
            [],
            |row| row.get(0),
        )
    }

    fn delete_note(&mut self, row: u8) -> Done {
        let Some(id) = self.nth::<String>("note", "id", row)? else {
            return Ok(());
        };
        // Where the app has no such column, or has it since a moment ago, the row's value is kept beside it, and goes
        // with the row.
        let beside = "(SELECT json_extract(fields, '$.extra') FROM syncline_unknown_fields
                        WHERE entity_type = 'note' AND entity_id = note.id)";
        let extra = match self.has_extra()? {
            true => format!("coalesce(extra, {beside})"),
            false => beside.to_owned(),
        };
        let seen: [Option<String>; 3] = self.one(
            &format!("SELECT title, body, {extra} FROM note WHERE id = ?1"),
            [&id],
            |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]),
        )?;
        self.execute("DELETE FROM note WHERE id = ?1", [&id])?;
        self.draft.delete(("note", id), seen.into_iter().flatten());
        Ok(())
    }

    fn add_project(&mut self) -> Done {
        let (made, name) = (self.fresh("p"), self.fresh(VALUE));
        self.execute(
            "INSERT INTO project (made, name) VALUES (?1, ?2)",
            [&made, &name],
        )?;
        self.draft.create(("project", made.clone()), None);
        self.draft.write(("project", made), None, name);
        Ok(())
    }

    fn set_name(&mut self, table: &'static str, row: u8) -> Done {
        let Some(made) = self.nth::<String>(table, "made", row)? else {
            return Ok(());
        };
        let value = self.fresh(VALUE);
        let seen = self.one(
            &format!("SELECT name FROM {table} WHERE made = ?1"),
            [&made],
            |row| row.get(0),
        )?;
        self.execute(
            &format!("UPDATE {table} SET name = ?2 WHERE made = ?1"),
            [&made, &value],
        )?;
        self.draft.write((table, made), seen, value);
        Ok(())
    }

    fn delete_project(&mut self, row: u8) -> Done {
        let Some(made) = self.nth::<String>("project", "made", row)? else {
            return Ok(());
        };
        let tasks = self.of(
            "task",
            "project = (SELECT id FROM project WHERE made = ?1)",
            &made,
        )?;
        match self.setup.on_delete {
            OnDelete::Cascade => {
                for task in &tasks {
                    self.deletes_task(task)?;
                }
            }
            // SQLite would refuse it.
            OnDelete::Restrict if !tasks.is_empty() => return Ok(()),
            OnDelete::Restrict | OnDelete::SetNull => {}
        }
        let name = self.of_column("project", "name", "made = ?1", &made)?;
        self.execute("DELETE FROM project WHERE made = ?1", [&made])?;
        self.draft.delete(("project", made), name);
        Ok(())
    }

    fn delete_task(&mut self, made: String) -> Done {
        self.deletes_task(&made)?;
        self.execute("DELETE FROM task WHERE made = ?1", [&made])?;
        Ok(())
    }

    /// Notes that a task goes, and its steps with it.
    fn deletes_task(&mut self, made: &str) -> Done {
        let of_it = "task = (SELECT id FROM task WHERE made = ?1)";
        for step in self.of("step", of_it, made)? {
            let name = self.of_column("step", "name", "made = ?1", &step)?;
            self.draft.delete(("step", step), name);
        }
        let name = self.of_column("task", "name", "made = ?1", made)?;
        self.draft.delete(("task", made.to_owned()), name);
        Ok(())
    }

    fn of(&self, table: &str, filter: &str, made: &str) -> rusqlite::Result<Vec<String>> {
        self.of_column(table, "made", filter, made)
    }

    fn of_column(
        &self,
        table: &str,
        column: &str,
        filter: &str,
        made: &str,
    ) -> rusqlite::Result<Vec<String>> {
        let sql = format!("SELECT {column} FROM {table} WHERE {filter} ORDER BY 1");
        let mut statement = self.conn.prepare_cached(&sql)?;
        statement.query_map([made], |row| row.get(0))?.collect()
    }

    fn add_task(&mut self, row: u8) -> Done {
        let project = self.nth::<String>("project", "made", row)?;
        let (made, name) = (self.fresh("k"), self.fresh(VALUE));
        self.execute(
            "INSERT INTO task (made, name, project, of)
             VALUES (?1, ?2, (SELECT id FROM project WHERE made = ?3), ?3)",
            params![made, name, project],
        )?;
        let parent = project.and_then(|project| self.goes_with(&made, project));
        self.draft.create(("task", made.clone()), parent);
        self.draft.write(("task", made), None, name);
        Ok(())
    }

    fn move_task(&mut self, row: u8, project: u8) -> Done {
        let (Some(made), Some(project)) = (
            self.nth::<String>("task", "made", row)?,
            self.nth::<String>("project", "made", project)?,
        ) else {
            return Ok(());
        };
        self.execute(
            "UPDATE task SET project = (SELECT id FROM project WHERE made = ?2), of = ?2 WHERE made = ?1",
            [&made, &project],
        )?;
        let parent = self.goes_with(&made, project);
        self.draft.create(("task", made), parent);
        Ok(())
    }

    /// The project, where a task goes with it.
    fn goes_with(&mut self, task: &str, project: String) -> Option<(&'static str, String)> {
        let project = ("project", project);
        self.draft.knows(("task", task.to_owned()), project.clone());
        match self.setup.on_delete {
            OnDelete::Cascade => return Some(project),
            OnDelete::Restrict => self.draft.refer(project),
            OnDelete::SetNull => {}
        }
        None
    }

    fn put_step(&mut self, row: u8, number: u8) -> Done {
        let Some(task) = self.nth::<String>("task", "made", row)? else {
            return Ok(());
        };
        // Numbers are a device's own, since two creates of one id wait for a person.
        let number = i64::from(number % 4) * 8 + i64::from(self.device);
        // A task whose create is not answered stands there twice once the feed has brought it.
        let at = "task = (SELECT id FROM task WHERE made = ?1 ORDER BY id LIMIT 1) AND number = ?2";
        let there: Option<(String, String)> = self
            .one(
                &format!("SELECT made, name FROM step WHERE {at}"),
                params![task, number],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let name = self.fresh(VALUE);
        match there {
            Some((made, seen)) => {
                self.execute(
                    "INSERT OR REPLACE INTO step SELECT task, number, made, ?2, of FROM step WHERE made = ?1",
                    [&made, &name],
                )?;
                self.draft.write(("step", made), Some(seen), name);
            }
            None => {
                let made = self.fresh("s");
                self.execute(
                    "INSERT INTO step SELECT id, ?2, ?3, ?4, made FROM task WHERE made = ?1 ORDER BY id LIMIT 1",
                    params![task, number, made, name],
                )?;
                self.draft
                    .create(("step", made.clone()), Some(("task", task)));
                self.draft.write(("step", made), None, name);
            }
        }
        Ok(())
    }

    fn open_account(&mut self) -> Done {
        let id = self.fresh(&format!("a{}x", self.device));
        self.execute("INSERT INTO account VALUES (?1, 1000)", [&id])?;
        self.draft.create(("account", id.clone()), None);
        self.draft.add(("account", id), 1000);
        Ok(())
    }

    fn deposit(&mut self, row: u8, amount: u8) -> Done {
        match self.nth::<String>("account", "id", row)? {
            Some(id) => self.command(id, "deposit", i64::from(amount) + 1, None),
            None => Ok(()),
        }
    }

    fn transfer(&mut self, row: u8, amount: u8) -> Done {
        let from = self.nth::<String>("account", "id", row)?;
        let to = self.nth::<String>("account", "id", row.wrapping_add(1))?;
        let (Some(from), Some(to)) = (from, to) else {
            return Ok(());
        };
        if from == to {
            return Ok(());
        }
        let group = self.fresh("g");
        let amount = i64::from(amount) + 1;
        self.command(from, "withdraw", amount, Some(&group))?;
        self.command(to, "deposit", amount, Some(&group))
    }

    fn command(&mut self, id: String, name: &str, amount: i64, group: Option<&str>) -> Done {
        let by = if name == "withdraw" { -amount } else { amount };
        self.execute(
            "UPDATE account SET balance = balance + ?2 WHERE id = ?1",
            params![id, by],
        )?;
        self.execute(
            "UPDATE syncline_outbox
                SET command = json_object('name', ?1, 'args', json_object('amount', ?2)), group_id = ?3
              WHERE seq = (SELECT max(seq) FROM syncline_outbox)",
            params![name, amount, group],
        )?;
        self.draft.add(("account", id), by);
        Ok(())
    }
}
