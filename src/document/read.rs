//! Text to nodes, within bounds (T-39): size, depth, number of nodes and of aliases.
//!
//! JSON is YAML 1.2 as far as this room is concerned: one path reads both. Scalars follow the core schema
//! of YAML 1.2.2, section 10.3.2. Tags other than `!!str` are refused: nothing here needs them.

use std::collections::HashMap;

use serde_json::Number;
use serde_saphyr::granit_parser::{self, ErrorKind, Event, Parser, ScalarStyle, ScanError};

use super::fault::{FAULTS_MAX, Fault};
use super::node::{Key, Node, Value};
use super::source::{Source, Span, quoted};

/// Largest document, in bytes (threat model, section 5: policy file 1 MiB).
pub const BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of lists and maps. A schema inside a policy needs about twenty.
pub const DEPTH_MAX: usize = 64;
/// Most values in one text, those that aliases repeat included. The largest policy test known has a
/// tenth of it, and this many are read in milliseconds.
pub const NODES_MAX: usize = 50_000;
/// Most aliases in one text.
pub const ALIASES_MAX: usize = 1_000;

/// Reads every document of a text. Empty documents are left out, so a text of comments gives none.
///
/// Syntax faults end the reading; a key that is there twice, a number that is not finite and the like are
/// collected. Time and memory are linear in the size of the text.
pub fn read(source: &Source) -> Result<Vec<Node>, Vec<Fault>> {
    if source.text.len() > BYTES_MAX {
        let message = format!("the file has {} bytes, more than the {BYTES_MAX} that are read", source.text.len());
        return Err(vec![Fault::error(source, Span::default(), "too-large", message)]);
    }
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut reader = Reader { source, faults: Vec::new(), anchors: HashMap::new(), nodes: 0, aliases: 0 };
    let mut stack: Vec<Open> = Vec::new();
    let mut documents = Vec::new();
    for next in Parser::new_from_str_with_options(&source.text, options) {
        let step = match next {
            Ok((event, span)) => reader.step(event, reader.span(&span), &mut stack),
            Err(error) => Err(reader.stop(syntax(source, &error))),
        };
        match step {
            Ok(Some(node)) if matches!(node.value, Value::Null) && source.slice(node.span).is_empty() => {}
            Ok(Some(node)) => documents.push(node),
            Ok(None) => {}
            Err(Stop) => break,
        }
    }
    if reader.faults.is_empty() { Ok(documents) } else { Err(reader.faults) }
}

/// A collection that is being read.
struct Open {
    span: Span,
    anchor: usize,
    nodes_before: usize,
    kind: OpenKind,
}

enum OpenKind {
    Sequence(Vec<Node>),
    /// The entries, the key that waits for its value, and the places of the keys so far.
    Mapping(Vec<(Key, Node)>, Option<Key>, HashMap<Box<str>, Span>),
}

struct Reader<'a> {
    source: &'a Source,
    faults: Vec<Fault>,
    /// What each anchor stands for, and how many nodes that is.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    aliases: usize,
}

/// The reading ends here; why is among the faults.
struct Stop;

type Step = Result<Option<Node>, Stop>;

