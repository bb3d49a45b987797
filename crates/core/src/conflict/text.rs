//! Three-way merge of texts, line by line or word by word. Pieces are taken over byte for byte, so
//! line endings and Unicode stay as they are. The cost is bounded; beyond it nothing is merged.

use std::collections::BTreeMap;
use std::ops::Range;

/// The most pieces (lines, or words and the spaces between them) that a text to be merged has.
pub(super) const MAX_PIECES: usize = 65_536;

/// The most pieces by which a side differs from the base.
pub(super) const MAX_DIFFERENCES: usize = 1_000;

/// What a text is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pieces {
    /// Lines with their ends.
    Lines,
    /// Runs of what is no white space, and the white space between them.
    Words,
}

/// What came of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MergedText {
    /// Every change of both sides is in it.
    Clean(String),
    /// Where both sides had changed the same piece, mine stands.
    Overlapping(String),
    /// More than [`MAX_PIECES`].
    TooLong,
    /// More than [`MAX_DIFFERENCES`].
    TooDifferent,
}

/// Lays both sides' changes to the base over it. Two insertions at one place are both kept, theirs
/// first.
pub(super) fn merge(base: &str, mine: &str, theirs: &str, pieces: Pieces) -> MergedText {
    let (base, mine, theirs) = (pieces.of(base), pieces.of(mine), pieces.of(theirs));
    if [&base, &mine, &theirs]
        .iter()
        .any(|text| text.len() > MAX_PIECES)
    {
        return MergedText::TooLong;
    }
    let mut numbers = Numbers::default();
    let [before, here, there] = [&base, &mine, &theirs].map(|text| numbers.of(text));
    let sides = differences(&before, &here).zip(differences(&before, &there));
    let Some((here, there)) = sides else {
        return MergedText::TooDifferent;
    };
    let mine = Side {
        pieces: mine,
        hunks: here,
    };
    let theirs = Side {
        pieces: theirs,
        hunks: there,
    };
    lay_over(&base, &mine, &theirs)
}

impl Pieces {
    fn of(self, text: &str) -> Vec<&str> {
        match self {
            Pieces::Lines => text.split_inclusive('\n').collect(),
            Pieces::Words => words(text),
        }
    }
}

fn words(text: &str) -> Vec<&str> {
    let (mut all, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let space = first.is_whitespace();
        let end = rest
            .find(|c: char| c.is_whitespace() != space)
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        all.push(word);
        rest = after;
    }
    all
}

/// The same number for the same piece.
#[derive(Default)]
struct Numbers<'a>(BTreeMap<&'a str, usize>);

impl<'a> Numbers<'a> {
    fn of(&mut self, pieces: &[&'a str]) -> Vec<usize> {
        let number = |piece: &&'a str| {
            let next = self.0.len();
            *self.0.entry(piece).or_insert(next)
        };
        pieces.iter().map(number).collect()
    }
}

/// A stretch of the base and what stands in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hunk {
    base: Range<usize>,
    side: Range<usize>,
}

/// A side's text and its hunks, in order; between two of them something is unchanged.
struct Side<'a> {
    pieces: Vec<&'a str>,
    hunks: Vec<Hunk>,
}

impl Side<'_> {
    /// What this side has in place of a stretch of the base, given which of its hunks lie in it.
    fn version(&self, hunks: &Range<usize>, stretch: &Range<usize>) -> String {
        let hunks = self.hunks.get(hunks.clone()).unwrap_or_default();
        let (Some(first), Some(last)) = (hunks.first(), hunks.last()) else {
            return String::new();
        };
        let start = first.side.start - (first.base.start - stretch.start);
        let end = last.side.end + (stretch.end - last.base.end);
        concat(&self.pieces, start..end)
    }

    /// Moves `next` past the hunks that touch the stretch, which grows by them.
    fn join(&self, next: &mut usize, stretch: &mut Range<usize>) {
        while let Some(hunk) = self.hunks.get(*next)
            && touch(&hunk.base, stretch)
        {
            *stretch = stretch.start.min(hunk.base.start)..stretch.end.max(hunk.base.end);
            *next += 1;
        }
    }
}

fn concat(pieces: &[&str], range: Range<usize>) -> String {
    pieces.get(range).unwrap_or_default().concat()
}

