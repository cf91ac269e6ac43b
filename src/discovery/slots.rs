//! How many servers a backend has for a number of instances. Pure.

/// Smallest base and smallest increment.
pub(super) const LEAST: i64 = 10;

/// How the number of slots follows the need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Multiples of a step, at least 1.
    Linear(usize),
    /// The base, doubled.
    Exponential,
}

/// The rule of one search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slots {
    /// Never fewer, at least 1.
    pub(super) base: usize,
    /// Beyond the base.
    pub(super) growth: Growth,
}

impl Slots {
    /// The number of slots for so many instances: the base, or the next step that is enough.
    pub(super) fn count(&self, need: usize) -> usize {
        if need <= self.base {
            return self.base;
        }
        match self.growth {
            Growth::Linear(step) => need.div_ceil(step.max(1)).saturating_mul(step.max(1)),
            Growth::Exponential => {
                let mut count = self.base.max(1);
                while count < need {
                    count = count.saturating_mul(2);
                }
                count
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_grow_in_steps_and_shrink_no_lower_than_the_base() {
        let counts = |base, growth| [0, 1, 10, 11, 20, 21, 40, 41].map(|need| Slots { base, growth }.count(need));
        assert_eq!(counts(10, Growth::Linear(10)), [10, 10, 10, 20, 20, 30, 40, 50]);
        assert_eq!(counts(15, Growth::Linear(10)), [15, 15, 15, 15, 20, 30, 40, 50]);
        assert_eq!(counts(10, Growth::Exponential), [10, 10, 10, 20, 20, 40, 40, 80]);
        assert_eq!(counts(12, Growth::Exponential), [12, 12, 12, 12, 24, 24, 48, 48]);
    }
}
