//! W3C Trace Context: the `traceparent` header, by which one exchange is found again in the logs and
//! traces of everyone it passed. Reads and writes it; makes no ids and never passes on a bad one.

use std::fmt;

/// Request header that names the trace and the span that a request belongs to.
pub const HEADER_TRACE_PARENT: &str = "traceparent";

/// Response header (Trace Context, level 2) that names the trace and the span of the answer.
pub const HEADER_TRACE_RESPONSE: &str = "traceresponse";

/// A valid `traceparent`: written as version `00`, whatever version it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// Of these ids; `None` when one of them is zero, which means nothing.
    pub fn new(trace: u128, span: u64, sampled: bool) -> Option<Self> {
        let flags = u8::from(sampled);
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// Reads a header's value; `None` when it is not a valid one.
    pub fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(55)?;
        let mut parts = known.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace = hex(parts.next()?, 32)?;
        let span = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        // A later version may have more to say, behind a dash.
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !ends || parts.next().is_some() {
            return None;
        }
        Self::new(trace, span, flags & 1 == 1)
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        TraceId(self.trace)
    }

    /// The span in it.
    pub fn span_id(&self) -> SpanId {
        SpanId(self.span)
    }

    /// The same trace with another span.
    #[must_use]
    pub fn with_span(self, span: u64) -> Self {
        match span {
            0 => self,
            span => Self { span, ..self },
        }
    }
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace, self.span, self.flags
        )
    }
}

/// A trace by its id, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span by its id, shown as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_one_is_read_and_written_as_it_was() {
        let read = TraceParent::parse(GOOD).unwrap();
        assert_eq!(read.to_string(), GOOD);
        assert_eq!(
            read.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(read.span_id().to_string(), "b7ad6b7169203331");
        let child = read.with_span(0xab);
        assert_eq!(child.trace_id(), read.trace_id());
        assert!(child.to_string().ends_with("-00000000000000ab-01"));
        assert_eq!(read.with_span(0), read);
    }

    #[test]
    fn one_of_a_later_version_is_read_as_far_as_it_is_known() {
        let later = format!("cc{}", &GOOD[2..]);
        for text in [later.clone(), format!("{later}-more")] {
            assert_eq!(TraceParent::parse(&text).unwrap().to_string(), GOOD);
        }
        assert_eq!(TraceParent::parse(&format!("{later}x")), None);
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            "",
            "00",
            "ümlaut",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "000af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0101",
            "00-0af7651916cd43dd8448eb211c8031-9c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad:?}");
        }
    }
}
