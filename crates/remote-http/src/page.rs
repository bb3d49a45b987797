//! One page of a pull, read line by line from NDJSON as its bytes arrive.
//!
//! A change that cannot be understood becomes [`PageChange::Invalid`] and never stops the feed; a
//! line that is no change and no page end, a missing end or a wrong count mean that the answer
//! was garbled, and then there is no page at all. No I/O here.

use crate::text::{cut, json_fault, tame};
use serde::Deserialize;
use serde::de::IgnoredAny;
use syncline_core::{Page, PageChange};
use syncline_protocol::{PageEnd, PullLine};

/// The longest raw text kept of a change that was not understood, in bytes.
const MAX_RAW_BYTES: usize = 64 << 10;

/// However few changes were asked for, so many are no reason to suspect an attack on memory.
const TOLERATED_CHANGES: usize = 10_000;

/// Gathers the lines of one page.
pub(crate) struct PageReader {
    buffer: Vec<u8>,
    /// Bytes at the start of the buffer known to hold no line break.
    scanned: usize,
    changes: Vec<PageChange>,
    /// How many bytes their lines have.
    bytes: u64,
    /// More changes than this are an attack: many tiny lines take much more memory than bytes.
    most_changes: usize,
}

/// What is wrong with an answer that should have been a page.
pub(crate) type Garbled = String;

enum Line {
    Change(PageChange),
    End(PageEnd),
    Blank,
}

/// Tells a change line from others without looking into it.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    Change(IgnoredAny),
}

impl PageReader {
    /// For a pull that asked for at most `limit` changes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            scanned: 0,
            changes: Vec::new(),
            bytes: 0,
            most_changes: limit.saturating_mul(2).max(TOLERATED_CHANGES),
        }
    }

    /// Where the next bytes of the answer are to be appended.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Reads all complete lines; the page once its end line is there. What follows is ignored.
    pub(crate) fn advance(&mut self) -> Result<Option<Page>, Garbled> {
        let mut start = 0;
        while let Some(length) = self.buffer[self.scanned..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let end = self.scanned + length;
            let line = read_line(&self.buffer[start..end])?;
            let bytes = end - start;
            start = end + 1;
            self.scanned = start;
            if let Some(page) = self.take(line, bytes)? {
                return Ok(Some(page));
            }
        }
        self.buffer.drain(..start);
        self.scanned = self.buffer.len();
        Ok(None)
    }

    /// The answer is complete: its last line may lack the line break.
    pub(crate) fn finish(mut self) -> Result<Page, Garbled> {
        let line = read_line(&self.buffer)?;
        let bytes = self.buffer.len();
        self.take(line, bytes)?
            .ok_or_else(|| "the answer ends before the end of its page".to_owned())
    }

    fn take(&mut self, line: Line, bytes: usize) -> Result<Option<Page>, Garbled> {
        match line {
            Line::Blank => Ok(None),
            Line::Change(change) => {
                if self.changes.len() >= self.most_changes {
                    return Err("the page has far more changes than were asked for".to_owned());
                }
                self.changes.push(change);
                self.bytes += bytes as u64;
                Ok(None)
            }
            Line::End(end) if end.count != self.changes.len() => Err(format!(
                "the page says that it has {} changes, and {} came",
                end.count,
                self.changes.len()
            )),
            Line::End(end) => {
                let changes = std::mem::take(&mut self.changes);
                let bytes = self.bytes;
                Ok(Some(Page {
                    changes,
                    end,
                    bytes,
                }))
            }
        }
    }
}

fn read_line(line: &[u8]) -> Result<Line, Garbled> {
    if line.trim_ascii().is_empty() {
        return Ok(Line::Blank);
    }
    match serde_json::from_slice(line) {
        Ok(PullLine::Change(change)) => Ok(Line::Change(PageChange::Valid(change))),
        Ok(PullLine::Page(end)) => Ok(Line::End(end)),
        Err(error) => match serde_json::from_slice(line) {
            Ok(Shape::Change(IgnoredAny)) => Ok(Line::Change(not_understood(line, &error))),
            Err(_) => Err(format!("a line of the page {}", json_fault(&error))),
        },
    }
}

