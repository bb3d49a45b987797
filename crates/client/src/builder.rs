//! Setting an engine up: every setting has a default that works.

use crate::driver::{self, Driver};
use crate::{Clock, Error, Syncline, write};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use syncline_core::{Config, Policy, Remote};
use syncline_protocol::ClientId;
use syncline_store::attach::{AttachReport, AttachRequest, Existing, Tables, attach};
use syncline_store::{Store, StoreOptions, Watcher};

/// Builds a [`Syncline`]; see [`Syncline::builder`].
pub struct Builder {
    path: PathBuf,
    url: Option<String>,
    remote: Option<Arc<dyn Remote>>,
    #[cfg(feature = "http")]
    token: Option<crate::TokenSource>,
    #[cfg(feature = "http")]
    plain_http: crate::PlainHttp,
    tables: Option<Tables>,
    existing: Existing,
    policy: Policy,
    config: Config,
    watcher: Option<Watcher>,
}

impl Builder {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            url: None,
            remote: None,
            #[cfg(feature = "http")]
            token: None,
            #[cfg(feature = "http")]
            plain_http: crate::PlainHttp::default(),
            tables: None,
            existing: Existing::Upload,
            policy: Policy::default(),
            config: Config::default(),
            watcher: None,
        }
    }

    /// The server's address. Not needed for a database that was attached before.
    #[must_use]
    pub fn remote(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// A remote of your own instead of HTTP.
    #[must_use]
    pub fn remote_with(mut self, remote: Arc<dyn Remote>) -> Self {
        self.remote = Some(remote);
        self
    }

    /// Where the access token comes from.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn token(mut self, token: crate::TokenSource) -> Self {
        self.token = Some(token);
        self
    }

    /// Whether plain HTTP may be spoken beyond this machine.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn plain_http(mut self, plain_http: crate::PlainHttp) -> Self {
        self.plain_http = plain_http;
        self
    }

    /// Attaches these tables when opening, where they are not attached yet.
    #[must_use]
    pub fn attach<T: Into<String>>(mut self, tables: impl IntoIterator<Item = T>) -> Self {
        self.tables = Some(Tables::Named(tables.into_iter().map(Into::into).collect()));
        self
    }

    /// Attaches every table when opening.
    #[must_use]
    pub fn attach_all(mut self) -> Self {
        self.tables = Some(Tables::All);
        self
    }

    /// What happens with rows that a table has when it is attached; the default is to upload them.
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
    }

    /// How conflicts in tables attached now are decided; the default is a merge field by field.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Intervals, sizes and limits.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Someone who is told the moments of each unit of store work (crash tests above all).
    #[must_use]
    pub fn watcher(mut self, watcher: Watcher) -> Self {
        self.watcher = Some(watcher);
        self
    }

    /// Attaches without starting an engine. Works offline.
    pub fn attach_only(&self) -> Result<AttachReport, Error> {
        let Some(tables) = self.tables.clone() else {
            return Ok(AttachReport::default());
        };
        let mut conn = open_existing(&self.path)?;
        let request = AttachRequest {
            remote: self.url.clone().ok_or(Error::NoRemote)?,
            tables,
            existing: self.existing,
            policy: self.policy,
            options: std::collections::BTreeMap::new(),
            client: ClientId::new(driver::random_name()?),
        };
        Ok(attach(&mut conn, &request, Clock::start().now())?)
    }

    /// Attaches what is to be attached, opens the store and starts the engine on its own thread.
    pub fn open(self) -> Result<Syncline, Error> {
        self.attach_only()?;
        drop(open_existing(&self.path)?);
        let mut options = StoreOptions::new(driver::random_name()?, driver::random_seed()?);
        options.lease_ttl_ms = self.config.lease_ttl_ms;
        options.watcher = self.watcher.clone();
        let store = Store::open(&self.path, options)?;
        let remote = self.make_remote(&store)?;
        let writer = write::connect(&self.path)?;
        let driver = Driver::new(store, remote, self.config.clone(), &self.path)?;
        Syncline::start(driver, writer, &self.path)
    }

    #[cfg(feature = "http")]
    fn make_remote(&self, store: &Store) -> Result<Arc<dyn Remote>, Error> {
        if let Some(remote) = &self.remote {
            return Ok(Arc::clone(remote));
        }
        let url = match &self.url {
            Some(url) => url.clone(),
            None => store.remote()?,
        };
        let mut builder = crate::HttpRemote::builder(url).plain_http(self.plain_http);
        if let Some(token) = self.token.clone() {
            builder = builder.token(token);
        }
        Ok(Arc::new(builder.build()?))
    }

    #[cfg(not(feature = "http"))]
    fn make_remote(&self, _store: &Store) -> Result<Arc<dyn Remote>, Error> {
        self.remote.clone().ok_or(Error::NoRemote)
    }
}

fn open_existing(path: &Path) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::NoDatabase(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(conn)
}
