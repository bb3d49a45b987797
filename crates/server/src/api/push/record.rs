//! What is remembered about a key, and outcomes that name a version and a position.

use super::batch::Name;
use super::parse::Incoming;
use super::validate::rejected;
use crate::{KeyRecord, StorageError};
use serde::{Deserialize, Serialize};
use syncline_protocol::{
    ConflictReason, EntityId, Fields, Operation, Outcome, RemoteState, ServerVersion,
};

/// What is recorded for a key; a key that was cancelled unseen has no entity.
#[derive(Serialize, Deserialize)]
pub(crate) struct Recorded {
    #[serde(rename = "type")]
    pub(super) entity_type: String,
    pub(super) id: String,
    pub(crate) outcome: Outcome,
}

impl Recorded {
    /// Whether the mutation named this entity, or was given it.
    pub(super) fn is_about(&self, name: &Name) -> bool {
        (&self.entity_type, &self.id) == (&name.0, &name.1) || self.target() == *name
    }

    /// The outcome for somebody who names the entity as here. Two copies of a file may have given a new
    /// row two ids: then the id is told that it has.
    pub(super) fn told(&self, incoming: &Incoming) -> Outcome {
        let mut outcome = self.outcome.clone();
        let named = (incoming.entity_type.as_str(), incoming.id.as_str());
        if incoming.op == Operation::Create
            && self.entity_type == named.0
            && self.id != named.1
            && let Outcome::Applied { id, .. } = &mut outcome
            && id.is_none()
        {
            *id = EntityId::parse(self.id.clone()).ok();
        }
        outcome
    }

    /// The entity that the mutation was about in the end.
    pub(super) fn target(&self) -> Name {
        let id = match &self.outcome {
            Outcome::Applied { id: Some(id), .. } => id.as_str().to_owned(),
            _ => self.id.clone(),
        };
        (self.entity_type.clone(), id)
    }
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

pub(super) fn applied(
    Numbered { version, seq }: Numbered,
    fields: Option<Fields>,
    id: Option<EntityId>,
) -> Outcome {
    Outcome::Applied {
        version: ServerVersion::new(version.to_string()),
        position: seq,
        fields,
        id,
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
