//! Parents before children.

use super::Table;

/// The tables with every referenced table before those that refer to it; otherwise in the given
/// order. References to itself or to tables outside the list are ignored. In a cycle, the table
/// that comes first in the given order comes last of the cycle.
pub fn topological_order(tables: &[Table]) -> Vec<&Table> {
    let mut visit = Visit {
        tables,
        seen: vec![false; tables.len()],
        order: Vec::with_capacity(tables.len()),
    };
    for start in 0..tables.len() {
        visit.table(start);
    }
    visit.order
}

struct Visit<'a> {
    tables: &'a [Table],
    seen: Vec<bool>,
    order: Vec<&'a Table>,
}

impl Visit<'_> {
    /// Depth first, with its own stack: a chain of references may be as long as there are tables.
    fn table(&mut self, start: usize) {
        let mut stack = vec![(start, 0)];
        while let Some((at, next)) = stack.pop() {
            if next == 0 && std::mem::replace(&mut self.seen[at], true) {
                continue;
            }
            let references = &self.tables[at].references;
            match references.get(next) {
                None => self.order.push(&self.tables[at]),
                Some(reference) => {
                    stack.push((at, next + 1));
                    let parent = self
                        .tables
                        .iter()
                        .position(|table| table.name.eq_ignore_ascii_case(&reference.table));
                    stack.extend(parent.filter(|&p| !self.seen[p]).map(|p| (p, 0)));
                }
            }
        }
    }
}
