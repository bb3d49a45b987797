//! What an operator has done from time to time: forgetting what is old, and starting a new history.
//!
//! Forgetting never makes anything happen twice or come back: a forgotten key leaves a watermark, a
//! forgotten tombstone moves the horizon, each in the same transaction.

use crate::key_time::uuid7_ms;
use crate::mint::Mint;
use crate::{Now, ServerConfig, Storage, StorageError};
use syncline_protocol::Epoch;

/// Keys forgotten in one transaction, so that pushes wait only shortly.
const KEYS_AT_ONCE: usize = 500;

/// What was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Idempotency keys.
    pub keys: usize,
    /// Scopes whose horizon moved.
    pub scopes: usize,
}

/// Forgets keys and tombstones that are past their retention. Safe to run at any time and again.
///
/// A storage does not keep when each tombstone came; it keeps where the heads were at each purge.
/// So tombstones stay for the retention and at most one interval between two purges longer.
pub fn purge<S: Storage>(
    storage: &S,
    config: &ServerConfig,
    now: Now,
) -> Result<Purged, StorageError> {
    let mut purged = Purged::default();
    let before = now.unix_ms.saturating_sub(config.key_retention_ms);
    loop {
        let keys = storage.write(|tx| {
            let old = tx.old_keys(before, KEYS_AT_ONCE)?;
            for key in &old {
                tx.forget_key(key, uuid7_ms(key.key.as_str()))?;
            }
            Ok(old.len())
        })?;
        purged.keys += keys;
        if keys < KEYS_AT_ONCE {
            break;
        }
    }
    let before = now.unix_ms.saturating_sub(config.tombstone_retention_ms);
    for (tenant, scope) in storage.read(|tx| tx.scopes())? {
        let moved = storage.write(|tx| {
            let horizon = tx.horizon(&tenant, &scope)?;
            let old = tx.marked_head(&tenant, &scope, before)?;
            let moved = old.filter(|head| *head > horizon);
            if let Some(head) = moved {
                tx.raise_horizon(&tenant, &scope, head)?;
            }
            tx.forget_marks(&tenant, &scope, before)?;
            let last = tx.marked_head(&tenant, &scope, i64::MAX)?;
            let head = tx.head(&tenant, &scope)?;
            if last != Some(head) && head > horizon {
                tx.mark_head(&tenant, &scope, now.unix_ms)?;
            }
            Ok(moved.is_some())
        })?;
        purged.scopes += usize::from(moved);
    }
    Ok(purged)
}

/// Starts a new history: to be done after restoring a backup. Clients pull from the start and keep
/// what they have not sent; keys are still known, so nothing takes effect twice.
pub fn rotate_epoch<S: Storage>(storage: &S, now: Now) -> Result<Epoch, StorageError> {
    let mint = Mint::new(&storage.cursor_secret());
    storage.write(|tx| {
        let next = mint.next_epoch(&tx.epoch()?, now.unix_ms);
        tx.set_epoch(&next)?;
        Ok(next)
    })
}
