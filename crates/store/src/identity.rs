//! Who this installation is: two files that call themselves the same must not sync as one (I2).

use crate::error::StoreError;
use crate::meta;
use rusqlite::Transaction;
use syncline_core::Dice;
use syncline_protocol::ClientId;

/// Takes a new identity. Everything unsettled counts as possibly sent under the old one: it keeps
/// its key, or is sent under the key that it would have had, and is never coalesced.
pub(crate) fn remint(tx: &Transaction<'_>, dice: &mut Dice) -> Result<ClientId, StoreError> {
    let old: Option<String> = meta::get(tx, meta::key::CLIENT_ID)?;
    let old = old.ok_or(StoreError::NotAttached)?;
    tx.execute(
        "UPDATE syncline_outbox SET origin_client = ?1 WHERE origin_client IS NULL",
        [old],
    )?;
    let client = format!("{:016x}{:016x}", dice.up_to(u64::MAX), dice.up_to(u64::MAX));
    meta::set(tx, meta::key::CLIENT_ID, &client)?;
    meta::clear(tx, meta::key::EXCHANGE_TOKEN)?;
    Ok(ClientId::new(client))
}
