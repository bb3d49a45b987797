//! Coalescing: several mutations of one entity that were never sent become one, or none.

use syncline_protocol::{Fields, Operation};

/// One mutation as far as folding cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What it does.
    pub op: Operation,
    /// With which fields.
    pub fields: Fields,
}

/// What two consecutive mutations of one entity come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Folded {
    /// One mutation.
    One(Intent),
    /// Nothing at all: what was created is gone again.
    Nothing,
    /// They must stay two: a delete followed by a create of the same id.
    Apart,
}

/// Folds `later` into `earlier`; neither has ever been sent.
pub fn fold(earlier: &Intent, later: &Intent) -> Folded {
    use Operation::{Create, Delete, Update};
    match (earlier.op, later.op) {
        (Create, Delete) => Folded::Nothing,
        (Create | Update, Update) => {
            let mut fields = earlier.fields.clone();
            fields.patch(&later.fields);
            Folded::One(Intent {
                op: earlier.op,
                fields,
            })
        }
        (Update, Delete) => Folded::One(Intent {
            op: Delete,
            fields: Fields::new(),
        }),
        // A create over something alive or anything but a create after a delete cannot have been
        // recorded; kept apart, the server judges each.
        (Delete, _) | (_, Create) => Folded::Apart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn apply(state: Option<Fields>, intent: &Intent) -> Option<Fields> {
        match intent.op {
            Operation::Create => Some(intent.fields.clone()),
            Operation::Update => state.map(|mut fields| {
                fields.patch(&intent.fields);
                fields
            }),
            Operation::Delete => None,
        }
    }

    fn any_intent() -> impl Strategy<Value = Intent> {
        let op = prop_oneof![
            Just(Operation::Create),
            Just(Operation::Update),
            Just(Operation::Delete)
        ];
        (op, proptest::collection::btree_map("[abc]", 0..4i64, 0..3)).prop_map(|(op, fields)| {
            let delete = op == Operation::Delete;
            let fields = if delete {
                Fields::new()
            } else {
                fields.into_iter().collect()
            };
            Intent { op, fields }
        })
    }

    proptest! {
        #[test]
        fn folding_changes_nothing_of_the_outcome(earlier in any_intent(), later in any_intent()) {
            let start = (earlier.op != Operation::Create)
                .then(|| [("a", 9i64), ("b", 9), ("c", 9)].into_iter().collect::<Fields>());
            let both = apply(apply(start.clone(), &earlier), &later);
            match fold(&earlier, &later) {
                Folded::One(one) => prop_assert_eq!(apply(start, &one), both),
                Folded::Nothing => prop_assert_eq!(start, both),
                Folded::Apart => {}
            }
        }
    }
}
