//! The values that nodes have of an entry, as one. Pure.

use super::layout::{Merge, Part};
use super::rate::{self, Window};
use super::resource::Function;
use crate::peers::Rate;

/// A window that comes again is told to have begun earlier or later by so many milliseconds because of the way here.
const DELAY: i64 = 50;

/// What a node has of an entry.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) node: u8,
    pub(super) number: u32,
    pub(super) generation: u32,
    /// When it was touched, and when it expires; 0 for never.
    pub(super) touched: u64,
    pub(super) expires_at: u64,
    pub(super) cells: Box<[u64]>,
}

/// The share of the node that touched an entry last.
pub(super) fn last_touched(shares: &[Share]) -> Option<&Share> {
    shares.iter().max_by_key(|share| (share.touched, std::cmp::Reverse(share.node)))
}

/// The two counts of a rate and when its window began.
fn window_of(cells: &[u64], cell: usize) -> (u32, u32, i64) {
    let counts = cells.get(cell).copied().unwrap_or(0);
    let began = cells.get(cell + 1).copied().unwrap_or(0).cast_signed();
    ((counts >> 32) as u32, counts as u32, began)
}

/// Whether the values of a column are the same. The window of a rate may have come with a delay.
pub(super) fn same(part: &Part, old: &[u64], new: &[u64]) -> bool {
    (0..usize::from(part.column.elements())).map(|element| part.at + element * part.cells()).all(|cell| {
        let Merge::Rate(period) = part.merge else { return old.get(cell) == new.get(cell) };
        let ((current, previous, began), other) = (window_of(old, cell), window_of(new, cell));
        let later = other.2 - began;
        (current, previous) == (other.0, other.1) && later > -DELAY && later < i64::from(period / 2)
    })
}

/// One value of an entry to teach; a text by its number, 0 for none.
pub(super) enum Merged {
    Number(u64),
    Rate(Rate),
    Text(u64),
}

/// One value of an entry out of those of all nodes, and for how many milliseconds it is right.
pub(super) fn merge(
    part: &Part,
    cell: usize,
    shares: &[Share],
    function: Function,
    windows: &mut Vec<Window>,
    now: u64,
) -> (Merged, Option<u64>) {
    let value = |share: &Share| share.cells.get(cell).copied().unwrap_or(0);
    let merged = match part.merge {
        Merge::Count(most) => {
            let all = shares.iter().map(value);
            Merged::Number(match function {
                Function::Sum => all.fold(0, u64::saturating_add).min(most),
                Function::Max => all.max().unwrap_or(0),
            })
        }
        Merge::Last => Merged::Number(last_touched(shares).map_or(0, value)),
        Merge::LastText => Merged::Text(last_touched(shares).map_or(0, value)),
        Merge::Rate(period) => {
            let period = u64::from(period);
            windows.clear();
            windows.extend(shares.iter().filter_map(|share| {
                let (current, previous, began) = window_of(&share.cells, cell);
                Window::at(current, previous, began, period, now)
            }));
            let (rate, lasts) = match function {
                Function::Sum => rate::sum(windows, period),
                Function::Max => rate::largest(windows, period),
            };
            return (Merged::Rate(rate), lasts);
        }
    };
    (merged, None)
}
