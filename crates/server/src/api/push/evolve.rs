//! The fields that an entity has after a mutation: what the client sent or its command makes, and
//! what the server sets itself.
//!
//! Pure: the time and the caller come in. The version that a field is to show is known only when
//! the batch is numbered; until then another number stands for it.

use super::parse::Incoming;
use super::validate::{field_flaws, invalid};
use crate::ServerSet;
use crate::declared::{Declared, DeclaredType};
use syncline_protocol::{FieldError, Fields, Operation, Outcome, Value};

/// What the server sets fields to.
pub(super) struct ServerValues<'a> {
    pub(super) now_ms: i64,
    pub(super) subject: &'a str,
}

/// The fields afterwards, or why the mutation is rejected. `before`: none for a create.
pub(super) fn evolve(
    incoming: &Incoming,
    before: Option<&Fields>,
    declared: &Declared,
    values: &ServerValues<'_>,
) -> Result<Fields, Outcome> {
    let entity_type = declared.get(&incoming.entity_type);
    let sent = sent(incoming, entity_type);
    let mut after = match &incoming.command {
        Some(command) => {
            let Some(handler) = declared.command(&incoming.entity_type, &command.name) else {
                return Err(super::validate::unknown_command(&command.name));
            };
            let fields = before.unwrap_or(&sent);
            let after = handler.run(fields, &command.args);
            let after = after.map_err(|errors| refused(&command.name, errors))?;
            reject(field_flaws(&after))?;
            after
        }
        None => {
            reject(read_only(incoming.op, &sent, entity_type))?;
            match before {
                Some(before) if !incoming.replace => {
                    let mut merged = before.clone();
                    merged.patch(&sent);
                    merged
                }
                Some(before) => replaced(before, sent),
                None => sent,
            }
        }
    };
    for (field, what) in entity_type.into_iter().flat_map(|one| &one.set) {
        after.insert(field.as_str(), set_value(*what, values));
    }
    reject(declared.violations(&incoming.entity_type, &after))?;
    Ok(after)
}

/// Whether the client cannot know the entity's fields by laying its own over the base.
pub(super) fn is_told(incoming: &Incoming, declared: &Declared) -> bool {
    let sets = declared.get(&incoming.entity_type);
    incoming.told || incoming.command.is_some() || sets.is_some_and(|one| !one.set.is_empty())
}

/// The fields that are to show the version.
pub(super) fn version_fields(entity_type: &str, declared: &Declared) -> Vec<String> {
    let sets = declared.get(entity_type).into_iter();
    let sets = sets.flat_map(|one| &one.set);
    sets.filter(|(_, what)| **what == ServerSet::Version)
        .map(|(field, _)| field.clone())
        .collect()
}

/// Without what the server sets: whatever the client says about that is not looked at.
fn sent(incoming: &Incoming, entity_type: Option<&DeclaredType>) -> Fields {
    let mut sent = incoming.fields.clone();
    for field in entity_type.into_iter().flat_map(|one| one.set.keys()) {
        sent.remove(field);
    }
    sent
}

/// A field that is not sent becomes NULL.
fn replaced(before: &Fields, mut sent: Fields) -> Fields {
    for name in before.names() {
        if !sent.contains(name) {
            sent.insert(name, Value::Null);
        }
    }
    sent
}

fn read_only(op: Operation, sent: &Fields, entity_type: Option<&DeclaredType>) -> Vec<FieldError> {
    let fields = entity_type.into_iter().flat_map(|one| &one.read_only);
    let touched = fields.filter(|field| match sent.get(field) {
        Some(value) => op == Operation::Update || !value.is_null(),
        None => false,
    });
    touched
        .map(|field| FieldError {
            field: field.clone(),
            code: "read-only".to_owned(),
            detail: "only the server sets this field".to_owned(),
        })
        .collect()
}

fn reject(errors: Vec<FieldError>) -> Result<(), Outcome> {
    invalid(errors).map_or(Ok(()), Err)
}

fn refused(command: &str, errors: Vec<FieldError>) -> Outcome {
    Outcome::Rejected {
        code: "validation".to_owned(),
        detail: format!("the command {command:?} was refused"),
        errors,
    }
}

fn set_value(what: ServerSet, values: &ServerValues<'_>) -> Value {
    match what {
        ServerSet::Now => Value::Integer(values.now_ms),
        ServerSet::NowIso => Value::Text(iso(values.now_ms)),
        ServerSet::Subject => Value::Text(values.subject.to_owned()),
        ServerSet::Version => Value::Integer(1),
    }
}

/// RFC 3339 in UTC with milliseconds (the days by Howard Hinnant's `civil_from_days`).
fn iso(unix_ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let ms = unix_ms.rem_euclid(DAY_MS);
    let days = unix_ms.div_euclid(DAY_MS) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let fraction = ms % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{fraction:03}Z")
}

#[cfg(test)]
mod tests {
    use super::iso;

    #[test]
    fn times_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_800_000_000_123, "2027-01-15T08:00:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(iso(ms), text);
        }
    }
}
