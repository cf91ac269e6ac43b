//! Rows of equal width, in parts: growth copies nothing that is there, and reserves no more than one part.

use std::collections::VecDeque;

/// Rows of a part.
const PART: usize = 4096;

/// Rows that are added at the end and, where old ones are forgotten, taken away at the front.
#[derive(Debug)]
pub(super) struct Rows<T> {
    width: usize,
    parts: VecDeque<Vec<T>>,
    /// Rows of the first part that were taken away.
    skipped: usize,
    len: usize,
}

impl<T: Copy> Rows<T> {
    /// No rows yet of so many cells each, at least one.
    pub(super) fn new(width: usize) -> Self {
        Rows { width: width.max(1), parts: VecDeque::new(), skipped: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a row. Cells beyond the width are left out; there must not be less.
    pub(super) fn push(&mut self, row: &[T]) {
        if self.parts.back().is_none_or(|part| part.len() == PART * self.width) {
            // The first part grows by itself, so that small tables stay small.
            let room = if self.parts.is_empty() { 0 } else { PART * self.width };
            self.parts.push_back(Vec::with_capacity(room));
        }
        if let Some(part) = self.parts.back_mut() {
            part.extend_from_slice(&row[..self.width]);
            self.len += 1;
        }
    }

    /// Takes the first row away.
    pub(super) fn pop_front(&mut self) {
        if self.len == 0 {
            return;
        }
        self.len -= 1;
        self.skipped += 1;
        if self.skipped == PART {
            self.skipped = 0;
            self.parts.pop_front();
        }
    }

    pub(super) fn row(&self, at: usize) -> &[T] {
        let at = at + self.skipped;
        let start = at % PART * self.width;
        &self.parts[at / PART][start..start + self.width]
    }

    pub(super) fn row_mut(&mut self, at: usize) -> &mut [T] {
        let at = at + self.skipped;
        let start = at % PART * self.width;
        &mut self.parts[at / PART][start..start + self.width]
    }

    /// Bytes that it takes.
    pub(super) fn memory(&self) -> usize {
        let parts: usize = self.parts.iter().map(|part| part.capacity() * size_of::<T>()).sum();
        parts + self.parts.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_order_and_leave_at_the_front() {
        let mut rows = Rows::new(3);
        let row = |n: usize| [n, n + 1, n + 2];
        for n in 0..3 * PART + 7 {
            rows.push(&row(n));
        }
        rows.row_mut(PART)[1] = 0;
        assert_eq!(rows.row(PART), [PART, 0, PART + 2]);
        for gone in 0..2 * PART + 5 {
            assert_eq!(rows.len(), 3 * PART + 7 - gone);
            rows.pop_front();
        }
        assert_eq!(rows.row(0), row(2 * PART + 5));
        assert_eq!(rows.row(rows.len() - 1), row(3 * PART + 6));
        assert!(rows.memory() < 3 * PART * 3 * size_of::<usize>(), "{}", rows.memory());
        while rows.len() > 0 {
            rows.pop_front();
        }
        rows.pop_front();
        rows.push(&row(1));
        assert_eq!(rows.row(0), row(1));
    }
}
