//! Cursors: where a pull goes on, opaque to clients and authenticated by the server.
//!
//! `base64url(HMAC-SHA256(json) ‖ json)`, the JSON being a compact array that begins with a format
//! number. A cursor is believed only after its MAC has been checked, and never clamped to something
//! that would fit.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const FORMAT: u8 = 1;
const MAC_BYTES: usize = 32;
const MAX_CURSOR_BYTES: usize = 4096;

/// What a cursor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) epoch: String,
    pub(crate) tenant: String,
    pub(crate) scope: String,
    /// Feed: everything up to here was sent. Snapshot: the head when its first page was read.
    pub(crate) position: i64,
    /// In the middle of a snapshot: the last (type, id) that was sent.
    pub(crate) snapshot: Option<(String, String)>,
    /// In the middle of a snapshot: about how many entities are still to come.
    pub(crate) to_come: Option<u64>,
}

/// Format, epoch, tenant, scope, position, snapshot, and what is to come of it.
#[derive(Serialize, Deserialize)]
struct Wire(
    u8,
    String,
    String,
    String,
    i64,
    Option<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<u64>,
);

/// Seals and opens cursors.
#[derive(Clone)]
pub(crate) struct CursorSeal {
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for CursorSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorSeal(secret withheld)")
    }
}

impl CursorSeal {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        // The key is one full block whatever its length, so this constructor cannot fail.
        let mut block = [0_u8; 64];
        block[..secret.len()].copy_from_slice(secret);
        Self {
            mac: <Hmac<Sha256> as Mac>::new(&block.into()),
        }
    }

    pub(crate) fn seal(&self, cursor: Cursor) -> String {
        let wire = Wire(
            FORMAT,
            cursor.epoch,
            cursor.tenant,
            cursor.scope,
            cursor.position,
            cursor.snapshot,
            cursor.to_come,
        );
        let json = serde_json::to_vec(&wire).unwrap_or_default();
        let mut bytes = self.mac_of(&json).finalize().into_bytes().to_vec();
        bytes.extend_from_slice(&json);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What the cursor says, or nothing when this server did not make it.
    pub(crate) fn open(&self, text: &str) -> Option<Cursor> {
        if text.len() > MAX_CURSOR_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (mac, json) = bytes.split_at_checked(MAC_BYTES)?;
        self.mac_of(json).verify_slice(mac).ok()?; // in constant time
        let Wire(format, epoch, tenant, scope, position, snapshot, to_come) =
            serde_json::from_slice(json).ok()?;
        (format == FORMAT).then_some(Cursor {
            epoch,
            tenant,
            scope,
            position,
            snapshot,
            to_come,
        })
    }

    fn mac_of(&self, json: &[u8]) -> Hmac<Sha256> {
        self.mac.clone().chain_update(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            epoch: "e".repeat(32),
            tenant: "t".repeat(128),
            scope: "default".into(),
            position: i64::MAX,
            snapshot: Some(("\"".repeat(128), "\"".repeat(256))),
            to_come: Some(u64::MAX),
        }
    }

    #[test]
    fn the_longest_cursor_comes_back() {
        let seal = CursorSeal::new(&[1; 32]);
        assert_eq!(seal.open(&seal.seal(cursor())), Some(cursor()));
    }

    #[test]
    fn a_cursor_that_does_not_say_what_is_to_come_is_as_good() {
        let seal = CursorSeal::new(&[1; 32]);
        let silent = Cursor {
            to_come: None,
            ..cursor()
        };
        assert_eq!(seal.open(&seal.seal(silent.clone())), Some(silent));
    }

    #[test]
    fn no_bit_can_be_changed_and_no_other_secret_opens_it() {
        let seal = CursorSeal::new(&[1; 32]);
        let sealed = URL_SAFE_NO_PAD.decode(seal.seal(cursor())).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                seal.open(&URL_SAFE_NO_PAD.encode(forged)),
                None,
                "bit {bit}"
            );
        }
        let text = seal.seal(cursor());
        assert_eq!(CursorSeal::new(&[2; 32]).open(&text), None);
        for cut in 0..text.len() {
            assert_eq!(seal.open(&text[..cut]), None, "cut at {cut}");
        }
    }
}
