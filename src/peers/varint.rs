//! Numbers of variable length: one byte below 240, else four bits of it and seven more with each byte that follows.

use super::Malformed;

/// Longest form of a 64-bit number, in bytes.
pub(super) const LONGEST: usize = 10;

/// Appends a number.
pub(super) fn put(mut value: u64, out: &mut Vec<u8>) {
    if value < 240 {
        out.push(value as u8);
        return;
    }
    out.push(value as u8 | 0xf0);
    value = (value - 240) >> 4;
    while value >= 128 {
        out.push(value as u8 | 0x80);
        value = (value - 128) >> 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front. Each byte is added whole, its highest bit included.
pub(super) fn take(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let (&first, mut rest) = bytes.split_first().ok_or(Malformed::Truncated)?;
    let mut value = u64::from(first);
    if first >= 240 {
        let mut shift = 4;
        loop {
            let (&byte, behind) = rest.split_first().ok_or(Malformed::Truncated)?;
            rest = behind;
            if shift > 63 {
                return Err(Malformed::OutOfRange);
            }
            value = value.wrapping_add(u64::from(byte) << shift);
            shift += 7;
            if byte < 128 {
                break;
            }
        }
    }
    *bytes = rest;
    Ok(value)
}

/// A number that must fit into 32 bits.
pub(super) fn take_u32(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    u32::try_from(take(bytes)?).map_err(|_| Malformed::OutOfRange)
}

/// Takes so many bytes off the front.
pub(super) fn take_bytes<'a>(length: usize, bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Malformed::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

/// Takes bytes whose number stands in front of them.
pub(super) fn take_counted<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(take(bytes)?).map_err(|_| Malformed::OutOfRange)?;
    take_bytes(length, bytes)
}

/// Appends bytes with their number in front.
pub(super) fn put_counted(bytes: &[u8], out: &mut Vec<u8>) {
    put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Takes 32 bits, most significant byte first.
pub(super) fn take_be(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    let (four, rest) = bytes.split_first_chunk().ok_or(Malformed::Truncated)?;
    *bytes = rest;
    Ok(u32::from_be_bytes(*four))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_have_the_bytes_of_the_protocol() {
        for (value, bytes) in [
            (0, &[0][..]),
            (239, &[239]),
            (240, &[0xf0, 0]),
            (2287, &[0xff, 0x7f]),
            (2288, &[0xf0, 0x80, 0]),
            (4660, &[0xf4, 0x94, 0x01]),
        ] {
            let mut out = Vec::new();
            put(value, &mut out);
            assert_eq!(out, bytes, "{value}");
        }
        let mut longest = Vec::new();
        put(u64::MAX, &mut longest);
        assert_eq!(longest.len(), LONGEST);
        assert_eq!(take(&mut &[0xf0_u8, 0x80][..]), Err(Malformed::Truncated));
        assert_eq!(take(&mut &[0xff; 12][..]), Err(Malformed::OutOfRange));
    }

    #[test]
    fn numbers_at_the_edges_of_each_length() {
        let mut seen = 0;
        for line in include_str!("../../tests/data/peers/varint.jsonl").lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let mut out = Vec::new();
            put(record["value"].as_u64().unwrap(), &mut out);
            assert_eq!(out, crate::peers::tests::bytes(record["hex"].as_str().unwrap()));
            seen += 1;
        }
        assert!(seen > 10, "{seen}");
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, tail: Vec<u8>) {
            let mut out = Vec::new();
            put(value, &mut out);
            out.extend(&tail);
            let mut rest = &out[..];
            prop_assert_eq!(take(&mut rest), Ok(value));
            prop_assert_eq!(rest, &tail[..]);
        }
    }
}
