//! Comparing a database with what the server has, and mending what differs: outside of the engine,
//! for `syncline doctor` and for apps that want to be sure.
//!
//! Hashes of ranges first, then those of single rows where a range differs, then the rows themselves.
//! No transaction is open while a request is on the wire (A4): each row that seems to differ is
//! looked at again before it counts.

use crate::{Builder, Clock, Error, driver};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::time::Duration;
use syncline_core::{EntityRef, Now, RemoteError, StoreAnswer, StoreWork};
use syncline_protocol::{Change, ClientId, DIGEST_IDS, EntityId, Epoch, Hello, Principal, Scope};
use syncline_remote_http::{DigestOf, HttpRemote};
use syncline_store::digest::{self, Apart, Divergence, LocalDigest, LocalType};
use syncline_store::{Repaired, Settings, Store, StoreError, StoreOptions, holder, status};

/// What came of asking the server.
#[derive(Debug)]
pub struct Compared {
    /// What the server said of itself and of whom it speaks to.
    pub hello: Hello,
    /// How far the server's clock is ahead of this one, in milliseconds, and how exactly that is known.
    pub clock_ahead_ms: (i64, i64),
    /// Whose the file is, if a server named it before.
    pub account: Option<Principal>,
    /// The rows.
    pub rows: Rows,
    /// What was mended, if that was asked for.
    pub repaired: Option<Repaired>,
}

/// What came of comparing the rows.
#[derive(Debug)]
pub enum Rows {
    /// They were not: the token names another account.
    OtherAccount,
    /// They were not: not everything was pulled once.
    NeverPulled,
    /// They were not: the server's history is another one; the next sync compares everything.
    OtherHistory,
    /// They were.
    Compared(Comparison),
}

/// Rows here against the server's.
#[derive(Debug)]
pub struct Comparison {
    /// The scope that was compared.
    pub scope: Scope,
    /// The applied position, as of which the rows were compared.
    pub position: i64,
    /// Rows here that could be compared.
    pub rows: u64,
    /// Rows that could not, and why.
    pub apart: BTreeMap<Apart, u64>,
    /// Rows with a key that cannot be synced.
    pub unsyncable: u64,
    /// Entities that changed on the server since the last pull.
    pub changed_since: u64,
    /// Rows that are not what the server has, although they should be.
    pub divergent: Vec<Divergence>,
    /// There are more of them: it was not looked any further.
    pub cut: bool,
}

/// As many divergent rows are told; nobody reads more.
const MOST_TOLD: usize = 1_000;

impl Builder {
    /// Compares the attached database with the server. Changes nothing, and works beside a running
    /// engine. Blocks; not to be called in async code.
    pub fn compare(&self) -> Result<Compared, Error> {
        let conn = self.reading()?;
        let settings = self.settings_or_stored(&conn)?;
        self.run(&conn, &settings, MOST_TOLD)
    }

    /// Compares, and takes over the server's state of every row that differs. What such a row was is
    /// kept in the log. Rows with unsettled mutations are never touched. Needs to be the engine of the
    /// file meanwhile. Blocks; not to be called in async code.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when another process is the engine.
    pub fn repair(&self) -> Result<Compared, Error> {
        let clock = Clock::start();
        let name = holder::of_this_process(&driver::random_name()?);
        let conn = self.reading()?;
        let settings = self.settings_or_stored(&conn)?;
        let mut options = StoreOptions::new(name, driver::random_seed()?).settings(&settings);
        options.records = self.kept_records();
        let mut store = Store::open(self.path(), options)?;
        take_lease(&mut store, clock.now())?;
        store.recover_escaped(clock.now())?;
        let done = self.repair_with(&mut store, &conn, &settings, &clock);
        store.release()?;
        done
    }

    fn repair_with(
        &self,
        store: &mut Store,
        conn: &Connection,
        settings: &Settings,
        clock: &Clock,
    ) -> Result<Compared, Error> {
        let mut compared = self.run(conn, settings, usize::MAX)?;
        if let Rows::Compared(found) = &compared.rows
            && !found.divergent.is_empty()
        {
            // Comparing can take longer than the lease.
            take_lease(store, clock.now())?;
            let at = (&found.scope, found.position);
            compared.repaired = Some(store.repair(at, &found.divergent, clock.now())?);
        }
        Ok(compared)
    }

