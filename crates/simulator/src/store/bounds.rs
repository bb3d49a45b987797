//! What never falls and never grows beyond its bounds: confirmed versions (F:S26), what goes into one
//! request and how often a mutation is tried (F:S21), how many pulls and requests it takes to come right (F:L3, F:L4).

use super::check::sql;
use super::world::World;
use crate::level::Broken;
use std::collections::BTreeMap;
use syncline_core::{BatchEntry, RemoteAnswer, RemoteError, RemoteRequest};
use syncline_server::Response;

/// Requests of one device within one round of the calm phase. Every one is owed to a batch, a page, or a
/// greeting; there are never so many of these.
const REQUESTS: u64 = 400;

/// Pulls beyond those that the feed is long: an answer that was lost, a greeting, a snapshot that begins again.
const MORE_PULLS: u64 = 40;

/// A device that rests asks for news this often at most, in milliseconds.
const POLL_MS: u64 = 100_000;

/// What a device knew when it was last looked at.
#[derive(Default)]
pub(crate) struct Confirmed {
    /// Identity and history: under others everything may be older.
    of: (String, String),
    cursor: i64,
    /// Entities of which more is known than the cursor says, and up to where.
    ahead: BTreeMap<(String, String), i64>,
}

/// What is counted and remembered of the devices.
#[derive(Default)]
pub(crate) struct Bounds {
    requests: BTreeMap<usize, u64>,
    pulls: BTreeMap<usize, u64>,
    /// Answers that said that the credentials do not hold, and that nobody asked for new ones for.
    unauthorized: BTreeMap<usize, u64>,
    confirmed: BTreeMap<usize, Confirmed>,
}

impl Bounds {
    /// A device's file is an older one.
    pub(crate) fn file_replaced(&mut self, device: usize) {
        self.confirmed.remove(&device);
    }

    /// An answer came to a device.
    pub(super) fn heard(&mut self, device: usize, answer: &RemoteAnswer) {
        if matches!(answer.error(), Some(RemoteError::Auth { .. })) {
            *self.unauthorized.entry(device).or_default() += 1;
        }
    }
}

impl World {
    /// F:S21: no request has more than was agreed.
    pub(super) fn keeps_within(&mut self, device: usize, request: &RemoteRequest) {
        *self.bounds.requests.entry(device).or_default() += 1;
        if let RemoteRequest::Pull { .. } = request {
            *self.bounds.pulls.entry(device).or_default() += 1;
        }
        let RemoteRequest::Push { batch, .. } = request else {
            return;
        };
        let config = &self.devices[device].config;
        let (most, most_bytes) = (config.push_mutations, config.push_bytes);
        let group = batch.entries.first().and_then(|entry| entry.group.as_ref());
        let in_it = |entry: &BatchEntry| group.is_some() && entry.group.as_ref() == group;
        // A group is never torn: it may take what the server allows.
        if batch.entries.iter().all(in_it) {
            return;
        }
        let bytes: usize = batch.entries.iter().map(|entry| entry.frozen.len()).sum();
        let detail = match batch.entries.len() {
            many if many > most => format!("{many} mutations in a batch of {most}"),
            // One always goes.
            many if many > 1 && bytes > most_bytes => {
                format!("{bytes} bytes of mutations in a batch of {most_bytes}")
            }
            _ => return,
        };
        self.breaks(Broken::new("F:S21", detail));
    }

    /// F:S21: no page has more changes than were asked for, nor more bytes.
    pub(super) fn page_within(&mut self, wire: &syncline_server::Request, response: &Response) {
        if wire.path != "/v1/pull" || response.status != 200 {
            return;
        }
        let asked = |name: &str| {
            let mut parts = wire.query.split('&');
            parts.find_map(|part| part.strip_prefix(name)?.parse::<usize>().ok())
        };
        let lines = response.body.split(|byte| *byte == b'\n');
        let lines: Vec<usize> = (lines.map(<[u8]>::len))
            .filter(|bytes| *bytes > 0)
            .collect();
        // The last line is the page's own; one change may have more than all that was asked for.
        let changes = lines.len().saturating_sub(1);
        let bytes: usize = lines.iter().take(changes.saturating_sub(1)).sum();
        let detail = match (asked("limit="), asked("bytes=")) {
            (Some(most), _) if changes > most => format!("{changes} changes in a page of {most}"),
            (_, Some(most)) if bytes > most => {
                format!("{bytes} bytes and one change in a page of {most}")
            }
            _ => return,
        };
        self.breaks(Broken::new("F:S21", detail));
    }

