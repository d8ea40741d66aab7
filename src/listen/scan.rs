//! Where requests begin and end on a connection, read strictly.
//!
//! The HTTP library reads messages leniently in places where proxies in front may read them differently: it
//! collapses repeated lengths and drops a length beside a transfer coding. This scanner sees every byte
//! first and lets nothing ambiguous pass (T-09; RFC 9112, sections 2.2, 3, 5, 6, 7.1). It keeps one
//! unfinished line at most.

use super::Limits;
use crate::metrics::Limit;

/// Longest size line of a chunk: 16 hexadecimal digits hold any length.
const CHUNK_SIZE_DIGITS: usize = 16;
/// Longest length: 19 digits fit 64 bits.
const LENGTH_DIGITS: usize = 19;

/// Where on the connection the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between requests.
    Between,
    /// In a request's head.
    Head,
    /// In a request's body.
    Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RequestLine,
    Field,
    Fixed(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    LastLine,
}

/// What the head at hand has said so far.
#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    fields: usize,
    version_1_0: bool,
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

/// A byte at which a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its position in the bytes handed over.
    pub at: usize,
    /// What it broke.
    pub limit: Limit,
}

#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    head: Head,
    line: Vec<u8>,
    requests: u64,
    head_bytes: usize,
    head_fields: usize,
}

impl Scanner {
    pub(super) fn new(limits: &Limits) -> Scanner {
        Scanner {
            state: State::RequestLine,
            head: Head::default(),
            line: Vec::new(),
            requests: 0,
            head_bytes: limits.head_bytes,
            head_fields: limits.head_fields,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.state {
            State::RequestLine if self.line.is_empty() => Phase::Between,
            State::RequestLine | State::Field => Phase::Head,
            _ => Phase::Body,
        }
    }

    /// How many requests were complete so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Reads on. After a fault the connection is at its end.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Fixed(left) | State::Chunk(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += here;
                    *left -= here as u64;
                    if *left == 0 {
                        match self.state {
                            State::Fixed(_) => self.complete(),
                            _ => self.state = State::ChunkEnd,
                        }
                    }
                }
                _ => {
                    let rest = &bytes[at..];
                    let end = rest.iter().position(|b| *b == b'\n');
                    let taken = end.map_or(rest.len(), |end| end + 1);
                    if self.head.bytes + self.line.len() + taken > self.head_bytes {
                        return Err(Fault { at, limit: Limit::Head });
                    }
                    let fault = |limit| Fault { at: at + taken - 1, limit };
                    if end.is_none() {
                        self.line.extend_from_slice(rest);
                    } else if self.line.is_empty() {
                        self.line(&rest[..taken]).map_err(fault)?;
                    } else {
                        let mut whole = std::mem::take(&mut self.line);
                        whole.extend_from_slice(&rest[..taken]);
                        self.line(&whole).map_err(fault)?;
                        whole.clear();
                        self.line = whole;
                    }
                    at += taken;
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self) {
        self.state = State::RequestLine;
        self.head = Head::default();
        self.requests += 1;
    }

    /// Reads one line, its end included.
    fn line(&mut self, line: &[u8]) -> Result<(), Limit> {
        let text = line.strip_suffix(b"\r\n").ok_or(Limit::Framing)?;
        if text.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return Err(Limit::Framing);
        }
        match self.state {
            State::RequestLine => {
                self.head.bytes += line.len();
                self.head.version_1_0 = request_line(text).ok_or(Limit::Framing)?;
                self.state = State::Field;
            }
            State::Field if text.is_empty() => return self.head_complete(),
            State::Field => {
                self.head.bytes += line.len();
                self.head.fields += 1;
                if self.head.fields > self.head_fields {
                    return Err(Limit::Head);
                }
                self.head.field(text).ok_or(Limit::Framing)?;
            }
            State::ChunkSize => {
                let hex = !text.is_empty() && text.len() <= CHUNK_SIZE_DIGITS && text.iter().all(u8::is_ascii_hexdigit);
                let size = std::str::from_utf8(text).ok().filter(|_| hex);
                let size = size.and_then(|s| u64::from_str_radix(s, 16).ok()).ok_or(Limit::Framing)?;
                self.state = if size == 0 { State::LastLine } else { State::Chunk(size) };
            }
            // No sender uses trailer fields; a line here is somebody's second opinion on where the body ends.
            State::ChunkEnd | State::LastLine if !text.is_empty() => return Err(Limit::Framing),
            State::ChunkEnd => self.state = State::ChunkSize,
            State::LastLine => self.complete(),
            State::Fixed(_) | State::Chunk(_) => return Err(Limit::Framing),
        }
        Ok(())
    }

    fn head_complete(&mut self) -> Result<(), Limit> {
        let head = &self.head;
        if (!head.host && !head.version_1_0) || (head.chunked && (head.length.is_some() || head.version_1_0)) {
            return Err(Limit::Framing);
        }
        match (head.chunked, head.length) {
            (true, _) => {
                // Size lines are not the head's.
                self.head.bytes = 0;
                self.state = State::ChunkSize;
            }
            (false, Some(length)) if length > 0 => self.state = State::Fixed(length),
            (false, _) => self.complete(),
        }
        Ok(())
    }
}

