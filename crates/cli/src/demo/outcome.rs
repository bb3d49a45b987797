//! What came of it: both files against the server's listing, the counts, and whether each promise
//! was kept. Measured from the files, the wire and the server, never from what the story said.

use super::device::{Device, unsettled};
use super::listing;
use super::rows::{self, Difference, Name, Refused, Rows};
use super::story::{CHOSEN_NAME, Story};
use crate::Failure;
use rusqlite::Connection;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use syncline::{ConflictFilter, ConflictState, Loss, Notice};
use syncline_protocol::{FieldError, Value};
use syncline_store::conflict;

/// One device at the end.
pub(super) struct DeviceEnd {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    pub(super) rows: Rows,
    pub(super) outbox: BTreeMap<String, u64>,
    pub(super) refused: Vec<Refused>,
    pub(super) differences: Vec<Difference>,
    decisions: Decisions,
    /// Conflicts that the app was told to show to a person.
    asked: u64,
    applied: u64,
    superseded: u64,
}

/// Everything at the end.
pub(super) struct Outcome {
    pub(super) server: Rows,
    pub(super) devices: [DeviceEnd; 2],
    /// Conflicts decided by rule, with both sides' edits in the outcome.
    pub(super) merges: u64,
    /// Conflicts decided by rule, with what gave way on record.
    pub(super) lossy: u64,
    /// Conflicts that a person decided.
    pub(super) by_person: u64,
    pub(super) retries: u64,
    pub(super) duplicates: u64,
    pub(super) promises: Vec<Promise>,
    pub(super) converged: bool,
}

/// Something that the demo promises to show, and whether it happened.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Promise {
    pub(super) promise: &'static str,
    pub(super) kept: bool,
}

impl DeviceEnd {
    fn read(device: &Device, server: &Rows) -> Result<Self, Failure> {
        let conn = rows::open(&device.path)?;
        let refused = rows::refused(&conn)?;
        let found = rows::of_file(&conn)?;
        let notices = device.notices();
        let asked = notices
            .iter()
            .filter(|notice| matches!(notice, Notice::ConflictOpened { .. }));
        Ok(Self {
            name: device.name,
            path: device.path.clone(),
            differences: rows::compare(&found, server, &refused),
            rows: found,
            outbox: device.status()?.outbox,
            refused,
            decisions: Decisions::read(&conn)?,
            asked: asked.count() as u64,
            applied: logged(&conn, "applied")?,
            superseded: logged(&conn, "superseded")?,
        })
    }

    /// Equal to the server, but for what a refused mutation explains.
    pub(super) fn agrees(&self) -> bool {
        self.differences.iter().all(|difference| difference.refused)
    }

    fn count(&self, state: &str) -> u64 {
        self.outbox.get(state).copied().unwrap_or(0)
    }
}

/// Conflicts that were decided, by what their records say.
#[derive(Debug, Default)]
struct Decisions {
    /// By rule, and both sides' edits stand.
    merged: u64,
    /// By rule, and the record has what gave way.
    lossy: u64,
    by_person: u64,
}

impl Decisions {
    fn read(conn: &Connection) -> Result<Self, Failure> {
        let mut decisions = Self::default();
        let filter = ConflictFilter {
            state: Some(ConflictState::Resolved),
            ..ConflictFilter::default()
        };
        for one in conflict::list(conn, &filter)? {
            let full = conflict::read(conn, one.id)?;
            let lossless = full.lost_mine == Loss::Nothing && full.lost_theirs == Loss::Nothing;
            *match (one.by_person, lossless) {
                (true, _) => &mut decisions.by_person,
                (false, true) => &mut decisions.merged,
                (false, false) => &mut decisions.lossy,
            } += 1;
        }
        Ok(decisions)
    }
}

fn logged(conn: &Connection, kind: &str) -> Result<u64, Failure> {
    let sql = "SELECT count(*) FROM syncline_log WHERE kind = ?1";
    Ok(conn.query_row(sql, [kind], |row| row.get(0))?)
}

impl Outcome {
    /// Looks at both files and asks the server.
    pub(super) fn measure(story: &Story<'_>) -> Result<Self, Failure> {
        let server = listing::fetch(story.server.address(), story.server.token())?;
        let devices = [
            DeviceEnd::read(&story.laptop, &server)?,
            DeviceEnd::read(&story.phone, &server)?,
        ];
        let wires = [story.laptop.link.traffic(), story.phone.link.traffic()];
        let sum = |of: fn(&DeviceEnd) -> u64| devices.iter().map(of).sum::<u64>();
        let mut outcome = Self {
            merges: sum(|device| device.decisions.merged),
            lossy: sum(|device| device.decisions.lossy),
            by_person: sum(|device| device.decisions.by_person),
            retries: wires.iter().map(|wire| wire.repeats).sum(),
            duplicates: wires.iter().map(|wire| wire.duplicates).sum(),
            converged: devices.iter().all(DeviceEnd::agrees),
            promises: Vec::new(),
            server,
            devices,
        };
        outcome.promises = outcome.judge(story)?;
        Ok(outcome)
    }

