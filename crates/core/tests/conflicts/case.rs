//! The format of a fixture: a question, and the decision that it has to get. An unknown key is an error.

use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use syncline_core::{
    ConflictCause, ConflictInput, ConflictRules, Decision, EntityRef, Intent, Lost,
    OwnedConflictInput, PendingMutation, Rewrite, Settled, decide,
};
use syncline_protocol::{ConflictReason, EntityId, EntityType, Fields, Operation};

/// What is tested: the real decision, or a mutant of it.
pub(crate) type Decider<'a> = &'a dyn Fn(&ConflictRules, &ConflictInput<'_>) -> Decision;

/// The real one, for declared rules.
pub(crate) fn real(rules: &ConflictRules, input: &ConflictInput<'_>) -> Decision {
    decide(rules, rules, input)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) rules: ConflictRules,
    #[serde(deserialize_with = "required")]
    pub(crate) base: Option<Fields>,
    #[serde(deserialize_with = "required")]
    pub(crate) local: Option<Fields>,
    #[serde(deserialize_with = "required")]
    pub(crate) remote: Option<Fields>,
    /// One mutation from base to local where it is left out.
    pub(crate) pending: Option<Vec<Mutation>>,
    #[serde(default)]
    pub(crate) cause: Cause,
    pub(crate) server_time_ms: Option<i64>,
    pub(crate) expect: Expected,
}

/// A key that may be null, but not left out.
fn required<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Fields>, D::Error> {
    Option::deserialize(deserializer)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutation {
    op: Operation,
    #[serde(default)]
    fields: Fields,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Cause {
    #[default]
    Pull,
    Push(ConflictReason),
    Violation {
        constraint: String,
        other: Option<i64>,
    },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Expected {
    Settled(ExpectedSettled),
    Manual { rule: String, reason: String },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectedSettled {
    rule: String,
    #[serde(deserialize_with = "required")]
    row: Option<Fields>,
    /// One for each pending mutation; null: superseded.
    pending: Vec<Option<Mutation>>,
    /// What is pushed and belongs to none of them.
    new: Option<Mutation>,
    #[serde(default)]
    fields: BTreeMap<String, ExpectedField>,
    #[serde(default)]
    lost_mine: ExpectedLost,
    #[serde(default)]
    lost_theirs: ExpectedLost,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedField {
    took: String,
    rule: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpectedLost {
    #[default]
    Nothing,
    Values(Fields),
    Deletion,
}

pub(crate) fn entity(id: i64) -> EntityRef {
    EntityRef {
        entity_type: EntityType::new("item"),
        id: EntityId::from(id),
    }
}

pub(crate) fn mutation(number: usize, op: Operation, fields: Fields) -> PendingMutation {
    PendingMutation {
        mutation: format!("m{number}"),
        op,
        fields,
    }
}

/// The one mutation that leads from the base to the local row.
pub(crate) fn derived(base: Option<&Fields>, local: Option<&Fields>) -> Vec<PendingMutation> {
    match (base, local) {
        (None, None) => Vec::new(),
        (None, Some(local)) => vec![mutation(0, Operation::Create, local.clone())],
        (Some(_), None) => vec![mutation(0, Operation::Delete, Fields::new())],
        (Some(base), Some(local)) => {
            let fields = syncline_core::changed(base, local);
            vec![mutation(0, Operation::Update, fields)]
        }
    }
}

impl Case {
    pub(crate) fn question(&self) -> OwnedConflictInput {
        let pending = match &self.pending {
            None => derived(self.base.as_ref(), self.local.as_ref()),
            Some(all) => {
                let numbered = all.iter().enumerate();
                numbered
                    .map(|(number, one)| mutation(number, one.op, one.fields.clone()))
                    .collect()
            }
        };
        let cause = match &self.cause {
            Cause::Pull => ConflictCause::Pull,
            Cause::Push(reason) => ConflictCause::Push(*reason),
            Cause::Violation { constraint, other } => ConflictCause::Violation {
                constraint: constraint.clone(),
                other: other.map(entity),
            },
        };
        OwnedConflictInput {
            entity: entity(1),
            base: self.base.clone(),
            local: self.local.clone(),
            remote: self.remote.clone(),
            pending,
            cause,
            server_time_ms: self.server_time_ms,
        }
    }

    /// Whether the decision is the expected one; else what differs.
    pub(crate) fn check(&self, decider: Decider<'_>) -> Result<(), String> {
        let question = self.question();
        match (&self.expect, decider(&self.rules, &question.input())) {
            (
                Expected::Manual { rule, reason },
                Decision::Manual {
                    rule: by,
                    reason: why,
                },
            ) => {
                same("rule", rule, &by)?;
                same("reason", reason, &why)
            }
            (Expected::Settled(expected), Decision::Settled(settled)) => expected.check(&settled),
            (expected, decision) => Err(format!("expected {expected:?}, got {decision:?}")),
        }
    }
}

impl ExpectedSettled {
    fn check(&self, settled: &Settled) -> Result<(), String> {
        let fields = settled.fields.iter().map(|(name, outcome)| {
            let expected = ExpectedField {
                took: outcome.took.as_str().to_owned(),
                rule: outcome.rule.clone(),
            };
            (name.clone(), expected)
        });
        let pending = self.pending.iter().map(|one| match one {
            None => Rewrite::Supersede,
            Some(one) => Rewrite::Write(one.intent()),
        });
        same("row", &self.row, &settled.row)?;
        same("rule", &self.rule, &settled.rule)?;
        same("fields", &self.fields, &fields.collect())?;
        same("lost_mine", &self.lost_mine.expected(), &settled.lost_mine)?;
        same(
            "lost_theirs",
            &self.lost_theirs.expected(),
            &settled.lost_theirs,
        )?;
        same("pending", &pending.collect(), &settled.pending.each)?;
        let new = self.new.as_ref().map(Mutation::intent);
        same("new", &new, &settled.pending.new)
    }
}

impl Mutation {
    fn intent(&self) -> Intent {
        Intent {
            op: self.op,
            fields: self.fields.clone(),
        }
    }
}

impl ExpectedLost {
    fn expected(&self) -> Lost {
        match self {
            ExpectedLost::Nothing => Lost::Nothing,
            ExpectedLost::Values(values) => Lost::Values(values.clone()),
            ExpectedLost::Deletion => Lost::Deletion,
        }
    }
}

pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    found: &T,
) -> Result<(), String> {
    if expected == found {
        Ok(())
    } else {
        Err(format!("{what}: expected {expected:?}, got {found:?}"))
    }
}
