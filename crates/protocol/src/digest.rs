//! The digest: what a server has of a type, as hashes of ranges of ids, so that two sides find where
//! they differ without sending what they agree on. `docs/protocol.md` spells the hashes out.

use crate::{Change, EntityId, Epoch, Fields, Value};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// How many bytes of SHA-256 are kept: enough that no two contents meet by chance.
const HASH_BYTES: usize = 16;

/// A hash of an entity's content, or of a range of entities; 32 hexadecimal digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash([u8; HASH_BYTES]);

impl ContentHash {
    /// The hash of an entity's content: of its fields that are not NULL, in the order of their names.
    /// A whole REAL counts as the INTEGER that it equals, since a column may turn one into the other.
    pub fn of_fields<'f>(fields: impl IntoIterator<Item = (&'f str, &'f Value)>) -> Self {
        let mut hasher = Sha256::new();
        for (name, value) in fields {
            if value.is_null() {
                continue;
            }
            put(&mut hasher, name.as_bytes());
            match value {
                Value::Null => {}
                Value::Integer(integer) => put_integer(&mut hasher, *integer),
                Value::Real(real) => match whole(*real) {
                    Some(integer) => put_integer(&mut hasher, integer),
                    None => {
                        hasher.update(b"r");
                        hasher.update(real.to_bits().to_be_bytes());
                    }
                },
                Value::Text(text) => {
                    hasher.update(b"t");
                    put(&mut hasher, text.as_bytes());
                }
                Value::Blob(bytes) => {
                    hasher.update(b"b");
                    put(&mut hasher, bytes);
                }
            }
        }
        Self::finish(hasher)
    }

    /// The hash of an entity's content, as far as `compared` names it; `None`: all of it.
    pub fn of_compared(fields: &Fields, compared: Option<&[String]>) -> Self {
        let is_compared = |name: &str| {
            compared
                .is_none_or(|names| names.binary_search_by(|one| one.as_str().cmp(name)).is_ok())
        };
        let all = fields.iter().map(|(name, value)| (name.as_str(), value));
        Self::of_fields(all.filter(|(name, _)| is_compared(name)))
    }

    fn finish(hasher: Sha256) -> Self {
        let mut kept = [0; HASH_BYTES];
        for (kept, byte) in kept.iter_mut().zip(hasher.finalize()) {
            *kept = byte;
        }
        Self(kept)
    }
}

/// Length and bytes.
fn put(hasher: &mut Sha256, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    hasher.update(length.to_be_bytes());
    hasher.update(bytes);
}

fn put_integer(hasher: &mut Sha256, integer: i64) {
    hasher.update(b"i");
    hasher.update(integer.to_be_bytes());
}

/// The integer that a REAL equals, where every double still has whole neighbours.
fn whole(real: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    // Exact: a whole number of at most 2^53.
    #[allow(clippy::cast_possible_truncation)]
    (real.trunc() == real && real.abs() <= EXACT).then_some(real as i64)
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes();
        let mut hash = [0; HASH_BYTES];
        if digits.len() != HASH_BYTES * 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(de::Error::custom("a hash has 32 hexadecimal digits"));
        }
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(de::Error::custom)?;
            *byte = u8::from_str_radix(pair, 16).map_err(de::Error::custom)?;
        }
        Ok(Self(hash))
    }
}

/// Gathers the hash of a range: the ids and content hashes of its entities, in the order of ids.
#[derive(Debug, Default, Clone)]
pub struct RangeHasher {
    hasher: Sha256,
    count: usize,
}

impl RangeHasher {
    /// Adds the next entity.
    pub fn add(&mut self, id: &str, content: ContentHash) {
        put(&mut self.hasher, id.as_bytes());
        self.hasher.update(content.0);
        self.count += 1;
    }

    /// How many were added.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The hash of the range.
    pub fn finish(self) -> ContentHash {
        ContentHash::finish(self.hasher)
    }
}

/// The live entities of a type, range by range in the order of ids as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestRanges {
    /// The history that the position belongs to.
    pub epoch: Epoch,
    /// The head of the scope's feed as it was read: what is told is the state at this position.
    pub position: i64,
    /// Each from behind the one before it to `until`.
    pub ranges: Vec<DigestRange>,
    /// There is more behind the last range.
    pub more: bool,
}

