//! Stories of conflicts over real HTTP: what two devices wrote apart, each policy, and a person.
#![allow(clippy::unwrap_used)] // helpers of tests

mod harness;
mod people;
mod policies;
mod trouble;
