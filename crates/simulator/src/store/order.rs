//! What was written in which order and by whom, and what of it took effect: effects follow the order of
//! their device, entity by entity (F:S7, D:O1), and nothing takes effect under the name of another
//! device, nor twice (F:S17).

use super::world::World;
use crate::level::Broken;
use crate::reference::server::Name;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::HEADER_CLIENT;
use syncline_server::Request;

/// What a fresh effect was.
struct Effect {
    device: usize,
    content: Value,
}

/// What took effect in this history of the server, first to last.
#[derive(Default)]
pub(crate) struct Order {
    /// The last effect of a device on an entity: when it was written.
    last: BTreeMap<(usize, Name), u64>,
    /// Which device got effects under a client's name.
    owners: BTreeMap<String, usize>,
    /// Effects by the mutation that they are of.
    effects: BTreeMap<String, Effect>,
    /// Deletes of what was gone already: they had no effect, and are offered again like others.
    done: BTreeSet<String>,
    /// What a restored server may have lost. It is offered again once a device learns of that; a command that
    /// was sent before has taken effect by then, since it has no base that the server could refuse.
    lost: BTreeSet<String>,
    /// Mutations that somebody has decided about in one of two files.
    decided: BTreeSet<String>,
}

impl Order {
    /// A device's file is an older one: what it writes now comes after what it wrote before, but what it
    /// has not sent may have taken effect already.
    pub(crate) fn file_replaced(&mut self, device: usize) {
        self.last.retain(|(owner, _), _| *owner != device);
    }

    /// Somebody has decided in one file about mutations that copies of it have as well: each decision counts.
    pub(crate) fn decided(&mut self, mutations: impl IntoIterator<Item = String>) {
        self.decided.extend(mutations);
    }

    /// The server has an older state, and does not know what took effect since.
    pub(crate) fn server_restored(&mut self) {
        self.last.clear();
        self.lost
            .extend(std::mem::take(&mut self.effects).into_keys());
        self.lost.append(&mut self.done);
    }
}

/// When an app wrote a mutation, by the name that it was given then; `None`: no app wrote it.
fn written(mutation: &str) -> Option<u64> {
    let serial = mutation.get(13..)?.strip_prefix("0008")?;
    u64::from_str_radix(serial, 16).ok()
}

impl World {
    /// Which of the keys in a push have no outcome yet, and the head of the feed before it.
    pub(super) fn open_keys(&self, sent: &Value) -> (Vec<Value>, i64) {
        let mutations = sent["mutations"].as_array();
        let open = |mutation: &&Value| {
            let key = mutation["key"].as_str().unwrap_or_default();
            self.model.done_by(sent, key).is_none()
        };
        let open = mutations.into_iter().flatten().filter(open).cloned();
        (open.collect(), self.model.head())
    }

    /// F:S7, F:S17: what a push did that nobody had done before.
    pub(super) fn in_order(
        &mut self,
        (device, wire): (usize, &Request),
        (open, head): (Vec<Value>, i64),
        answer: &Value,
        unseen: bool,
    ) -> Result<(), Broken> {
        let results = answer["results"].as_array();
        let sent: Value = serde_json::from_slice(&wire.body).unwrap_or_default();
        let client = wire
            .headers
            .get(HEADER_CLIENT)
            .unwrap_or_default()
            .to_owned();
        for mutation in open {
            let result = (results.into_iter().flatten()).find(|one| one["key"] == mutation["key"]);
            let fresh = |one: &&Value| {
                one["outcome"] == "applied" && (unseen || one["duplicate"] != Value::Bool(true))
            };
            let Some(result) = result.filter(fresh) else {
                continue;
            };
            // A delete of what is gone is told the position of that.
            if result["position"].as_i64().is_some_and(|at| at <= head) {
                let name = mutation["mutation"].as_str().unwrap_or_default();
                self.order.done.insert(name.to_owned());
                continue;
            }
            let key = mutation["key"].as_str().unwrap_or_default();
            let entity = self.model.done_by(&sent, key).cloned().unwrap_or_default();
            self.took_effect(device, &client, &mutation)?;
            let name = mutation["mutation"].as_str().unwrap_or_default();
            if !self.order.lost.contains(name) {
                self.follows(device, entity, &mutation)?;
            }
        }
        Ok(())
    }

    fn took_effect(&mut self, device: usize, client: &str, mutation: &Value) -> Result<(), Broken> {
        let owner = *self.order.owners.entry(client.to_owned()).or_insert(device);
        if owner != device {
            let detail = format!("devices {owner} and {device} both got effects as {client}");
            return Err(Broken::new("F:S17", detail));
        }
        let name = mutation["mutation"].as_str().unwrap_or_default().to_owned();
        let mut content = mutation.clone();
        if let Some(content) = content.as_object_mut() {
            content.retain(|part, _| matches!(part.as_str(), "op" | "fields" | "command"));
        }
        let now = Effect { device, content };
        if self.order.decided.contains(&name) {
            return Ok(());
        }
        match self.order.effects.insert(name, now) {
            Some(before) => Err(Broken::new(
                if before.device == device {
                    "F:S4"
                } else {
                    "F:S17"
                },
                format!(
                    "{mutation} took effect on behalf of device {device}, after {} on behalf of device {}",
                    before.content, before.device
                ),
            )),
            None => Ok(()),
        }
    }

    fn follows(&mut self, device: usize, entity: Name, mutation: &Value) -> Result<(), Broken> {
        let itself = mutation["mutation"].as_str().and_then(written);
        let covered = mutation["covers"].as_array().into_iter().flatten();
        let all: Vec<u64> = (covered.filter_map(|one| written(one.as_str()?)))
            .chain(itself)
            .collect();
        let (Some(first), Some(last)) = (all.iter().min(), all.iter().max()) else {
            return Ok(());
        };
        let before = self.order.last.insert((device, entity), *last);
        match before {
            Some(before) if before > *first => Err(Broken::new(
                "F:S7",
                format!(
                    "device {device}: {mutation} took effect after what was written as number {before}"
                ),
            )),
            _ => Ok(()),
        }
    }
}
