//! What of an entity's confirmed mutations is offered again, and on which base.

use super::*;
use syncline_core::FieldRule;

fn fields(all: &[(&str, i64)]) -> Fields {
    all.iter().copied().collect()
}

fn noted(op: Operation, wrote: &[(&str, i64)], before: &[(&str, i64)]) -> Noted {
    Noted {
        id: 0,
        op,
        fields: (op != Operation::Delete).then(|| fields(wrote)),
        before: (op != Operation::Create).then(|| fields(before)),
        is_command: false,
        parts: None,
    }
}

/// Which operations are offered, with which fields, and on which base.
fn offered(row: Option<&[(&str, i64)]>, noted: &[Noted]) -> (Vec<String>, Option<Fields>) {
    let agreed = row.map(fields);
    let again = still_there(agreed.as_ref(), &ConflictRules::default(), noted.to_vec());
    let base = match again.is_empty() {
        true => agreed,
        false => before_all(agreed, &again),
    };
    let show = |one: &Noted| {
        let fields = one.fields.iter().flat_map(Fields::names);
        format!("{:?} {}", one.op, fields.collect::<Vec<_>>().join(","))
    };
    (again.iter().map(show).collect(), base)
}

/// An element of a set is still there when others have added to the set since, and not when they took it.
#[test]
fn an_element_of_a_set_is_offered_although_others_have_added_theirs() {
    let tags = |text: &str| Fields::from_iter([("tags", text)]);
    let mut rules = ConflictRules::default();
    rules.merge.insert("tags".to_owned(), FieldRule::Set);
    let edit = Noted {
        id: 0,
        op: Operation::Update,
        fields: Some(tags(r#"["a"]"#)),
        before: Some(tags("[]")),
        is_command: false,
        parts: None,
    };
    for (row, shown) in [
        (r#"["a"]"#, true),
        (r#"["b", "a"]"#, true),
        (r#"["b"]"#, false),
    ] {
        let again = still_there(Some(&tags(row)), &rules, vec![edit.clone()]);
        assert_eq!(!again.is_empty(), shown, "{row}");
    }
    let plain = still_there(
        Some(&tags(r#"["b", "a"]"#)),
        &ConflictRules::default(),
        vec![edit],
    );
    assert!(
        plain.is_empty(),
        "a field without the rule is the last writer's"
    );
}

#[test]
fn only_what_the_row_still_shows_is_offered_and_its_base_is_the_row_without_it() {
    use Operation::{Create, Delete, Update};
    let edit = noted(Update, &[("a", 2), ("b", 2)], &[("a", 1), ("b", 1)]);
    // Somebody else has written b since; c is of others all along.
    let row = [("a", 2), ("b", 9), ("c", 7)];
    let (what, base) = offered(Some(&row), std::slice::from_ref(&edit));
    assert_eq!(what, ["Update a"]);
    assert_eq!(base, Some(fields(&[("a", 1), ("b", 9), ("c", 7)])));

    // What was overwritten by a later one of one's own goes along with that.
    let later = noted(Update, &[("a", 3)], &[("a", 2)]);
    let row = [("a", 3), ("b", 9)];
    let (what, base) = offered(Some(&row), &[edit.clone(), later]);
    assert_eq!(what, ["Update a", "Update a"]);
    assert_eq!(base, Some(fields(&[("a", 1), ("b", 9)])));

    let nothing: [String; 0] = [];
    let row = [("a", 8), ("b", 9)];
    let (what, _) = offered(Some(&row), std::slice::from_ref(&edit));
    assert_eq!(what, nothing);
    let (what, _) = offered(None, std::slice::from_ref(&edit));
    assert_eq!(what, nothing, "somebody has deleted it");

    let create = noted(Create, &[("a", 1), ("b", 1)], &[]);
    let row = [("a", 2), ("b", 2)];
    let (what, base) = offered(Some(&row), &[create.clone(), edit.clone()]);
    // What others did below a create is no work of this device: the row stands under it.
    assert_eq!((what.len(), base), (2, Some(fields(&[("a", 1), ("b", 1)]))));

    let delete = noted(Delete, &[], &[("a", 2), ("b", 2)]);
    let made_again = noted(Create, &[("a", 5)], &[]);
    let all = [create, edit, delete, made_again];
    let (what, base) = offered(None, &all[..3]);
    assert_eq!(what, ["Delete "], "what was deleted is not made again");
    assert_eq!(base, Some(fields(&[("a", 2), ("b", 2)])));
    let row = [("a", 5)];
    let (what, base) = offered(Some(&row), &all);
    assert_eq!(what, ["Delete ", "Create a"]);
    assert_eq!(base, Some(fields(&[("a", 2), ("b", 2)])));
    let (what, _) = offered(Some(&row), &all[..3]);
    assert_eq!(what, nothing, "somebody else has made it again");
}