/// Whether two stretches share a piece, one lies within the other, or both are the same place.
fn touch(one: &Range<usize>, other: &Range<usize>) -> bool {
    if one.is_empty() && other.is_empty() {
        one.start == other.start
    } else {
        one.start < other.end && other.start < one.end
    }
}

fn lay_over(base: &[&str], mine: &Side<'_>, theirs: &Side<'_>) -> MergedText {
    let (mut merged, mut overlapping, mut done) = (String::new(), false, 0);
    let (mut here, mut there) = (0, 0);
    loop {
        let next = [mine.hunks.get(here), theirs.hunks.get(there)];
        let stretches = next.into_iter().flatten().map(|hunk| hunk.base.clone());
        let Some(mut stretch) = stretches.min_by_key(|one| (one.start, one.end)) else {
            break;
        };
        let first = (here, there);
        loop {
            let before = (here, there);
            mine.join(&mut here, &mut stretch);
            theirs.join(&mut there, &mut stretch);
            if before == (here, there) {
                break;
            }
        }
        merged.push_str(&concat(base, done..stretch.start));
        let version_here = mine.version(&(first.0..here), &stretch);
        let version_there = theirs.version(&(first.1..there), &stretch);
        match (first.0 < here, first.1 < there) {
            (true, true) if version_here == version_there => merged.push_str(&version_here),
            (true, true) if stretch.is_empty() => merged.extend([version_there, version_here]),
            (true, both) => {
                overlapping |= both;
                merged.push_str(&version_here);
            }
            (false, _) => merged.push_str(&version_there),
        }
        done = stretch.end;
    }
    merged.push_str(&concat(base, done..base.len()));
    if overlapping {
        MergedText::Overlapping(merged)
    } else {
        MergedText::Clean(merged)
    }
}

/// The hunks that lead from one text to the other, in order; `None`: too many differences. Eugene W.
/// Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), the greedy form.
fn differences(from: &[usize], to: &[usize]) -> Option<Vec<Hunk>> {
    let (n, m) = (signed(from.len()), signed(to.len()));
    // `reach.at(k)`: how far in `from` the diagonal k (x - y) has been followed.
    let mut reach = Diagonals::new(MAX_DIFFERENCES);
    let mut history: Vec<Diagonals> = Vec::new();
    for round in 0..=signed(MAX_DIFFERENCES) {
        history.push(reach.part(round));
        for k in (-round..=round).step_by(2) {
            let mut x = reach.step(k, round).0;
            while x < n && (0..m).contains(&(x - k)) && piece(from, x) == piece(to, x - k) {
                x += 1;
            }
            reach.set(k, x);
            if x >= n && x - k >= m {
                return Some(hunks(&history, n, m));
            }
        }
    }
    None
}