    /// F:L4: new credentials are asked for once for each time that the old ones were refused.
    pub(super) fn is_owed_credentials(&mut self, device: usize) {
        let refused = self.bounds.unauthorized.entry(device).or_default();
        match refused.checked_sub(1) {
            Some(left) => *refused = left,
            None => {
                let detail = format!("device {device} asks for credentials that nobody refused");
                self.breaks(Broken::new("F:L4", detail));
            }
        }
    }

    /// F:L3, F:L4: a round of the calm phase begins. What was refused before it is forgotten, but for what both processes
    /// of a device may still ask for.
    pub(super) fn begin_round(&mut self) {
        for refused in self.bounds.unauthorized.values_mut() {
            *refused = (*refused).min(2);
        }
        self.bounds.requests.clear();
        self.bounds.pulls.clear();
    }

    /// F:L3, F:L4: what was asked in this round was owed to something, and of the feed no more than it is long, twice.
    pub(super) fn end_round(&mut self, wait_ms: u64) {
        let head = u64::try_from(self.model.head()).unwrap_or_default();
        for (device, pulls) in &self.bounds.pulls {
            let page = self.devices[*device].config.page_changes as u64;
            let most = 2 * head.div_ceil(page) + MORE_PULLS + wait_ms / POLL_MS;
            if *pulls > most {
                let detail = format!("device {device} pulled {pulls} times, {most} at most");
                return self.breaks(Broken::new("F:L3", detail));
            }
        }
        let worst = self.bounds.requests.iter().max_by_key(|(_, count)| **count);
        if let Some((device, count)) = worst.filter(|(_, count)| **count > REQUESTS) {
            let detail = format!("device {device} sent {count} requests in one calm round");
            self.breaks(Broken::new("F:L4", detail));
        }
    }
}

/// F:S26: what is confirmed of an entity on a device is never older than it was; F:S21: nothing is tried more
/// often than is configured.
pub(crate) fn never_falls(world: &mut World, device: usize) -> Result<(), Broken> {
    let peer = &world.devices[device];
    let (app, most) = (&peer.files.app, peer.config.max_attempts);
    let tried: Option<u32> = app
        .query_row("SELECT max(attempts) FROM syncline_outbox", [], |row| {
            row.get(0)
        })
        .map_err(sql)?;
    if tried.is_some_and(|tried| tried > most) {
        let detail = format!("device {device} tried {tried:?} times, at most {most}");
        return Err(Broken::new("F:S21", detail));
    }
    let feed: Option<(String, String, i64)> = app
        .prepare_cached(
            "SELECT value, epoch, position FROM syncline_meta, syncline_cursor
              WHERE key = 'client_id' AND phase = 'feed'",
        )
        .and_then(|mut feed| {
            let mut rows = feed.query([])?;
            let row = rows.next()?;
            row.map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .transpose()
        })
        .map_err(sql)?;
    let Some((client, epoch, cursor)) = feed else {
        return Ok(());
    };
    let mut ahead = BTreeMap::new();
    let mut statement = app
        .prepare_cached("SELECT entity_type, entity_id, position FROM syncline_entity_state")
        .map_err(sql)?;
    let mut rows = statement.query([]).map_err(sql)?;
    while let Some(row) = rows.next().map_err(sql)? {
        let read = || Ok(((row.get(0)?, row.get(1)?), row.get(2)?));
        let (name, position): ((String, String), i64) = read().map_err(sql)?;
        ahead.insert(name, position);
    }
    let now = Confirmed {
        of: (client, epoch),
        cursor,
        ahead,
    };
    drop(rows);
    drop(statement);
    let before = world.bounds.confirmed.remove(&device).unwrap_or_default();
    let fell = (before.of == now.of)
        .then(|| fallen(&before, &now))
        .flatten();
    world.bounds.confirmed.insert(device, now);
    match fell {
        Some(detail) => Err(Broken::new("F:S26", format!("device {device}: {detail}"))),
        None => Ok(()),
    }
}

fn fallen(before: &Confirmed, now: &Confirmed) -> Option<String> {
    if now.cursor < before.cursor {
        return Some(format!(
            "the cursor fell from {} to {}",
            before.cursor, now.cursor
        ));
    }
    let known = |name| {
        now.ahead
            .get(name)
            .copied()
            .unwrap_or_default()
            .max(now.cursor)
    };
    let fell = before.ahead.iter().find(|(name, was)| known(name) < **was);
    fell.map(|(name, was)| {
        format!(
            "{name:?} was confirmed up to {was}, and now to {}",
            known(name)
        )
    })
}
