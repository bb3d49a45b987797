//! Records of installations as files in a directory of this machine, one per installation.

use super::InstallationRecords;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use syncline_protocol::ClientId;

/// A directory for the records; made when the first one is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    /// This directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The usual place: `SYNCLINE_STATE_DIR`, else `syncline` in `XDG_STATE_HOME`, else in
    /// `~/.local/state`; on Windows in `LOCALAPPDATA`, on macOS in `~/Library/Application Support`.
    /// `None` where the environment names none of them.
    pub fn usual() -> Option<Self> {
        let named = |name: &str| {
            let value = std::env::var_os(name).map(PathBuf::from)?;
            value.is_absolute().then_some(value)
        };
        if let Some(own) = std::env::var_os("SYNCLINE_STATE_DIR").filter(|own| !own.is_empty()) {
            return Some(Self(own.into()));
        }
        let base = if cfg!(windows) {
            named("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            named("HOME").map(|home| home.join("Library/Application Support"))
        } else {
            let state = || named("HOME").map(|home| home.join(".local/state"));
            named("XDG_STATE_HOME").or_else(state)
        };
        base.map(|base| Self(base.join("syncline")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The name of a record's file. The id stands in a file that may come from anywhere.
    fn file(&self, client: &ClientId) -> PathBuf {
        let id = client.as_str();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let name = match id.bytes().all(plain) && (1..=64).contains(&id.len()) {
            true => id.to_owned(),
            false => {
                let hex = id.bytes().take(64).map(|byte| format!("{byte:02x}"));
                format!("_{}", hex.collect::<String>())
            }
        };
        self.0.join(name)
    }
}

impl InstallationRecords for StateDirectory {
    fn load(&self, client: &ClientId) -> io::Result<Option<String>> {
        match fs::read_to_string(self.file(client)) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn save(&self, client: &ClientId, record: &str) -> io::Result<()> {
        make_directory(&self.0)?;
        let file = self.file(client);
        let draft = file.with_extension(format!("{}.draft", std::process::id()));
        let written = write_private(&draft, record).and_then(|()| fs::rename(&draft, &file));
        if written.is_err() {
            // It may not even be there.
            let _ = fs::remove_file(&draft);
        }
        written
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
