//! Texts that nobody can guess and no two things share: exchange tokens, ids, epochs.
//!
//! The server rolls no dice: everything is a keyed hash of the storage's secret and of what makes
//! the text unique, so that the same transaction run again gives the same.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use syncline_protocol::{ClientId, Epoch, ExchangeToken};

const EPOCH_MARK_CHARS: usize = 8;

/// See the module.
#[derive(Clone)]
pub(crate) struct Mint {
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mint(secret withheld)")
    }
}

/// Whose exchange tokens are meant, in which history.
#[derive(Clone, Copy)]
pub(crate) struct Holder<'a> {
    pub(crate) epoch: &'a Epoch,
    pub(crate) tenant: &'a str,
    pub(crate) client: &'a ClientId,
}

/// What an exchange token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presented {
    /// None, or one of another history, which is no more than none.
    Nothing,
    /// The one with this number.
    Number(i64),
    /// Not one that this server made for the client.
    Foreign,
}

impl Mint {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        // The key is one full block whatever its length, so this constructor cannot fail.
        let mut block = [0_u8; 64];
        block[..secret.len()].copy_from_slice(secret);
        let mac = <Hmac<Sha256> as Mac>::new(&block.into());
        Self {
            mac: mac.chain_update(b"mint"),
        }
    }

    fn digest(&self, purpose: &str, parts: &[&str]) -> [u8; 32] {
        let mut mac = self.mac.clone();
        for part in [purpose].iter().chain(parts) {
            // With its length, so that no two lists of parts read the same.
            mac.update(&part.len().to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    /// `epoch mark - number - proof`.
    pub(crate) fn exchange_token(&self, holder: Holder<'_>, number: i64) -> ExchangeToken {
        let count = number.to_string();
        let parts = [
            holder.epoch.as_str(),
            holder.tenant,
            holder.client.as_str(),
            &count,
        ];
        let proof = hex(&self.digest("exchange", &parts)[..12]);
        let mark = self.epoch_mark(holder.epoch);
        ExchangeToken::new(format!("{mark}-{count}-{proof}"))
    }

    pub(crate) fn read_exchange_token(
        &self,
        holder: Holder<'_>,
        token: Option<&ExchangeToken>,
    ) -> Presented {
        let Some(token) = token else {
            return Presented::Nothing;
        };
        let mut parts = token.as_str().split('-');
        let (Some(mark), Some(number)) = (parts.next(), parts.next()) else {
            return Presented::Foreign;
        };
        if mark != self.epoch_mark(holder.epoch) && mark.len() == EPOCH_MARK_CHARS {
            return Presented::Nothing;
        }
        match number.parse() {
            Ok(number) if self.exchange_token(holder, number) == *token => {
                Presented::Number(number)
            }
            _ => Presented::Foreign,
        }
    }

    /// Stands for the history without telling its identity.
    pub(crate) fn epoch_mark(&self, epoch: &Epoch) -> String {
        hex(&self.digest("epoch mark", &[epoch.as_str()])[..EPOCH_MARK_CHARS / 2])
    }

    /// The identity of the history that follows `epoch`.
    pub(crate) fn next_epoch(&self, epoch: &Epoch, now_ms: i64) -> Epoch {
        let digest = self.digest("epoch", &[epoch.as_str(), &now_ms.to_string()]);
        Epoch::new(hex(&digest[..16]))
    }

    /// A UUID of version 7: this time, and what follows from `parts`.
    pub(crate) fn uuid(&self, now_ms: i64, parts: &[&str]) -> String {
        let digest = self.digest("uuid", parts);
        let mut bytes = [0_u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[..6].copy_from_slice(&now_ms.max(0).to_be_bytes()[2..]);
        bytes[6] = bytes[6] & 0x0f | 0x70;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let text = hex(&bytes);
        let groups = [
            &text[..8],
            &text[8..12],
            &text[12..16],
            &text[16..20],
            &text[20..],
        ];
        groups.join("-")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_holder_and_history_only() {
        let mint = Mint::new(&[1; 32]);
        let (epoch, other_epoch) = (Epoch::from("e1"), Epoch::from("e2"));
        let (phone, laptop) = (ClientId::from("1"), ClientId::from("2"));
        let holder = Holder {
            epoch: &epoch,
            tenant: "acme",
            client: &phone,
        };
        let token = mint.exchange_token(holder, 7);
        assert!(token.as_str().len() <= 64);
        let read = |holder| mint.read_exchange_token(holder, Some(&token));
        assert_eq!(read(holder), Presented::Number(7));
        let foreign = [
            Holder {
                tenant: "other",
                ..holder
            },
            Holder {
                client: &laptop,
                ..holder
            },
        ];
        for holder in foreign {
            assert_eq!(read(holder), Presented::Foreign);
        }
        let later = Holder {
            epoch: &other_epoch,
            ..holder
        };
        assert_eq!(read(later), Presented::Nothing);
        let raised = token.as_str().replacen("-7-", "-8-", 1);
        for forged in ["", "x", "-", "1-2-3", &raised] {
            let presented = mint.read_exchange_token(holder, Some(&ExchangeToken::from(forged)));
            assert_eq!(presented, Presented::Foreign, "{forged}");
        }
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7() {
        let mint = Mint::new(&[1; 32]);
        let id = mint.uuid(0x0123_4567_89ab, &["a", "b"]);
        assert!(id.starts_with("01234567-89ab-7"), "{id}");
        assert_eq!(id.len(), 36);
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_ne!(id, mint.uuid(0x0123_4567_89ab, &["ab", ""]));
    }
}
