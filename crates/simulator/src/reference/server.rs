//! What a server must have after what it said: every push that reached it and its answer are read, what
//! was `applied` is done here as well, and what it shows later must be that. Knows JSON and nothing of
//! the code that it judges.

use crate::level::Broken;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// An entity's type and id.
pub type Name = (String, String);

/// The state of an entity, or of a deleted one.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Its fields; none when it is deleted.
    pub fields: Option<Map<String, Value>>,
    /// Its position in the feed.
    pub position: i64,
    /// Its version, as it was told.
    pub version: String,
    /// The key that wrote it last.
    pub key: String,
}

/// What is known of a key.
#[derive(Debug, Clone)]
struct Known {
    /// The mutation as it was sent, to the byte.
    sent: String,
    /// Its final outcome.
    outcome: Option<Value>,
    /// When the outcome was recorded.
    at: i64,
    /// The entity that it was about in the end.
    entity: Name,
    /// Mutations that became part of it.
    covers: Vec<String>,
}

/// The server as it must be.
#[derive(Debug, Clone, Default)]
pub struct Server {
    epoch: String,
    rotations: u64,
    head: i64,
    entities: BTreeMap<Name, Entity>,
    /// By the client in whose space the key is, and the key.
    keys: BTreeMap<Name, Known>,
    /// Positions of the cursors that were handed out in the feed.
    cursors: BTreeMap<String, i64>,
    /// Keys may have been forgotten that were recorded before this time.
    forgotten_before: i64,
    /// Deletions may have been forgotten at or below this position.
    horizon: i64,
    /// What was made under the id of a row whose deletion may be forgotten, or that a restored server did not have:
    /// whoever was away meanwhile takes it for the earlier row, and what was decided about that one hits it. (An app that must not
    /// have this never gives an id again: `AUTOINCREMENT`.)
    mistaken: BTreeSet<Name>,
    /// All rows that had such an id: of what referred to one of them nobody can say which it meant.
    ambiguous: BTreeSet<Name>,
    /// Rows that had a name at any time, in whichever history, by the name that they have for ever.
    named: BTreeMap<Name, BTreeSet<String>>,
    /// What a restored server did not have: it is there again when who made it has offered it again, and
    /// until then nobody can delete it.
    unknown: BTreeSet<Name>,
    /// An older state took the place of a later one.
    pub restored: bool,
    /// Effects that nobody has asked for yet, in order.
    effects: Vec<(Name, Entity)>,
    /// Effects so far.
    pub applied: u64,
    /// Conflicts answered so far.
    pub conflicts: u64,
}

impl Known {
    fn position(&self) -> Option<i64> {
        self.outcome.as_ref()?.get("position")?.as_i64()
    }
}

type Check = Result<(), Broken>;

fn broken<T>(invariant: &'static str, detail: String) -> Result<T, Broken> {
    Err(Broken::new(invariant, detail))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A key of a push with the client in whose space it is.
fn in_space(push: &Value, key: &str) -> Name {
    let inherited = push["inherited"][key].as_str();
    let client = inherited.unwrap_or_else(|| text(push, "client"));
    (client.to_owned(), key.to_owned())
}

/// The texts of the elements of the array `mutations`, as they stand in the body.
fn raw_mutations(body: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        mutations: Vec<&'a serde_json::value::RawValue>,
    }
    serde_json::from_slice::<Body<'_>>(body)
        .map(|body| body.mutations.iter().map(|m| m.get().to_owned()).collect())
        .unwrap_or_default()
}

impl Server {
    /// One with nothing on it.
    pub fn new(epoch: &str) -> Self {
        Self {
            epoch: epoch.to_owned(),
            ..Self::default()
        }
    }

    /// Every entity that is alive, by type and id.
    pub fn alive(&self) -> impl Iterator<Item = (&Name, &Map<String, Value>)> {
        self.entities
            .iter()
            .filter_map(|(name, entity)| Some((name, entity.fields.as_ref()?)))
    }

    /// An entity, alive or deleted.
    pub fn entity(&self, name: &Name) -> Option<&Entity> {
        self.entities.get(name)
    }

