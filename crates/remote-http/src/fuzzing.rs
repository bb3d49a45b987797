//! Doors for the fuzzer to what is not public: the readers of pages and of live events. No part of the
//! API, and nothing that a server could not send.

use crate::events::EventReader;
use crate::page::PageReader;
use syncline_core::Page;
use syncline_protocol::Head;

/// The page in an answer that arrives in pieces of this size.
pub fn page(bytes: &[u8], limit: usize, piece: usize) -> Result<Page, String> {
    let mut reader = PageReader::new(limit);
    for piece in bytes.chunks(piece) {
        reader.buffer().extend_from_slice(piece);
        if let Some(page) = reader.advance()? {
            return Ok(page);
        }
    }
    reader.finish()
}

/// The heads in a stream that arrives in pieces of this size, and what ended it.
pub fn events(bytes: &[u8], piece: usize) -> (Vec<Head>, Result<(), String>) {
    let (mut reader, mut heads) = (EventReader::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        if let Err(garbled) = reader.read(piece, &mut |head| heads.push(head)) {
            return (heads, Err(garbled));
        }
    }
    (heads, Ok(()))
}