/// Some neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestRange {
    /// The last id in it.
    pub until: EntityId,
    /// How many entities.
    pub count: usize,
    /// See [`RangeHasher`].
    pub hash: ContentHash,
}

/// The live entities of one range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestEntities {
    /// As in [`DigestRanges`].
    pub epoch: Epoch,
    /// As in [`DigestRanges`].
    pub position: i64,
    /// In the order of ids.
    pub entities: Vec<DigestEntity>,
    /// There is more of the range behind the last one.
    pub more: bool,
}

/// One entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestEntity {
    /// Its id.
    pub id: EntityId,
    /// The position of its last change.
    pub position: i64,
    /// Of its content.
    pub hash: ContentHash,
}

/// Entities in full, as a pull would bring them. What the server does not know is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DigestChanges {
    /// As in [`DigestRanges`].
    pub epoch: Epoch,
    /// As in [`DigestRanges`].
    pub position: i64,
    /// The entities and remembered deletions among those that were asked for.
    pub changes: Vec<Change>,
}

/// Ids that one request may ask for in full.
pub const DIGEST_IDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(fields: &[(&str, Value)]) -> String {
        let fields: Fields = fields.iter().cloned().collect();
        ContentHash::of_compared(&fields, None).to_string()
    }

    #[test]
    fn the_hash_is_that_of_the_specification() {
        // SHA-256 of nothing, and of the bytes that docs/protocol.md spells out.
        assert_eq!(hash(&[]), "e3b0c44298fc1c149afbf4c8996fb924");
        let example = [("done", Value::from(1)), ("title", Value::from("milk"))];
        assert_eq!(hash(&example), "6077789ae5dc94c6c110c94f987ed6ed");
        let mut range = RangeHasher::default();
        range.add(
            "t1",
            ContentHash::of_compared(&example.iter().cloned().collect(), None),
        );
        assert_eq!(range.count(), 1);
        assert_eq!(
            range.finish().to_string(),
            "7409f42b2a4e217d5a0c4bb035351203"
        );
    }

    #[test]
    fn contents_that_a_column_cannot_tell_apart_are_the_same() {
        let one = hash(&[("n", Value::from(1))]);
        assert_eq!(hash(&[("n", Value::from(1.0))]), one);
        assert_eq!(hash(&[("n", Value::from(1)), ("x", Value::Null)]), one);
        assert_eq!(
            hash(&[("n", Value::from(0.0))]),
            hash(&[("n", Value::from(-0.0))])
        );
    }

    #[test]
    fn all_other_contents_differ() {
        let contents = [
            vec![("n", Value::from(1))],
            vec![("m", Value::from(1))],
            vec![("n", Value::from("1"))],
            vec![("n", Value::Blob(b"1".to_vec()))],
            vec![("n", Value::from(1.5))],
            vec![("n", Value::from(i64::MAX))],
            vec![("n", Value::from(9_223_372_036_854_775_807.0))],
            vec![("n", Value::from(f64::INFINITY))],
            vec![("n", Value::from(f64::NEG_INFINITY))],
            vec![("n", Value::from(""))],
            vec![("n", Value::from("1")), ("o", Value::from("2"))],
            vec![("n", Value::from("12")), ("o", Value::from(""))],
        ];
        let hashes: std::collections::BTreeSet<String> =
            contents.iter().map(|fields| hash(fields)).collect();
        assert_eq!(hashes.len(), contents.len());
    }

    #[test]
    fn only_what_is_compared_counts() {
        let fields: Fields = [("a", 1), ("b", 2), ("c", 3)].into_iter().collect();
        let some: Fields = [("a", 1), ("c", 3)].into_iter().collect();
        let compared = ["a".to_owned(), "c".to_owned(), "z".to_owned()];
        assert_eq!(
            ContentHash::of_compared(&fields, Some(&compared)),
            ContentHash::of_compared(&some, None)
        );
    }

    #[test]
    fn a_hash_survives_the_wire_and_nothing_else_is_one() {
        let hash = ContentHash::of_fields([]);
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<ContentHash>(&text).unwrap(), hash);
        for odd in [
            "\"\"",
            "7",
            "\"zz\"",
            "\"e3b0c44298fc1c149afbf4c8996fb9zz\"",
            "\"\u{e9}\u{e9}\"",
        ] {
            assert!(serde_json::from_str::<ContentHash>(odd).is_err(), "{odd}");
        }
    }
}
