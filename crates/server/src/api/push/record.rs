//! What is remembered about a key, and outcomes that name a version and a position.

use super::validate::rejected;
use crate::{KeyRecord, StorageError};
use serde::{Deserialize, Serialize};
use syncline_protocol::{ConflictReason, Fields, Outcome, RemoteState, ServerVersion};

/// What is recorded for a key; a key that was cancelled unseen has no entity.
#[derive(Serialize, Deserialize)]
pub(crate) struct Recorded {
    #[serde(rename = "type")]
    pub(super) entity_type: String,
    pub(super) id: String,
    pub(crate) outcome: Outcome,
}

/// Version and position of an effect.
#[derive(Clone, Copy)]
pub(super) struct Numbered {
    pub(super) version: i64,
    pub(super) seq: i64,
}

pub(crate) fn read_record(record: &KeyRecord) -> Result<Recorded, StorageError> {
    serde_json::from_str(&record.outcome).map_err(StorageError::internal)
}

pub(crate) fn write_record(
    entity_type: &str,
    id: &str,
    outcome: &Outcome,
) -> Result<String, StorageError> {
    let recorded = Recorded {
        entity_type: entity_type.to_owned(),
        id: id.to_owned(),
        outcome: outcome.clone(),
    };
    serde_json::to_string(&recorded).map_err(StorageError::internal)
}

pub(super) const KEY_REUSED: &str = "key-reused";

pub(super) fn key_reused() -> Outcome {
    rejected(
        KEY_REUSED,
        "the key was used before for a mutation with other content",
    )
}

pub(super) fn applied(Numbered { version, seq }: Numbered) -> Outcome {
    Outcome::Applied {
        version: ServerVersion::new(version.to_string()),
        position: seq,
        fields: None,
        id: None,
    }
}

pub(super) fn conflict(
    reason: ConflictReason,
    number: Numbered,
    fields: Option<Fields>,
) -> Outcome {
    Outcome::Conflict {
        reason,
        remote: Some(RemoteState {
            version: ServerVersion::new(number.version.to_string()),
            position: number.seq,
            fields,
        }),
    }
}
