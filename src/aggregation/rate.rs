//! The rates of several nodes as one. Pure.
//!
//! HAProxy estimates a rate out of two windows: what was counted in the one that runs, and of the one before the part
//! that still lies within the period. A node's estimate falls in a straight line until its window ends. So the windows
//! of several nodes are one window exactly, with the value and the slope of their sum, until the first of them ends;
//! then the next one has to be made. What is taught fades by itself meanwhile, as HAProxy goes on with it.

use crate::peers::Rate;

/// A window that runs: its age is below the period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) age: u64,
    pub(super) current: u64,
    pub(super) previous: u64,
}

impl Window {
    /// The window of so many counts that began at `began`, as it is at `now`, in milliseconds; nothing when all of it
    /// has faded.
    pub(super) fn at(current: u32, previous: u32, began: i64, period: u64, now: u64) -> Option<Window> {
        let age = u64::try_from(now.cast_signed().saturating_sub(began)).unwrap_or(0);
        let (current, previous) = (u64::from(current), u64::from(previous));
        let window = if age < period {
            Window { age, current, previous }
        } else if age < 2 * period {
            Window { age: age - period, current: 0, previous: current }
        } else {
            return None;
        };
        (window.current > 0 || window.previous > 0).then_some(window)
    }

    /// The estimate, times the period; it falls by `previous` in each millisecond.
    fn scaled(self, period: u64) -> u64 {
        self.current * period + self.previous * (period - self.age)
    }

    fn rate(self) -> Rate {
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Rate { age: count(self.age), current: count(self.current), previous: count(self.previous) }
    }
}

/// One window for many, and for how many milliseconds it is right; without a number, until a window changes.
pub(super) type Joined = (Rate, Option<u64>);

/// How long until the first window ends. A single one needs no other in its place.
fn first_end(windows: &[Window], period: u64) -> Option<u64> {
    let ends = windows.iter().map(|window| period - window.age).min();
    ends.filter(|_| windows.len() > 1)
}

/// The sum.
pub(super) fn sum(windows: &[Window], period: u64) -> Joined {
    let Some(age) = windows.iter().map(|window| window.age).max() else { return (Rate::default(), None) };
    let previous = windows.iter().map(|window| window.previous).sum();
    // The oldest window ends first. What of the windows before the others is left by then counts as current.
    let left: u64 = windows.iter().map(|window| window.previous * (age - window.age)).sum();
    let current = windows.iter().map(|window| window.current).sum::<u64>() + (left + period / 2) / period;
    (Window { age, current, previous }.rate(), first_end(windows, period))
}

/// The largest.
pub(super) fn largest(windows: &[Window], period: u64) -> Joined {
    let order = |window: &&Window| (window.scaled(period), std::cmp::Reverse(window.previous));
    let Some(largest) = windows.iter().max_by_key(order) else { return (Rate::default(), None) };
    let above = |other: &Window| largest.scaled(period) - other.scaled(period);
    // One that falls less overtakes it.
    let overtaken = windows.iter().filter(|other| other.previous < largest.previous);
    let overtaken = overtaken.map(|other| above(other).div_ceil(largest.previous - other.previous)).min();
    (largest.rate(), [first_end(windows, period), overtaken].into_iter().flatten().min().map(|time| time.max(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn float(number: u64) -> f64 {
        f64::from(u32::try_from(number).unwrap())
    }

    /// The estimate of a rate `later` milliseconds after it was made, before it is cut to a whole number.
    fn estimate(rate: Rate, period: u64, later: u64) -> f64 {
        let began = -i64::from(rate.age);
        let window = Window::at(rate.current, rate.previous, began, period, later);
        window.map_or(0.0, |window| float(window.scaled(period)) / float(period))
    }

    fn rates() -> impl Strategy<Value = Vec<Rate>> {
        let rate = (0..25_000_u32, 0..1000_u32, 0..1000_u32);
        proptest::collection::vec(rate.prop_map(|(age, current, previous)| Rate { age, current, previous }), 0..6)
    }

    /// What is taught at `time`, and again whenever it says so, up to `until`; the state at its end.
    fn taught(rates: &[Rate], until: u64, join: fn(&[Window], u64) -> Joined) -> (f64, usize) {
        let (mut time, mut times) = (0, 0);
        loop {
            let at = |rate: &Rate| Window::at(rate.current, rate.previous, -i64::from(rate.age), 10_000, time);
            let windows: Vec<Window> = rates.iter().filter_map(at).collect();
            let (rate, lasts) = join(&windows, 10_000);
            times += 1;
            match lasts {
                Some(lasts) if time + lasts <= until => time += lasts,
                _ => return (estimate(rate, 10_000, until - time), times),
            }
        }
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_nodes_at_any_time(rates in rates(), until in 0..30_000_u64) {
            let expected: f64 = rates.iter().map(|rate| estimate(*rate, 10_000, until)).sum();
            let (seen, times) = taught(&rates, until, sum);
            prop_assert!((seen - expected).abs() <= 0.5, "{} for {}", seen, expected);
            // Each window ends twice at most before it has faded.
            prop_assert!(times <= 1 + 2 * rates.len(), "taught {} times", times);
        }

        #[test]
        fn the_largest_is_that_of_the_nodes_at_any_time(rates in rates(), until in 0..30_000_u64) {
            let expected = rates.iter().map(|rate| estimate(*rate, 10_000, until)).fold(0.0, f64::max);
            let (seen, times) = taught(&rates, until, largest);
            // Within a millisecond of where one overtakes the other.
            prop_assert!((seen - expected).abs() <= 0.2, "{} for {}", seen, expected);
            prop_assert!(times <= 1 + 6 * rates.len(), "taught {} times", times);
        }
    }

    #[test]
    fn windows_that_ended_count_as_those_before() {
        assert_eq!(Window::at(3, 4, -5, 10, 0), Some(Window { age: 5, current: 3, previous: 4 }));
        assert_eq!(Window::at(3, 4, -5, 10, 6), Some(Window { age: 1, current: 0, previous: 3 }));
        assert_eq!(Window::at(3, 4, -5, 10, 15), None);
        assert_eq!(Window::at(0, 4, -5, 10, 6), None);
        assert_eq!(Window::at(0, 0, -4_294_954_868, 10, 6), None);
        let (one, two) = (Window { age: 2, current: 5, previous: 10 }, Window { age: 6, current: 1, previous: 10 });
        // 5 + 8 and 1 + 4.
        let (rate, lasts) = sum(&[one, two], 10);
        assert_eq!((rate.value(10, 0), rate.previous, lasts), (18, 20, Some(4)));
        let alone = Rate { age: 2, current: 5, previous: 10 };
        assert_eq!(sum(&[one], 10), (alone, None), "a single one lasts");
        assert_eq!(largest(&[one, two], 10), (alone, Some(4)));
        assert_eq!(sum(&[], 10), (Rate::default(), None));
    }
}
