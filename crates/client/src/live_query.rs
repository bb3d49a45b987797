//! Live queries: the result of a SQL query now, and a new one whenever it changes, whoever wrote.
//!
//! All queries of a handle run on one thread with a connection of its own that can only read, each
//! in a read transaction as short as the query. Which tables another process wrote cannot be known
//! from outside, so every query runs again when the file has changed, and what came of it is told
//! only if it differs. After a round the thread rests as long as the round took: many or slow
//! queries make news come later, but neither the app's writes nor the engine wait for them.

use crate::handle::Seen;
use crate::{Error, Syncline};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Changes closer together than this are seen as one.
const REST: Duration = Duration::from_millis(10);
/// However long a round took.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// How long a query waits for a lock that only the recovery of a log takes.
const BUSY: Duration = Duration::from_secs(5);
/// What a query returned. Shared, since it may be large.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryResult {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, with a value for each column.
    pub rows: Vec<Vec<Value>>,
    /// The tables that it was read from, also through views and subqueries.
    pub tables: BTreeSet<String>,
}

/// A result, or what SQLite said of the query.
type Outcome = Result<Arc<QueryResult>, String>;

/// The results of one query; see [`Syncline::live_query`]. Dropping it ends the query.
#[derive(Debug)]
pub struct LiveQuery(watch::Receiver<Option<Outcome>>);

impl LiveQuery {
    /// The result: as soon as it is there the first time, then when it differs from the last one. Of
    /// several that came since the last call only the newest, which is never missed. `None` once the
    /// engine has ended.
    ///
    /// # Errors
    /// [`Error::LiveQuery`] when the query cannot be run: it is wrong, would write, or a table is
    /// gone. It is tried again when the file has changed.
    pub async fn next(&mut self) -> Option<Result<Arc<QueryResult>, Error>> {
        self.0.changed().await.ok()?;
        let outcome = self.0.borrow_and_update().clone()?;
        Some(outcome.map_err(Error::LiveQuery))
    }

    /// The results as an iterator that blocks the calling thread. Not to be used in async code.
    pub fn blocking(self) -> Result<BlockingLiveQuery, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| Error::NotRunning(Some(error.to_string())))?;
        Ok(BlockingLiveQuery {
            query: self,
            runtime,
        })
    }
}

/// The results of one query, for a thread that waits for them; see [`LiveQuery::blocking`].
#[derive(Debug)]
pub struct BlockingLiveQuery {
    query: LiveQuery,
    runtime: tokio::runtime::Runtime,
}

impl Iterator for BlockingLiveQuery {
    type Item = Result<Arc<QueryResult>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.query.next())
    }
}

impl Syncline {
    /// Subscribes to a query: its result now, and a new one whenever it changes, by writes of this
    /// program, of other processes, or of the remote. It can only read. Changes in quick succession
    /// are seen as one; the last one is always seen, within a tenth of a second or so.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// # let app = syncline::rusqlite::Connection::open(&path)?;
    /// # app.execute_batch("CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, title TEXT, done INTEGER)")?;
    /// # let sync = syncline::Syncline::builder(&path).remote("http://127.0.0.1:8470")
    /// #     .token(syncline::TokenSource::Static("token".into())).attach(["task"]).open()?;
    /// let open = "SELECT title FROM task WHERE done = ?1 ORDER BY title";
    /// let mut results = sync.live_query(open, vec![0.into()])?.blocking()?;
    /// assert!(results.next().unwrap()?.rows.is_empty());
    ///
    /// app.execute("INSERT INTO task VALUES ('t1', 'milk', 0)", [])?;
    /// let result = results.next().unwrap()?;
    /// assert_eq!(result.rows, [["milk".to_owned().into()]]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the file cannot be opened. What is wrong with the query is told by [`LiveQuery::next`].
    pub fn live_query(&self, sql: &str, params: Vec<Value>) -> Result<LiveQuery, Error> {
        let (sender, receiver) = watch::channel(None);
        let query = Query {
            sql: sql.to_owned(),
            params,
            told: sender,
        };
        self.queries.add(query)?;
        Ok(LiveQuery(receiver))
    }
}

/// A query that somebody waits for.
struct Query {
    sql: String,
    params: Vec<Value>,
    told: watch::Sender<Option<Outcome>>,
}

/// The live queries of a handle; their thread starts with the first.
pub(crate) struct LiveQueries {
    path: PathBuf,
    changes: watch::Receiver<Seen>,
    thread: Mutex<Option<mpsc::UnboundedSender<Query>>>,
}

impl LiveQueries {
    pub(crate) fn new(path: &Path, changes: watch::Receiver<Seen>) -> Self {
        Self {
            path: path.to_owned(),
            changes,
            thread: Mutex::new(None),
        }
    }

