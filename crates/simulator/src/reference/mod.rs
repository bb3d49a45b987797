//! The reference model: what must be true, said a second time and in few words. It imports nothing of
//! core, store or server, so that a mistake of theirs is not its own: it reads the JSON that goes over
//! the wire and is told what apps wrote.
//!
//! - [`server`]: what the server must have after what it said that it applied.
//! - [`values`]: values and ids as they stand on the wire.
//! - [`ledger`]: what became of every value, row and mutation that an app wrote.
//! - [`history`]: whether what they read can be, in one order.

pub mod history;
pub mod ledger;
pub mod server;
pub mod values;
