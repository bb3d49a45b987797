//! Every key and every word that a `syncline.toml` may contain; the schema is held against it.

use syncline_store::{IdMode, Lane, SETTINGS, Section, WhileApplying};

pub(super) const ROOT: &[&str] = &["remote", "sync", "types"];

/// Keys of `[remote]` that are no numbers.
pub(super) const REMOTE: &[&str] = &["url", "token_file", "token_command", "allow_plain_http"];

pub(super) const TYPE: &[&str] = &[
    "table",
    "policy",
    "merge",
    "deletes",
    "timestamp",
    "natural_key",
    "invariants",
    "lane",
    "id",
    "leave_out",
    "fields",
    "references",
    "triggers",
];

pub(super) const REFERENCE: &[&str] = &["columns", "table"];

pub(super) const DELETES: &[&str] = &["here", "there"];

pub(super) const TIMESTAMP: &[&str] = &["field", "unit"];

pub(super) const INVARIANT: &[&str] = &["name", "sum", "field", "min", "max"];

pub(super) const LANES: [(&str, Lane); 3] = [
    ("urgent", Lane::Urgent),
    ("normal", Lane::Normal),
    ("background", Lane::Background),
];

pub(super) const APPLYING: [(&str, WhileApplying); 2] = [
    ("fires", WhileApplying::Fires),
    ("held", WhileApplying::Held),
];

pub(super) const ID_MODES: [(&str, IdMode); 3] = [
    ("client", IdMode::Client),
    ("provisional", IdMode::Provisional),
    ("server", IdMode::Server),
];

/// All keys of `[remote]`.
pub(super) fn remote() -> Vec<&'static str> {
    let mut keys = REMOTE.to_vec();
    keys.extend(numbers(Section::Remote));
    keys
}

/// All keys of `[sync]`.
pub(super) fn sync() -> Vec<&'static str> {
    numbers(Section::Sync).collect()
}

fn numbers(section: Section) -> impl Iterator<Item = &'static str> {
    let of_section = SETTINGS.iter().filter(move |one| one.section == section);
    of_section.map(|setting| setting.key)
}
