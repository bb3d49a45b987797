//! The keys under which one mutation is tried. Every copy of a file must find the same ones without
//! being told: the mutation's own id, and for each final no of the server the next number behind it. An
//! update into which so many others were folded that it cannot be told what each said goes under a random key, which
//! remembers how far it was.

use syncline_protocol::MutationId;

/// The key after one that is spent.
pub(crate) fn after(mutation: &MutationId, spent: &str) -> String {
    format!(
        "{mutation}.{}",
        number(spent).unwrap_or(0).saturating_add(1)
    )
}

/// A random key for an update that others were folded into.
pub(crate) fn folded(random: &str, spent: Option<&str>) -> String {
    match spent {
        None => random.to_owned(),
        Some(spent) => format!("{random}.{}", number(spent).unwrap_or(0)),
    }
}

/// The spent key that this one was chosen after.
pub(crate) fn before(mutation: &MutationId, key: &str) -> Option<String> {
    let own = key
        .strip_prefix(mutation.as_str())
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let spent = match (own, number(key)) {
        (_, None) => return None,
        (true, Some(number)) => number.saturating_sub(1),
        (false, Some(number)) => number,
    };
    Some(match spent {
        0 => mutation.to_string(),
        spent => format!("{mutation}.{spent}"),
    })
}

/// The keys that the mutation had before this one, the last first, as far as others need to know them.
pub(crate) fn earlier(mutation: &MutationId, key: &str) -> Vec<String> {
    let next = |key: &String| before(mutation, key);
    std::iter::successors(before(mutation, key), next)
        .take(MOST_EARLIER)
        .collect()
}

/// Nobody is further behind than this.
const MOST_EARLIER: usize = 32;

/// How many keys of its own the mutation had before.
fn number(key: &str) -> Option<u64> {
    key.rsplit_once('.')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_follows_from_the_one_before_and_leads_back_to_it() {
        let mutation = MutationId::new("01a3");
        let mut spent = None;
        for expected in ["01a3.1", "01a3.2", "01a3.3"] {
            let before_this = spent.clone().unwrap_or_else(|| "01a3".to_owned());
            let key = after(&mutation, &before_this);
            assert_eq!(key, expected);
            assert_eq!(before(&mutation, &key), Some(before_this.clone()));
            let with_others = folded("r-1", Some(&before_this));
            assert_eq!(before(&mutation, &with_others), Some(before_this));
            assert_eq!(after(&mutation, &with_others), expected);
            spent = Some(key);
        }
        assert_eq!(before(&mutation, "01a3"), None);
        assert_eq!(earlier(&mutation, "01a3.2"), ["01a3.1", "01a3"]);
        assert_eq!(before(&mutation, &folded("r-1", None)), None);
        assert_eq!(after(&mutation, "r-1"), "01a3.1");
    }
}
