//! The mutations of an entity on a new base: each is rewritten to what is left of it, what is empty
//! is closed, and what depended on it depends on what carries its content now.

use super::reconcile::Way;
use crate::apply::Applier;
use crate::captured;
use crate::error::{StoreError, to_json};
use crate::outbox::{self, Entry, EntryState, Recorded};
use crate::unknown;
use rusqlite::{OptionalExtension, params};
use syncline_core::{Intent, PendingMutation, Rebased, Rewrite};
use syncline_protocol::Operation;

/// As the outbox says why a mutation was recorded that nobody has written, or why an edit is a create
/// now: the row that it is about is created again, and is no other one.
pub(crate) const ORIGIN: &str = "resolved";

impl Applier<'_> {
    /// Rewrites the entries on the remote state as base; those of which nothing is left are closed,
    /// naming the rule and the record. Returns the number of a mutation that had to be added.
    pub(super) fn rewrite_outbox(
        &mut self,
        way: &Way<'_>,
        rebased: &Rebased,
        rule: &str,
        record: Option<i64>,
    ) -> Result<Option<i64>, StoreError> {
        self.rekeying.outbox_changed();
        let names = (way.entity.entity_type.as_str(), way.entity.id.as_str());
        let is_left = |one: &Rewrite| matches!(one, Rewrite::Write(_));
        let is_pushed = rebased.new.is_some() || rebased.each.iter().any(is_left);
        if is_pushed {
            captured::write_base(self.tx, names.0, names.1, way.theirs)?;
        } else {
            captured::delete_base(self.tx, names.0, names.1)?;
        }
        let detail = serde_json::json!({ "reason": "resolved", "rule": rule, "conflict": record });
        for (index, (entry, rewrite)) in way.here.entries.iter().zip(&rebased.each).enumerate() {
            match rewrite {
                Rewrite::Write(intent) => {
                    let intent = &self.whole(way, intent)?;
                    self.rewrite_entry(entry, intent)?;
                }
                // It does more than another one shows.
                Rewrite::Supersede if is_pushed && entry.command.is_some() => {}
                Rewrite::Supersede => {
                    let carries = carriers(&way.here.pending, &rebased.each, index);
                    self.lead_on(entry, &carries)?;
                    outbox::settle(self.tx, entry, "superseded", &detail, self.now)?;
                }
            }
        }
        let Some(new) = &rebased.new else {
            return Ok(None);
        };
        let new = &self.whole(way, new)?;
        let recorded = Recorded {
            entity_type: way.entity_type,
            id: &way.entity.id,
            op: new.op,
            fields: (new.op != Operation::Delete).then_some(&new.fields),
            origin: ORIGIN,
        };
        outbox::record(self.tx, &recorded, self.now).map(Some)
    }

    /// A row that the server has no more is created again with what is kept beside it.
    fn whole(&self, way: &Way<'_>, intent: &Intent) -> Result<Intent, StoreError> {
        let mut intent = intent.clone();
        if intent.op == Operation::Create && way.theirs.is_none() {
            intent.fields = unknown::with_kept(self.tx, way.entity, &intent.fields)?;
        }
        Ok(intent)
    }

    /// A mutation that a person has to mend keeps its state and its error, and stays one that a copy has as well.
    fn rewrite_entry(&self, entry: &Entry, intent: &Intent) -> Result<(), StoreError> {
        let kept = entry.state == EntryState::Failed;
        let mended: Option<(Option<String>, Option<String>)> = match kept {
            true => self
                .tx
                .prepare_cached(
                    "SELECT last_error, shared_with FROM syncline_outbox WHERE seq = ?1",
                )?
                .query_row([entry.seq], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?,
            false => None,
        };
        outbox::rewrite(self.tx, entry.seq, intent.op, &intent.fields)?;
        if intent.op == Operation::Create && entry.op != Operation::Create {
            self.tx
                .prepare_cached("UPDATE syncline_outbox SET origin = ?2 WHERE seq = ?1")?
                .execute(params![entry.seq, ORIGIN])?;
        }
        if let Some((error, shared_with)) = mended {
            self.tx
                .prepare_cached(
                    "UPDATE syncline_outbox SET state = 'failed', last_error = ?2, shared_with = ?3 WHERE seq = ?1",
                )?
                .execute(params![entry.seq, error, shared_with])?;
        }
        Ok(())
    }

    /// What names this mutation as a dependency names those that carry its content instead.
    fn lead_on(&self, entry: &Entry, carries: &[&str]) -> Result<(), StoreError> {
        let mutation = entry.mutation.as_str();
        let mut statement = self.tx.prepare_cached(
            "SELECT seq, depends_on FROM syncline_outbox o
              WHERE depends_on IS NOT NULL AND json_valid(depends_on) AND EXISTS (
                SELECT 1 FROM json_each(o.depends_on) WHERE value = ?1)",
        )?;
        let found = statement.query_map([mutation], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let found: Vec<(i64, String)> = found.collect::<Result<_, _>>()?;
        for (seq, named) in found {
            // Anything else there is told when the entry is claimed.
            let Ok(named) = serde_json::from_str::<Vec<String>>(&named) else {
                continue;
            };
            let mut now: Vec<&str> = Vec::new();
            for name in &named {
                let instead = match name == mutation {
                    true => carries,
                    false => &[name.as_str()],
                };
                for one in instead {
                    if !now.contains(one) {
                        now.push(one);
                    }
                }
            }
            let now = (!now.is_empty()).then(|| to_json(&now));
            self.tx
                .prepare_cached("UPDATE syncline_outbox SET depends_on = ?2 WHERE seq = ?1")?
                .execute(params![seq, now])?;
        }
        Ok(())
    }
}

/// The mutations that say now what this one, of which nothing is left, had said.
fn carriers<'p>(
    pending: &'p [PendingMutation],
    each: &[Rewrite],
    superseded: usize,
) -> Vec<&'p str> {
    let Some(gone) = pending.get(superseded) else {
        return Vec::new();
    };
    let carries = |rewrite: &Rewrite| match rewrite {
        Rewrite::Supersede => false,
        Rewrite::Write(intent) => {
            intent.op != Operation::Update
                || gone.fields.names().any(|name| intent.fields.contains(name))
        }
    };
    let written = pending.iter().zip(each);
    written
        .filter(|(_, rewrite)| carries(rewrite))
        .map(|(one, _)| one.mutation.as_str())
        .collect()
}