impl Reader<'_> {
    fn span(&self, span: &granit_parser::Span) -> Span {
        span.byte_range().map_or(Span::default(), |range| Span::new(range.start, range.end))
    }

    fn step(&mut self, event: Event<'_>, span: Span, stack: &mut Vec<Open>) -> Step {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, span)?;
                // Inside a mapping every other node is a key, and a key is text however it is written.
                let is_key = matches!(stack.last(), Some(Open { kind: OpenKind::Mapping(_, None, _), .. }));
                let is_text = match &tag {
                    None => is_key || style != ScalarStyle::Plain,
                    Some(tag) if tag.is_yaml_core_schema_tag("str") => true,
                    Some(_) => return Err(self.tag_fault(span)),
                };
                let node = if is_text {
                    Node::new(span, Value::String(text.as_ref().into()))
                } else {
                    self.plain(&text, span)?
                };
                self.anchor(anchor, &node, 1)?;
                self.place(node, stack)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(stack, span, anchor, tag.is_some(), OpenKind::Sequence(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(stack, span, anchor, tag.is_some(), OpenKind::Mapping(Vec::new(), None, HashMap::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = stack.pop() else { return Ok(None) };
                let (value, last) = match open.kind {
                    OpenKind::Sequence(items) => {
                        let last = items.last().map(|n| n.span.end);
                        (Value::Sequence(items), last)
                    }
                    OpenKind::Mapping(entries, _, _) => {
                        let last = entries.last().map(|(k, v)| k.span.end.max(v.span.end));
                        (Value::Mapping(entries), last)
                    }
                };
                // In block style the end is reported where the next thing begins: the last entry says better.
                let written_end = if span.end > span.start { span.end } else { last.unwrap_or(open.span.end) };
                let node = Node::new(Span::new(open.span.start, written_end), value);
                self.anchor(open.anchor, &node, self.nodes - open.nodes_before)?;
                self.place(node, stack)
            }
            Event::Alias(id) => self.alias(id, span, stack),
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn open(&mut self, stack: &mut Vec<Open>, span: Span, anchor: usize, tagged: bool, kind: OpenKind) -> Step {
        self.count(1, span)?;
        if tagged {
            return Err(self.tag_fault(span));
        }
        if stack.len() == DEPTH_MAX {
            return Err(self.depth_fault(span));
        }
        if matches!(stack.last(), Some(Open { kind: OpenKind::Mapping(_, None, _), .. })) {
            let fault = Fault::error(self.source, span, "key-not-text", "a key must be text, not a list or a map");
            return Err(self.stop(fault));
        }
        stack.push(Open { span, anchor, nodes_before: self.nodes - 1, kind });
        Ok(None)
    }

    /// Puts a finished node where it belongs; gives it back where it is a whole document.
    fn place(&mut self, node: Node, stack: &mut [Open]) -> Step {
        let Some(open) = stack.last_mut() else { return Ok(Some(node)) };
        match &mut open.kind {
            OpenKind::Sequence(items) => items.push(node),
            OpenKind::Mapping(entries, waiting, keys) => match waiting.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Value::String(text) = node.value else {
                        let fault = Fault::error(
                            self.source,
                            node.span,
                            "key-not-text",
                            "a key must be text, not a list or a map",
                        );
                        return Err(self.stop(fault));
                    };
                    if let Some(first) = keys.insert(text.clone(), node.span) {
                        let fault = Fault::error(
                            self.source,
                            node.span,
                            "duplicate-key",
                            format!("the key {} is here twice", quoted(&text)),
                        );
                        self.fault(fault.label("second").also(first, "first"))?;
                    }
                    *waiting = Some(Key { text, span: node.span });
                }
            },
        }
        Ok(None)
    }

    fn alias(&mut self, id: usize, span: Span, stack: &mut [Open]) -> Step {
        self.aliases += 1;
        if self.aliases > ALIASES_MAX {
            let message = format!("more than {ALIASES_MAX} aliases");
            return Err(self.stop(Fault::error(self.source, span, "too-many-aliases", message)));
        }
        let Some((_, nodes)) = self.anchors.get(&id) else {
            let fault =
                Fault::error(self.source, span, "alias-in-itself", "an alias cannot stand inside its own anchor");
            return Err(self.stop(fault));
        };
        self.count(*nodes, span)?;
        let Some((node, _)) = self.anchors.get(&id) else { return Ok(None) };
        if stack.len() + depth(node) > DEPTH_MAX {
            return Err(self.depth_fault(span));
        }
        let is_key = matches!(stack.last(), Some(Open { kind: OpenKind::Mapping(_, None, _), .. }));
        let mut node = Node { span, ..node.clone() };
        if is_key && let Some(text) = node.written.take() {
            node.value = Value::String(text);
        }
        self.place(node, stack)
    }

    /// Keeps what an anchor stands for. The copy counts as nodes, or anchors around anchors would make many.
    fn anchor(&mut self, id: usize, node: &Node, nodes: usize) -> Result<(), Stop> {
        if id != 0 {
            self.count(nodes, node.span)?;
            self.anchors.insert(id, (node.clone(), nodes));
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        let message = format!("the file has more than {NODES_MAX} values, those that aliases repeat included");
        Err(self.stop(Fault::error(self.source, span, "too-many-values", message)))
    }

    fn fault(&mut self, fault: Fault) -> Result<(), Stop> {
        self.faults.push(fault);
        if self.faults.len() < FAULTS_MAX { Ok(()) } else { Err(Stop) }
    }

    fn stop(&mut self, fault: Fault) -> Stop {
        self.faults.push(fault);
        Stop
    }

    fn tag_fault(&mut self, span: Span) -> Stop {
        let fault = Fault::error(self.source, span, "yaml-tag", "YAML tags other than `!!str` are not used here")
            .label("remove the tag");
        self.stop(fault)
    }

    fn depth_fault(&mut self, span: Span) -> Stop {
        let message = format!("lists and maps are nested more than {DEPTH_MAX} deep");
        self.stop(Fault::error(self.source, span, "too-deep", message))
    }

    /// A plain scalar by the core schema: null, boolean, number or text.
    fn plain(&mut self, text: &str, span: Span) -> Result<Node, Stop> {
        let value = match text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            _ if looks_like_number(text) => match number(text) {
                Some(number) => Value::Number(number),
                None => {
                    let fault = Fault::error(
                        self.source,
                        span,
                        "number-not-finite",
                        format!("{} is a number that is not finite or too large", quoted(text)),
                    );
                    self.fault(fault.label("write it in quotes if it is meant as text"))?;
                    Value::Null
                }
            },
            _ => return Ok(Node::new(span, Value::String(text.into()))),
        };
        Ok(Node { span, value, written: Some(text.into()) })
    }
}

/// How deep the collections of a node are nested; a scalar is 0. Only asked of aliases, whose number is bounded.
fn depth(node: &Node) -> usize {
    let inner = match &node.value {
        Value::Sequence(items) => items.iter().map(depth).max(),
        Value::Mapping(entries) => entries.iter().map(|(_, v)| depth(v)).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

/// Whether the core schema of YAML 1.2 reads a plain scalar as a number.
fn looks_like_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let all = |digits: &str, good: fn(&u8) -> bool| !digits.is_empty() && digits.bytes().all(|b| good(&b));
    if let Some(hex) = text.strip_prefix("0x") {
        return all(hex, u8::is_ascii_hexdigit);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return all(octal, |b| (b'0'..=b'7').contains(b));
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| all(e, u8::is_ascii_digit))
}

/// The value of a text that looks like a number; `None` where it is not finite.
fn number(text: &str) -> Option<Number> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().map(Number::from);
        }
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = unsigned.parse::<u64>() {
        return Some(number.into());
    }
    if let Ok(number) = unsigned.parse::<i64>() {
        return Some(number.into());
    }
    unsigned.parse::<f64>().ok().and_then(Number::from_f64)
}

