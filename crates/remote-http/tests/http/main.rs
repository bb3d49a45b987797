//! The remote against a scripted server on loopback, which says whatever a test wants it to say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;
mod classification;
mod credentials;
mod fixtures;
mod live;
mod odd_answers;
mod server;
mod wire;