    fn judge(&self, story: &Story<'_>) -> Result<Vec<Promise>, Failure> {
        let seen = &story.seen;
        let (laptop, phone) = (story.laptop.link.traffic(), story.phone.link.traffic());
        let value = |id: &str, field: &str| {
            let row = self.server.get(&Name::task(id));
            row.and_then(|row| row.get(field)).cloned()
        };
        let text = |id: &str, field: &str, wanted: &str| value(id, field) == Some(wanted.into());
        let pause = phone.pause.unwrap_or_default();
        let fence = Name::task("fence");
        let gone = self
            .devices
            .iter()
            .all(|device| !device.rows.contains_key(&fence));
        let left = unsettled(&story.laptop.status()?) + unsettled(&story.phone.status()?);
        let promise = |promise, kept| Promise { promise, kept };
        Ok(vec![
            promise(
                "work done offline was kept",
                seen.unreachable && seen.kept_offline == 8,
            ),
            promise(
                "a 503 was answered, and its Retry-After was obeyed",
                phone.busy == 1 && pause >= Duration::from_secs(1),
            ),
            promise(
                "a lost answer was settled by sending the same again, and the server did nothing twice",
                laptop.lost == 1 && seen.replayed >= 1,
            ),
            promise(
                "whatever was sent again had the same bytes under the same key",
                laptop.changed + phone.changed == 0 && laptop.resent + phone.resent >= 3,
            ),
            promise(
                "edits of different fields of one row were merged",
                self.merges >= 1
                    && text("seeds", "title", "Sow tomatoes and basil")
                    && value("seeds", "done") == Some(Value::Integer(1)),
            ),
            promise(
                "an edit of the same field on both sides was decided, and the loser is on record",
                self.lossy >= 1 && text("water", "title", "Water the beds at dusk"),
            ),
            promise(
                "a delete went everywhere",
                gone && !self.server.contains_key(&fence),
            ),
            promise(
                "a process killed in the middle of a push lost and doubled nothing",
                seen.in_flight_at_kill >= 1
                    && seen.server_had_them
                    && seen.recognised_after_kill == seen.in_flight_at_kill,
            ),
            promise(
                "a conflict for a person paused its own row alone, and the decision reached everyone",
                self.person_was_asked(story),
            ),
            promise(
                "exactly one mutation was refused and waits with its reason",
                self.refused().count() == 1 && self.shed_is_refused(),
            ),
            promise(
                "everything else went through",
                left == 0 && self.devices.iter().all(|device| device.count("dead") == 0),
            ),
            promise("both devices and the server are equal", self.converged),
        ])
    }

    fn shed_is_refused(&self) -> bool {
        self.refused().any(|refused| {
            let field = |error: &FieldError| error.field == "priority";
            refused.name == Name::task("shed") && refused.error.errors.iter().any(field)
        })
    }

    fn person_was_asked(&self, story: &Story<'_>) -> bool {
        let seen = &story.seen;
        let name = |text: &str| Some(Value::from(text));
        let kitchen = self.server.get(&Name::project("kitchen"));
        seen.disputed == ["Kitchen", "Canning kitchen", "Kitchen and pantry"].map(name)
            && seen.paused == 1
            && seen.beside_it == Some(Value::Integer(2))
            && self.by_person == 1
            && self.devices.iter().map(|device| device.asked).eq([1, 0])
            && kitchen.and_then(|row| row.get("name")).cloned() == name(CHOSEN_NAME)
    }

    pub(super) fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.devices.iter().flat_map(|device| &device.refused)
    }

    /// Whether everything promised happened.
    pub(super) fn all_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    /// The one object of `--json`.
    pub(super) fn json(&self, wall: Duration, kept: Option<&Path>) -> serde_json::Value {
        let sum = |of: &dyn Fn(&DeviceEnd) -> u64| self.devices.iter().map(of).sum::<u64>();
        let devices = self.devices.iter().map(|device| {
            let mut json = serde_json::json!({
                "name": device.name,
                "rows": device.rows.len(),
                "outbox": device.outbox,
                "differences": device.differences,
            });
            if kept.is_some() {
                json["path"] = device.path.display().to_string().into();
            }
            json
        });
        let refused = self.refused().map(|refused| {
            let error = &refused.error;
            serde_json::json!({
                "entity_type": refused.name.entity_type, "entity_id": refused.name.entity_id,
                "code": error.code, "detail": error.detail, "errors": error.errors,
            })
        });
        let mut json = serde_json::json!({
            "converged": self.converged,
            "devices": devices.collect::<Vec<_>>(),
            "server": { "rows": self.server.len() },
            "mutations": {
                "applied": sum(&|device| device.applied),
                "superseded": sum(&|device| device.superseded),
                "failed": sum(&|device| device.count("failed")),
                "dead": sum(&|device| device.count("dead")),
                "pending": sum(&|device| device.count("pending") + device.count("in_flight")),
            },
            "merges": self.merges,
            "conflicts_resolved": self.merges + self.lossy,
            "conflicts_decided_by_person": self.by_person,
            "retries": self.retries,
            "duplicates_suppressed": self.duplicates,
            "refused": refused.collect::<Vec<_>>(),
            "promises": self.promises,
            "wall_ms": u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        });
        if let Some(kept) = kept {
            json["kept"] = kept.display().to_string().into();
        }
        json
    }
}
