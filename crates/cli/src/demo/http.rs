//! As much HTTP/1.1 as the demo needs to look at the traffic and to ask the server itself.
//!
//! One request per connection, bodies with a `Content-Length`; whatever is longer than its bound or
//! odd is an error, never a wait without end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: usize = 16 << 20;
const TIMEOUT: Duration = Duration::from_secs(20);

/// A request or an answer: the lines of its head, and its body as it is on the wire.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) head: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Reads one message that has a `Content-Length`, or no body.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if bytes.len() > MAX_HEAD {
                return Err(odd("the head is too long"));
            }
            more(stream, &mut bytes)?;
        };
        let mut body = bytes.split_off(end + 4);
        let text = String::from_utf8(bytes).map_err(|_| odd("the head is not text"))?;
        let head = text.trim_end().split("\r\n").map(str::to_owned).collect();
        let mut message = Self {
            head,
            body: Vec::new(),
        };
        let length = message.length()?;
        while body.len() < length {
            more(stream, &mut body)?;
        }
        body.truncate(length);
        message.body = body;
        Ok(message)
    }

    fn length(&self) -> io::Result<usize> {
        if self.header("transfer-encoding").is_some() {
            return Err(odd("the body comes in chunks"));
        }
        let Some(text) = self.header("content-length") else {
            return Ok(0);
        };
        let length = text.parse().ok().filter(|length| *length <= MAX_BODY);
        length.ok_or_else(|| odd("the body's length makes no sense"))
    }

    /// The first line: what is asked, or the status.
    pub(super) fn start(&self) -> &str {
        self.head.first().map(String::as_str).unwrap_or_default()
    }

    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Leaves a header out.
    pub(super) fn remove(&mut self, name: &str) {
        let is_it = |line: &str| {
            line.split_once(':')
                .is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
        };
        self.head.retain(|line| !is_it(line));
    }

    /// Sends it.
    pub(super) fn write(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut bytes = (self.head.join("\r\n") + "\r\n\r\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        stream.write_all(&bytes)?;
        stream.flush()
    }
}

/// Sends a request over a connection of its own and reads the answer.
pub(super) fn exchange(address: SocketAddr, mut request: Message) -> io::Result<Message> {
    // Neither compressed nor kept open: what comes can be read as it is, and ends.
    for name in ["connection", "accept-encoding"] {
        request.remove(name);
    }
    request.head.push("connection: close".to_owned());
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    bound(&stream)?;
    request.write(&mut stream)?;
    Message::read(&mut stream)
}

/// No wait on this connection goes on for ever.
pub(super) fn bound(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))
}

fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 8 << 10];
    let count = stream.read(&mut chunk)?;
    if count == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    bytes.extend_from_slice(&chunk[..count]);
    Ok(())
}

fn odd(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let mut message = Message {
            head: vec!["POST /v1/push HTTP/1.1".into(), "Content-Length: 4".into()],
            body: b"milk".to_vec(),
        };
        let mut wire = Vec::new();
        message.write(&mut wire).unwrap();
        let read = Message::read(&mut wire.as_slice()).unwrap();
        assert_eq!(read.start(), "POST /v1/push HTTP/1.1");
        assert_eq!(read.header("content-length"), Some("4"));
        assert_eq!(read.body, b"milk");
        message.remove("CONTENT-LENGTH");
        assert_eq!(message.header("content-length"), None);
    }

    #[test]
    fn what_is_cut_or_odd_is_an_error() {
        for wire in [
            "POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nmil",
            "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HT",
            "",
        ] {
            assert!(Message::read(&mut wire.as_bytes()).is_err(), "{wire:?}");
        }
    }
}