    fn add(&self, query: Query) -> Result<(), Error> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match thread.take() {
            Some(sender) => sender,
            None => start(&self.path, self.changes.clone())?,
        };
        // Once the engine has ended nobody takes it any more, and the query ends at once.
        let _ = sender.send(query);
        *thread = Some(sender);
        Ok(())
    }
}

fn start(
    path: &Path,
    changes: watch::Receiver<Seen>,
) -> Result<mpsc::UnboundedSender<Query>, Error> {
    let reader = Reader::open(path)?;
    let (sender, incoming) = mpsc::unbounded_channel();
    let not_running = |error: std::io::Error| Error::NotRunning(Some(error.to_string()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(not_running)?;
    std::thread::Builder::new()
        .name("syncline-queries".to_owned())
        .spawn(move || runtime.block_on(run(reader, incoming, changes)))
        .map_err(not_running)?;
    Ok(sender)
}

async fn run(
    reader: Reader,
    mut incoming: mpsc::UnboundedReceiver<Query>,
    mut changes: watch::Receiver<Seen>,
) {
    let mut queries: Vec<Query> = Vec::new();
    // As of when all of them were read; `None`: some were not.
    let mut seen = None;
    loop {
        tokio::select! {
            query = incoming.recv() => match query {
                Some(query) => {
                    if !reader.tell(&query) {
                        seen = None;
                    }
                    queries.push(query);
                    continue;
                }
                None => return,
            },
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(LONGEST_REST), if seen.is_none() => {}
        }
        // Noted before the queries read, so what is committed meanwhile makes another round.
        let version = reader.data_version();
        if version.is_some() && version == seen {
            continue;
        }
        let begun = Instant::now();
        queries.retain(|query| !query.told.is_closed());
        let read = queries.iter().filter(|query| reader.tell(query)).count();
        seen = version.filter(|_| read == queries.len());
        tokio::time::sleep(begun.elapsed().clamp(REST, LONGEST_REST)).await;
    }
}

/// A connection that can only read, and notes what is read.
struct Reader {
    conn: Connection,
    /// What the statements prepared since it was emptied read from.
    tables: Arc<Mutex<BTreeSet<String>>>,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(BUSY)?;
        let tables = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = Arc::clone(&tables);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            authorize(&context, &noted)
        }))?;
        Ok(Self { conn, tables })
    }

    fn data_version(&self) -> Option<i64> {
        let version = self
            .conn
            .pragma_query_value(None, "data_version", |row| row.get(0));
        version.ok()
    }

    /// Runs a query and tells what came of it, unless that is known. False: it could not be read now.
    fn tell(&self, query: &Query) -> bool {
        let outcome = match self.read(query) {
            Ok(result) => Ok(Arc::new(result)),
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy) => return false,
                Some(ErrorCode::AuthorizationForStatementDenied) => {
                    Err(format!("it can only read ({error})"))
                }
                _ => Err(error.to_string()),
            },
        };
        query.told.send_if_modified(|told| {
            let differs = told.as_ref() != Some(&outcome);
            if differs {
                *told = Some(outcome);
            }
            differs
        });
        true
    }

    fn read(&self, query: &Query) -> rusqlite::Result<QueryResult> {
        // Prepared anew each time, so that the tables are those of the schema as it is.
        self.noted().clear();
        let mut statement = self.conn.prepare(&query.sql)?;
        let tables = self.tables()?;
        let columns: Vec<String> = statement
            .column_names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let width = columns.len();
        let rows = statement.query_map(params_from_iter(&query.params), |row| {
            (0..width).map(|column| row.get(column)).collect()
        })?;
        let rows = rows.collect::<Result<_, _>>()?;
        Ok(QueryResult {
            columns,
            rows,
            tables,
        })
    }

    /// What was noted, but for views: what they read is noted as well.
    fn tables(&self) -> rusqlite::Result<BTreeSet<String>> {
        let mut named = std::mem::take(&mut *self.noted());
        let sql =
            "SELECT count(*) FROM sqlite_schema WHERE type = 'view' AND name = ?1 COLLATE NOCASE";
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut views = Vec::new();
        for name in &named {
            if statement.query_row([name], |row| row.get::<_, i64>(0))? > 0 {
                views.push(name.clone());
            }
        }
        named.retain(|name| !views.contains(name));
        Ok(named)
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a statement read, and nothing else: also no transaction that would outlive it. SQLite names
/// each table that is read when a statement is prepared, whatever views, subqueries and common table
/// expressions lie between.
fn authorize(context: &AuthContext<'_>, tables: &Mutex<BTreeSet<String>>) -> Authorization {
    match context.action {
        AuthAction::Read { table_name, .. } => {
            let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.insert(table_name.to_owned());
            Authorization::Allow
        }
        AuthAction::Select | AuthAction::Recursive | AuthAction::Function { .. } => {
            Authorization::Allow
        }
        AuthAction::Pragma {
            pragma_name: "data_version",
            pragma_value: None,
        } => Authorization::Allow,
        _ => Authorization::Deny,
    }
}