/// A fault of YAML's own grammar, in words for who writes policies and not parsers.
fn syntax(source: &Source, error: &ScanError) -> Fault {
    let start = error.marker().byte_offset().unwrap_or(source.text.len());
    let before = source.before(start);
    // The scanner stops behind the tab that it refuses: the place is the tab.
    let start = if before.ends_with('\t') { before.trim_end_matches('\t').len() } else { before.len() };
    let width = source.text[start..].chars().next().filter(|c| *c != '\n' && *c != '\r').map_or(0, char::len_utf8);
    let (code, message, label) = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => ("tab", "a tab cannot indent YAML".to_owned(), "use spaces"),
        ErrorKind::UnclosedQuotedScalar => ("unclosed", "this quote is not closed".to_owned(), "opened here"),
        ErrorKind::UnclosedFlowCollection { open } => {
            ("unclosed", format!("this `{open}` is not closed"), "opened here")
        }
        ErrorKind::RecursionLimitExceeded => {
            ("too-deep", format!("lists and maps are nested more than {DEPTH_MAX} deep"), "")
        }
        ErrorKind::UnknownAnchor => ("unknown-anchor", "no anchor of this name stands before".to_owned(), ""),
        ErrorKind::MappingValueNotAllowed => (
            "syntax",
            "a `:` cannot stand here".to_owned(),
            "put text that contains `: ` in quotes, or check the indentation",
        ),
        ErrorKind::InvalidIndentation
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry => {
            ("syntax", "this does not line up with what stands above".to_owned(), "check the indentation")
        }
        ErrorKind::ExpectedFlowMappingSeparator => ("syntax", "expected `,` or `}`".to_owned(), ""),
        ErrorKind::ExpectedFlowSequenceSeparator => ("syntax", "expected `,` or `]`".to_owned(), ""),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            ("syntax", "a key needs a `:` after it, on the same line".to_owned(), "")
        }
        ErrorKind::UnexpectedCharacter { character } => (
            "syntax",
            format!("text cannot begin with {}", quoted(character.encode_utf8(&mut [0; 4]))),
            "put it in quotes",
        ),
        ErrorKind::UnexpectedEof => ("syntax", "the file ends too early".to_owned(), ""),
        other => ("syntax", format!("this is not valid YAML: {}", other.to_string().to_lowercase()), ""),
    };
    Fault::error(source, Span::new(start, start + width), code, message).label(label)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn source(text: &str) -> Source {
        Source::new("f.yaml", text)
    }

    fn one(text: &str) -> Node {
        let mut nodes = read(&source(text)).unwrap();
        assert_eq!(nodes.len(), 1, "{text}");
        nodes.remove(0)
    }

    /// The faults of a text, one a line, as the one-line form shows them.
    fn faults(text: &str) -> String {
        let lines: Vec<String> = read(&source(text)).unwrap_err().iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn values_and_places() {
        let text = "a: [1, two, \"3\"]\n'b c': {d: ~, e: yes}\n";
        let node = one(text);
        assert_eq!(node.to_json(), serde_json::json!({"a": [1, "two", "3"], "b c": {"d": null, "e": "yes"}}));
        let source = source(text);
        for (pointer, written) in
            [("/a", "[1, two, \"3\"]"), ("/a/0", "1"), ("/a/2", "\"3\""), ("/b c", "{d: ~, e: yes}"), ("/b c/e", "yes")]
        {
            assert_eq!(source.slice(node.at(pointer).unwrap().span), written, "{pointer}");
        }
        let keys: Vec<&str> = node.entries().iter().map(|(k, _)| source.slice(k.span)).collect();
        assert_eq!(keys, ["a", "'b c'"]);
        assert_eq!(node.at("/a/3"), None);
        assert_eq!(node.at("/x/y"), None);
    }

    #[test]
    fn block_collections_end_where_their_last_entry_ends() {
        let text = "a:\n  b:\n    - c\n    - d: e\n\n# comment\nf: g\n";
        assert_eq!(source(text).slice(one(text).at("/a").unwrap().span), "b:\n    - c\n    - d: e");
    }

    #[test]
    fn plain_scalars_follow_the_core_schema_and_keep_what_was_written() {
        for (text, written) in
            [("1.0", true), ("01", true), ("1e3", true), ("0x1f", true), ("true", true), ("1.", true)]
        {
            assert_eq!(one(text).written.is_some(), written, "{text}");
        }
        for text in ["1.0.0", "2026-01-31", "no", "yes", "1_000", "12:30", "0xg", "e3", ".", "1.2e", "v1", "!!str 1.0"]
        {
            assert!(matches!(one(text).value, Value::String(_)), "{text}");
        }
        assert_eq!(one("1: x").entries()[0].0.text.as_ref(), "1", "a key is text");
        assert_eq!(one("0x1f").to_json(), serde_json::json!(31));
    }

    #[test]
    fn json_is_read_by_the_same_path() {
        let json = "{\r\n\t\"a\":[1.5,-2,true,null,\"\\ud83d\\ude00 \\/\"],\"b\":{}}";
        assert_eq!(one(json).to_json(), serde_json::from_str::<serde_json::Value>(json).unwrap());
    }

    #[test]
    fn several_documents_and_empty_ones() {
        assert_eq!(read(&source("# nothing\n")).unwrap(), []);
        assert_eq!(read(&source("---\na: 1\n---\n---\nb: 2\n...\n")).unwrap().len(), 2);
        assert_eq!(read(&source("")).unwrap(), []);
    }

    #[test]
    fn aliases_repeat_values() {
        let node = one("a: &x {k: [1]}\nb: *x\n");
        assert_eq!(node.at("/b/k/0").unwrap().to_json(), 1);
        assert!(faults("a: *x\n").contains("no anchor"));
        assert!(faults("a: &x [*x]\n").contains("own anchor"), "{}", faults("a: &x [*x]\n"));
    }

    #[test]
    fn t39_faults_of_syntax_are_readable() {
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: error: the key `a` is here twice: second"),
            ("{\"a\":1,\"a\":2}", "f.yaml:1:8: error: the key `a` is here twice: second"),
            ("a:\n\tb: 1\n", "f.yaml:2:1: error: a tab cannot indent YAML: use spaces"),
            ("a: \"x\nb: 1\n", "f.yaml:1:4: error: this quote is not closed: opened here"),
            ("a: [1, 2\n", "f.yaml:1:4: error: this `[` is not closed: opened here"),
            (
                "a: .nan\n",
                "f.yaml:1:4: error: `.nan` is a number that is not finite or too large: write it in quotes if it is meant as text",
            ),
            ("a: !!binary x\n", "f.yaml:1:13: error: YAML tags other than `!!str` are not used here: remove the tag"),
            ("? [a]\n: b\n", "f.yaml:1:3: error: a key must be text, not a list or a map"),
        ] {
            assert_eq!(faults(text), expected, "{text}");
        }
    }

    #[test]
    fn t39_bombs_are_refused_quickly() {
        let laughs = (0..30).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
            format!("{text}a{}: &a{} [{}]\n", n + 1, n + 1, vec![format!("*a{n}"); 10].join(","))
        });
        let nested_anchors: String = (0..60)
            .map(|n| format!("&a{n} ["))
            .chain([String::from("1,").repeat(40_000)])
            .chain([String::from("]").repeat(60)])
            .collect();
        let bombs = [
            ("alias", laughs),
            ("aliases", format!("a: &a x\nb: [{}]", "*a,".repeat(100_000))),
            ("anchors", nested_anchors),
            ("depth flow", "[".repeat(BYTES_MAX)),
            ("depth map", "{a: ".repeat(BYTES_MAX / 4)),
            ("depth block", (0..2000).map(|n| format!("{}a:\n", " ".repeat(n % 500))).collect()),
            ("depth indicator", "- ".repeat(BYTES_MAX / 2)),
            ("question", "? ".repeat(BYTES_MAX / 2)),
            ("wide", "[1,".to_owned() + &"1,".repeat(BYTES_MAX / 2 - 10) + "]"),
            ("same key", "a: 1\n".repeat(BYTES_MAX / 5)),
            ("size", "x".repeat(BYTES_MAX + 1)),
            ("quote", format!("\"{}", "a\n".repeat(BYTES_MAX / 2 - 10))),
            ("colons", ":".repeat(BYTES_MAX)),
            ("anchor names", "&a ".repeat(BYTES_MAX / 3)),
            ("commas", format!("[{}", ",".repeat(BYTES_MAX - 2))),
            ("brackets", "[]".repeat(BYTES_MAX / 2)),
            ("spaces", format!("a:{}\n\t- b", " ".repeat(BYTES_MAX - 100))),
        ];
        for (name, text) in bombs {
            let source = source(&text);
            let start = Instant::now();
            let found = read(&source);
            let took = start.elapsed();
            let faults = found.expect_err(name);
            let shown = crate::document::render(&faults[..1], false);
            assert!(shown.len() < 10_000, "{name}: a fault of {} bytes", shown.len());
            // Release builds stay under 50 ms (T-39); the margin is for unoptimised builds on busy machines.
            assert!(took < Duration::from_secs(2), "{name} took {took:?}");
        }
    }

    proptest! {
        #[test]
        fn t08_no_text_panics(text in "[\\PC\\n\\t\\[\\]{}:,&*a-]{0,200}") {
            let source = source(&text);
            if let Err(faults) = read(&source) {
                crate::document::render(&faults, false);
            }
        }

        #[test]
        fn t07_json_means_what_json_says(keys in prop::collection::hash_set("\\PC{0,12}", 0..8), number in any::<i64>()) {
            let value: serde_json::Value = keys.iter().map(|k| (k.clone(), serde_json::json!([number, k]))).collect::<serde_json::Map<_, _>>().into();
            prop_assert_eq!(one(&value.to_string()).to_json(), value);
        }
    }
}
