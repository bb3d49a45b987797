//! Counts what goes over the wire, through the `metrics` facade; what its requests come to is counted
//! by whoever makes them.

use metrics::{Unit, counter, describe_counter};

const SENT: &str = "syncline_sent_bytes_total";
const RECEIVED: &str = "syncline_received_bytes_total";

/// Tells the process's recorder what the metrics of this library mean; to be called once, after it was
/// installed.
pub fn describe_metrics() {
    describe_counter!(
        SENT,
        Unit::Bytes,
        "Bodies of requests, as compressed as they are sent"
    );
    describe_counter!(
        RECEIVED,
        Unit::Bytes,
        "Bodies of answers, after decompression"
    );
}

pub(crate) fn sent(bytes: usize) {
    counter!(SENT).increment(u64::try_from(bytes).unwrap_or(u64::MAX));
}

pub(crate) fn received(bytes: usize) {
    counter!(RECEIVED).increment(u64::try_from(bytes).unwrap_or(u64::MAX));
}
