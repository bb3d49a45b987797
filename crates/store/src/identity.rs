//! Who this installation is: two files that call themselves the same must not sync as one (I2).
//!
//! A token stands in the file and, with the file's place, outside of it. At each opening they must
//! be the same and are replaced together. A file whose token is missing outside, or another there,
//! or whose place another file of the same installation still has, is a copy or an older state: it
//! takes a new identity. The server's exchange token finds what slips through here.

mod state_directory;

pub use state_directory::StateDirectory;

use crate::error::{StoreError, json, to_json};
use crate::meta;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Once;
use syncline_core::Dice;
use syncline_protocol::ClientId;

/// Where records of installations are kept: outside the database files, and not in their backups. A
/// directory on this machine ([`StateDirectory`]), or a keychain of the app's.
pub trait InstallationRecords: Send + Sync {
    /// What was saved for an installation; `None`: nothing was.
    fn load(&self, client: &ClientId) -> std::io::Result<Option<String>>;

    /// Saves it in place of what was saved before; it must be durable when this returns.
    fn save(&self, client: &ClientId, record: &str) -> std::io::Result<()>;
}

/// What is kept outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The token; two while it is being replaced.
    tokens: Vec<String>,
    /// Where the file was when it was last opened.
    place: Option<PathBuf>,
}

/// Takes a new identity. Everything unsettled counts as possibly sent under the old one: it keeps
/// its key, or is sent under the key that it would have had, and is never coalesced.
pub(crate) fn remint(tx: &Transaction<'_>, dice: &mut Dice) -> Result<ClientId, StoreError> {
    let old: Option<String> = meta::get(tx, meta::key::CLIENT_ID)?;
    let old = old.ok_or(StoreError::NotAttached)?;
    // What waits for a person is not sent by anybody, nor is what follows it, unless that is a row of its own: it may get another id.
    tx.execute(
        "UPDATE syncline_outbox AS o SET origin_client = ?1
          WHERE origin_client IS NULL
            AND NOT EXISTS (SELECT 1 FROM syncline_outbox AS f
                             WHERE f.entity_type = o.entity_type AND f.entity_id = o.entity_id
                               AND f.seq <= o.seq AND f.state = 'failed'
                               AND NOT EXISTS (SELECT 1 FROM syncline_outbox AS c
                                                WHERE c.entity_type = o.entity_type AND c.entity_id = o.entity_id
                                                  AND c.op = 'create' AND c.seq > f.seq AND c.seq <= o.seq))
            AND NOT EXISTS (SELECT 1 FROM syncline_conflict AS c
                             WHERE c.entity_type = o.entity_type AND c.entity_id = o.entity_id
                               AND c.resolved_at IS NULL)",
        [&old],
    )?;
    // But it may be sent again by hand, in each of the files.
    tx.execute(
        "UPDATE syncline_outbox SET shared_with = coalesce(shared_with, ?1) WHERE origin_client IS NULL",
        [&old],
    )?;
    let client = random(dice);
    meta::set(tx, meta::key::CLIENT_ID, &client)?;
    meta::clear(tx, meta::key::EXCHANGE_TOKEN)?;
    // The new identity is written down after this, or by whoever opens the file next.
    meta::clear(tx, meta::key::INSTALLATION_TOKEN)?;
    Ok(ClientId::new(client))
}

/// 32 random hexadecimal digits.
fn random(dice: &mut Dice) -> String {
    format!("{:016x}{:016x}", dice.up_to(u64::MAX), dice.up_to(u64::MAX))
}

/// What came of looking at a file's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// It is the installation that it says.
    Same,
    /// It has a new one.
    Changed,
}

/// Remembers outside of an attached file whose it is, if that is not remembered yet.
pub fn enrol(
    conn: &mut Connection,
    path: &Path,
    records: &dyn InstallationRecords,
    seed: u64,
) -> Result<(), StoreError> {
    let enrolled: Option<String> = meta::get(conn, meta::key::INSTALLATION_TOKEN)?;
    match enrolled {
        Some(_) => Ok(()),
        None => recognise(conn, path, records, &mut Dice::seeded(seed)).map(drop),
    }
}

