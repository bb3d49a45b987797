//! A request arrives at the server, and its answer goes back: what goes wrong with either, and which answers must
//! change nothing.

use super::answer;
use super::fault::{NetFault, Plan};
use super::http;
use super::server::StorageFault;
use super::words::storage_fault;
use super::world::{Event, Message, Trust, World, unix_ms};
use serde_json::{Value, json};
use syncline_core::{RemoteError, RemoteRequest};
use syncline_server::{Request, Response};

impl World {
    /// A request arrives; without a way back nobody waits for the answer.
    pub(super) fn arrive(&mut self, message: &Message, way: Option<Plan>) {
        if self.now < self.down_until {
            self.played.fault("server: down");
            return;
        }
        let instead = message.fault.filter(|_| way.is_some_and(|way| way.instead));
        if instead.is_none() && self.spoils(message, way) {
            return;
        }
        let answered = match instead {
            Some(fault) => {
                if fault == NetFault::TokenRefused {
                    self.devices[message.place.device].no_token_until = self.now + 20_000;
                }
                Some((answer::instead(fault, &message.wire), true))
            }
            None => self.answered(message),
        };
        let Some((mut response, mut struck)) = answered else {
            return;
        };
        let Some(Plan {
            back: Some(back),
            back_again,
            ..
        }) = way
        else {
            return;
        };
        struck |= match message.fault {
            Some(_) if instead.is_some() => true,
            Some(NetFault::OldPage) => self.old_page(message, &mut response),
            Some(fault) => answer::alter(fault, &message.wire, &mut response),
            None => false,
        };
        if let Some(fault) = message
            .fault
            .filter(|fault| struck && !fault.is_on_the_way())
        {
            self.played.fault(fault.name());
        }
        let answer = http::read(&message.request, message.wire_id, &response);
        let trust = match message.fault {
            // A 410 says all by its status: it is believed whatever has become of its body.
            Some(_) if matches!(answer.error(), Some(RemoteError::CursorGone { .. })) => {
                Trust::Usual
            }
            Some(fault) if struck && fault.is_nonsense() => match http::is_error(&answer) {
                false if !fault.reads_well() => Trust::Usual,
                _ => Trust::None,
            },
            _ => Trust::Usual,
        };
        let (place, id) = (message.place, message.id);
        if let Some(again) = back_again {
            let answer = Box::new(answer.clone());
            self.later(again, Event::Answer(place, id, answer, trust));
        }
        self.later(back, Event::Answer(place, id, Box::new(answer), trust));
    }

    /// The server's answer, and whether it did only a part; none where it died.
    fn answered(&mut self, message: &Message) -> Option<(Response, bool)> {
        let device = message.place.device;
        let part = (message.fault == Some(NetFault::PartialBatch))
            .then(|| in_part(&message.wire))
            .flatten();
        let Some((wire, rest)) = part else {
            return Some((self.ask_server(device, &message.wire)?, false));
        };
        let mut response = self.ask_server(device, &wire)?;
        let Ok(mut body) = serde_json::from_slice::<Value>(&response.body) else {
            return Some((response, false));
        };
        let results = body.get_mut("results").and_then(Value::as_array_mut);
        let Some(results) = results.filter(|_| response.status == 200) else {
            return Some((response, false));
        };
        for key in rest {
            results.push(json!({"key": key, "outcome": "retry", "detail": "later"}));
        }
        response.body = body.to_string().into_bytes();
        Some((response, true))
    }

    /// A cache in between gives an earlier page of the same feed. Without a cursor it would be believed: no
    /// client can tell it from the answer of a server that has nothing more.
    fn old_page(&self, message: &Message, response: &mut Response) -> bool {
        let goes_on = matches!(
            &message.request,
            RemoteRequest::Pull {
                cursor: Some(_),
                ..
            }
        );
        match &self.first_page {
            Some(old) if goes_on && response.status == 200 => {
                response.body.clone_from(&old.body);
                true
            }
            _ => false,
        }
    }

    /// The server handles a request, and what it says is compared with the model. It may die over it.
    fn ask_server(&mut self, device: usize, wire: &Request) -> Option<Response> {
        let unix = unix_ms(self.now);
        let (response, fault) = self.server.handle(wire, unix);
        if let Some(fault) = fault {
            self.played.fault(storage_fault(fault));
            let dies = matches!(
                fault,
                StorageFault::DieBeforeCommit | StorageFault::DieAfterCommit
            );
            if dies {
                self.server.restart();
            }
            if matches!(
                fault,
                StorageFault::CommitUnknown | StorageFault::DieAfterCommit
            ) {
                // What came of it is seen by asking again at once, as a proxy may.
                let (seen, _) = self.server.handle(wire, unix);
                self.watch(device, wire, &seen, true);
            }
            if dies {
                return None;
            }
        }
        self.watch(device, wire, &response, false);
        self.page_within(wire, &response);
        Some(response)
    }
}

/// The first half of a push, and the keys of the rest. A group stays whole.
fn in_part(wire: &Request) -> Option<(Request, Vec<Value>)> {
    if wire.path != "/v1/push" {
        return None;
    }
    let mut body: Value = serde_json::from_slice(&wire.body).ok()?;
    let groups = body.get("groups").cloned().unwrap_or_default();
    let together = |one: &Value, other: &Value| {
        let in_it = |group: &Value, key: &Value| {
            group
                .as_array()
                .is_some_and(|keys| keys.contains(&key["key"]))
        };
        let groups = groups.as_array().into_iter().flatten();
        groups
            .into_iter()
            .any(|group| in_it(group, one) && in_it(group, other))
    };
    let mutations = body.get_mut("mutations")?.as_array_mut()?;
    let mut half = mutations.len() / 2;
    while half > 0 && together(&mutations[half - 1], &mutations[half]) {
        half -= 1;
    }
    if half == 0 {
        return None;
    }
    let rest: Vec<Value> = mutations.split_off(half);
    let rest: Vec<Value> = rest.into_iter().map(|one| one["key"].clone()).collect();
    if let Some(groups) = body.get_mut("groups").and_then(Value::as_array_mut) {
        groups.retain(|group| {
            let keys = group.as_array().into_iter().flatten();
            !keys.into_iter().any(|key| rest.contains(key))
        });
    }
    if let Some(inherited) = body.get_mut("inherited").and_then(Value::as_object_mut) {
        inherited.retain(|key, _| !rest.contains(&Value::from(key.as_str())));
    }
    let mut part = wire.clone();
    part.body = body.to_string().into_bytes();
    Some((part, rest))
}
