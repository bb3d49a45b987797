//! Power loss: which of the unsynced changes are on the disk afterwards.
//!
//! A change is durable once its file was synced after it; whether earlier or later ones got there
//! without a sync, whole or in part, is anybody's guess, and here a dice's. The rule for a name is
//! simpler than a real file system's: a file exists durably from its first sync on, and is gone when
//! SQLite asked for the folder to be synced with the deletion, as it always does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What becomes of the changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// All are lost.
    Lost,
    /// All have reached the disk, as when only the process was killed.
    Kept,
    /// Each file keeps those before a random moment of its own.
    Shortened(u64),
    /// Each sector of 512 bytes of each change is lost or not, for itself, so that the later may be
    /// there without the earlier.
    Torn(u64),
}

const SECTOR: usize = 512;

#[derive(Debug)]
enum Change {
    Create,
    Write { offset: u64, bytes: Vec<u8> },
    Truncate(u64),
}

/// What the disk has of a file, and what it may have.
#[derive(Debug, Default)]
struct Kept {
    /// `None`: no such file.
    durable: Option<Vec<u8>>,
    unsynced: Vec<Change>,
}

/// The disk under a folder.
#[derive(Debug)]
pub(crate) struct Disk {
    files: BTreeMap<PathBuf, Kept>,
    pub(crate) changes: u64,
    pub(crate) fails_at: Option<u64>,
}

impl Disk {
    /// Takes the folder as it is for what is on the disk.
    pub(crate) fn of(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        for path in plain_files(folder) {
            if !is_shared_memory(&path) {
                let durable = Some(std::fs::read(&path).unwrap());
                let unsynced = Vec::new();
                files.insert(path, Kept { durable, unsynced });
            }
        }
        Self {
            files,
            changes: 0,
            fails_at: None,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.fails_at.is_some_and(|at| self.changes >= at)
    }

    /// Counts one more change; whether the power fails in the middle of it.
    pub(crate) fn fails_now(&mut self) -> bool {
        self.changes += 1;
        self.fails_at == Some(self.changes)
    }

    pub(crate) fn opened(&mut self, path: &Path) {
        let kept = self.files.entry(path.to_owned()).or_default();
        if kept.durable.is_none() && kept.unsynced.is_empty() {
            kept.unsynced.push(Change::Create);
        }
    }

    pub(crate) fn written(&mut self, path: &Path, offset: u64, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.note(path, Change::Write { offset, bytes });
    }

    pub(crate) fn truncated(&mut self, path: &Path, size: u64) {
        self.note(path, Change::Truncate(size));
    }

    fn note(&mut self, path: &Path, change: Change) {
        let kept = self.files.entry(path.to_owned()).or_default();
        kept.unsynced.push(change);
    }

    pub(crate) fn synced(&mut self, path: &Path) {
        let kept = self.files.entry(path.to_owned()).or_default();
        for change in std::mem::take(&mut kept.unsynced) {
            apply(&mut kept.durable, &change);
        }
    }

    pub(crate) fn deleted(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// Makes a copy of the folder as it is found after the power came back.
    pub(crate) fn survivors(&self, folder: &Path, into: &Path, damage: Damage) {
        std::fs::create_dir_all(into).unwrap();
        // What is not SQLite's passes through here unseen: it counts as synced.
        for path in plain_files(folder) {
            let ours = path.file_name().unwrap().to_string_lossy().contains(".db");
            if !ours {
                std::fs::copy(&path, into.join(path.file_name().unwrap())).unwrap();
            }
        }
        let mut dice = fastrand::Rng::with_seed(match damage {
            Damage::Shortened(seed) | Damage::Torn(seed) => seed,
            Damage::Lost | Damage::Kept => 0,
        });
        for (path, kept) in &self.files {
            let found = after(kept, damage, &mut dice);
            if let Some(bytes) = found {
                std::fs::write(into.join(path.file_name().unwrap()), bytes).unwrap();
            }
        }
    }
}

fn after(kept: &Kept, damage: Damage, dice: &mut fastrand::Rng) -> Option<Vec<u8>> {
    let mut found = kept.durable.clone();
    let kept_changes = match damage {
        Damage::Lost => 0,
        Damage::Kept | Damage::Torn(_) => kept.unsynced.len(),
        Damage::Shortened(_) => dice.usize(..=kept.unsynced.len()),
    };
    for change in &kept.unsynced[..kept_changes] {
        match (damage, change) {
            (Damage::Torn(_), Change::Write { offset, bytes }) => {
                tear(&mut found, *offset, bytes, dice);
            }
            (Damage::Torn(_), _) if dice.bool() => {}
            _ => apply(&mut found, change),
        }
    }
    found
}

fn tear(file: &mut Option<Vec<u8>>, offset: u64, bytes: &[u8], dice: &mut fastrand::Rng) {
    let mut at = 0;
    while at < bytes.len() {
        // Sectors are the disk's: a write that begins inside one ends it first.
        let begun = usize::try_from(offset).unwrap() + at;
        let end = bytes.len().min(at + SECTOR - begun % SECTOR);
        if dice.bool() {
            let piece = bytes[at..end].to_vec();
            let offset = begun as u64;
            apply(
                file,
                &Change::Write {
                    offset,
                    bytes: piece,
                },
            );
        }
        at = end;
    }
}

fn apply(file: &mut Option<Vec<u8>>, change: &Change) {
    let file = file.get_or_insert_default();
    match change {
        Change::Create => {}
        Change::Write { offset, bytes } => {
            let start = usize::try_from(*offset).unwrap();
            let end = start + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[start..end].copy_from_slice(bytes);
        }
        Change::Truncate(size) => file.truncate(usize::try_from(*size).unwrap()),
    }
}

fn plain_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap());
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// The log's index in shared memory is made anew from the log.
fn is_shared_memory(path: &Path) -> bool {
    path.to_string_lossy().ends_with("-shm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_synced_survives_for_sure() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::of(folder.path());
        let path = folder.path().join("a.db");
        disk.opened(&path);
        disk.written(&path, 0, &[1; 600]);
        disk.synced(&path);
        disk.written(&path, 500, &[2; 600]);
        let found = |damage| after(&disk.files[&path], damage, &mut fastrand::Rng::with_seed(3));
        assert_eq!(found(Damage::Lost).unwrap(), [1; 600]);
        let kept = found(Damage::Kept).unwrap();
        assert_eq!((kept[499], kept[500], kept.len()), (1, 2, 1100));
        for seed in 0..50 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let torn = after(&disk.files[&path], Damage::Torn(seed), &mut dice).unwrap();
            assert_eq!(torn[..500], [1; 500], "what was synced is never touched");
            // A sector is there as a whole or not at all.
            assert!(torn.len() == 600 || torn[512..].len() > 88);
        }
        assert!(found(Damage::Shortened(1)).unwrap().len() >= 600);
    }

    #[test]
    fn a_file_that_was_never_synced_may_be_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::of(folder.path());
        let path = folder.path().join("a.db-wal");
        disk.opened(&path);
        disk.written(&path, 0, &[7]);
        let mut dice = fastrand::Rng::with_seed(0);
        assert_eq!(after(&disk.files[&path], Damage::Lost, &mut dice), None);
        disk.synced(&path);
        assert_eq!(
            after(&disk.files[&path], Damage::Lost, &mut dice).unwrap(),
            [7]
        );
        disk.deleted(&path);
        assert!(disk.files.is_empty());
    }
}
