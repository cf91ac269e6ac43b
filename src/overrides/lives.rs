//! How long entries of stick tables stay. Pure.
//!
//! HAProxy's commands set no expiry: an entry that is brought to a new worker begins the whole `expire` of its table anew.
//! So the journal knows when it ends, and at that moment HAProxy is asked whether anybody touched it since.

use serde::{Deserialize, Serialize};

/// How often HAProxy is asked for an entry that does not expire, in milliseconds: it may have been cleared or pushed out.
const ENDLESS: i64 = 60 * 60 * 1000;
/// When it is asked again for an entry that is just ending, in milliseconds.
const ENDING: i64 = 1000;

/// An entry of a stick table, with all that it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The table.
    pub(super) table: String,
    /// The key.
    pub(super) key: String,
}

/// How long an entry stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Life {
    /// When HAProxy is asked for it, in milliseconds since 1970: at its end, as far as that is known. 0: at once.
    pub(super) until: i64,
    /// Its table lets no entry expire.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) endless: bool,
    /// When HAProxy ends it unless somebody touches it, for one that was brought to a worker and has not ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) brought: Option<i64>,
}

/// What HAProxy said of an entry. All in milliseconds, moments since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// When it was asked.
    pub(super) asked: i64,
    /// When it had answered.
    pub(super) told: i64,
    /// How long the entry stays; 0 in a table that lets none expire.
    pub(super) expires_in: i64,
}

impl Life {
    /// Of an entry that HAProxy has.
    pub(super) fn of(look: Look) -> Life {
        let endless = look.expires_in == 0;
        let until = look.told.saturating_add(if endless { ENDLESS } else { look.expires_in });
        Life { until, endless, brought: None }
    }

    /// Whether it has ended, though no HAProxy was there to end it.
    pub(super) fn has_ended(self, now: i64) -> bool {
        !self.endless && self.until != 0 && self.until <= now
    }

    /// The same life in a worker that the entry was brought to.
    pub(super) fn carried(self, look: Look) -> Life {
        let anew = Life::of(look);
        if self.until == 0 || self.endless || anew.endless || anew.until <= self.until {
            return anew;
        }
        Life { brought: Some(anew.until), ..self }
    }

    /// What becomes of it when HAProxy still has the entry at its end; `None` when it is to be cleared, since nobody
    /// touched it after it was brought.
    pub(super) fn at_end(self, look: Look) -> Option<Life> {
        match self.brought {
            Some(end) if look.asked.saturating_add(look.expires_in) <= end => None,
            // Less than a millisecond is left.
            _ if look.expires_in == 0 && !self.endless && self.until != 0 => {
                Some(Life { until: look.told.saturating_add(ENDING), ..self })
            }
            _ => Some(Life::of(look)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(asked: i64, expires_in: i64) -> Look {
        Look { asked, told: asked + 3, expires_in }
    }

    #[test]
    fn an_entry_that_is_brought_ends_when_it_would_have_ended() {
        let written = Life::of(look(1_000, 60_000));
        assert_eq!(written.until, 61_003);
        let brought = written.carried(look(31_000, 60_000));
        assert_eq!((brought.until, brought.brought), (61_003, Some(91_003)));
        assert_eq!(brought.at_end(look(61_010, 29_990)), None, "nobody touched it");
        let touched = brought.at_end(look(61_010, 45_000)).unwrap();
        assert_eq!(touched, Life { until: 106_013, endless: false, brought: None }, "somebody did");
        // A second worker gets what is left then.
        let again = brought.carried(look(41_000, 60_000));
        assert_eq!((again.until, again.brought), (61_003, Some(101_003)));
        // The table expires its entries sooner now.
        assert_eq!(written.carried(look(31_000, 5_000)).until, 36_003);
    }

    #[test]
    fn what_nobody_touches_ends_without_haproxy_too() {
        let written = Life::of(look(1_000, 60_000));
        assert!(!written.has_ended(61_002) && written.has_ended(61_003));
        assert!(!Life::default().has_ended(1), "nothing is known of it");
        assert!(!Life::of(look(1_000, 0)).has_ended(i64::MAX), "its table lets none expire");
        assert_eq!(written.at_end(look(61_003, 0)).unwrap().until, 62_006, "it is just ending");
        assert_eq!(written.at_end(look(61_003, 9_000)).unwrap().until, 70_006, "traffic touched it");
    }
}
