//! Header fields as the formats and the checks of authenticity read them: names without regard to case,
//! values as sent, repeated fields kept apart.

/// A view of header fields. At most 64 by the listener's limits, so a lookup is a short walk.
#[derive(Debug, Clone, Default)]
pub struct Headers<'a> {
    fields: Vec<(&'a str, &'a [u8])>,
}

/// A field that must stand alone and does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header is there more than once")]
pub struct Repeated;

/// Why a line of a header file is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a header: write `Name: value`, or `:method: OPTIONS`")]
pub struct HeaderLineError {
    /// The line, from 1.
    pub line: usize,
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Headers<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a [u8])>>(fields: I) -> Headers<'a> {
        Headers { fields: fields.into_iter().collect() }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Headers<'a> {
        fields.into_iter().map(|(name, value)| (name, value.as_bytes())).collect()
    }
}

impl<'a> Headers<'a> {
    /// Reads `Name: value` lines, as in a file of captured headers. A line that begins with a colon is a
    /// pseudo header (`:method: OPTIONS`) and is found under its name with the colon.
    ///
    /// # Errors
    /// The first line that has no colon after a name.
    pub fn from_lines(text: &'a str) -> Result<Headers<'a>, HeaderLineError> {
        let mut fields = Vec::new();
        for (n, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let from = usize::from(line.starts_with(':'));
            let colon = line[from..].find(':').map(|at| at + from).filter(|at| *at > from);
            let colon = colon.ok_or(HeaderLineError { line: n + 1 })?;
            fields.push((line[..colon].trim(), line[colon + 1..].trim().as_bytes()));
        }
        Ok(Headers { fields })
    }

    /// The method of a header file, `POST` where it names none.
    pub fn method(&self) -> &'a str {
        self.get(":method").unwrap_or("POST")
    }

    /// All values of `name`, as sent.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The first value of `name`, where it is UTF-8.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The only value of `name`, as sent.
    ///
    /// # Errors
    /// The field is there more than once.
    pub fn only(&self, name: &str) -> Result<Option<&'a [u8]>, Repeated> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(Repeated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_fields() {
        let headers = Headers::from_lines(":method: OPTIONS\nX-A: 1\n\nx-b:http://h:1/\nX-a: 2\n").unwrap();
        assert_eq!(headers.method(), "OPTIONS");
        assert_eq!(headers.get("x-A"), Some("1"));
        assert_eq!(headers.get("X-B"), Some("http://h:1/"));
        assert_eq!(headers.only("x-a"), Err(Repeated));
        assert_eq!(headers.only("x-c"), Ok(None));
        for bad in ["nothing", ": x", "a: b\n:x"] {
            assert!(Headers::from_lines(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Headers::default().method(), "POST");
    }
}
