//! What is hidden of the protocol's types. Names of tables, columns and kinds are shown, values never.

use super::{Redact, Redactor};
use syncline_protocol::{
    Change, ChangeKind, ColumnDefinition, EntityId, ExchangeToken, FieldError, Fields, Grant,
    Hello, KeyOutcome, Outcome, PageEnd, Principal, PushResponse, PushResult, RemoteState, Scope,
    ServerVersion, TypeDefinition, TypeDefinitions, Value,
};

impl Redact for Value {
    fn redacted(&self, by: &Redactor) -> Self {
        let hash = |bytes: &[u8]| by.hash(bytes).unwrap_or_default();
        match self {
            shown if by.values => shown.clone(),
            Value::Null => Value::Null,
            Value::Integer(integer) => Value::Integer(i64::from_be_bytes(
                hash(&integer.to_be_bytes()).to_be_bytes(),
            )),
            Value::Real(real) => {
                let [a, b, c, d, ..] = hash(&real.to_be_bytes()).to_be_bytes();
                Value::Real(f64::from(u32::from_be_bytes([a, b, c, d])))
            }
            Value::Text(text) => Value::Text(by.text(text)),
            Value::Blob(bytes) => Value::Blob(hash(bytes).to_be_bytes().to_vec()),
        }
    }
}

impl Redact for Fields {
    fn redacted(&self, by: &Redactor) -> Self {
        let one = |(name, value): (&String, &Value)| (name.clone(), value.redacted(by));
        self.iter().map(one).collect()
    }
}

impl Redact for EntityId {
    fn redacted(&self, by: &Redactor) -> Self {
        by.id(self)
    }
}

impl Redact for Scope {
    fn redacted(&self, by: &Redactor) -> Self {
        // Often computed from a row, or the name of a person.
        Scope::new(by.text(self.as_str()))
    }
}

impl Redact for ServerVersion {
    fn redacted(&self, by: &Redactor) -> Self {
        ServerVersion::new(by.text(self.as_str()))
    }
}

impl Redact for ExchangeToken {
    fn redacted(&self, by: &Redactor) -> Self {
        ExchangeToken::new(by.secret(self.as_str()))
    }
}

impl Redact for Principal {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self { tenant, subject } = self;
        Self {
            tenant: by.secret(tenant),
            subject: by.secret(subject),
        }
    }
}

impl Redact for Grant {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            scope,
            access,
            horizon,
        } = self;
        Self {
            scope: scope.redacted(by),
            access: *access,
            horizon: *horizon,
        }
    }
}

impl Redact for Hello {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            protocol_versions,
            server,
            epoch,
            server_time_ms,
            principal,
            scopes,
            limits,
            key_retention_ms,
        } = self;
        Self {
            protocol_versions: protocol_versions.clone(),
            server: server.clone(),
            epoch: epoch.clone(),
            server_time_ms: *server_time_ms,
            principal: principal.redacted(by),
            scopes: scopes.redacted(by),
            limits: *limits,
            key_retention_ms: *key_retention_ms,
        }
    }
}

impl Redact for TypeDefinitions {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self { types } = self;
        Self {
            types: types.redacted(by),
        }
    }
}

impl Redact for TypeDefinition {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            name,
            table,
            schema_version,
            columns,
            key,
            unique,
            references,
            without_rowid,
            strict,
        } = self;
        Self {
            name: name.clone(),
            table: table.clone(),
            schema_version: *schema_version,
            columns: columns.redacted(by),
            key: key.clone(),
            unique: unique.clone(),
            references: references.clone(),
            without_rowid: *without_rowid,
            strict: *strict,
        }
    }
}

impl Redact for ColumnDefinition {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            name,
            field,
            declared,
            collation,
            not_null,
            default,
        } = self;
        Self {
            name: name.clone(),
            field: field.clone(),
            declared: declared.clone(),
            collation: collation.clone(),
            not_null: *not_null,
            default: default.redacted(by),
        }
    }
}

impl Redact for FieldError {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            field,
            code,
            detail,
        } = self;
        Self {
            field: field.clone(),
            code: by.word(code),
            detail: by.detail(detail),
        }
    }
}

impl Redact for RemoteState {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            version,
            position,
            fields,
        } = self;
        Self {
            version: version.redacted(by),
            position: *position,
            fields: fields.redacted(by),
        }
    }
}

impl Redact for PushResponse {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            epoch,
            results,
            token,
        } = self;
        Self {
            epoch: epoch.clone(),
            results: results.redacted(by),
            token: token.redacted(by),
        }
    }
}

impl Redact for PushResult {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            key,
            outcome,
            duplicate,
        } = self;
        Self {
            key: key.clone(),
            outcome: outcome.redacted(by),
            duplicate: *duplicate,
        }
    }
}

impl Redact for Outcome {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            Outcome::Applied {
                version,
                position,
                fields,
                id,
            } => Outcome::Applied {
                version: version.redacted(by),
                position: *position,
                fields: fields.redacted(by),
                id: id.redacted(by),
            },
            Outcome::Conflict { reason, remote } => Outcome::Conflict {
                reason: *reason,
                remote: remote.redacted(by),
            },
            Outcome::Rejected {
                code,
                detail,
                errors,
            } => Outcome::Rejected {
                code: by.word(code),
                detail: by.detail(detail),
                errors: errors.redacted(by),
            },
            Outcome::Forbidden { detail } => Outcome::Forbidden {
                detail: by.detail(detail),
            },
            Outcome::Retry {
                detail,
                retry_after_ms,
            } => Outcome::Retry {
                detail: by.detail(detail),
                retry_after_ms: *retry_after_ms,
            },
            Outcome::Skipped { because } => Outcome::Skipped {
                because: because.clone(),
            },
            Outcome::Expired => Outcome::Expired,
            Outcome::Cancelled => Outcome::Cancelled,
        }
    }
}

impl Redact for KeyOutcome {
    fn redacted(&self, by: &Redactor) -> Self {
        match self {
            KeyOutcome::Final { result } => KeyOutcome::Final {
                result: result.redacted(by),
            },
            KeyOutcome::Unknown => KeyOutcome::Unknown,
        }
    }
}

impl Redact for PageEnd {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            cursor,
            position,
            count,
            phase,
            at_head,
            to_come,
            epoch,
        } = self;
        Self {
            cursor: by.cursor(cursor),
            position: *position,
            count: *count,
            phase: *phase,
            at_head: *at_head,
            to_come: *to_come,
            epoch: epoch.clone(),
        }
    }
}

impl Redact for Change {
    fn redacted(&self, by: &Redactor) -> Self {
        let Self {
            entity_type,
            id,
            kind,
            version,
            position,
            key,
        } = self;
        Self {
            entity_type: entity_type.clone(),
            id: id.redacted(by),
            kind: match kind {
                ChangeKind::Upsert(fields) => ChangeKind::Upsert(fields.redacted(by)),
                ChangeKind::Delete => ChangeKind::Delete,
            },
            version: version.redacted(by),
            position: *position,
            key: key.clone(),
        }
    }
}