fn piece(text: &[usize], at: i64) -> Option<&usize> {
    text.get(usize::try_from(at).ok()?)
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn unsigned(place: i64) -> usize {
    usize::try_from(place).unwrap_or(0)
}

/// A place for each diagonal from `-middle` to `middle`.
struct Diagonals {
    middle: i64,
    places: Vec<i64>,
}

impl Diagonals {
    fn new(most: usize) -> Self {
        Self {
            middle: signed(most) + 1,
            places: vec![0; 2 * most + 3],
        }
    }

    /// The diagonals that round `round` looks at.
    fn part(&self, round: i64) -> Self {
        let (start, end) = (self.middle - round - 1, self.middle + round + 1);
        let places = self.places.get(unsigned(start)..=unsigned(end));
        Self {
            middle: round + 1,
            places: places.unwrap_or_default().to_vec(),
        }
    }

    fn at(&self, k: i64) -> i64 {
        let place = self.places.get(unsigned(self.middle + k));
        place.copied().unwrap_or(0)
    }

    fn set(&mut self, k: i64, place: i64) {
        if let Some(slot) = self.places.get_mut(unsigned(self.middle + k)) {
            *slot = place;
        }
    }

    /// Where diagonal `k` is entered in this round, and from which diagonal.
    fn step(&self, k: i64, round: i64) -> (i64, i64) {
        if round == 0 {
            (0, 0)
        } else if k == -round || (k != round && self.at(k - 1) < self.at(k + 1)) {
            (self.at(k + 1), k + 1)
        } else {
            (self.at(k - 1) + 1, k - 1)
        }
    }
}

/// Goes the way back: each round is one piece removed or added.
fn hunks(history: &[Diagonals], n: i64, m: i64) -> Vec<Hunk> {
    let (mut x, mut y) = (n, m);
    let mut single = Vec::new();
    for (round, reach) in history.iter().enumerate().skip(1).rev() {
        let (_, from) = reach.step(x - y, signed(round));
        let before = (reach.at(from), reach.at(from) - from);
        let removed = from == x - y - 1;
        let (end_x, end_y) = if removed {
            (before.0 + 1, before.1)
        } else {
            (before.0, before.1 + 1)
        };
        single.push(Hunk {
            base: unsigned(before.0)..unsigned(end_x),
            side: unsigned(before.1)..unsigned(end_y),
        });
        (x, y) = before;
    }
    let mut joined: Vec<Hunk> = Vec::new();
    for hunk in single.into_iter().rev() {
        match joined.last_mut() {
            Some(last) if last.base.end == hunk.base.start && last.side.end == hunk.side.start => {
                last.base.end = hunk.base.end;
                last.side.end = hunk.side.end;
            }
            _ => joined.push(hunk),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(text: &str) -> MergedText {
        MergedText::Clean(text.to_owned())
    }

    fn any_text() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            Just("a\n"),
            Just("b\n"),
            Just("c\r\n"),
            Just("d e\n"),
            Just("f")
        ];
        proptest::collection::vec(line, 0..9).prop_map(|lines| lines.concat())
    }

    proptest! {
        /// The hunks rebuild the other text, and something unchanged lies between any two of them.
        #[test]
        fn hunks_lead_from_one_text_to_the_other(
            from in proptest::collection::vec(0..4usize, 0..12),
            to in proptest::collection::vec(0..4usize, 0..12),
        ) {
            let hunks = differences(&from, &to).unwrap();
            let (mut rebuilt, mut done) = (Vec::new(), 0);
            for (index, hunk) in hunks.iter().enumerate() {
                prop_assert!(index == 0 || done < hunk.base.start);
                rebuilt.extend_from_slice(&from[done..hunk.base.start]);
                prop_assert_eq!(rebuilt.len(), hunk.side.start);
                rebuilt.extend_from_slice(&to[hunk.side.clone()]);
                done = hunk.base.end;
            }
            rebuilt.extend_from_slice(&from[done..]);
            prop_assert_eq!(rebuilt, to);
        }

        /// A side that changed nothing says nothing, and equal changes are made once.
        #[test]
        fn an_unchanged_side_says_nothing(base in any_text(), side in any_text()) {
            for pieces in [Pieces::Lines, Pieces::Words] {
                prop_assert_eq!(merge(&base, &side, &base, pieces), clean(&side));
                prop_assert_eq!(merge(&base, &base, &side, pieces), clean(&side));
                prop_assert_eq!(merge(&base, &side, &side, pieces), clean(&side));
            }
        }

        /// Merging again on what came of it changes nothing.
        #[test]
        fn again_changes_nothing(base in any_text(), mine in any_text(), theirs in any_text()) {
            if let MergedText::Clean(merged) | MergedText::Overlapping(merged) =
                merge(&base, &mine, &theirs, Pieces::Lines)
            {
                prop_assert_eq!(merge(&theirs, &merged, &theirs, Pieces::Lines), clean(&merged));
            }
        }
    }

    #[test]
    fn beyond_its_bounds_nothing_is_merged() {
        let long = "x\n".repeat(MAX_PIECES + 1);
        assert_eq!(merge("", &long, "", Pieces::Lines), MergedText::TooLong);
        let other: String = (0..=MAX_DIFFERENCES).map(|n| format!("{n}\n")).collect();
        assert_eq!(
            merge("", &other, "x", Pieces::Lines),
            MergedText::TooDifferent
        );
        let just: String = (0..MAX_DIFFERENCES).map(|n| format!("{n}\n")).collect();
        assert_eq!(merge("", &just, "", Pieces::Lines), clean(&just));
    }
}
