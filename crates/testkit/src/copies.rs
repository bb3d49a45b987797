//! Files that are copied, moved to another machine, or restored from a backup.

use crate::device::Device;
use crate::world::World;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// Where a copy is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Beside the original: what is remembered outside the file is the same.
    Same,
    /// Where nothing is remembered.
    Another,
}

impl World {
    /// Copies a device's file as it is now and starts an engine on the copy, as another device.
    pub fn copy(&mut self, from: &str, to: &str, machine: Machine) {
        let path = self.folder().join(format!("{to}.db"));
        copy_file(&self.path(from), &path);
        let original = self.get(from);
        let (state, token) = (original.state.clone(), original.link.token.clone());
        let state = match machine {
            Machine::Same => state,
            Machine::Another => self.folder().join(format!("{to}.state")),
        };
        let mut device = Device::open(path, state, self.next_seed());
        device.link.token = token;
        self.add_device(to, device);
    }

    /// Makes a backup of a device's file.
    pub fn back_up(&mut self, name: &str) -> PathBuf {
        let backup = self.folder().join(format!("{name}.backup"));
        copy_file(&self.path(name), &backup);
        backup
    }

    /// Puts a backup in the place of a device's file and starts its engine again.
    pub fn restore(&mut self, name: &str, backup: &Path) {
        self.crash(name);
        self.replace_file(name, backup);
        self.restart(name);
    }

    /// Puts another file, with its log if it has one, in the place of a device's file, whose engine is
    /// not running.
    pub fn replace_file(&mut self, name: &str, with: &Path) {
        let seed = self.next_seed();
        let device = self.get(name);
        let path = device.path.clone();
        // The app has closed its connection as well.
        device.app = Connection::open_in_memory().unwrap();
        let beside = |path: &Path, suffix| PathBuf::from(format!("{}{suffix}", path.display()));
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&path, suffix));
        }
        std::fs::copy(with, &path).unwrap();
        if beside(with, "-wal").exists() {
            std::fs::copy(beside(with, "-wal"), beside(&path, "-wal")).unwrap();
        }
        device.app = Connection::open(&path).unwrap();
        device
            .app
            .pragma_update(None, "foreign_keys", true)
            .unwrap();
        device.starts = seed;
    }
}

fn copy_file(from: &Path, to: &Path) {
    let conn = Connection::open(from).unwrap();
    conn.execute("VACUUM INTO ?1", [to.display().to_string()])
        .unwrap();
}
