//! Whatever comes, a session reads it or ends with a reason.

use proptest::prelude::*;

use super::{Notes, bytes, open};

const STREAM: &str = include_str!("../../../tests/data/peers/stream-3.2.hex");

fn feed(stream: &[u8]) {
    let mut session = open();
    let mut notes = Notes::default();
    session.receive(b"200\n", 1, &mut notes).unwrap();
    for piece in stream.chunks(97) {
        if session.receive(piece, 2, &mut notes).is_err() {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(stream in proptest::collection::vec(any::<u8>(), 0..400)) {
        feed(&stream);
        let _ended = open().receive(&stream, 1, &mut Notes::default());
    }

    #[test]
    fn a_real_stream_with_changed_bytes(changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6), cut in any::<u16>()) {
        let mut stream = bytes(STREAM);
        for (at, byte) in changes {
            let at = usize::from(at) % stream.len();
            stream[at] = byte;
        }
        stream.drain(..usize::from(cut) % stream.len());
        feed(&stream);
    }
}

/// Streams that ended badly once.
#[test]
fn the_corpus() {
    for line in include_str!("../../../tests/data/peers/corpus.hex").lines().filter(|line| !line.starts_with('#')) {
        feed(&bytes(line));
    }
}
