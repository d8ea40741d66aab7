//! A tree of values in which every value and every key knows where it stands.

use serde_json::Number;

use super::source::Span;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands. Of a value that came through an alias, the alias; of what is inside it, the original.
    pub span: Span,
    /// What it is.
    pub value: Value,
    /// The text of a plain scalar that YAML reads as something else than text: `1.0`, `true`, `~`. What the
    /// writer may have meant as text, word for word.
    pub written: Option<Box<str>>,
}

/// What a node can be; JSON's kinds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`. YAML 1.2: `yes`, `no`, `on` and `off` are text.
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// Text.
    String(Box<str>),
    /// A list.
    Sequence(Vec<Node>),
    /// A map in the order written; no key occurs twice.
    Mapping(Vec<(Key, Node)>),
}

/// The key of a mapping entry. Always text: a key written `1.0` is the text `1.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub text: Box<str>,
    /// Where it stands.
    pub span: Span,
}

impl Node {
    /// A node of `value` at `span`.
    pub fn new(span: Span, value: Value) -> Node {
        Node { span, value, written: None }
    }

    /// The value of a mapping's entry; `None` where there is no such entry or this is no mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// Key and value of a mapping's entry.
    pub fn entry(&self, key: &str) -> Option<(&Key, &Node)> {
        self.entries().iter().find(|(k, _)| *k.text == *key).map(|(k, v)| (k, v))
    }

    /// The node that a JSON pointer (RFC 6901) leads to; the empty pointer is this node.
    pub fn at(&self, pointer: &str) -> Option<&Node> {
        self.trail(pointer).map(|(_, node)| node)
    }

    /// The node that a JSON pointer leads to, and the key it stands under where its parent is a mapping.
    pub fn trail(&self, pointer: &str) -> Option<(Option<&Key>, &Node)> {
        let mut found = (None, self);
        for part in pointer.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            found = match &found.1.value {
                Value::Sequence(items) => (None, items.get(part.parse::<usize>().ok()?)?),
                _ => found.1.entry(&part).map(|(k, v)| (Some(k), v))?,
            };
        }
        Some(found)
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match &self.value {
            Value::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// The entries of a sequence; empty for everything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping in the order written; empty for everything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// Whether this is a mapping.
    pub fn is_mapping(&self) -> bool {
        matches!(self.value, Value::Mapping(_))
    }

    /// The same value without places.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::String(text) => serde_json::Value::String(text.to_string()),
            Value::Sequence(items) => items.iter().map(Node::to_json).collect(),
            Value::Mapping(entries) => entries.iter().map(|(k, v)| (k.text.to_string(), v.to_json())).collect(),
        }
    }

    /// What this is, in words for a message: `a number`, `text`, `a list`.
    pub fn kind_in_words(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(true) => "`true`",
            Value::Bool(false) => "`false`",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a map",
        }
    }
}