    /// Every entity, alive or deleted.
    pub fn entities(&self) -> impl Iterator<Item = (&Name, &Entity)> {
        self.entities.iter()
    }

    /// What took effect since this was asked last, in order.
    pub fn take_effects(&mut self) -> Vec<(Name, Entity)> {
        std::mem::take(&mut self.effects)
    }

    /// The entity that a key of a push with an outcome was about.
    pub fn done_by(&self, push: &Value, key: &str) -> Option<&Name> {
        let known = self.keys.get(&in_space(push, key))?;
        known.outcome.as_ref().map(|_| &known.entity)
    }

    /// The position of its last effect.
    pub fn head(&self) -> i64 {
        self.head
    }

    /// Rows that may be taken for others, by type and the name that they were made under.
    pub fn mistaken(&self) -> impl Iterator<Item = &Name> {
        self.mistaken.iter()
    }

    /// Rows that shared an id with one that may be taken for them, by the same names.
    pub fn ambiguous(&self) -> impl Iterator<Item = &Name> {
        self.ambiguous.iter()
    }

    /// Whether a restored server did not have this entity for a while, by its name or the one for ever.
    pub fn did_not_know(&self, name: &Name) -> bool {
        self.unknown.contains(name)
    }

    /// This is an older state that takes the place of this one.
    pub fn follows(&mut self, now: &Self) {
        (self.applied, self.conflicts) = (now.applied, now.conflicts);
        // Of the deletion of a row that is lost with it nobody tells its maker.
        let lost = now.entities.keys();
        let lost = lost.filter(|name| !self.entities.contains_key(*name));
        let for_ever = |name: &Name| {
            let all = now.named.get(name).into_iter().flatten();
            let all = all.map(|made| (name.0.clone(), made.clone()));
            all.chain([name.clone()]).collect::<Vec<_>>()
        };
        self.unknown = lost.flat_map(for_ever).collect();
        self.unknown.extend(now.unknown.iter().cloned());
        self.mistaken.extend(now.mistaken.iter().cloned());
        self.ambiguous.extend(now.ambiguous.iter().cloned());
        self.named.clone_from(&now.named);
        self.restored = true;
    }

    /// Whether deletions may have been forgotten, or a new history begun: then a device may never have
    /// seen that a row was deleted.
    pub fn forgets(&self) -> bool {
        self.horizon > 0 || self.rotations > 0
    }

    /// The identity of its history.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// How many histories there were.
    pub fn histories(&self) -> u64 {
        self.rotations + 1
    }

    /// A new history begins on what is there.
    pub fn begin_history(&mut self, epoch: &str) {
        self.rotations += 1;
        epoch.clone_into(&mut self.epoch);
        self.cursors.clear();
    }

    /// The server was told to forget what is older than this.
    pub fn forget(&mut self, before_ms: i64) {
        self.forgotten_before = before_ms;
        self.horizon = self.head;
    }

