//! The secret that signs tokens: `token-secret` in the data directory, beside the storage's own
//! files. Made once, at random, readable by its owner only; never printed. Replacing it makes every
//! token invalid and nothing else.

use crate::Failure;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

const NAME: &str = "token-secret";
const BYTES: usize = 32;

/// The secret, and whether it was made now.
pub(crate) struct Secret {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_new: bool,
}

/// Reads the secret of a data directory; makes directory and secret the first time. Two processes
/// that do so at once get the same one.
pub(crate) fn load(directory: &Path) -> Result<Secret, Failure> {
    let path = directory.join(NAME);
    let failed = |error: &io::Error| {
        Failure::new(
            "data-directory",
            format!("{} cannot be used: {error}", path.display()),
        )
        .hint("--data names a directory of the server's own, which this user may write")
    };
    fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    let mut is_new = false;
    let bytes = loop {
        match fs::read(&path) {
            Ok(bytes) => break bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                is_new = make(directory, &path).map_err(|error| failed(&error))?;
            }
            Err(error) => return Err(failed(&error)),
        }
    };
    if bytes.len() != BYTES {
        let message = format!("{} is not a secret of {BYTES} bytes", path.display());
        return Err(Failure::new("damaged-secret", message).hint(
            "restore it from a backup, or remove it: a new one is made, and every token has to be issued anew",
        ));
    }
    Ok(Secret { bytes, is_new })
}

/// Writes a random secret under a name of its own, then gives it its name if nobody was faster.
fn make(directory: &Path, path: &Path) -> io::Result<bool> {
    let mut random = [0_u8; BYTES + 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let (bytes, unique) = random.split_at(BYTES);
    let unique: String = unique.iter().map(|byte| format!("{byte:02x}")).collect();
    let draft = directory.join(format!("{NAME}.{unique}"));
    let written = write(&draft, bytes).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true),
    });
    fs::remove_file(&draft)?;
    written
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_gets_the_same_secret() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("new");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let directory = directory.clone();
                std::thread::spawn(move || load(&directory).unwrap().bytes)
            })
            .collect();
        let secrets: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        assert!(!load(&directory).unwrap().is_new);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), "short").unwrap();
        assert!(load(folder.path()).is_err());
    }
}
