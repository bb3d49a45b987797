//! Asking the process that is the engine of a file to sync now, and its answer.
//!
//! Two rows of `syncline_meta` are all there is between the processes: whoever asks writes a
//! number larger than the last one, the engine's process writes the largest number that it has
//! answered and how that sync ended. Nothing is lost when nobody answers: the asker gives up, and
//! the next engine that comes by may answer or not.

use crate::error::StoreError;
use crate::meta;
use rusqlite::{Connection, TransactionBehavior};
use syncline_core::Now;

const ASKED: &str = "sync_asked";
const ANSWERED: &str = "sync_answered";
const ANSWER: &str = "sync_answer";

/// Asks; returns the number under which the answer will come.
pub fn ask(conn: &mut Connection, now: Now) -> Result<i64, StoreError> {
    meta::require_readable(conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: Option<i64> = meta::get(&tx, ASKED)?;
    let number = now.unix_ms.max(last.unwrap_or(0).saturating_add(1));
    meta::set(&tx, ASKED, number)?;
    tx.commit()?;
    Ok(number)
}

/// The newest ask that has no answer yet.
pub fn unanswered(conn: &Connection) -> Result<Option<i64>, StoreError> {
    let asked: Option<i64> = meta::get(conn, ASKED)?;
    let answered: Option<i64> = meta::get(conn, ANSWERED)?;
    Ok(asked.filter(|asked| answered.is_none_or(|answered| answered < *asked)))
}

/// Answers an ask and every earlier one.
pub fn answer(conn: &mut Connection, number: i64, answer: &str) -> Result<(), StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    meta::set(&tx, ANSWERED, number)?;
    meta::set(&tx, ANSWER, answer)?;
    tx.commit()?;
    Ok(())
}

/// The answer to an ask, once there is one.
pub fn answer_to(conn: &Connection, number: i64) -> Result<Option<String>, StoreError> {
    let answered: Option<i64> = meta::get(conn, ANSWERED)?;
    if answered.is_none_or(|answered| answered < number) {
        return Ok(None);
    }
    Ok(meta::get(conn, ANSWER)?)
}
