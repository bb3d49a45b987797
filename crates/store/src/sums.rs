//! Fields that are added up: a mutation says the sum, and means what it added to the state below it. Where that
//! state turns out to be another one, the sum moves with it.
//!
//! Never touches what a mutation says of other fields, nor the bytes that were sent.

use crate::captured;
use crate::error::StoreError;
use crate::outbox;
use crate::store::RegisteredType;
use rusqlite::Transaction;
use syncline_core::{EntityRef, moved};
use syncline_protocol::{Fields, Value};

/// What is left to be sent adds to sums what it added, where the state below it is another one than it was.
pub(crate) fn shift(
    tx: &Transaction<'_>,
    entity_type: &RegisteredType,
    entity: &EntityRef,
    (was, is): (Option<&Fields>, Option<&Fields>),
) -> Result<(), StoreError> {
    let sum = |name: &str, value: &Value| {
        let both = was?.get(name).zip(is?.get(name));
        let (was, is) = both.filter(|_| entity_type.rules.adds_up(name))?;
        moved(value, was, is)
    };
    for entry in outbox::of_entity(tx, entity.entity_type.as_str(), entity.id.as_str())? {
        let Some(mut fields) = captured::fields_of_mutation(tx, entry.seq)? else {
            continue;
        };
        let sums: Fields = (fields.iter())
            .filter_map(|(name, value)| Some((name.clone(), sum(name, value)?)))
            .collect();
        if !sums.is_empty() {
            fields.patch(&sums);
            captured::write_payload(tx, entry.seq, Some(&fields))?;
        }
    }
    Ok(())
}
