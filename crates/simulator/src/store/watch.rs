//! What is checked about messages as they pass: the server's answers against the model, a device's words
//! against those that it sent before, and that nonsense changes nothing.

use super::check;
use super::world::{Place, Trust, World, unix_ms};
use crate::level::Broken;
use serde_json::Value;
use std::collections::BTreeSet;
use syncline::Input;
use syncline_core::RemoteRequest;
use syncline_server::Response;

impl World {
    /// What the server was asked and said is compared with the model.
    pub(super) fn watch(
        &mut self,
        device: usize,
        wire: &syncline_server::Request,
        response: &Response,
        unseen: bool,
    ) {
        self.noted.note(&wire.body);
        self.noted.note(&response.body);
        if self.verbose {
            eprintln!(
                "{}   server {} {}: {}",
                self.now,
                wire.path,
                response.status,
                String::from_utf8_lossy(&response.body)
            );
        }
        if response.status != 200 {
            let body = String::from_utf8_lossy(&response.body);
            return self.keeps_secrets("a refusal", &body);
        }
        let checked = match wire.path.as_str() {
            "/v1/push" if wire.headers.get("authorization") == Some(self.stranger.as_str()) => {
                let detail = "what one account wrote was pushed under another";
                Err(Broken::new("D:I1", detail))
            }
            "/v1/push" => {
                let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
                self.forget_refused(&answer);
                self.refuses_without_values(&answer);
                let sent: Value = serde_json::from_slice(&wire.body).unwrap_or_default();
                let open = self.open_keys(&sent);
                let now = unix_ms(self.now);
                (self.model.push(&wire.body, &answer, now, unseen))
                    .and_then(|()| self.in_order((device, wire), open, &answer, unseen))
                    .and_then(|()| self.effects_follow(device, &sent))
                    .map(|()| self.done_before(device, &sent, &answer))
            }
            path if path.ends_with("/cancel") => {
                let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
                let refused = is_refused(&answer["result"]);
                let key = answer["result"]["key"].as_str().filter(|_| refused);
                self.forget_what_follows(key.map(str::to_owned).into_iter().collect());
                Ok(())
            }
            "/v1/pull" => {
                let lines: Vec<Value> = (response.body.split(|byte| *byte == b'\n'))
                    .filter_map(|line| serde_json::from_slice(line).ok())
                    .collect();
                let asked = wire
                    .query
                    .split('&')
                    .find_map(|part| part.strip_prefix("cursor="));
                self.first_page.get_or_insert_with(|| response.clone());
                self.model.page(asked, &lines)
            }
            _ => Ok(()),
        };
        if let Err(broken) = checked {
            self.breaks(broken);
        }
    }

    /// What follows a refused mutation was not done and never will be under those bytes: its key may carry
    /// something else.
    fn forget_refused(&mut self, answer: &Value) {
        let results = answer.get("results").and_then(Value::as_array);
        let refused: BTreeSet<String> = results
            .into_iter()
            .flatten()
            .filter(|result| is_refused(result))
            .filter_map(|result| Some(result["key"].as_str()?.to_owned()))
            .collect();
        let skipped = |key: &str| {
            let is_it = |result: &Value| result["outcome"] == "skipped" && result["key"] == *key;
            results.is_some_and(|results| results.iter().any(is_it))
        };
        // A copy of the file was there first: what came of that is asked, with what the copy had.
        let reused = |key: &str| {
            let is_it = |result: &Value| result["code"] == "key-reused" && result["key"] == *key;
            results.is_some_and(|results| results.iter().any(is_it))
        };
        self.sent
            .retain(|(_, key), _| !skipped(key) && !reused(key));
        self.forget_what_follows(refused);
    }

    /// A server carries out nothing of an entity after what it refuses; a create says so only by its entity.
    fn forget_what_follows(&mut self, mut refused: BTreeSet<String>) {
        let read = |frozen: &str| serde_json::from_str::<Value>(frozen).unwrap_or_default();
        let entity = |sent: &Value| (sent["type"].clone(), sent["id"].clone());
        while !refused.is_empty() {
            let others = (self.sent.iter()).filter(|((_, key), _)| refused.contains(key));
            let entities: Vec<_> = others.map(|(_, frozen)| entity(&read(frozen))).collect();
            let mut following = BTreeSet::new();
            self.sent.retain(|(_, key), frozen| {
                let sent = read(frozen);
                let after = sent.pointer("/base/after").and_then(Value::as_str);
                let is_later = !refused.contains(key) && entities.contains(&entity(&sent));
                let follows = after.is_some_and(|after| refused.contains(after))
                    || is_later && sent["op"] == "create" && sent["base"].is_null();
                if follows {
                    following.insert(key.clone());
                }
                !follows
            });
            refused = following;
        }
    }

    /// D:E3: the bytes under a key never change, as long as the server's history is one. A request that is
    /// turned away unread has spent no key.
    pub(super) fn keeps_its_word(
        &mut self,
        device: usize,
        request: &RemoteRequest,
        is_unread: bool,
    ) {
        let RemoteRequest::Push { batch, .. } = request else {
            return;
        };
        for entry in &batch.entries {
            let key = entry.key.to_string();
            let known = self.sent.get(&(device, key.clone())).cloned();
            if !is_unread {
                self.sent.insert((device, key), entry.frozen.clone());
            }
            if let Some(known) = known.filter(|known| *known != entry.frozen)
                && self.model.histories() == 1
                && !check::was_too_large(self, device, entry.mutation.as_str())
            {
                let detail = format!("{known} was sent, and then {}", entry.frozen);
                return self.breaks(Broken::new("D:E3", detail));
            }
        }
    }

    /// F:S25: an answer that is nonsense or somebody else's changes nothing durable.
    pub(super) fn hear(&mut self, place: Place, input: Input, trust: Trust) {
        let look = |world: &Self| match trust {
            Trust::None => check::durable(world, place.device),
            Trust::Usual => Ok(Vec::new()),
        };
        let before = look(self);
        self.feed(place.device, place.process, input);
        match (before, look(self)) {
            (Ok(before), Ok(after)) if before == after => {}
            (Ok(before), Ok(after)) => {
                let different = before.iter().zip(&after).find(|(one, other)| one != other);
                let detail = format!("device {}: {different:?}", place.device);
                self.breaks(Broken::new("F:S25", detail));
            }
            (Err(broken), _) | (_, Err(broken)) => self.breaks(broken),
        }
    }
}

/// Whether an outcome says that nothing was done, or nothing yet because of something else.
fn is_refused(result: &Value) -> bool {
    !matches!(result["outcome"].as_str(), Some("applied" | "retry"))
}