    fn reading(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(self.path(), flags)?;
        conn.busy_timeout(Duration::from_secs(5))?;
        Ok(conn)
    }

    fn settings_or_stored(&self, conn: &Connection) -> Result<Settings, Error> {
        Ok(match self.given_settings() {
            Some(settings) => settings,
            None => Settings::stored(conn)?,
        })
    }

    fn run(&self, conn: &Connection, settings: &Settings, most: usize) -> Result<Compared, Error> {
        let status = status::read(conn, Clock::start().now())?;
        let url = match self.url() {
            Some(url) => url,
            None => status.remote.ok_or(Error::NoRemote)?,
        };
        let remote = self.http_remote(url, settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::NotRunning(Some(error.to_string())))?;
        let account = status.account;
        let account = account.map(|(tenant, subject)| Principal { tenant, subject });
        runtime.block_on(ask(conn, &remote, account, most))
    }
}

/// Becomes the engine of the file, or stays it.
fn take_lease(store: &mut Store, now: Now) -> Result<(), Error> {
    match store.perform(&StoreWork::Acquire, now) {
        StoreAnswer::Acquired => Ok(()),
        StoreAnswer::Failed(fault) => Err(StoreError::Refused(fault.to_string()).into()),
        _ => Err(StoreError::Fenced.into()),
    }
}

async fn ask(
    conn: &Connection,
    remote: &HttpRemote,
    account: Option<Principal>,
    most: usize,
) -> Result<Compared, Error> {
    let client = digest::client_id(conn)?;
    let clock = Clock::start();
    let before = clock.now().unix_ms;
    let hello = remote.hello(&client).await?;
    let after = clock.now().unix_ms;
    let exactly = after.saturating_sub(before).max(0) / 2;
    let ahead = hello.server_time_ms.saturating_sub(before + exactly);
    let digest = digest::read(conn)?;
    let rows = match digest {
        _ if account.as_ref().is_some_and(|own| *own != hello.principal) => Rows::OtherAccount,
        None => Rows::NeverPulled,
        Some(digest) if digest.epoch != hello.epoch => Rows::OtherHistory,
        Some(digest) => {
            let comparing = Comparing {
                conn,
                remote,
                client: &client,
                digest: &digest,
                most,
                found: Comparison {
                    scope: digest.scope.clone(),
                    position: digest.position,
                    rows: 0,
                    apart: BTreeMap::new(),
                    unsyncable: 0,
                    changed_since: 0,
                    divergent: Vec::new(),
                    cut: false,
                },
            };
            match comparing.all().await? {
                Some(found) => Rows::Compared(found),
                None => Rows::OtherHistory,
            }
        }
    };
    Ok(Compared {
        hello,
        clock_ahead_ms: (ahead, exactly),
        account,
        rows,
        repaired: None,
    })
}

/// One comparison under way.
struct Comparing<'a> {
    conn: &'a Connection,
    remote: &'a HttpRemote,
    client: &'a ClientId,
    digest: &'a LocalDigest,
    most: usize,
    found: Comparison,
}

