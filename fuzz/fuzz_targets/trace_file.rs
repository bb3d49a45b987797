//! Fuzzes `trace_file`; what is checked stands in `crates/fuzz-targets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline_fuzz_targets::check("trace_file", data));
