//! When to ask again. Pure.

use std::time::Duration;

/// A search that is asked too often by what it watches asks at most once in this time.
pub(super) const LEAST: Duration = Duration::from_secs(1);
/// The longest wait after failures, unless the period itself is longer.
const LONGEST: Duration = Duration::from_mins(1);
/// Failures lengthen the wait to at most this many periods.
const PERIODS: u32 = 10;

/// The wait after an attempt: the period, doubled by each failure up to a limit. `jitter` from 0 to 1 takes up to a quarter off
/// the wait after a failure, so that many searches do not return to a source that is back in one moment.
pub(super) fn wait(period: Duration, failures: u32, jitter: f64) -> Duration {
    if failures == 0 {
        return period;
    }
    let limit = period.max(LONGEST.min(period.saturating_mul(PERIODS)));
    let doubled = period.saturating_mul(1 << (failures - 1).min(16));
    doubled.min(limit).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_double_the_wait_up_to_a_limit() {
        let waits =
            |period: u64, jitter| [0, 1, 2, 3, 4, 5, 9, 90].map(|n| wait(Duration::from_secs(period), n, jitter));
        let seconds = |list: [u64; 8]| list.map(Duration::from_secs);
        assert_eq!(waits(1, 0.0), seconds([1, 1, 2, 4, 8, 10, 10, 10]));
        assert_eq!(waits(20, 0.0), seconds([20, 20, 40, 60, 60, 60, 60, 60]));
        assert_eq!(waits(300, 0.0), seconds([300; 8]));
        assert_eq!(waits(4, 1.0), seconds([4, 3, 6, 12, 24, 30, 30, 30]));
    }
}
