//! The data directory: its lock and its secret.
//!
//! The lock is the operating system's and ends with the process, however it ends. The secret is
//! written whole or not at all, and never printed.

use crate::OpenError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

pub(crate) const DATABASE: &str = "server.db";
const SECRET: &str = "secret";
const LOCK: &str = "lock";

/// A directory that only this process serves, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory if need be and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::File { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(&lock_path)(source)),
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The secret, made at random the first time.
    pub(crate) fn secret(&self) -> Result<[u8; 32], OpenError> {
        let path = self.path.join(SECRET);
        match fs::read(&path) {
            Ok(bytes) => bytes
                .try_into()
                .map_err(|_| OpenError::Secret { path: path.clone() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let secret = random()?;
                self.write_secret(&path, &secret)
                    .map_err(|source| OpenError::File { path, source })?;
                Ok(secret)
            }
            Err(source) => Err(OpenError::File { path, source }),
        }
    }

    fn write_secret(&self, path: &Path, secret: &[u8]) -> std::io::Result<()> {
        let draft = self.path.join("secret.new");
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {} // a draft left by a crash would keep its own mode
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(secret)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        #[cfg(unix)]
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(OpenError::Random)?;
    Ok(bytes)
}