impl Comparing<'_> {
    /// Every type; `None`: the server's history was replaced meanwhile.
    async fn all(mut self) -> Result<Option<Comparison>, Error> {
        let digest = self.digest;
        for one in &digest.types {
            self.found.rows += one.len() as u64;
            self.found.unsyncable += one.unsyncable;
            for (why, count) in one.apart() {
                *self.found.apart.entry(why).or_default() += count;
            }
            if !self.one_type(one).await? {
                return Ok(None);
            }
        }
        Ok(Some(self.found))
    }

    fn of<'o>(&'o self, one: &'o LocalType) -> DigestOf<'o> {
        DigestOf {
            client: self.client,
            scope: &self.digest.scope,
            entity_type: &one.name,
            fields: &one.fields,
        }
    }

    fn is_ours(&self, epoch: &Epoch) -> bool {
        *epoch == self.digest.epoch
    }

    async fn one_type(&mut self, one: &LocalType) -> Result<bool, Error> {
        let mut after: Option<EntityId> = None;
        loop {
            let answer = self
                .remote
                .digest_ranges(self.of(one), after.as_ref())
                .await?;
            if !self.is_ours(&answer.epoch) {
                return Ok(false);
            }
            if answer.more && answer.ranges.is_empty() {
                return Err(garbled("there is more, but no range"));
            }
            for range in answer.ranges {
                go_on(after.as_ref(), &range.until)?;
                let here = one.hash(after.as_ref(), &range.until);
                if here != Some(range.hash)
                    && !self.narrow(one, after.as_ref(), &range.until).await?
                {
                    return Ok(false);
                }
                after = Some(range.until);
            }
            if self.found.cut {
                return Ok(true);
            }
            if !answer.more {
                break;
            }
        }
        // The server has nothing behind its last range.
        let rest = one
            .rows(after.as_ref(), None)
            .iter()
            .map(|(id, _)| id.clone());
        self.look(one, rest.collect()).await
    }

    /// Compares row by row from behind `after` to `until`.
    async fn narrow(
        &mut self,
        one: &LocalType,
        after: Option<&EntityId>,
        until: &EntityId,
    ) -> Result<bool, Error> {
        let mut here: BTreeMap<&EntityId, _> = (one.rows(after, Some(until)).iter())
            .map(|(id, hash)| (id, *hash))
            .collect();
        let mut odd = Vec::new();
        let mut after = after.cloned();
        loop {
            let of = self.of(one);
            let answer = self
                .remote
                .digest_entities(of, after.as_ref(), until)
                .await?;
            if !self.is_ours(&answer.epoch) {
                return Ok(false);
            }
            if answer.more && answer.entities.is_empty() {
                return Err(garbled("there is more, but no entity"));
            }
            for entity in answer.entities {
                go_on(after.as_ref(), &entity.id)?;
                let local = here.remove(&entity.id);
                after = Some(entity.id.clone());
                if one.is_apart(&entity.id) {
                    continue;
                }
                if entity.position > self.digest.position {
                    self.found.changed_since += 1;
                } else if local != Some(entity.hash) {
                    odd.push(entity.id);
                }
            }
            if !answer.more {
                break;
            }
        }
        odd.extend(here.into_keys().cloned());
        self.look(one, odd).await
    }

    /// Fetches what seems to differ, and looks at each row again.
    async fn look(&mut self, one: &LocalType, ids: Vec<EntityId>) -> Result<bool, Error> {
        for ids in ids.chunks(DIGEST_IDS) {
            if self.found.divergent.len() >= self.most {
                self.found.cut = true;
                return Ok(true);
            }
            let answer = self.remote.digest_changes(self.of(one), ids).await?;
            if !self.is_ours(&answer.epoch) {
                return Ok(false);
            }
            let changes: BTreeMap<&EntityId, &Change> = (answer.changes.iter())
                .map(|change| (&change.id, change))
                .collect();
            if answer
                .changes
                .iter()
                .any(|change| change.entity_type != one.name)
            {
                return Err(garbled("it has entities of another type"));
            }
            for id in ids {
                let change = changes.get(id).copied();
                if change.is_some_and(|change| change.position > self.digest.position) {
                    self.found.changed_since += 1;
                    continue;
                }
                let entity = EntityRef {
                    entity_type: one.name.clone(),
                    id: id.clone(),
                };
                let judged = digest::judge(self.conn, self.digest, &entity, change)?;
                self.found.divergent.extend(judged);
            }
        }
        Ok(true)
    }
}

/// Whether an answer goes on behind where the last one ended.
fn go_on(after: Option<&EntityId>, id: &EntityId) -> Result<(), Error> {
    match after.is_some_and(|after| id <= after) {
        true => Err(garbled("its ids are not in order")),
        false => Ok(()),
    }
}

fn garbled(what: &str) -> Error {
    let detail = format!("the digest makes no sense: {what}");
    RemoteError::Transient {
        status: 200,
        detail,
        retry_after: None,
        overloaded: false,
    }
    .into()
}
