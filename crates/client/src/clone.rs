//! A new database on another device: its tables are made from what the server knows of them.
//!
//! The file gets its name only when its tables are made and attached. Before that nothing is left
//! behind on failure; after it the file is an attached one, and any later sync fills it.

use crate::{Builder, Clock, Error, driver};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use syncline_core::RemoteError;
use syncline_protocol::{ClientId, TypeDefinitions};
use syncline_store::Settings;
use syncline_store::attach::AttachRequest;
use syncline_store::attach::{Existing, Tables};
use syncline_store::definitions::{self, Made};

impl Builder {
    /// Makes the database, with the tables that the devices of this account have told the server of,
    /// and attaches them; the first sync brings the rows. An existing file is never touched. Blocks
    /// for one request; not to be called in async code.
    pub fn clone_database(&self) -> Result<Made, Error> {
        let path = self.path();
        if path.exists() {
            return Err(Error::Exists(path.to_owned()));
        }
        let url = self.url().ok_or(Error::NoRemote)?;
        let client = ClientId::new(driver::random_name()?);
        let settings = self.given_settings().unwrap_or_default();
        let definitions = self.fetch(url.clone(), &settings, &client)?;
        if definitions.types.is_empty() {
            return Err(Error::NothingToClone(url));
        }
        let draft = Draft::new(path)?;
        let request = AttachRequest {
            remote: url,
            tables: Tables::Named(Vec::new()),
            existing: Existing::Upload,
            policy: self.default_policy(),
            rules: self.declared_rules(),
            declared: self.declarations(),
            settings: self.given_settings(),
            client,
        };
        let mut conn = Connection::open(&draft.0)?;
        let made = definitions::make(&mut conn, &definitions, request, Clock::start().now())?;
        conn.close().map_err(|(_, error)| error)?;
        draft.publish(path)?;
        Ok(made)
    }

    fn fetch(
        &self,
        url: String,
        settings: &Settings,
        client: &ClientId,
    ) -> Result<TypeDefinitions, Error> {
        let remote = self.http_remote(url, settings)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::NotRunning(Some(error.to_string())))?;
        let answer: Result<TypeDefinitions, RemoteError> = runtime.block_on(remote.types(client));
        Ok(answer?)
    }
}

/// A file under a name of its own; removed when dropped.
struct Draft(PathBuf);

impl Draft {
    fn new(path: &Path) -> Result<Self, Error> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".cloning-{}", driver::random_name()?));
        Ok(Self(path.with_file_name(name)))
    }

    /// Gives the file its name, unless somebody has taken it meanwhile.
    fn publish(self, path: &Path) -> Result<(), Error> {
        std::fs::hard_link(&self.0, path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::Exists(path.to_owned()),
            _ => Error::CannotCreate(path.to_owned(), error.to_string()),
        })
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.0.as_os_str().to_owned();
            name.push(suffix);
            // Most of them are not there.
            let _ = std::fs::remove_file(name);
        }
    }
}
