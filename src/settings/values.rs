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

/// A time: numbers with `ms`, `s`, `m`, `h` or `d`, such as `1h30m`; a bare number counts in `unit` milliseconds.
pub(super) fn time(text: &str, unit: u64) -> Option<Duration> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_millis);
    }
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, after) = after.split_at_checked(letters)?;
        let factor = match name {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after;
    }
    Some(Duration::from_millis(sum))
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
        for bad in ["", "abc", "5x", "-1", "1.5s", "5 s", "99999999999999999999", "ms"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn switches_and_numbers() {
        assert_eq!((switch("Yes"), switch("off"), switch("maybe")), (Some(true), Some(false), None));
        assert_eq!((whole("7", 0, 9), whole("10", 0, 9), whole("x", 0, 9)), (Some(7), None, None));
    }
}
