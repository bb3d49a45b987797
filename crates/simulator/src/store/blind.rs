//! A client that knows nothing writes over what is there: once a history has come right, the server is
//! sent what it has to refuse, whatever the devices of that history would ever have sent.

use super::world::{World, unix_ms};
use crate::level::Broken;
use serde_json::{Value, json};
use syncline_protocol::{HEADER_CLIENT, HEADER_PROTOCOL, PROTOCOL_VERSION};
use syncline_server::Request;

const CLIENT: &str = "0b11dd0b11dd0b11dd0b11dd0b11dd0b";

/// F:S13, D:P6: nothing of it takes effect. F:S12: of a group that cannot be done, nothing is.
pub(super) fn writes(world: &World) -> Result<(), Broken> {
    let Some(((entity_type, id), fields)) = world.model.alive().next() else {
        return Ok(());
    };
    let mutation = |key: &str, op: &str, id: &str| {
        let mut mutation =
            json!({"key": key, "mutation": key, "type": entity_type, "id": id, "op": op});
        if op != "delete" {
            mutation["fields"] = fields.clone().into();
        }
        mutation
    };
    for op in ["create", "update", "delete"] {
        let done = applied(world, &json!([mutation(op, op, id)]), &json!([]))?;
        let invariant = if op == "create" { "F:S13" } else { "D:P6" };
        if !done.is_empty() {
            let detail = format!("{op} of {entity_type} {id}, which is there, without a base");
            return Err(Broken::new(invariant, detail));
        }
    }
    let group = [
        mutation("first", "create", "nobody's"),
        mutation("second", "update", id),
    ];
    let done = applied(world, &json!(group), &json!([["first", "second"]]))?;
    match done.is_empty() {
        true => Ok(()),
        false => Err(Broken::new(
            "F:S12",
            format!("of a group of two, {done:?} was done"),
        )),
    }
}

/// The keys of what the server says that it did.
fn applied(world: &World, mutations: &Value, groups: &Value) -> Result<Vec<String>, Broken> {
    let body = json!({"client": CLIENT, "mutations": mutations, "groups": groups});
    let token = world
        .devices
        .first()
        .map(|device| device.own_token.as_str());
    let request = Request::new("POST", "/v1/push")
        .json(body.to_string().into_bytes())
        .header(HEADER_PROTOCOL, PROTOCOL_VERSION)
        .header(HEADER_CLIENT, CLIENT)
        .header("authorization", format!("Bearer {}", token.unwrap_or("")));
    let (response, _) = world.server.handle(&request, unix_ms(world.now));
    let answer: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let Some(results) = answer.get("results").and_then(Value::as_array) else {
        let detail = format!("{} for {body}: {answer}", response.status);
        return Err(Broken::new("F:S25", detail));
    };
    let done = results.iter().filter(|one| one["outcome"] == "applied");
    Ok(done.map(|one| one["key"].to_string()).collect())
}
