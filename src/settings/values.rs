//! Texts of settings as values. Pure.

use std::time::Duration;

/// `true` or `false`, in the words of YAML.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A whole number within limits.
pub(super) fn whole(text: &str, low: u64, high: u64) -> Option<u64> {
    text.parse().ok().filter(|number| (low..=high).contains(number))
}

/// A time: numbers with `h`, `m`, `s`, `ms`, `us`, `ns` or `d`, such as `1h30m` or `1.5s`; a bare number counts in `unit`
/// milliseconds.
pub(super) fn time(text: &str, unit: u64) -> Option<Duration> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_millis);
    }
    let mut rest = text;
    let mut sum = 0_u128;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (name, after) = split(after, char::is_alphabetic);
        let nanoseconds = match name {
            "ns" => 1,
            "us" | "µs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        sum = sum.checked_add(scaled(number, nanoseconds)?)?;
        rest = after;
    }
    u64::try_from(sum).ok().map(Duration::from_nanos)
}

/// A number of bytes: a number with `B`, `k`, `M` or `G`, or these with `B` or `iB`. A letter is a power of 1024.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text, |c| c.is_ascii_digit() || c == '.');
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    u64::try_from(scaled(number, factor)?).ok()
}

fn split(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !of(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// `1.5` of something, rounded down.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 12 {
        return None;
    }
    let part = digits(fraction)?.checked_mul(unit)? / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_or_the_default_one() {
        let ms = |text| time(text, 1000).map(|d| d.as_millis());
        assert_eq!(ms("5"), Some(5000));
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(ms("1h30m"), Some(5_400_000));
        assert_eq!(ms("2d"), Some(172_800_000));
        assert_eq!(ms("1.5s"), Some(1500));
        assert_eq!(ms("3m0s"), Some(180_000));
        assert_eq!(ms("250000us"), Some(250));
        for bad in ["", "abc", "5x", "-1", "1.5", ".s", "1.2.3s", "5 s", "99999999999999999999", "ms"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_have_units_or_are_bytes() {
        assert_eq!((size("4096"), size("64KiB"), size("1MiB")), (Some(4096), Some(65536), Some(1 << 20)));
        assert_eq!((size("2 mb"), size("0.5k"), size("12b")), (Some(2 << 20), Some(512), Some(12)));
        for bad in ["", "k", "1x", "-1", "1 2", "99999999999999999999999G"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn switches_and_numbers() {
        assert_eq!((switch("Yes"), switch("off"), switch("maybe")), (Some(true), Some(false), None));
        assert_eq!((whole("7", 0, 9), whole("10", 0, 9), whole("x", 0, 9)), (Some(7), None, None));
    }
}
