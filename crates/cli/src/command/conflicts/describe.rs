//! Conflicts as text: a table of several, one in full.

use crate::{span, text};
use syncline_protocol::{Fields, Value};
use syncline_store::conflict::{
    ChangedBy, Conflict, ConflictDetails, ConflictState, FieldDetails, Loss, PolicyOutcome, Showed,
    Side,
};

/// Values longer than this are cut; `--json` has them in full.
const LONGEST: usize = 48;

/// One line for each.
pub(super) fn table(conflicts: &[Conflict], now: i64) -> String {
    let head = ["ID", "STATE", "ENTITY", "SHOWED", "AGE", "WHY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(conflicts.iter().map(|one| {
        vec![
            one.id.to_string(),
            state(one.state).to_owned(),
            text::entity(&one.entity_type, &one.entity_id),
            side(one.showed.side).to_owned(),
            span::human(now - one.opened_at),
            why(one),
        ]
    }));
    text::columns(&rows)
}

fn state(state: ConflictState) -> &'static str {
    match state {
        ConflictState::Open => "open",
        ConflictState::Resolved => "resolved",
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Push => "push",
        Side::Pull => "pull",
        Side::Violation => "violation",
    }
}

/// Why it waits, or what decided it.
fn why(one: &Conflict) -> String {
    match &one.resolution {
        Some(choice) if one.by_person => format!("decided by you: {choice}"),
        Some(rule) => format!("decided by {rule}"),
        None => one.showed.reason.clone().unwrap_or_default(),
    }
}

/// One in full.
pub(super) fn detail(detail: &ConflictDetails, now: i64) -> String {
    let one = &detail.conflict;
    let row = |name: &str, told: String| vec![name.to_owned(), told];
    let opened = format!(
        "{} ({} ago)",
        span::utc(one.opened_at),
        span::human(now - one.opened_at)
    );
    let mut rows = vec![
        row("conflict", one.id.to_string()),
        row("entity", text::entity(&one.entity_type, &one.entity_id)),
        row("state", state(one.state).to_owned()),
        row("opened", opened),
        row("showed", showed(&one.showed)),
        row("why", why(one)),
        row("mutations", one.mutations.join(", ")),
    ];
    for (name, side) in [("mine", &detail.local), ("theirs", &detail.remote)] {
        if side.is_none() {
            rows.push(row(name, "there is no row".to_owned()));
        }
    }
    let mut out = text::columns(&rows);
    out.push('\n');
    out.push_str(&fields(detail));
    out.push_str(&after(detail));
    out
}

fn showed(showed: &Showed) -> String {
    match showed.side {
        Side::Pull => "a pulled change met unsynced edits".to_owned(),
        Side::Push => {
            let code = serde_json::to_value(showed.code).unwrap_or_default();
            let code = code.as_str().unwrap_or("conflict").to_owned();
            match showed.status {
                Some(status) => format!("the server refused a push: {code} ({status})"),
                None => format!("the server refused a push: {code}"),
            }
        }
        Side::Violation => {
            let constraint = showed.constraint.as_deref().unwrap_or("a constraint");
            match &showed.other {
                Some(other) => {
                    let other = text::entity(&other.entity_type, &other.entity_id);
                    format!("{constraint}, because of {other}")
                }
                None => constraint.to_owned(),
            }
        }
    }
}

/// Every field with its value on each side.
fn fields(detail: &ConflictDetails) -> String {
    let decided = detail.conflict.state == ConflictState::Resolved;
    let mut head = vec!["FIELD", "BASE", "MINE", "THEIRS"];
    if decided {
        head.push("RESULT");
    }
    head.push("CHANGED BY");
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(detail.fields.iter().map(|field| {
        let mut cells = vec![
            field.name.clone(),
            value(field.base.as_ref()),
            value(field.mine.as_ref()),
            value(field.theirs.as_ref()),
        ];
        if decided {
            cells.push(value(field.result.as_ref()));
        }
        cells.push(changed_by(field));
        cells
    }));
    text::columns(&rows)
}

fn changed_by(field: &FieldDetails) -> String {
    let who = match field.changed_by {
        ChangedBy::Nobody => "",
        ChangedBy::Mine => "mine",
        ChangedBy::Theirs => "theirs",
        ChangedBy::Both => "both",
    };
    match (&field.took, &field.rule) {
        (Some(took), Some(rule)) => format!("{who}; took {took} ({rule})"),
        _ => who.to_owned(),
    }
}

/// Of an open one: what each policy would do. Of a decided one: what gave way.
fn after(detail: &ConflictDetails) -> String {
    if detail.conflict.state == ConflictState::Open {
        let policies = detail.policies.iter().map(|one| would(one, detail));
        let rows: Vec<Vec<String>> = policies.collect();
        return format!("\nwhat each policy would do\n{}", text::columns(&rows));
    }
    let losses = [
        ("lost of mine", &detail.lost_mine),
        ("lost of theirs", &detail.lost_theirs),
    ];
    let rows = losses.map(|(name, loss)| vec![name.to_owned(), lost(loss)]);
    format!("\n{}", text::columns(&rows))
}

fn lost(loss: &Loss) -> String {
    match loss {
        Loss::Nothing => "nothing".to_owned(),
        Loss::Deletion => "the deletion".to_owned(),
        Loss::Values(values) => assignments(values, |_| true),
    }
}

fn would(policy: &PolicyOutcome, detail: &ConflictDetails) -> Vec<String> {
    let told = match (&policy.manual, &policy.row) {
        (Some(reason), _) => format!("ask you: {reason}"),
        (None, None) => "delete the row".to_owned(),
        (None, Some(row)) if Some(row) == detail.local.as_ref() => "take mine".to_owned(),
        (None, Some(row)) if Some(row) == detail.remote.as_ref() => "take theirs".to_owned(),
        (None, Some(row)) => {
            let changed = |name: &str| {
                let mut fields = detail.fields.iter();
                fields.any(|one| one.name == name && one.changed_by != ChangedBy::Nobody)
            };
            assignments(row, changed)
        }
    };
    vec![policy.policy.clone(), told]
}

fn assignments(fields: &Fields, shown: impl Fn(&str) -> bool) -> String {
    let shown = fields.iter().filter(|(name, _)| shown(name));
    let each = shown.map(|(name, one)| format!("{name} = {}", value(Some(one))));
    each.collect::<Vec<_>>().join(", ")
}

fn value(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    let text = serde_json::to_string(value).unwrap_or_default();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
