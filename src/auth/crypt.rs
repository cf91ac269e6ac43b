//! Strings of crypt(3): which kinds there are, and whether a password fits one.

use yescrypt::{Params, PasswordVerifier as _, Yescrypt};

/// Beginnings of the kinds that are known, besides the two without one.
const KINDS: [&str; 8] = ["$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$sha1$", YESCRYPT];
const YESCRYPT: &str = "$y$";
/// Longest password that crypt(3) takes, in bytes. A longer one would take longer to hash.
const LONGEST: usize = 512;
/// Memory that yescrypt may take for one password, in bytes.
const MEMORY: u64 = 1 << 30;
/// Characters of what yescrypt makes of a password.
const OUTPUT: usize = 43;

/// Why no password would ever fit a hash, if that is so.
pub(super) fn fault(hash: &str) -> Option<String> {
    if hash.starts_with(YESCRYPT) {
        return yescrypt_fault(hash).map(str::to_owned);
    }
    let known = if hash.starts_with('$') {
        KINDS.iter().any(|kind| hash.starts_with(kind))
    } else {
        // The oldest kinds: two characters of salt and eleven more, or an underscore and nineteen more.
        let length = if hash.starts_with('_') { 20 } else { 13 };
        let rest = hash.strip_prefix('_').unwrap_or(hash);
        hash.len() == length && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
    };
    let kind = hash.get(..hash.bytes().skip(1).position(|b| b == b'$').map_or(0, |at| at + 2)).unwrap_or_default();
    (!known).then(|| match kind {
        "" => "it is no hash of crypt(3)".to_owned(),
        kind => format!("hashes of the kind {kind} are not known, but {} are", KINDS.join(", ")),
    })
}

fn yescrypt_fault(hash: &str) -> Option<&'static str> {
    let mut parts = hash.split('$').skip(2);
    let (Some(Ok(params)), Some(_), Some(output), None) =
        (parts.next().map(str::parse::<Params>), parts.next(), parts.next(), parts.next())
    else {
        return Some("it is no hash of yescrypt");
    };
    if output.len() < OUTPUT {
        return Some("its hash of yescrypt is cut off");
    }
    let memory = u64::from(params.r()).checked_mul(128).and_then(|block| block.checked_mul(params.n()));
    memory.is_none_or(|bytes| bytes > MEMORY).then_some("its hash of yescrypt asks for more than 1 GiB of memory")
}

/// Compares a password with a hash. Takes as long as the hash wants it to.
pub(super) fn fits(password: &str, hash: &str) -> bool {
    if password.len() > LONGEST || fault(hash).is_some() {
        return false;
    }
    if hash.starts_with(YESCRYPT) {
        return Yescrypt::default().verify_password(password.as_bytes(), hash).is_ok();
    }
    pwhash::unix::verify(password, hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_yescrypt_are_those_of_crypt() {
        for (password, hash) in [
            ("pw", "$y$j9T$saltsalt$EzcjIo7YP10Zc9U2E2Jmjw8e222iKqo.Js0d.7Nh2J3"),
            ("pw", "$y$j75$abcdefgh$ucNXpbrNU2P3.RvS.JhIZXR6f2/HEKzl78QXiIdPQ76"),
            ("s:e cret", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$a0xUCTOG/8TIRc1QgsR/Tji58G9Mw9tGpdBhfAvOtJ1"),
        ] {
            assert_eq!(fault(hash), None, "{hash}");
            assert!(fits(password, hash), "{hash}");
            for wrong in ["", "pw ", "Pw"] {
                assert!(!fits(wrong, hash), "{wrong:?}");
            }
        }
    }

    #[test]
    fn what_no_password_fits_is_told_and_fits_none() {
        for (hash, said) in [
            ("$gy$j9T$salt$hash", "hashes of the kind $gy$ are not known, but $1$, "),
            ("$9$nothing", "hashes of the kind $9$"),
            ("$y$", "it is no hash of yescrypt"),
            ("$y$j9T$salt$", "is cut off"),
            ("$y$j9T$salt$abc", "is cut off"),
            ("$y$jzzT$salt$EzcjIo7YP10Zc9U2E2Jmjw8e222iKqo.Js0d.7Nh2J3", "yescrypt"),
            ("$y$jQT$salt$EzcjIo7YP10Zc9U2E2Jmjw8e222iKqo.Js0d.7Nh2J3", "yescrypt"),
            ("!", "it is no hash"),
            ("*", "it is no hash"),
            ("", "it is no hash"),
            ("plain password", "it is no hash"),
        ] {
            let fault = fault(hash).unwrap_or_default();
            assert!(fault.contains(said), "{hash}: {fault}");
            assert!(!fits("", hash) && !fits("pw", hash), "{hash}");
        }
        for hash in ["abzlUXK5ed5rs", "_J9..rasmBYk8r9AiWNc", "$6$salt$x", "$2b$05$x"] {
            assert_eq!(fault(hash), None, "{hash}");
        }
        let long = "x".repeat(LONGEST + 1);
        let hash = pwhash::sha512_crypt::hash(&long).unwrap();
        assert!(!fits(&long, &hash) && fits(&long[1..], &pwhash::sha512_crypt::hash(&long[1..]).unwrap()));
    }
}
