//! The trace of a history: what two runs of a seed must have in common.

use crate::level::Trace;
use std::collections::BTreeMap;

/// The trace, and the ids that were met.
#[derive(Default)]
pub(crate) struct Noted {
    pub(crate) trace: Trace,
    names: BTreeMap<String, usize>,
}

impl Noted {
    /// Takes a text into the trace. What SQLite draws at random (the correlation ids of mutations) is
    /// replaced by the order in which it was met.
    pub(crate) fn note(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        // An object that has such ids as names is in no order that the seed decides.
        let (before, rest) = text.split_once("\"inherited\":{").unwrap_or((&text, ""));
        let (inherited, after) = rest.split_once('}').unwrap_or(("", rest));
        self.add_all(before);
        let keys = inherited.split(',').filter_map(|one| one.split('"').nth(1));
        let mut keys: Vec<_> = keys.map(|key| self.named(key)).collect();
        keys.sort();
        keys.into_iter().for_each(|key| self.add(key));
        self.add_all(after);
    }

    fn add_all(&mut self, text: &str) {
        for part in text.split('"') {
            let part = self.named(part);
            self.add(part);
        }
    }

    fn add(&mut self, (id, rest): (Option<usize>, &str)) {
        if let Some(id) = id {
            self.trace.add(&id.to_le_bytes());
        }
        self.trace.add(rest.as_bytes());
    }

    /// The number of an id, and what stands behind it: of a key, which of them it is.
    fn named<'t>(&mut self, part: &'t str) -> (Option<usize>, &'t str) {
        match part.split_at_checked(32) {
            Some((id, rest))
                if id.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && (rest.is_empty() || rest.starts_with('.')) =>
            {
                let next = self.names.len();
                (Some(*self.names.entry(id.to_owned()).or_insert(next)), rest)
            }
            _ => (None, part),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_by_the_order_in_which_they_were_met() {
        let id = |digit: char| digit.to_string().repeat(32);
        let traced = |one: char, other: char| {
            let mut noted = Noted::default();
            let (one, other) = (id(one), id(other));
            let mut keys = [format!("\"{one}\":\"c\""), format!("\"{other}.1\":\"c\"")];
            keys.sort();
            noted.note(format!("[\"{one}\",\"{other}\"]").as_bytes());
            noted.note(format!("{{\"inherited\":{{{}}},\"n\":1}}", keys.join(",")).as_bytes());
            noted.trace.hash()
        };
        assert_eq!(traced('a', 'b'), traced('f', '3'));
    }
}
