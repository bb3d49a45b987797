//! What arrives stands in its own column, as it was sent.

use crate::support::{Device, text, upsert};
use syncline_protocol::{Change, Value};

/// A generated column that is not stored stands before a REAL one, and after that one without a type.
const SCHEMA: &str =
    "CREATE TABLE task (id TEXT PRIMARY KEY NOT NULL, loud AS (upper(id)), cost REAL, any);";

fn task(position: i64, any: Value) -> Change {
    let fields = [("cost", Value::Real(2.0)), ("any", any)];
    upsert("task", text("t"), position, &fields)
}

#[test]
fn an_integer_stays_one_where_the_row_is_there_already() {
    let mut device = Device::new(SCHEMA);
    device.snapshot(1, vec![task(1, "some".into())]);
    device.feed(2, vec![task(2, i64::MAX.into())]);
    let types = "SELECT any, typeof(any), typeof(cost), loud FROM task";
    assert_eq!(device.rows(types), [format!("{}|integer|real|T", i64::MAX)]);
}
