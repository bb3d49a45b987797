//! What a device shows at one moment, held against what was written, what the server did, and what the device
//! has shown before.

use super::{Check, Declared, Fields, History, Session, Version, broken, elements, row_of, values};
use crate::level::Broken;
use crate::reference::server::Name;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a row here is as it is there.
type Same<'a> = dyn Fn(&Name, Option<&Fields>, Option<&Fields>) -> bool + 'a;

/// What a device shows.
pub struct Shown<'a> {
    /// Its rows under their ids.
    pub rows: BTreeMap<Name, &'a Fields>,
    /// Rows about which something is pending or waits; `None` where the file does not follow the server's present
    /// history, or looks through a snapshot.
    pub open: Option<&'a BTreeSet<Name>>,
    /// Whether a row here is that of the server, as far as the app's table has columns for it.
    pub same: &'a Same<'a>,
    /// Rows whose sets may lack what was there: somebody deleted them, or gave up what was written.
    pub may_lack: &'a dyn Fn(&Name) -> bool,
}

impl History {
    /// A device, at the head of the feed, has everything up to there.
    pub fn told_head(&mut self, device: usize, position: i64) {
        let session = self.sessions.entry(device).or_default();
        session.head = session.head.max(position);
    }

    /// Looks at a device. Its own values that do not stand, of which the server knows nothing, are handed back with
    /// their rows: there has to be a record of them.
    pub fn look(
        &mut self,
        device: usize,
        shown: &Shown<'_>,
    ) -> Result<Vec<(Name, String)>, Broken> {
        let mut session = self.sessions.remove(&device).unwrap_or_default();
        let looked = self.look_into(device, &mut session, shown);
        self.sessions.insert(device, session);
        looked
    }

    fn look_into(
        &self,
        device: usize,
        session: &mut Session,
        shown: &Shown<'_>,
    ) -> Result<Vec<(Name, String)>, Broken> {
        let (mut there, mut gone) = (BTreeSet::new(), Vec::new());
        for (name, fields) in &shown.rows {
            let row = row_of(name, fields);
            self.reads(device, session, (&row, fields))?;
            gone.extend(self.gives_way(session, (&row, fields)));
            if self.declared.keeps_set_of(&row) {
                let may_lack = (shown.may_lack)(&row);
                self.keeps(device, session, (&row, fields), may_lack)?;
            }
            there.insert(row);
        }
        // A row that a copy made too, and that others edited since, stands twice until the answer to its create.
        gone.retain(|(row, value): &(Name, String)| {
            let mut same =
                (shown.rows.iter()).filter(|(name, fields)| row_of(name, fields) == *row);
            !same.any(|(_, fields)| values(fields).any(|one| one == value))
        });
        session.mine.retain(|row, _| there.contains(row));
        session.elements.retain(|row, _| there.contains(row));
        let Some(open) = shown.open else {
            return Ok(gone);
        };
        let mut names: BTreeSet<&Name> = self.versions.keys().collect();
        names.extend(shown.rows.keys());
        for name in names.into_iter().filter(|name| !open.contains(*name)) {
            let here = shown.rows.get(name).copied();
            self.is_in_order(device, session, (name, here), shown.same)?;
        }
        Ok(gone)
    }

    /// What stands in a row was written into it, and by others only what the server has done.
    fn reads(&self, device: usize, session: &mut Session, row: (&Name, &Fields)) -> Check {
        let (row, fields) = row;
        let set = elements(fields);
        for value in values(fields).chain(set.iter().map(String::as_str)) {
            if session.known.contains(value) {
                continue;
            }
            self.was_written(value, row, &format!("device {device} shows"))?;
            let by = self.written.get(value).map_or(device, |by| by.device);
            if self.file_of(by) != self.file_of(device) && !self.effective.contains_key(value) {
                return broken(format!(
                    "device {device} shows {value} in {row:?}, of which the server has nothing: device {by} wrote it"
                ));
            }
            session.known.insert(value.to_owned());
        }
        Ok(())
    }