/// Compares the file with what is kept outside of it, and renews both. Where nothing can be kept,
/// nothing is compared.
pub(crate) fn recognise(
    conn: &mut Connection,
    path: &Path,
    records: &dyn InstallationRecords,
    dice: &mut Dice,
) -> Result<Identity, StoreError> {
    let place = std::fs::canonicalize(path).ok();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut client = client_id(&tx)?;
    let token: Option<String> = meta::get(&tx, meta::key::INSTALLATION_TOKEN)?;
    let mut identity = Identity::Same;
    let mut tokens = Vec::new();
    if let Some(token) = token {
        match load(records, &client) {
            Err(error) => {
                warn_once(&error);
                return Ok(Identity::Same);
            }
            Ok(Some(record)) if record.is_of(&token, place.as_deref(), &client) => {
                tokens.push(token);
            }
            Ok(_) => {
                client = remint(&tx, dice)?;
                identity = Identity::Changed;
            }
        }
    }
    let fresh = random(dice);
    tokens.push(fresh.clone());
    let record = Record { tokens, place };
    if let Err(error) = records.save(&client, &to_json(&record)) {
        warn_once(&error);
        if identity == Identity::Changed {
            tx.commit()?;
        }
        return Ok(identity);
    }
    meta::set(&tx, meta::key::INSTALLATION_TOKEN, &fresh)?;
    tx.commit()?;
    forget_previous(conn, records, &client, record)?;
    Ok(identity)
}

/// From here on only the newest token counts: an older state of the file is known as such. Under
/// the file's write lock, so that of two processes the later one's token stays.
fn forget_previous(
    conn: &mut Connection,
    records: &dyn InstallationRecords,
    client: &ClientId,
    record: Record,
) -> Result<(), StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let newest: Option<String> = meta::get(&tx, meta::key::INSTALLATION_TOKEN)?;
    let record = Record {
        tokens: newest.into_iter().collect(),
        ..record
    };
    if client_id(&tx)? == *client
        && let Err(error) = records.save(client, &to_json(&record))
    {
        // Both tokens count then, which is all that is lost.
        warn_once(&error);
    }
    tx.rollback()?;
    Ok(())
}

/// Checks that nobody has given the file another identity since it was opened: what this engine
/// would send, it would send as another installation.
pub(crate) fn check(conn: &Connection, client: &ClientId) -> Result<(), StoreError> {
    match client_id(conn)? == *client {
        true => Ok(()),
        false => Err(StoreError::OtherIdentity),
    }
}

pub(crate) fn client_id(conn: &Connection) -> Result<ClientId, StoreError> {
    let client: Option<String> = meta::get(conn, meta::key::CLIENT_ID)?;
    client.map(ClientId::new).ok_or(StoreError::NotAttached)
}

fn load(
    records: &dyn InstallationRecords,
    client: &ClientId,
) -> Result<Option<Record>, std::io::Error> {
    // A record that cannot be read as one is as good as none.
    let text = records.load(client)?;
    Ok(text.and_then(|text| json("installation record", &text).ok()))
}

impl Record {
    fn is_of(&self, token: &str, place: Option<&Path>, client: &ClientId) -> bool {
        self.tokens.iter().any(|known| known == token) && !self.is_elsewhere(place, client)
    }

    /// Whether the installation's file is still where it was, and this is another one.
    fn is_elsewhere(&self, place: Option<&Path>, client: &ClientId) -> bool {
        match (&self.place, place) {
            (Some(known), Some(here)) if known != here => {
                !is_same_file(known, here) && client_of(known).as_ref() == Some(client)
            }
            _ => false,
        }
    }
}

/// Two names of one file: a link, or a directory mounted twice.
fn is_same_file(one: &Path, other: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if let (Ok(one), Ok(other)) = (std::fs::metadata(one), std::fs::metadata(other)) {
            return (one.dev(), one.ino()) == (other.dev(), other.ino());
        }
    }
    one == other
}

/// Whose file that is, if it is one that can be read.
fn client_of(path: &Path) -> Option<ClientId> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).ok()?;
    client_id(&conn).ok()
}

fn warn_once(error: &std::io::Error) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| {
        tracing::warn!(
            %error,
            "no state can be kept outside the database, so a copied or restored file is only \
             noticed by the server; set SYNCLINE_STATE_DIR to a directory that can be written"
        );
    });
}
