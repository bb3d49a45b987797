//! HTTP/1.1 messages as far as a proxy between two well-known programs needs them: a head, and a
//! body of declared length.

use std::io::{self, BufRead};

/// One message, kept to the byte.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    /// The first line.
    pub(crate) start: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Everything as it came.
    pub(crate) bytes: Vec<u8>,
}

impl Message {
    /// Reads one; `None` when the other side has closed in good order.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut message = Self::default();
        loop {
            let mut line = Vec::new();
            if stream.read_until(b'\n', &mut line)? == 0 {
                return match message.bytes.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            message.bytes.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() {
                break;
            }
            if message.start.is_empty() {
                text.clone_into(&mut message.start);
            } else if let Some((name, value)) = text.split_once(':') {
                let name = name.to_ascii_lowercase();
                message.headers.push((name, value.trim().to_owned()));
            }
        }
        if message.header("transfer-encoding").is_some() {
            return Err(io::Error::other("bodies in chunks are not spoken here"));
        }
        let length = message.header("content-length").map(str::parse::<usize>);
        let length = length.transpose().map_err(io::Error::other)?.unwrap_or(0);
        message.body = vec![0; length];
        stream.read_exact(&mut message.body)?;
        message.bytes.extend_from_slice(&message.body);
        Ok(Some(message))
    }

    /// The value of a header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }
}
