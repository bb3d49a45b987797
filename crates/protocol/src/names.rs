//! Newtypes for the names and ids of the protocol, so that one is never passed for another.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps the text as it is; whoever reads it from outside checks it.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text_name! {
    /// The registered name of a synced table: 1 to 128 bytes, no control characters.
    EntityType
}
text_name! {
    /// One client installation: 32 hexadecimal digits, random, bound by the server to the
    /// principal that first used it.
    ClientId
}
text_name! {
    /// Identity of a feed's history: positions, cursors and versions of another epoch mean nothing.
    Epoch
}
text_name! {
    /// What a mutation is recognised by however often it is sent: 1 to 64 visible ASCII bytes,
    /// unique within (tenant, client). The bytes sent under a key never change.
    IdempotencyKey
}
text_name! {
    /// Names one recorded mutation in logs on both sides (correlation); 1 to 64 visible ASCII bytes.
    MutationId
}
text_name! {
    /// The unit of partial replication and of authorization; each scope has its own feed.
    Scope
}
text_name! {
    /// The server's opaque version of an entity: compared for equality only.
    ServerVersion
}
text_name! {
    /// Proof of being the file that booked the server's last answer; new with every push. 1 to 64
    /// visible ASCII bytes.
    ExchangeToken
}
