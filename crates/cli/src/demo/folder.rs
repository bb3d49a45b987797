//! Where the demo's files live: a temporary folder that is removed at the end, or one to keep.

use super::trouble;
use crate::Failure;
use std::fs;
use std::path::{Path, PathBuf};

/// The demo's folder; a temporary one goes when this is dropped.
pub(super) struct Folder {
    path: PathBuf,
    lifetime: Lifetime,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Temporary,
    Kept,
}

impl Folder {
    /// The folder to keep, which must not exist or be empty; without one, a temporary folder.
    pub(super) fn choose(keep: Option<&Path>) -> Result<Self, Failure> {
        match keep {
            Some(path) => Self::keep(path),
            None => Self::temporary(),
        }
    }

    fn keep(path: &Path) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            Failure::usage("keep-folder", format!("--keep {}: {why}", path.display()))
                .hint("name a folder that does not exist yet, or an empty one; nothing was changed")
        };
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => return Err(refuse("it is not a folder")),
            Ok(_) => {
                let mut entries = fs::read_dir(path).map_err(|error| refuse(&error.to_string()))?;
                if entries.next().is_some() {
                    return Err(refuse("the folder is not empty"));
                }
            }
            // A dangling link and the like are told by the attempt to create it.
            Err(_) => fs::create_dir_all(path).map_err(|error| refuse(&error.to_string()))?,
        }
        Ok(Self {
            path: path.to_owned(),
            lifetime: Lifetime::Kept,
        })
    }

    fn temporary() -> Result<Self, Failure> {
        let random = getrandom::u64().map_err(|error| trouble("no random numbers", error))?;
        let path = std::env::temp_dir().join(format!("syncline-demo-{random:016x}"));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&path)
            .map_err(|error| trouble(format!("cannot create {}", path.display()), error))?;
        Ok(Self {
            path,
            lifetime: Lifetime::Temporary,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, if it stays.
    pub(super) fn kept(&self) -> Option<&Path> {
        (self.lifetime == Lifetime::Kept).then_some(self.path.as_path())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Temporary {
            // What cannot be removed is left to the system's own cleaning of temporary files.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_to_keep_is_new_or_empty() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("a/b");
        assert!(Folder::choose(Some(&new)).is_ok());
        assert!(Folder::choose(Some(&new)).is_ok(), "it is empty");
        fs::write(new.join("file"), "mine").unwrap();
        assert!(Folder::choose(Some(&new)).is_err());
        assert!(Folder::choose(Some(&new.join("file"))).is_err());
        assert_eq!(fs::read(new.join("file")).unwrap(), b"mine");
    }

    #[test]
    fn a_temporary_folder_goes() {
        let folder = Folder::choose(None).unwrap();
        let path = folder.path().to_owned();
        assert!(path.is_dir() && folder.kept().is_none());
        drop(folder);
        assert!(!path.exists());
    }
}