/// Reads `METHOD SP TARGET SP VERSION`; gives whether the version is 1.0.
fn request_line(text: &[u8]) -> Option<bool> {
    let mut parts = text.split(|b| *b == b' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let well_formed = parts.next().is_none()
        && !method.is_empty()
        && method.iter().all(|b| is_token(*b))
        && target.first().is_some_and(|b| matches!(b, b'/' | b'*'))
        && target.iter().all(u8::is_ascii_graphic);
    match version {
        b"HTTP/1.1" if well_formed => Some(false),
        b"HTTP/1.0" if well_formed => Some(true),
        _ => None,
    }
}

impl Head {
    /// Reads one field; `None` where it is malformed, repeated though it must not be, or asks for what this
    /// listener does not do.
    fn field(&mut self, text: &[u8]) -> Option<()> {
        let colon = text.iter().position(|b| *b == b':')?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        // A fold begins with a blank and so has no name; a blank before the colon is no token.
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
            return None;
        }
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            4 if is("host") => {
                let first = !self.host;
                self.host = true;
                (first && value.iter().all(|b| b.is_ascii_graphic() && *b != b',')).then_some(())
            }
            14 if is("content-length") => {
                let digits = !value.is_empty() && value.len() <= LENGTH_DIGITS && value.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(value).ok().filter(|_| digits && self.length.is_none())?;
                self.length = Some(length.parse().ok()?);
                Some(())
            }
            17 if is("transfer-encoding") => {
                let first = !self.chunked;
                self.chunked = true;
                (first && value.eq_ignore_ascii_case(b"chunked")).then_some(())
            }
            7 if is("upgrade") => None,
            // The HTTP library answers 100 to this one and ignores others.
            6 if is("expect") => value.eq_ignore_ascii_case(b"100-continue").then_some(()),
            _ => Some(()),
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(bytes: &[u8]) -> (Result<(), Fault>, u64) {
        let mut scanner = Scanner::new(&Limits::default());
        let result = scanner.scan(bytes);
        (result, scanner.requests())
    }

    #[test]
    fn t09_requests_end_where_they_say() {
        let three = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /\
            POST /b HTTP/1.1\r\nhost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00\r\n\r\n\
            GET /c HTTP/1.0\r\n\r\n";
        assert_eq!(scan(three), (Ok(()), 3));
        for split in 1..three.len() {
            let mut scanner = Scanner::new(&Limits::default());
            scanner.scan(&three[..split]).unwrap();
            scanner.scan(&three[split..]).unwrap();
            assert_eq!((scanner.requests(), scanner.phase()), (3, Phase::Between), "{split}");
        }
    }

    #[test]
    fn t13_heads_are_bounded() {
        let long = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "a".repeat(16 * 1024));
        assert!(matches!(scan(long.as_bytes()).0, Err(Fault { limit: Limit::Head, .. })));
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(64));
        assert!(matches!(scan(many.as_bytes()).0, Err(Fault { limit: Limit::Head, .. })));
        let enough = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(63));
        assert_eq!(scan(enough.as_bytes()), (Ok(()), 1));
    }

    proptest! {
        #[test]
        fn t09_where_the_bytes_are_cut_changes_nothing(
            text in "(GET|POST) /a HTTP/1.[01]\r\n(Host: h\r\n|Content-Length: [0-9]{1,2}\r\n|Transfer-Encoding: chunked\r\n|A : b\r\n|\n){0,4}\r\n[0-9a-f\r\n]{0,12}",
            cut in 0usize..80,
        ) {
            let bytes = text.as_bytes();
            let whole = scan(bytes);
            let mut scanner = Scanner::new(&Limits::default());
            let cut = cut.min(bytes.len());
            let parts = scanner.scan(&bytes[..cut]).and_then(|()| {
                scanner.scan(&bytes[cut..]).map_err(|fault| Fault { at: fault.at + cut, ..fault })
            });
            prop_assert_eq!(whole, (parts, scanner.requests()));
        }

        #[test]
        fn t08_no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan(&bytes);
        }
    }
}
