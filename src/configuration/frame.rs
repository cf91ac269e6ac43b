//! Records on disk: a length, a checksum and the bytes, one after the other.
//!
//! A kill in the middle of an append leaves a torn last record; reading stops before it and says how many bytes hold.

use sha2::{Digest, Sha256};

/// Bytes in front of each payload: length (4, little-endian) and checksum (8).
pub const HEAD: usize = 12;

/// Largest payload of one record, in bytes. A length above it means that the file is damaged there.
pub(super) const LARGEST: usize = 256 * 1024 * 1024;

/// SHA-256 of a text, as it stands in records.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Hash([u8; 32]);

impl Hash {
    /// The hash of some bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Hash(Sha256::digest(bytes).into())
    }

    /// Lower-case hex, 64 characters.
    pub(super) fn to_hex(self) -> String {
        use std::fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a string cannot fail.
            _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// Reads what `to_hex` wrote.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(Hash(bytes))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_hex()[..16])
    }
}

impl serde::Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> serde::Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Hash::from_hex(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hexadecimal digits"))
    }
}

/// Appends one record with this payload to `out`.
pub fn write(payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEAD + payload.len());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum(payload));
    out.extend_from_slice(payload);
}

/// The payloads of all whole records from the start, and how many bytes of `file` they take up.
pub fn read(file: &[u8]) -> (Vec<&[u8]>, usize) {
    let mut payloads = Vec::new();
    let mut at = 0;
    while let Some((payload, next)) = read_one(file, at) {
        payloads.push(payload);
        at = next;
    }
    (payloads, at)
}

fn read_one(file: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let head = file.get(at..at + HEAD)?;
    let (length, sum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    if length > LARGEST {
        return None;
    }
    let next = at + HEAD + length;
    let payload = file.get(at + HEAD..next)?;
    (checksum(payload) == sum).then_some((payload, next))
}

/// The first eight bytes of the hash over length and payload: zeros (a hole of the file system) never match.
fn checksum(payload: &[u8]) -> [u8; 8] {
    let mut digest = Sha256::new();
    digest.update((payload.len() as u64).to_le_bytes());
    digest.update(payload);
    let whole: [u8; 32] = digest.finalize().into();
    let mut sum = [0; 8];
    sum.copy_from_slice(&whole[..8]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_damaged_tail_never_hides_the_records_before_it() {
        let mut file = Vec::new();
        let mut ends = vec![0];
        for payload in [&b"one"[..], b"", b"three and a bit"] {
            write(payload, &mut file);
            ends.push(file.len());
        }
        for cut in 0..=file.len() {
            let (payloads, held) = read(&file[..cut]);
            let whole = ends.iter().filter(|end| **end > 0 && **end <= cut).count();
            assert_eq!((payloads.len(), held), (whole, ends[whole]), "cut at {cut}");
        }
        for at in ends[2]..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x40;
            assert_eq!(read(&damaged).1, ends[2], "byte {at}");
        }
        file.extend_from_slice(&[0; 64]);
        assert_eq!(read(&file).0.len(), 3);
    }

    #[test]
    fn hashes_are_written_as_hex_and_read_back() {
        let hash = Hash::of(b"global\n");
        assert_eq!(Hash::from_hex(&hash.to_hex()), Some(hash));
        assert_eq!(Hash::from_hex("zz"), None);
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<Hash>(&json).unwrap(), hash);
    }
}
