//! Numbers with units, and addresses, as HAProxy writes them.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::notation::Unit;

/// A number as `-?digits`.
pub(super) fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Reads a number in `unit`.
pub(super) fn read(text: &str, unit: Option<Unit>) -> Option<i64> {
    match unit {
        Some(Unit::Milliseconds) => time(text, 1_000, 1_000),
        Some(Unit::Seconds) => time(text, 1_000_000, 1_000_000),
        Some(Unit::MillisecondsOfSeconds) => time(text, 1_000_000, 1_000),
        Some(Unit::Size) => size(text),
        _ => number(text),
    }
}

/// A time such as `10s` or `1m30s`. `bare` is the worth of a bare number in microseconds, `out` that of the result.
/// A time that is no whole number of what the result counts is not read.
fn time(text: &str, bare: i64, out: i64) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let worth = match &rest[..letters] {
            // A bare number has no unit to tell it from what follows, so it stands alone.
            "" if digits == text.len() => bare,
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        rest = &rest[letters..];
        if worth == out && digits + letters == text.len() {
            return Some(count);
        }
        total = total.checked_add(count.checked_mul(worth)?)?;
    }
    (total % out == 0).then_some(total / out)
}

/// Text of a number in its unit.
pub(super) fn text(value: i64, unit: Option<Unit>) -> String {
    if unit == Some(Unit::MillisecondsOfSeconds) { format!("{value}ms") } else { value.to_string() }
}

fn size(text: &str) -> Option<i64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(1 << shift)
}

/// True for the address of a socket file or descriptor, which never has a port.
fn is_path(text: &str) -> bool {
    text.starts_with('/') || ["unix@", "abns@", "fd@", "sockpair@"].iter().any(|prefix| text.starts_with(prefix))
}

/// Reads an address. `whole` tells that the text goes to the end of its word, `listen` that brackets behind an address
/// family are not part of the value either.
pub(super) fn address(text: &str, whole: bool, listen: bool) -> Option<Cow<'_, str>> {
    if is_path(text) {
        return whole.then_some(Cow::Borrowed(text));
    }
    // The port is not a part of it, also where a variable stands for it.
    if text.contains(":$") {
        return None;
    }
    if text.strip_prefix(':').is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'-')) {
        return None;
    }
    let (family, host) = split_family(text);
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) if (listen || family.is_empty()) && inner.parse::<Ipv6Addr>().is_ok() => {
            Some(Cow::Owned(format!("{family}{inner}")))
        }
        _ => Some(Cow::Borrowed(text)),
    }
}

/// The address family with its `@`, such as `ipv6@` or `mptcp@`, and what follows.
fn split_family(text: &str) -> (&str, &str) {
    match text.rfind('@') {
        Some(at) => text.split_at(at + 1),
        None => ("", text),
    }
}

/// Text of an address: brackets around an IPv6 literal.
pub(super) fn address_text(value: &str) -> Cow<'_, str> {
    let (family, host) = split_family(value);
    if host.contains(':') && host.parse::<Ipv6Addr>().is_ok() {
        return Cow::Owned(format!("{family}[{host}]"));
    }
    Cow::Borrowed(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_numbers_of_their_unit() {
        let ms = Some(Unit::Milliseconds);
        assert_eq!(read("1m30s", ms), Some(90_000));
        assert_eq!(read("2000us", ms), Some(2));
        for part in ["1999us", "1us", "500us"] {
            assert_eq!(read(part, ms), None, "{part}");
        }
        assert_eq!(read("0us", ms), Some(0));
        assert_eq!(read("9223372036854775807", ms), Some(i64::MAX));
        assert_eq!(read("1ms", Some(Unit::Seconds)), None);
        assert_eq!(read("5000ms", Some(Unit::Seconds)), Some(5));
        assert_eq!(read("2", Some(Unit::MillisecondsOfSeconds)), Some(2_000));
        for bad in ["", "s", "1x", "1m30", "-1", "+1", "9223372036854775807d", "1 s", "1.5s"] {
            assert_eq!(read(bad, ms), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_take_one_letter() {
        let unit = Some(Unit::Size);
        assert_eq!(read("3G", unit), Some(3 << 30));
        for bad in ["", "k", "1kk", "1x", "-1k", "9223372036854775807k"] {
            assert_eq!(read(bad, unit), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers_fit_and_have_no_plus() {
        assert_eq!(number("-0"), Some(0));
        assert_eq!(number("007"), Some(7));
        for bad in ["", "-", "+1", "1a", "9223372036854775808", "--1"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    fn read_address(text: &str, whole: bool) -> Option<String> {
        address(text, whole, true).map(Cow::into_owned)
    }

    #[test]
    fn an_address_is_never_a_bare_port_and_loses_its_brackets() {
        assert_eq!(read_address(":80", true), None);
        assert_eq!(read_address(":80-90", true), None);
        assert_eq!(read_address(":", true), None);
        assert_eq!(read_address("[::1]", false), Some("::1".to_owned()));
        for (word, value) in
            [("mptcp@[::]", "mptcp@::"), ("quic6@[fd00::1]", "quic6@fd00::1"), ("ipv4@1.2.3.4", "ipv4@1.2.3.4")]
        {
            assert_eq!(read_address(word, false), Some(value.to_owned()));
            assert_eq!(address_text(value), word);
        }
        assert_eq!(address("mptcp@[::]", false, false).as_deref(), Some("mptcp@[::]"));
        assert_eq!(address("[::]", false, false).as_deref(), Some("::"));
        assert_eq!(read_address("[x]", false), Some("[x]".to_owned()));
        assert_eq!(read_address("/run/a", false), None);
        assert_eq!(address_text("::1"), "[::1]");
        assert_eq!(address_text("h:+1"), "h:+1");
    }
}