fn not_understood(line: &[u8], error: &serde_json::Error) -> PageChange {
    let text = String::from_utf8_lossy(&line[..line.len().min(MAX_RAW_BYTES)]);
    PageChange::Invalid {
        raw: cut(&text, MAX_RAW_BYTES).to_owned(),
        detail: tame(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGE: &str = r#"{"change":{"type":"task","id":"a","op":"upsert","version":"1","position":4,"fields":{"title":"milk"}}}"#;

    fn end(count: usize) -> String {
        format!(
            r#"{{"page":{{"cursor":"c","position":4,"count":{count},"phase":"feed","at_head":true}}}}"#
        )
    }

    /// Reads the text in pieces of `piece` bytes.
    fn read(text: impl AsRef<[u8]>, piece: usize) -> Result<Page, Garbled> {
        let mut reader = PageReader::new(10);
        for bytes in text.as_ref().chunks(piece) {
            reader.buffer().extend_from_slice(bytes);
            if let Some(page) = reader.advance()? {
                return Ok(page);
            }
        }
        reader.finish()
    }

    #[test]
    fn a_page_is_the_same_however_its_bytes_arrive() {
        let text = format!("{CHANGE}\r\n\n{CHANGE}\n{}\n", end(2));
        let whole = read(&text, text.len()).unwrap();
        assert_eq!(whole.changes.len(), 2);
        for piece in 1..text.len() {
            assert_eq!(read(&text, piece).unwrap(), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let text = format!("{CHANGE}\n{CHANGE}\n{}", end(2));
        for cut in 0..text.len() {
            assert!(read(&text[..cut], 7).is_err(), "cut at {cut}");
        }
        assert!(read(&text, 7).is_ok());
    }

    #[test]
    fn what_follows_the_first_page_is_ignored() {
        let text = format!("{CHANGE}\n{}\n{{garbage", end(1));
        assert_eq!(read(&text, text.len()).unwrap().changes.len(), 1);
    }

    #[test]
    fn a_change_that_is_not_understood_is_kept() {
        for odd in [
            r#"{"change":{"type":"task"}}"#,
            r#"{"change":7}"#,
            r#"{"change":{"type":"task","id":"a","op":"explode","version":"1","position":4}}"#,
            r#"{"change":{"type":"task","id":"a","op":"upsert","version":"1","position":4,"fields":{"n":1e400}}}"#,
            r#"{"change":{"type":"task","id":"a","op":"upsert","version":"1","position":4,"fields":{"n":"\ud800"}}}"#,
            r#"{"change":{"type":"task","id":"a","op":"upsert","version":"1","position":4,"fields":{"a":1,"a":2}}}"#,
        ] {
            let page = read(format!("{odd}\n{CHANGE}\n{}\n", end(2)), 9).unwrap();
            assert!(
                matches!(&page.changes[0], PageChange::Invalid { raw, .. } if raw == odd),
                "{odd}: {:?}",
                page.changes[0]
            );
            assert!(matches!(page.changes[1], PageChange::Valid(_)));
        }
    }

    #[test]
    fn a_huge_change_that_is_not_understood_is_cut() {
        let odd = format!(r#"{{"change":"{}"}}"#, "ü".repeat(MAX_RAW_BYTES));
        let page = read(format!("{odd}\n{}\n", end(1)), 4096).unwrap();
        let PageChange::Invalid { raw, .. } = &page.changes[0] else {
            panic!("understood");
        };
        assert!(raw.len() <= MAX_RAW_BYTES && raw.len() > MAX_RAW_BYTES - 4);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_the_feed() {
        let mut text = b"{\"change\":{\"type\":\"\xff\"}}\n".to_vec();
        text.extend_from_slice(end(1).as_bytes());
        let page = read(text, 5).unwrap();
        assert!(matches!(page.changes[0], PageChange::Invalid { .. }));
    }

    #[test]
    fn what_is_no_page_is_garbled() {
        for text in [
            String::new(),
            "\n\n".to_owned(),
            "<html>".to_owned(),
            format!("\u{feff}{CHANGE}\n{}\n", end(1)),
            format!("{CHANGE}\n"),
            format!("{CHANGE}\n{}\n", end(2)),
            format!("{CHANGE}\n{}\n", end(0)),
            format!("{CHANGE}\n{{\"page\":{{}}}}\n"),
            format!("{{\"other\":1}}\n{}\n", end(0)),
            format!("{CHANGE}{CHANGE}\n{}\n", end(2)),
            format!("{}\n{}\n", "[".repeat(100_000), end(0)),
        ] {
            assert!(read(&text, 11).is_err(), "{}", cut(&text, 80));
        }
    }

    #[test]
    fn a_flood_of_tiny_changes_is_cut_off() {
        let flood = "{\"change\":0}\n".repeat(TOLERATED_CHANGES + 1);
        assert!(read(flood, 4096).unwrap_err().contains("far more"));
    }
}
