//! Conflicts: the fixtures in `fixtures/conflicts`, the mutants that they kill, and laws.
//!
//! `SYNCLINE_CONFLICT_FIXTURES=dir cargo test -p syncline-core --test conflicts fixtures` runs the
//! files of another folder as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods)] // a test reads its files

mod case;
mod devices;
mod documents;
mod fixtures;
mod laws;
mod mutants;
mod resolvers;
mod stories;
