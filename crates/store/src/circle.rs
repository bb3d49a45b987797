//! Rows that refer to each other in a circle: each waits in the inbox for another of them, so none can come first. Once all
//! of them are here they are written together, each while its parent is still to come.

use crate::apply::{Applier, Landed};
use crate::error::StoreError;
use crate::inbox::{self, Waiting};
use crate::retry::{MOST_IN_SET, lands};
use crate::row;
use std::collections::{BTreeMap, BTreeSet};
use syncline_core::{EntityRef, WaitsFor};

/// Writes what waits in circles, and what waits for that; what became of each.
pub(crate) fn land(applier: &mut Applier<'_>) -> Result<Vec<Landed>, StoreError> {
    let waiting = inbox::waiting_for(applier.tx, WaitsFor::Parent, MOST_IN_SET)?;
    let mut set = leading_to_circles(applier, waiting)?;
    while !set.is_empty() {
        let told = applier.notices.len();
        applier.tx.execute_batch("SAVEPOINT syncline_circle")?;
        applier.together = set.iter().map(|one| one.entity.clone()).collect();
        let attempted = attempt(applier, &set);
        applier.together.clear();
        let (landed, homeless) = attempted?;
        if homeless.is_empty() {
            applier.tx.execute_batch("RELEASE syncline_circle")?;
            return Ok(landed);
        }
        applier
            .tx
            .execute_batch("ROLLBACK TO syncline_circle; RELEASE syncline_circle")?;
        applier.notices.truncate(told);
        set.retain(|one| !homeless.contains(&one.entity));
        set = leading_to_circles(applier, set)?;
    }
    Ok(Vec::new())
}

/// Those that wait, in one or more steps, for a row that waits for itself. Each names one parent that it lacks.
fn leading_to_circles(
    applier: &Applier<'_>,
    waiting: Vec<Waiting>,
) -> Result<Vec<Waiting>, StoreError> {
    let named = waiting.iter().enumerate().filter_map(|(at, one)| {
        let entity_type = applier.types.get(one.entity.entity_type.as_str())?;
        Some((format!("{}/{}", entity_type.table.name, one.entity.id), at))
    });
    let places: BTreeMap<String, usize> = named.collect();
    let mut parents = Vec::with_capacity(waiting.len());
    for one in &waiting {
        let parent = inbox::detail(applier.tx, &one.entity)?;
        parents.push(places.get(&parent).copied());
    }
    let leads = lead_to_circles(&parents);
    let kept = waiting.into_iter().zip(leads);
    Ok(kept
        .filter_map(|(one, leads)| leads.then_some(one))
        .collect())
}

/// Of places each of which points to another one or to none: from which of them one never comes to an end.
fn lead_to_circles(next: &[Option<usize>]) -> Vec<bool> {
    let mut known: Vec<Option<bool>> = vec![None; next.len()];
    for start in 0..next.len() {
        let (mut path, mut at) = (Vec::new(), Some(start));
        // What is on the path already counts as endless: whoever comes back to it is in a circle.
        while let Some(here) = at.filter(|here| known[*here].is_none()) {
            known[here] = Some(true);
            path.push(here);
            at = next[here];
        }
        let endless = at.and_then(|end| known[end]).unwrap_or(false);
        for here in path {
            known[here] = Some(endless);
        }
    }
    known.into_iter().map(|known| known == Some(true)).collect()
}

/// One attempt: what became of each, and which of them are not there after it.
fn attempt(
    applier: &mut Applier<'_>,
    set: &[Waiting],
) -> Result<(Vec<Landed>, BTreeSet<EntityRef>), StoreError> {
    let types = applier.types;
    let (mut landed, mut homeless) = (Vec::new(), BTreeSet::new());
    for one in set {
        let done = lands(applier, one)?;
        let is_there = match types.get(one.entity.entity_type.as_str()) {
            Some(known) => row::read(applier.tx, &known.table, &one.entity.id)?.is_some(),
            None => false,
        };
        match done.filter(|_| is_there) {
            Some(place) => landed.push(place),
            None => {
                homeless.insert(one.entity.clone());
            }
        }
    }
    Ok((landed, homeless))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_a_circle_is_told_from_what_comes_to_an_end() {
        for (next, leads) in [
            (vec![], vec![]),
            (vec![None, Some(0)], vec![false, false]),
            (vec![Some(1), Some(0)], vec![true, true]),
            (
                vec![Some(1), Some(2), Some(1), Some(4), None, Some(0)],
                vec![true, true, true, false, false, true],
            ),
        ] {
            assert_eq!(lead_to_circles(&next), leads, "{next:?}");
        }
    }
}
