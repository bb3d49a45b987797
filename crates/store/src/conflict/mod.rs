//! Conflicts in the store: asking the resolver, writing what it decided, records, and what a person
//! does about an open one. What is decided is the core's; this module reads, asks and writes.
//!
//! | file | what it is |
//! |---|---|
//! | `declare.rs` | declared rules: from names of columns to names of fields |
//! | `resolver.rs` | running an app's own resolver, so that nothing it does can harm |
//! | `reconcile.rs` | a dirty entity and a remote state are brought together |
//! | `references.rs` | a row of a group keeps what it references, where the group deletes what it was moved to |
//! | `outbox.rs` | the mutations of the entity are rewritten on the new base |
//! | `record.rs` | rows of `syncline_conflict` |
//! | `natural.rs` | two rows that are the same thing by their natural key become one |
//! | `violation.rs` | rows for which a constraint leaves no place |
//! | `person.rs`, `undo.rs` | what a person chooses, and taking it back |
//! | `view.rs` | conflicts for people |

mod declare;
pub(crate) mod natural;
mod outbox;
mod person;
mod reconcile;
pub(crate) mod record;
mod references;
mod resolver;
mod undo;
mod view;
pub(crate) mod violation;

pub(crate) use declare::rules_of_fields;
pub(crate) use outbox::ORIGIN;
pub(crate) use person::resolve;
pub use person::{Choice, FieldChoice};
pub(crate) use reconcile::Reconciled;
pub use record::{FieldRecord, Loss, OtherEntity, Outcome, Showed, Side};
pub(crate) use resolver::Resolvers;
pub(crate) use undo::undo;
pub use view::{
    ChangedBy, Conflict, ConflictDetails, ConflictFilter, ConflictState, FieldDetails,
    PolicyOutcome, list, read, show,
};
