//! The sample database: the one that is given, or a generated one of the same shape.

use crate::sample_generated;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};

/// Where a sample came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sample {
    /// Copied from this file.
    Copied(PathBuf),
    /// Made by `sample_generated`.
    Generated,
}

/// Puts a sample database at `to`: what `SYNCLINE_SAMPLE_DB` names, else
/// `../shared/data/chinook.sqlite` seen from the workspace, else a generated one, and says which.
pub fn sample_database(to: &Path) -> Sample {
    let named = std::env::var_os("SYNCLINE_SAMPLE_DB").map(PathBuf::from);
    if let Some(path) = &named {
        assert!(
            path.is_file(),
            "SYNCLINE_SAMPLE_DB is {}: no file",
            path.display()
        );
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = named.unwrap_or_else(|| workspace.join("../shared/data/chinook.sqlite"));
    if path.is_file() {
        std::fs::write(to, std::fs::read(&path).unwrap()).unwrap();
        println!("the sample database is a copy of {}", path.display());
        return Sample::Copied(path);
    }
    println!(
        "no sample database at {}: a generated one is used",
        path.display()
    );
    sample_generated::generate(to);
    Sample::Generated
}

/// Makes an empty database with the schema of another.
pub fn copy_schema(from: &Path, to: &Path) {
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let statements: Vec<String> = source
        .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type = 'index'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let target = Connection::open(to).unwrap();
    target.execute_batch(&statements.join(";\n")).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_sample_has_the_shape_of_the_given_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample.db");
        sample_generated::generate(&path);
        let rows = crate::rows(&path);
        let tables: std::collections::BTreeSet<&str> =
            rows.keys().map(|(table, _)| table.as_str()).collect();
        assert_eq!(tables.len(), 11);
        assert!((300..2000).contains(&rows.len()), "{} rows", rows.len());
        let broken = "SELECT count(*) FROM pragma_foreign_key_check";
        assert_eq!(crate::number(&path, broken), 0);
    }
}