    /// Values that a device wrote into a row, and that do not stand there though they never took effect.
    fn gives_way(&self, session: &mut Session, row: (&Name, &Fields)) -> Vec<(Name, String)> {
        let (row, fields) = row;
        let Some(mine) = session.mine.get_mut(row) else {
            return Vec::new();
        };
        let mut gone = Vec::new();
        mine.retain(|value| {
            let stands = values(fields).any(|there| there == value);
            if !stands && !self.effective.contains_key(value) {
                gone.push((row.clone(), value.clone()));
            }
            stands
        });
        gone
    }

    /// An element that a device has seen, or put there, stays until somebody takes it out. In a later history of the server
    /// it may have to be offered again first.
    fn keeps(
        &self,
        device: usize,
        session: &mut Session,
        (row, fields): (&Name, &Fields),
        may_lack: bool,
    ) -> Check {
        let shown: BTreeSet<String> = elements(fields).into_iter().collect();
        let seen = session.elements.insert(row.clone(), shown.clone());
        let seen = seen.unwrap_or_default();
        let mut missing = seen.difference(&shown).filter(|element| {
            let lost_for_now = self.earlier > 0 && self.effective.contains_key(*element);
            !may_lack && !lost_for_now && !self.removed.contains_key(*element)
        });
        match missing.next() {
            None => Ok(()),
            Some(element) => match self.effective.get(element) {
                Some(position) => broken(format!(
                    "device {device} had {element} in {row:?}, where the server has it since {position}, and shows {shown:?}: \
                     nobody took it out"
                )),
                None => broken(format!(
                    "device {device} put {element} into {row:?} and shows {shown:?}, before it has reached the server"
                )),
            },
        }
    }

    /// A row about which nothing is open is as the server left it at some time, and not before what the device has
    /// shown, done or been told.
    fn is_in_order(
        &self,
        device: usize,
        session: &mut Session,
        (name, here): (&Name, Option<&Fields>),
        same: &Same<'_>,
    ) -> Check {
        let versions = self.versions.get(name).map_or(&[][..], Vec::as_slice);
        let (floor, why) = session.floor(name, versions);
        let fits = |version: &&Version| same(name, here, version.fields.as_ref());
        let fitting = versions.iter().rev().filter(fits);
        // Before the first of them there was nothing.
        let before = here.is_none().then_some(0);
        let mut earliest = None;
        let mut latest = None;
        for position in fitting.map(|version| version.position).chain(before) {
            latest.get_or_insert(position);
            if position < floor {
                break;
            }
            earliest = Some(position);
        }
        match (earliest, latest) {
            (Some(earliest), _) => {
                session.floors.insert(name.clone(), earliest);
                Ok(())
            }
            (None, Some(latest)) => {
                let left = |version: &&Version| version.position == floor;
                let by = versions.iter().find(left).and_then(|version| version.by);
                broken(format!(
                    "device {device} shows {name:?} as effect {latest} left it, after {why} effect {floor} (by device {by:?}): \
                     for the server {latest} came before {floor}, for this device after it"
                ))
            }
            (None, None) => broken(format!(
                "device {device} shows {name:?} as {here:?}, and the server never left it so: {versions:?}"
            )),
        }
    }
}

impl Declared {
    fn keeps_set_of(self, row: &Name) -> bool {
        self.sets && row.0 == "note"
    }
}

impl Session {
    /// The effect on a row that the device must be showing, or a later one, and how that is known.
    fn floor(&self, name: &Name, versions: &[Version]) -> (i64, &'static str) {
        let last = |version: &&Version| version.position <= self.head;
        let at_head = versions.iter().rfind(last);
        let all = [
            (self.floors.get(name).copied(), "it showed"),
            (self.own.get(name).copied(), "its own request had"),
            (
                at_head.map(|version| version.position),
                "it was told that it has everything up to",
            ),
        ];
        let known = all.into_iter().filter_map(|(at, why)| Some((at?, why)));
        known.max_by_key(|(at, _)| *at).unwrap_or((0, "nothing at"))
    }
}
