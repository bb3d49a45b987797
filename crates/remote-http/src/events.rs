//! Server-sent events, read from bytes as they arrive (the format is that of the HTML standard, 9.2).
//!
//! Only what the protocol uses: names, data, comments. What it does not know it passes over; what
//! grows beyond its bounds, or is no head where a head should be, is garbled. No I/O here.

use crate::text::json_fault;
use syncline_protocol::{EVENT_HEAD, Head};

/// A line, or the data of one event, beyond this is no head.
const MOST_BYTES: usize = 16 << 10;

/// What is wrong with a stream.
pub(crate) type Garbled = String;

/// Gathers the lines of an event.
#[derive(Default)]
pub(crate) struct EventReader {
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    /// A line feed that follows belongs to the carriage return before it.
    after_return: bool,
    /// A byte order mark may stand before the first line only.
    begun: bool,
}

impl EventReader {
    /// Reads what has arrived, and passes each head on.
    pub(crate) fn read(&mut self, bytes: &[u8], hear: &mut dyn FnMut(Head)) -> Result<(), Garbled> {
        for byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => self.end_line(hear)?,
                _ if self.line.len() >= MOST_BYTES => {
                    return Err("a line of the stream does not end".to_owned());
                }
                byte => self.line.push(*byte),
            }
        }
        Ok(())
    }

    fn end_line(&mut self, hear: &mut dyn FnMut(Head)) -> Result<(), Garbled> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event(hear);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = value.to_vec(),
            b"data" => {
                if self.data.len() + value.len() >= MOST_BYTES {
                    return Err("an event of the stream does not end".to_owned());
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self, hear: &mut dyn FnMut(Head)) -> Result<(), Garbled> {
        let (name, data) = (
            std::mem::take(&mut self.name),
            std::mem::take(&mut self.data),
        );
        if name != EVENT_HEAD.as_bytes() || data.is_empty() {
            return Ok(());
        }
        let head = serde_json::from_slice(&data);
        hear(head.map_err(|error| format!("an event of the stream {}", json_fault(&error)))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The positions heard when the text comes in pieces of this size.
    fn positions(text: &[u8], piece: usize) -> Result<Vec<i64>, Garbled> {
        let mut reader = EventReader::default();
        let mut heard = Vec::new();
        for bytes in text.chunks(piece) {
            reader.read(bytes, &mut |head| heard.push(head.position))?;
        }
        Ok(heard)
    }

    fn head(position: i64) -> String {
        format!(r#"{{"scope":"default","epoch":"e","position":{position}}}"#)
    }

    #[test]
    fn heads_are_heard_however_the_bytes_arrive_and_the_lines_end() {
        let lines = [
            "\u{feff}: hello".to_owned(),
            "event: head".to_owned(),
            format!("data: {}", head(1)),
            String::new(),
            String::new(),
            ":".to_owned(),
            format!("data:{}", head(2)),
            "event:head".to_owned(),
            "id: 7".to_owned(),
            "retry: 1".to_owned(),
            "nonsense".to_owned(),
            String::new(),
            "event: other".to_owned(),
            "data: {".to_owned(),
            String::new(),
            "data: no name".to_owned(),
            String::new(),
            "event: head".to_owned(),
            String::new(),
            "event: head".to_owned(),
            r#"data: {"scope":"default","#.to_owned(),
            r#"data: "epoch":"e","position":3,"more":[]}"#.to_owned(),
            String::new(),
            "event: head".to_owned(),
            format!("data: {}", head(4)),
        ];
        for ending in ["\n", "\r\n", "\r"] {
            let text = lines.join(ending);
            for piece in 1..text.len() {
                let heard = positions(text.as_bytes(), piece).unwrap();
                assert_eq!(heard, [1, 2, 3], "{ending:?}, pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_head_is_garbled() {
        for data in [
            "",
            " ",
            "7",
            "{}",
            "[",
            "\u{0}",
            r#"{"scope":"s","epoch":"e","position":1e9}"#,
        ] {
            let text = format!("event: head\ndata: {data}\n\n");
            assert!(positions(text.as_bytes(), 5).is_err(), "{data:?}");
        }
        assert!(positions(b"event: head\ndata: \xff\n\n", 5).is_err());
    }

    #[test]
    fn nothing_grows_without_bound() {
        let endless = vec![b'x'; MOST_BYTES + 1];
        assert!(positions(&endless, 999).is_err());
        let many = "data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".repeat(1000);
        assert!(positions(many.as_bytes(), 999).is_err());
        let comments = ": x\n".repeat(100_000);
        assert!(positions(comments.as_bytes(), 999).unwrap().is_empty());
    }
}
