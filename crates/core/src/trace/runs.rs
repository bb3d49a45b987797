//! The changes of a page in a trace: a list, or one that stands for many like it.

use crate::PageChange;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One change stands for this many at most, so that a few bytes never become a machine's memory.
const MOST: usize = 100_000;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Runs<L> {
    Same { times: usize, change: PageChange },
    All(L),
}

pub(crate) fn serialize<S: Serializer>(
    changes: &[PageChange],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match changes {
        [first, rest @ ..]
            if !rest.is_empty() && changes.len() <= MOST && rest.iter().all(|one| one == first) =>
        {
            Runs::<&[PageChange]>::Same {
                times: changes.len(),
                change: first.clone(),
            }
        }
        all => Runs::All(all),
    }
    .serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<PageChange>, D::Error> {
    match Runs::deserialize(deserializer)? {
        Runs::Same { times, .. } if times > MOST => {
            Err(D::Error::custom("one change stands for too many"))
        }
        Runs::Same { times, change } => Ok(vec![change; times]),
        Runs::All(all) => Ok(all),
    }
}
