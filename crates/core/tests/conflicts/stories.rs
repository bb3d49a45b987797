//! Fixtures with several devices and several rounds, run in the model of `devices.rs`.

use crate::case::{Decider, same};
use crate::devices::World;
use serde::Deserialize;
use std::collections::BTreeMap;
use syncline_core::{ConflictRules, Lost, Settled};
use syncline_protocol::Fields;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Story {
    pub(crate) name: String,
    pub(crate) rules: ConflictRules,
    /// What everyone has at the beginning; null: nothing.
    start: Option<Fields>,
    server_time_ms: Option<i64>,
    steps: Vec<Step>,
    expect: End,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    /// A device's app changes fields, or creates the entity.
    Write { by: String, fields: Fields },
    /// A device's app deletes it.
    Delete { by: String },
    /// A device learns the server's state.
    Pull { by: String },
    /// A device sends its mutations, as long as they are taken.
    Push { by: String },
    /// Both.
    Sync { by: String },
    /// A person resolves a device's conflict with this row.
    Resolve { by: String, row: Option<Fields> },
}

/// What has to be true once everyone has synced until nothing moves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// On the server and on every device without an open conflict.
    row: Option<Fields>,
    /// Device to the reason of its open conflict.
    #[serde(default)]
    open: BTreeMap<String, String>,
    /// What records hold, in the order in which the devices are named first.
    #[serde(default)]
    lost: Vec<Loss>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Loss {
    by: String,
    rule: String,
    #[serde(default)]
    mine: Fields,
    #[serde(default)]
    theirs: Fields,
    #[serde(default)]
    deletion: bool,
}

impl Story {
    pub(crate) fn check(&self, decider: Decider<'_>) -> Result<(), String> {
        let names = self.names();
        let at = |by: &String| names.iter().position(|name| name == by).unwrap();
        let mut world = World::new(self.start.clone(), names.len(), &self.rules, decider);
        world.server_time_ms = self.server_time_ms;
        for step in &self.steps {
            match step {
                Step::Write { by, fields } => world.write(at(by), fields),
                Step::Delete { by } => world.delete(at(by)),
                Step::Pull { by } => world.pull(at(by)),
                Step::Push { by } => {
                    for _ in 0..world.devices[at(by)].pending.len() {
                        world.push(at(by));
                    }
                }
                Step::Sync { by } => world.sync(at(by)),
                Step::Resolve { by, row } => {
                    if world.devices[at(by)].open.is_none() {
                        return Err(format!("{by} has no open conflict"));
                    }
                    world.resolve(at(by), row.clone());
                }
            }
        }
        world.settle()?;
        same("row of the server", &self.expect.row, &world.server.row)?;
        let (mut open, mut lost) = (BTreeMap::new(), Vec::new());
        for (name, device) in names.iter().zip(&world.devices) {
            match &device.open {
                Some(reason) => {
                    open.insert(name.clone(), reason.clone());
                }
                None => same(&format!("row of {name}"), &self.expect.row, &device.row)?,
            }
            let losses = device.records.iter().filter(|one| one.loses_something());
            lost.extend(losses.map(|one| loss(name, one)));
        }
        same("open", &self.expect.open, &open)?;
        same("lost", &self.expect.lost, &lost)
    }

    /// The devices in the order in which they are named first.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for step in &self.steps {
            let (Step::Write { by, .. }
            | Step::Delete { by }
            | Step::Pull { by }
            | Step::Push { by }
            | Step::Sync { by }
            | Step::Resolve { by, .. }) = step;
            if !names.contains(by) {
                names.push(by.clone());
            }
        }
        names
    }
}

fn loss(by: &str, record: &Settled) -> Loss {
    let values = |lost: &Lost| match lost {
        Lost::Values(values) => values.clone(),
        Lost::Nothing | Lost::Deletion => Fields::new(),
    };
    Loss {
        by: by.to_owned(),
        rule: record.rule.clone(),
        mine: values(&record.lost_mine),
        theirs: values(&record.lost_theirs),
        deletion: [&record.lost_mine, &record.lost_theirs].contains(&&Lost::Deletion),
    }
}
