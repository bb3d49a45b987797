//! Mutations that never go through: the server refuses them for good, or hangs, hangs up or fails whenever a
//! request has one. Each has to end as a dead letter, alone, while everything else flows (F:L2, D:O4);
//! then a person gives it up, or has it sent again once the server has been mended.

use super::check::{Checked, sql};
use super::scenario::{Poison, PoisonKind};
use super::world::{Event, Message, Trust, World};
use super::{answer, fault::Plan, http};
use crate::level::Broken;
use rusqlite::params;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use syncline_core::RemoteError;

/// The round of the calm phase from which on only what is poisoned may be left: others need time too, when
/// they back off for reasons of their own.
const FLOWING: usize = 22;

/// What every poisoned value ends with begins so.
const MARK: &str = "-poison";

impl PoisonKind {
    /// What a value of this kind ends with.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Self::Refused => "-poison-refused",
            Self::Hangs => "-poison-hangs",
            Self::Resets => "-poison-resets",
            Self::Fails => "-poison-fails",
        }
    }
}

/// How far things are with what does not go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is nothing of the kind, or the server has been mended.
    Harmless,
    /// It waits for a person.
    Waits,
    /// The person gives it up.
    GivenUp,
}

impl Stage {
    pub(super) fn begins(poison: Poison) -> Self {
        match poison {
            Poison::None => Self::Harmless,
            Poison::Retried | Poison::Discarded => Self::Waits,
        }
    }
}

/// How a request is poisoned, if anything in it is.
fn of_request(wire: &syncline_server::Request) -> Option<PoisonKind> {
    if wire.path != "/v1/push" {
        return None;
    }
    let body = String::from_utf8_lossy(&wire.body);
    // A refusal is for one mutation; the others are for the whole request.
    let mut refusal_last = PoisonKind::ALL.into_iter().rev();
    refusal_last.find(|kind| body.contains(kind.mark()))
}

impl World {
    /// Whether a request has something in it that the server cannot stand, and what it does then.
    pub(super) fn spoils(&mut self, message: &Message, way: Option<Plan>) -> bool {
        let kind = of_request(&message.wire).filter(|_| self.poison != Stage::Harmless);
        let response = match kind {
            None => return false,
            Some(PoisonKind::Refused) => {
                self.played.fault("server: refuses a mutation for good");
                return false;
            }
            Some(PoisonKind::Hangs) => {
                self.played.fault("server: hangs on a mutation");
                return true;
            }
            Some(PoisonKind::Resets) => {
                self.played.fault("server: hangs up on a mutation");
                let detail = "reset".to_owned();
                http::failure(&message.request, RemoteError::Unreachable { detail })
            }
            Some(PoisonKind::Fails) => {
                self.played.fault("server: fails on a mutation");
                let response = answer::problem(&message.wire, 500, "internal", None);
                http::read(&message.request, message.wire_id, &response)
            }
        };
        if let Some(back) = way.and_then(|way| way.back) {
            let answer = Event::Answer(message.place, message.id, Box::new(response), Trust::Usual);
            self.later(back, answer);
        }
        true
    }
}

/// What the server asks of a row, as long as it is not mended.
pub(super) fn schema() -> Value {
    let wrong = json!({"not": {"type": "string", "pattern": "-poison-refused$"}});
    json!({"type": "object", "properties": {"title": wrong}})
}

/// Notes of a device with a dead letter that is poisoned.
pub(super) fn poisoned(world: &World, device: usize) -> Checked<BTreeSet<(String, String)>> {
    let mut statement = (world.devices[device].files.app)
        .prepare_cached(
            "SELECT entity_type, entity_id FROM syncline_outbox
              WHERE state IN ('failed', 'dead') AND payload LIKE '%' || ?1 || '%'",
        )
        .map_err(sql)?;
    let names = statement.query_map([MARK], |row| Ok((row.get(0)?, row.get(1)?)));
    names.and_then(Iterator::collect).map_err(sql)
}

/// Whether a letter is one of those that a person leaves alone until the server is mended.
pub(super) fn is_poisoned(world: &World, device: usize, seq: i64) -> bool {
    let query = "SELECT 1 FROM syncline_outbox WHERE seq = ?1 AND payload LIKE '%' || ?2 || '%'";
    let app = &world.devices[device].files.app;
    world.poison != Stage::Harmless && app.query_row(query, params![seq, MARK], |_| Ok(())).is_ok()
}

/// F:L2: what is not poisoned was not taken for it, and flows.
pub(super) fn spares_others(world: &World, round: usize) -> Checked<()> {
    if world.poison != Stage::Waits || round < 2 {
        return Ok(());
    }
    for (n, device) in world.devices.iter().enumerate() {
        if poisoned(world, n)?.is_empty() {
            continue;
        }
        let blamed = device.files.app.query_row(
            "SELECT group_concat(payload) FROM syncline_outbox AS o
              WHERE coalesce(payload, '') NOT LIKE '%' || ?1 || '%' AND (
                    state = 'dead' AND json_extract(last_error, '$.code') = 'request-failed'
                 OR state = 'pending' AND ?2 AND NOT EXISTS (
                    SELECT 1 FROM syncline_outbox AS p
                     WHERE p.entity_type = o.entity_type AND p.entity_id = o.entity_id
                       AND p.payload LIKE '%' || ?1 || '%'))",
            params![MARK, round >= FLOWING],
            |row| row.get::<_, Option<String>>(0),
        );
        if let Some(blamed) = blamed.map_err(sql)? {
            let detail = format!("device {n}: stopped by somebody else's poison: {blamed}");
            return Err(Broken::new("F:L2", detail));
        }
    }
    Ok(())
}

/// Everything else has come right: the server is mended, or the person stops waiting for that.
pub(super) fn decide(world: &mut World) {
    world.poison = Stage::GivenUp;
    if world.setup.poison == Poison::Retried {
        world.poison = Stage::Harmless;
        world.server.mend(super::schema::declare_mended);
    }
}

/// Gives up what will never go through.
pub(super) fn give_up(world: &mut World, device: usize, letters: &[i64]) -> Checked<u64> {
    let rows = poisoned(world, device)?;
    let rows = rows.into_iter().map(|name| ("note", name.1));
    world.ledger.let_go.extend(rows);
    let peer = &mut world.devices[device];
    let now = peer.now(world.now);
    let Some(running) = peer.processes[0].as_mut() else {
        return Ok(0);
    };
    let store = running.engine.store();
    // One may have gone along with another, and one that the server is asked about stays until it answers.
    let done = letters
        .iter()
        .filter(|seq| store.discard(**seq, now).is_ok());
    let done = done.count() as u64;
    world.played.count("given up by a person", done);
    Ok(done)
}