    /// Reads a push that reached the server, and what it answered. `unseen`: it is asked a second time
    /// after an answer that did not tell what came of it, so that its outcomes are called repeated.
    pub fn push(&mut self, body: &[u8], answer: &Value, now_ms: i64, unseen: bool) -> Check {
        let raw = raw_mutations(body);
        let results = answer.get("results").and_then(Value::as_array);
        let Some(results) = results.filter(|results| results.len() == raw.len()) else {
            return broken("F:B38", format!("{} mutations, answer {answer}", raw.len()));
        };
        let epoch = text(answer, "epoch");
        if epoch != self.epoch {
            return broken("F:S16", format!("history {epoch} after {}", self.epoch));
        }
        let push: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut ids = BTreeMap::new();
        for (sent, result) in raw.iter().zip(results) {
            let mutation: Value = serde_json::from_str(sent).unwrap_or_default();
            self.one((&push, sent), &mutation, result, (&mut ids, now_ms, unseen))?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        (push, sent): (&Value, &str),
        mutation: &Value,
        result: &Value,
        (ids, now_ms, unseen): (&mut BTreeMap<Name, String>, i64, bool),
    ) -> Check {
        let key = text(mutation, "key").to_owned();
        if text(result, "key") != key {
            return broken("F:B38", format!("{result} answers {sent}"));
        }
        let outcome = text(result, "outcome");
        if matches!(outcome, "retry" | "skipped") {
            return Ok(());
        }
        let duplicate = result.get("duplicate") == Some(&Value::Bool(true));
        let place = in_space(push, &key);
        if let Some(known) = self.keys.get(&place)
            && let Some(before) = &known.outcome
        {
            return self.again(known, before, sent, result);
        }
        if let Some(known) = self.done_before(&place, (mutation, sent), result)? {
            self.keys.insert(place, known);
            return Ok(());
        }
        let name = (
            text(mutation, "type").to_owned(),
            text(mutation, "id").to_owned(),
        );
        let mut entity = self.meant(push, mutation, name.clone(), ids);
        match outcome {
            "applied" => {
                if let Some(id) = result.get("id").and_then(Value::as_str) {
                    let chosen = (name.0.clone(), id.to_owned());
                    ids.insert(name, id.to_owned());
                    entity = chosen;
                }
                self.apply(&entity, (push, mutation), result, &key)?;
            }
            "conflict" => self.conflicts += 1,
            _ => {}
        }
        if duplicate && !unseen && outcome == "applied" {
            return broken(
                "F:S4",
                format!("first seen, and said to be repeated: {result}"),
            );
        }
        let known = Known {
            sent: sent.to_owned(),
            outcome: Some(bare(result)),
            at: now_ms,
            entity,
            covers: covers(mutation),
        };
        self.keys.insert(place, known);
        Ok(())
    }

    /// What a mutation was done with before, or under which key, where its result says so: a copied file sends on its own
    /// what the original sent as part of another, or under a later key what another copy got through under an earlier one.
    fn done_before(
        &self,
        place: &Name,
        (mutation, sent): (&Value, &str),
        result: &Value,
    ) -> Result<Option<Known>, Broken> {
        let duplicate = result.get("duplicate") == Some(&Value::Bool(true));
        let earlier = self.under_earlier_key(place, mutation);
        if let (Some(known), true) = (earlier, duplicate)
            && let Some(before) = &known.outcome
        {
            self.again(known, before, sent, result)?;
            return Ok(Some(known.clone()));
        }
        let is_told = |covering: &&Known| {
            let more = self.says_more(covering, &place.0, mutation);
            duplicate || more && text(result, "code") == "key-reused"
        };
        let covering = self.covering(place).or(earlier).filter(is_told);
        Ok(covering.cloned())
    }

    /// Whether a mutation covers others that were not done with what covers it.
    fn says_more(&self, covering: &Known, space: &str, mutation: &Value) -> bool {
        let is_done = |covered: &String| {
            covering.covers.contains(covered)
                || self.keys.contains_key(&(space.to_owned(), covered.clone()))
        };
        !covers(mutation).iter().all(is_done)
    }

    /// What a mutation had become part of when it was sent before.
    fn covering(&self, (space, key): &Name) -> Option<&Known> {
        let of_it = self.keys.iter().filter(|(place, _)| place.0 == *space);
        let has = |known: &&Known| known.covers.iter().any(|covered| covered == key);
        of_it.map(|(_, known)| known).find(has)
    }

    /// What went through under a key that a mutation says it had before.
    fn under_earlier_key(&self, (space, _): &Name, mutation: &Value) -> Option<&Known> {
        let id = text(mutation, "mutation");
        let covers = covers(mutation).into_iter();
        let mut own = covers.filter(|key| key.split('.').next() == Some(id));
        own.find_map(|key| {
            let known = self.keys.get(&(space.clone(), key))?;
            let outcome = known.outcome.as_ref()?;
            (text(outcome, "outcome") == "applied").then_some(known)
        })
    }

    /// A key that has its outcome: it is said again, or was forgotten, and nothing happens.
    fn again(&self, known: &Known, before: &Value, sent: &str, result: &Value) -> Check {
        let outcome = text(result, "outcome");
        if outcome == "expired" && known.at <= self.forgotten_before {
            return Ok(());
        }
        // The same key with another content: refused, or answered as before; never done.
        if known.sent != sent && text(result, "code") == "key-reused" {
            return Ok(());
        }
        let mut said = bare(result);
        let named = serde_json::from_str::<Value>(sent).unwrap_or_default();
        if text(&named, "id") != known.entity.1
            && text(&said, "id") == known.entity.1
            && before.get("id").is_none()
            && let Some(said) = said.as_object_mut()
        {
            // A copy of the file has given the row another id: it is told the one that it has.
            said.remove("id");
        }
        match said == *before {
            true => Ok(()),
            false => broken("F:S5", format!("answered {before}, then {result}")),
        }
    }

    /// The entity that a mutation is about: by its base, if that is what made it under another id.
    fn meant(
        &self,
        push: &Value,
        mutation: &Value,
        name: Name,
        ids: &BTreeMap<Name, String>,
    ) -> Name {
        if let Some(after) = mutation.pointer("/base/after").and_then(Value::as_str)
            && let Some(known) = self.keys.get(&in_space(push, after))
        {
            return known.entity.clone();
        }
        // Any other base says which state of the entity of this very id it means.
        match ids.get(&name).filter(|_| mutation.get("base").is_none()) {
            Some(id) => (name.0, id.clone()),
            None => name,
        }
    }

    fn apply(
        &mut self,
        name: &Name,
        (push, mutation): (&Value, &Value),
        result: &Value,
        key: &str,
    ) -> Check {
        let position = result.get("position").and_then(Value::as_i64);
        let is_gone = |entity: &Entity| entity.fields.is_none();
        if text(mutation, "op") == "delete" && self.entities.get(name).is_some_and(is_gone) {
            // A delete of what is gone is done, and changes nothing.
            return Ok(());
        }
        self.head += 1;
        if position != Some(self.head) {
            return broken(
                "F:S9",
                format!("position {position:?} after {}", self.head - 1),
            );
        }
        let was = self.entities.get(name);
        let alive = was.and_then(|entity| entity.fields.as_ref());
        self.honours_base(was, (push, mutation), name)?;
        let forgotten = match was {
            None => true,
            Some(was) => was.fields.is_none() && was.position <= self.horizon,
        };
        if let Some(made) = mutation.pointer("/fields/made").and_then(Value::as_str)
            && text(mutation, "op") == "create"
        {
            let named = self.named.entry(name.clone()).or_default();
            named.insert(made.to_owned());
            if forgotten && named.len() > 1 {
                self.mistaken.insert((name.0.clone(), made.to_owned()));
                let all = named.iter().map(|made| (name.0.clone(), made.clone()));
                self.ambiguous.extend(all);
            }
        }
        let op = text(mutation, "op");
        let fields = match (op, alive) {
            ("create", None) => Some(sent_fields(mutation)),
            ("update", Some(fields)) => {
                let mut fields = fields.clone();
                match mutation.get("command") {
                    Some(command) => carry_out(&mut fields, command),
                    None => fields.extend(sent_fields(mutation)),
                }
                Some(fields)
            }
            ("delete", Some(_)) => None,
            _ => return broken("F:S13", format!("{op} of {name:?}, which is {alive:?}")),
        };
        if let Some(told) = result.get("fields").and_then(Value::as_object)
            && Some(told) != fields.as_ref()
        {
            return broken(
                "F:S12",
                format!("{name:?} is {fields:?}, and is told as {told:?}"),
            );
        }
        let entity = Entity {
            fields,
            position: self.head,
            version: text(result, "version").to_owned(),
            key: key.to_owned(),
        };
        self.takes_effect(name, entity);
        Ok(())
    }

    fn takes_effect(&mut self, name: &Name, entity: Entity) {
        self.effects.push((name.clone(), entity.clone()));
        self.entities.insert(name.clone(), entity);
        self.applied += 1;
    }

    /// What was applied was made on the state that was there (D:P6, no lost update).
    fn honours_base(
        &self,
        was: Option<&Entity>,
        (push, mutation): (&Value, &Value),
        name: &Name,
    ) -> Check {
        // A deletion that was forgotten is no state: there is nothing.
        let was = was.filter(|was| was.fields.is_some() || was.position > self.horizon);
        let base = mutation.get("base");
        let command = mutation.get("command").is_some();
        let (Some(was), Some(base)) = (was, base) else {
            let blind = matches!(text(mutation, "op"), "update" | "delete") && !command;
            return match blind && base.is_none() {
                true => broken("D:P6", format!("{name:?} was written without a base")),
                false => Ok(()),
            };
        };
        let holds = if let Some(after) = base.get("after").and_then(Value::as_str) {
            // A delete of what was gone left it as it was, and says where that stands.
            let told = self.keys.get(&in_space(push, after));
            let told = told.and_then(|known| known.position());
            was.key == after || told == Some(was.position)
        } else if let Some(position) = base.pointer("/position/position") {
            text(&base["position"], "epoch") == self.epoch
                && position
                    .as_i64()
                    .is_some_and(|position| was.position <= position)
        } else {
            text(&base["version"], "epoch") == self.epoch
                && text(&base["version"], "version") == was.version
        };
        match holds {
            true => Ok(()),
            false => broken(
                "D:P6",
                format!("{name:?} is {was:?}, and {mutation} was applied"),
            ),
        }
    }

    /// Reads a page as the server gave it: in the feed it has every entity that changed since its
    /// cursor, as it is now, in order (F:S9).
    pub fn page(&mut self, asked: Option<&str>, lines: &[Value]) -> Check {
        let Some((end, changes)) = lines.split_last() else {
            return broken("F:S9", "a page without an end".to_owned());
        };
        let end = &end["page"];
        let position = end["position"].as_i64().unwrap_or(-1);
        for change in changes {
            self.shows(&change["change"])?;
        }
        let phase = text(end, "phase");
        if let Some(from) = asked.and_then(|asked| self.cursors.get(asked)) {
            let due = |entity: &Entity| entity.position > *from && entity.position <= position;
            let due = self.entities.values().filter(|entity| due(entity)).count();
            if due != changes.len() {
                let detail = format!(
                    "{} changes from {from} to {position}, not {due}",
                    changes.len()
                );
                return broken("F:S9", detail);
            }
        }
        if end["at_head"] == Value::Bool(true) && position != self.head {
            return broken("F:S9", format!("head {position}, not {}", self.head));
        }
        if phase != "snapshot" {
            self.cursors
                .insert(text(end, "cursor").to_owned(), position);
        }
        Ok(())
    }

    fn shows(&self, change: &Value) -> Check {
        let name = (
            text(change, "type").to_owned(),
            text(change, "id").to_owned(),
        );
        let known = self.entities.get(&name);
        let shown = change.get("fields").and_then(Value::as_object);
        let is_so = known.is_some_and(|known| {
            known.fields.as_ref() == shown && change["position"].as_i64() == Some(known.position)
        });
        match is_so {
            true => Ok(()),
            false => broken("F:S12", format!("{change} is shown, and is {known:?}")),
        }
    }
}

fn covers(mutation: &Value) -> Vec<String> {
    let covers = mutation.get("covers").and_then(Value::as_array);
    let texts = covers.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// A result without what may differ between two answers.
fn bare(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(result) = result.as_object_mut() {
        result.remove("duplicate");
        result.remove("key");
    }
    result
}

fn sent_fields(mutation: &Value) -> Map<String, Value> {
    let fields = mutation.get("fields").and_then(Value::as_object);
    fields.cloned().unwrap_or_default()
}

/// The commands that the simulation declares: they add to a balance.
fn carry_out(fields: &mut Map<String, Value>, command: &Value) {
    let amount = command
        .pointer("/args/amount")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let sign = if text(command, "name") == "withdraw" {
        -1
    } else {
        1
    };
    let balance = fields.get("balance").and_then(Value::as_i64).unwrap_or(0);
    fields.insert("balance".to_owned(), (balance + sign * amount).into());
}
