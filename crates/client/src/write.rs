//! The write API: plain SQL in one transaction, in which the capture triggers record.

use crate::Error;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};
use std::path::Path;
use std::time::Duration;
use syncline_protocol::{Command, MutationId};
use syncline_store::captured::{CapturedError, entity_id_of_mutation, fields_of_mutation};
use syncline_store::{Lane, Settings, StoreError, outbox_view, server_limits};

/// The app's own connection for writes through the handle: foreign keys on, never a network.
pub(crate) fn connect(path: &Path, settings: &Settings) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_millis(settings.busy_timeout_ms()))?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "synchronous", settings.synchronous().as_str())?;
    Ok(conn)
}

/// What is said of the mutations of one write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// In which lane they travel; `None`: in that of their type.
    pub lane: Option<Lane>,
    /// Whether they take effect all or none.
    pub grouping: Grouping,
    /// Mutations that have to be settled before; see [`Recorded::mutations`].
    pub depends_on: Vec<MutationId>,
    /// What the app means; the server's handler of that name carries it out. The write is then one
    /// of exactly one entity, and only shows meanwhile what the app expects.
    /// Its arguments are never rewritten: they should not hold ids that may still change.
    pub command: Option<Command>,
}

/// Whether the mutations of a write belong together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Grouping {
    /// Each takes effect for itself.
    #[default]
    Apart,
    /// They take effect all or none, and are never split. More than the server takes in one push
    /// is refused.
    Together,
}

/// A write that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<T> {
    /// What the write returned.
    pub value: T,
    /// The mutations that were recorded with it, in their order.
    pub mutations: Vec<MutationId>,
}

/// Room for what a mutation has on the wire beside its fields and names: key, base, brackets.
const ENVELOPE_BYTES: usize = 512;

/// Runs `write` in one transaction. Whatever it returns as an error, and whatever it wrote that
/// could never be synced, rolls everything back (A1).
pub(crate) fn write<T, E: From<Error> + From<rusqlite::Error>>(
    conn: &mut Connection,
    options: &WriteOptions,
    outbox_rows: u64,
    write: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
) -> Result<Recorded<T>, E> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = outbox_view::newest(&tx).map_err(Error::from)?;
    let value = write(&tx)?;
    let recorded = recorded(&tx, before)?;
    check(&tx, &recorded, options, outbox_rows).map_err(E::from)?;
    mark(&tx, before, options).map_err(E::from)?;
    tx.commit()?;
    let mutations = recorded.into_iter().map(|(_, mutation)| mutation).collect();
    Ok(Recorded { value, mutations })
}

fn recorded(tx: &Transaction<'_>, before: i64) -> Result<Vec<(i64, MutationId)>, rusqlite::Error> {
    let mut statement =
        tx.prepare_cached("SELECT seq, mutation FROM syncline_outbox WHERE seq > ?1 ORDER BY seq")?;
    let rows = statement.query_map([before], |row| {
        Ok((row.get(0)?, MutationId::new(row.get::<_, String>(1)?)))
    })?;
    rows.collect()
}

/// Refuses what could never be sent, or would wait for too long.
fn check(
    tx: &Transaction<'_>,
    recorded: &[(i64, MutationId)],
    options: &WriteOptions,
    outbox_rows: u64,
) -> Result<(), Error> {
    if recorded.is_empty() {
        return Ok(());
    }
    let limits = server_limits(tx)?;
    let mut total = 0;
    for (seq, _) in recorded {
        let bytes = size(tx, *seq)?;
        total += bytes;
        if let Some(limits) = limits.filter(|limits| bytes > limits.mutation_bytes) {
            let most = limits.mutation_bytes;
            return Err(Error::TooLarge(format!(
                "a written row makes a mutation of {bytes} bytes, and the server takes {most}"
            )));
        }
    }
    if let (Grouping::Together, Some(limits)) = (options.grouping, limits)
        && (recorded.len() > limits.push_mutations || total > limits.push_bytes)
    {
        let (count, most) = (recorded.len(), limits.push_mutations);
        return Err(Error::TooLarge(format!(
            "a group of {count} mutations with {total} bytes; the server takes {most} with {} at once",
            limits.push_bytes
        )));
    }
    if options.command.is_some() && recorded.len() != 1 {
        return Err(Error::NotOneEntity(recorded.len()));
    }
    // Numbers never start again, so this is at least their count, and costs nothing.
    let span: u64 = tx.query_row(
        "SELECT max(seq) - min(seq) + 1 FROM syncline_outbox",
        [],
        |row| row.get(0),
    )?;
    if span > outbox_rows {
        let rows = tx.query_row("SELECT count(*) FROM syncline_outbox", [], |row| row.get(0))?;
        if rows > outbox_rows {
            return Err(Error::OutboxFull { rows });
        }
    }
    Ok(())
}

/// How many bytes a mutation has on the wire at most; an error if it can never be sent.
fn size(tx: &Transaction<'_>, seq: i64) -> Result<usize, Error> {
    let readable = entity_id_of_mutation(tx, seq)
        .and_then(|id| fields_of_mutation(tx, seq).map(|fields| (id, fields)));
    match readable {
        Ok((id, fields)) => {
            let fields = fields.unwrap_or_default();
            let bytes = serde_json::to_vec(&fields).map_or(0, |bytes| bytes.len());
            Ok(bytes + id.as_str().len() + ENVELOPE_BYTES)
        }
        Err(error @ CapturedError::Unsyncable { .. }) => Err(Error::Unsyncable(error.to_string())),
        Err(error) => Err(StoreError::from(error).into()),
    }
}

/// Writes down what was said of the mutations recorded after `before`, in their own transaction.
fn mark(tx: &Transaction<'_>, before: i64, options: &WriteOptions) -> Result<(), Error> {
    if *options == WriteOptions::default() {
        return Ok(());
    }
    let lane = options.lane.map(|lane| match lane {
        Lane::Urgent => 0,
        Lane::Normal => 1,
        Lane::Background => 2,
    });
    // Texts and numbers only: writing them cannot fail.
    let command = options.command.as_ref();
    let command = command.map(|command| serde_json::to_string(command).unwrap_or_default());
    let depends_on = (!options.depends_on.is_empty())
        .then(|| serde_json::to_string(&options.depends_on).unwrap_or_default());
    let group = match options.grouping {
        Grouping::Apart => None,
        Grouping::Together => Some(crate::driver::random_name()?),
    };
    tx.execute(
        "UPDATE syncline_outbox
            SET lane = CASE WHEN ?2 IS NULL THEN lane ELSE nullif(?2, 1) END, group_id = ?3, command = ?4, depends_on = ?5
          WHERE seq > ?1",
        params![before, lane, group, command, depends_on],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_store::Synchronous;

    #[test]
    fn a_commit_waits_for_what_was_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        Connection::open(&path).unwrap();
        let mut settings = Settings::default();
        for (synchronous, number) in [(Synchronous::Full, 2), (Synchronous::Normal, 1)] {
            settings.set_synchronous(synchronous);
            let conn = connect(&path, &settings).unwrap();
            let set = conn.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0));
            assert_eq!(set.unwrap(), number);
        }
    }
}
