//! Asking the process that is the engine of a file to sync now, and its answer.
//!
//! A few rows of `syncline_meta` are all there is between the processes: whoever asks writes a
//! number larger than the last one, and what that sync may use; the engine's process writes the
//! largest number that it has answered and how that sync ended. Nothing is lost when nobody answers:
//! the asker gives up, and the next engine that comes by may answer or not.

use crate::error::{StoreError, json, to_json};
use crate::meta;
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};
use syncline_core::Now;

const ASKED: &str = "sync_asked";
const WITHIN: &str = "sync_within";
const ANSWERED: &str = "sync_answered";
const ANSWER: &str = "sync_answer";

/// What the sync that is asked for may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// By when it is over, in milliseconds from when it begins.
    pub time_ms: u64,
    /// Requests at most.
    pub requests: Option<u64>,
    /// Bytes of mutations and changes at most.
    pub bytes: Option<u64>,
}

/// An ask that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Under which its answer is looked for.
    pub number: i64,
    /// `None`: everything that there is to do.
    pub within: Option<Within>,
}

/// Asks; returns the number under which the answer will come.
pub fn ask(conn: &mut Connection, within: Option<Within>, now: Now) -> Result<i64, StoreError> {
    meta::require_readable(conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: Option<i64> = meta::get(&tx, ASKED)?;
    let number = now.unix_ms.max(last.unwrap_or(0).saturating_add(1));
    // Whoever asked for everything and has no answer yet is not answered with less.
    let all = unanswered(&tx)?.is_some_and(|before| before.within.is_none());
    match within.filter(|_| !all) {
        Some(within) => meta::set(&tx, WITHIN, to_json(&within))?,
        None => meta::clear(&tx, WITHIN)?,
    }
    meta::set(&tx, ASKED, number)?;
    tx.commit()?;
    Ok(number)
}

/// The newest ask that has no answer yet.
pub fn unanswered(conn: &Connection) -> Result<Option<Ask>, StoreError> {
    let asked: Option<i64> = meta::get(conn, ASKED)?;
    let answered: Option<i64> = meta::get(conn, ANSWERED)?;
    let Some(number) = asked.filter(|asked| answered.is_none_or(|answered| answered < *asked))
    else {
        return Ok(None);
    };
    let within: Option<String> = meta::get(conn, WITHIN)?;
    let within = within.map(|text| json("what was asked for", &text));
    Ok(Some(Ask {
        number,
        within: within.transpose()?,
    }))
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
