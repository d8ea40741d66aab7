//! A validator's errors as faults that a person can act on.
//!
//! Errors come with a JSON pointer into the document and one into the schema; here they become a place, a
//! sentence, and what would be right. Of alternatives (`oneOf`, `anyOf`) only the one that the value's type
//! chooses is explained, so that a short form is never blamed for not being a map.

use std::collections::HashMap;

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, JsonTypeSet, ValidationError};
use serde_json::Value as Json;

use super::fault::{FAULTS_MAX, Fault};
use super::node::{Key, Node, Value};
use super::source::{Source, Span, quoted};

/// Longest list of words offered in a label or help.
const WORDS_MAX: usize = 24;
/// So few words are told at once, without guessing which was meant.
const FEW_WORDS: usize = 3;
/// So many words still fit beside the offending text.
const SOME_WORDS: usize = 7;
/// How alike two words must be for one to be offered for the other (Jaro-Winkler, 0 to 1).
const LIKENESS_MIN: f64 = 0.8;
/// Deepest nesting of alternatives followed.
const ALTERNATIVES_DEPTH_MAX: usize = 8;

pub(super) struct Explainer<'a> {
    schema: &'a Json,
    source: &'a Source,
    root: &'a Node,
    faults: Vec<Fault>,
    /// Keys that are missing: the mapping's pointer, the key or those of which it needs one, the fault. Held back until all misspelt keys are known.
    missing: Vec<(String, Vec<String>, Fault)>,
    /// Misspelt keys: the mapping's pointer and the key that was probably meant.
    meant: Vec<(String, String)>,
}

/// What an error is about: the value, the key it stands under, and the schema that it fails.
struct Place<'a> {
    pointer: &'a str,
    key: Option<&'a Key>,
    node: &'a Node,
    schema: Option<&'a Json>,
}

impl<'a> Explainer<'a> {
    pub(super) fn new(schema: &'a Json, source: &'a Source, root: &'a Node) -> Explainer<'a> {
        Explainer { schema, source, root, faults: Vec::new(), missing: Vec::new(), meant: Vec::new() }
    }

    /// Adds what one error comes to.
    pub(super) fn explain(&mut self, error: &ValidationError<'_>) {
        self.explain_at(error, 0);
    }

    /// All faults, by place, each cause once.
    pub(super) fn finish(self) -> Vec<Fault> {
        let Explainer { mut faults, missing, meant, .. } = self;
        // `nmae: x` lacks `name` because it is misspelt: the misspelling says it all.
        faults.extend(
            missing
                .into_iter()
                .filter(|(at, keys, _)| !meant.iter().any(|(a, k)| a == at && keys.contains(k)))
                .map(|(_, _, fault)| fault),
        );
        // What fails by its type fails whatever else is asked of it.
        let typed: Vec<usize> =
            faults.iter().filter(|f| matches!(f.code, "wrong-type" | "no-value")).map(|f| f.span.start).collect();
        faults.retain(|f| f.code != "wrong-form" && f.code != "wrong-value" || !typed.contains(&f.span.start));
        faults.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
        faults.dedup_by(|b, a| (a.span, &a.message) == (b.span, &b.message));
        faults.truncate(FAULTS_MAX);
        faults
    }

    fn explain_at(&mut self, error: &ValidationError<'_>, depth: usize) {
        let pointer = error.instance_path().as_str().to_owned();
        // Every pointer of an error leads somewhere in the document that was validated; the root stands in.
        let (key, node) = self.root.trail(&pointer).unwrap_or((None, self.root));
        let schema_path = error.schema_path().as_str();
        let schema = schema_path.rsplit_once('/').and_then(|(parent, _)| self.schema_at(parent));
        let place = Place { pointer: &pointer, key, node, schema };
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                // Finding a key costs by the size of its map; more faults than these are not told anyway.
                for name in unexpected.iter().take(FAULTS_MAX) {
                    self.unknown_key(&place, name);
                }
            }
            Kind::Required { property } => self.missing_key(&place, property.as_str().unwrap_or_default()),
            Kind::Enum { options } => self.wrong_word(&place, words(options)),
            Kind::Constant { expected_value } => {
                self.wrong_word(&place, words(&Json::Array(vec![(**expected_value).clone()])))
            }
            Kind::Type { kind } => self.wrong_type(&place, types(kind)),
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } => self.alternatives(&place, context, depth),
            Kind::PropertyNames { error } => {
                let name = error.instance().as_str().unwrap_or_default();
                let span = node.entry(name).map_or(node.span, |(key, _)| key.span);
                let inner = error.schema_path().as_str();
                let names = || place.schema.and_then(|s| s.get("propertyNames")).map(|s| self.referred(s));
                let failed = inner.rsplit_once('/').and_then(|(parent, _)| self.schema_at(parent));
                let label = failed.and_then(hint).or_else(|| names().and_then(hint)).unwrap_or_default();
                self.push(span, "wrong-key", format!("{} is not allowed here", quoted(name)), label);
            }
            Kind::FalseSchema => {
                let span = key.map_or(node.span, |key| key.span);
                let label = place.schema.and_then(hint).unwrap_or_default();
                self.push(span, "not-allowed", format!("{} is not allowed here", place.name()), label);
            }
            Kind::UniqueItems => {
                let mut seen = HashMap::new();
                let twice =
                    node.items().iter().find_map(|i| Some((seen.insert(i.to_json().to_string(), i.span)?, i.span)));
                let (first, second) = twice.unwrap_or((node.span, node.span));
                let message = format!("{} has the same entry twice", place.name());
                self.faults.push(
                    Fault::error(self.source, second, "wrong-value", message).label("second").also(first, "first"),
                );
            }
            kind => {
                let hint = place.schema.and_then(hint);
                let (message, fallback) = bound(kind, &place, self.source);
                self.push(first_line(self.source, node.span), "wrong-value", message, hint.unwrap_or(fallback));
            }
        }
    }

    fn push(&mut self, span: Span, code: &'static str, message: impl Into<String>, label: impl Into<String>) {
        self.faults.push(Fault::error(self.source, span, code, message).label(label));
    }

    /// The part of the schema that a pointer leads to, through references on the way.
    fn schema_at(&self, pointer: &str) -> Option<&'a Json> {
        let mut at = self.schema;
        for part in pointer.split('/').skip(1) {
            if part == "$ref" {
                at = self.referred(at);
                continue;
            }
            let part = part.replace("~1", "/").replace("~0", "~");
            let step = |at: &'a Json| match at {
                Json::Array(items) => items.get(part.parse::<usize>().ok()?),
                _ => at.get(&part),
            };
            at = step(at).or_else(|| step(self.referred(at)))?;
        }
        Some(self.referred(at))
    }

    /// What a schema's `$ref` stands for; the schema itself where it has none.
    fn referred(&self, schema: &'a Json) -> &'a Json {
        let target = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix('#'));
        match target {
            Some(pointer) if schema.get("properties").is_none() => self.schema.pointer(pointer).unwrap_or(schema),
            _ => schema,
        }
    }

    fn unknown_key(&mut self, place: &Place<'_>, name: &str) {
        let span = place.node.entry(name).map_or(place.node.span, |(key, _)| key.span);
        let properties = place.schema.and_then(|s| s.get("properties")).and_then(Json::as_object);
        let allowed: Vec<&str> = properties.into_iter().flatten().map(|(k, _)| k.as_str()).collect();
        let fault = Fault::error(self.source, span, "unknown-key", format!("{} is not allowed here", quoted(name)));
        let fault = if name == "<<" {
            fault.label("merge keys are not supported; write the entries out, or use an alias for a whole value")
        } else if let Some(meant) = nearest(name, &allowed) {
            self.meant.push((place.pointer.to_owned(), meant.to_owned()));
            fault.label(format!("did you mean `{meant}`?"))
        } else if allowed.is_empty() {
            fault
        } else {
            fault
                .label(place.schema.and_then(hint).unwrap_or_default())
                .help(format!("allowed here: {}", list(&allowed, "and")))
        };
        self.faults.push(fault);
    }

    fn missing_key(&mut self, place: &Place<'_>, name: &str) {
        let message = match place.key {
            Some(key) => format!("{} lacks `{name}`", quoted(&key.text)),
            None if place.pointer.is_empty() => format!("the document lacks `{name}`"),
            None => format!("this entry lacks `{name}`"),
        };
        let span = place.node.entries().first().map_or(place.node.span, |(key, _)| key.span);
        let property = place.schema.and_then(|s| s.get("properties")).and_then(|p| p.get(name));
        let described = property
            .and_then(|p| p.get("description").or_else(|| self.referred_in(p).get("description")))
            .and_then(Json::as_str)
            .and_then(|d| d.split("\n\n").next());
        let mut fault = Fault::error(self.source, span, "missing-key", message).label(format!("add `{name}`"));
        fault.help = described.map(|d| format!("`{name}`: {d}"));
        self.missing.push((place.pointer.to_owned(), vec![name.to_owned()], fault));
    }

    fn referred_in<'s>(&'s self, schema: &'s Json) -> &'s Json {
        let target = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix('#'));
        target.and_then(|pointer| self.schema.pointer(pointer)).unwrap_or(schema)
    }

    fn wrong_word(&mut self, place: &Place<'_>, words: Vec<String>) {
        let span = first_line(self.source, place.node.span);
        let message = format!("{} is not allowed here", place.written(self.source));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let near = place.node.as_str().and_then(|text| nearest(text, &words));
        let all = format!("allowed here: {}", list(&words, "and"));
        let fault = Fault::error(self.source, span, "wrong-word", message);
        self.faults.push(match (&place.node.written, near) {
            (Some(written), _) if words.contains(&&**written) => {
                fault.label(format!("write it in quotes: \"{written}\""))
            }
            _ if words.len() <= FEW_WORDS => fault.label(format!("use {}", list(&words, "or"))),
            (_, Some(near)) => fault.label(format!("did you mean `{near}`?")).help(all),
            _ if words.len() <= SOME_WORDS => fault.label(format!("use {}", list(&words, "or"))),
            _ => fault.label("use one of the words below").help(all),
        });
    }

    fn wrong_type(&mut self, place: &Place<'_>, wanted: JsonTypeSet) {
        let node = place.node;
        let hinted = place.schema.and_then(hint);
        let span = first_line(self.source, node.span);
        if let (Some(written), true) = (&node.written, wanted.contains(JsonType::String))
            && !matches!(node.value, Value::Null)
        {
            let message = format!("{} is {} here", quoted(written), plain_kind(node));
            let label = hinted
                .filter(|_| !place.schema.is_some_and(|s| quoting_helps(s, written)))
                .unwrap_or_else(|| format!("write it in quotes: \"{written}\""));
            return self.push(span, "not-text", message, label);
        }
        if matches!(node.value, Value::Null) {
            let span = place.key.filter(|_| span.start == span.end).map_or(span, |key| key.span);
            let label = hinted.unwrap_or_else(|| format!("expected {}", type_words(wanted)));
            return self.push(span, "no-value", format!("{} has no value", place.name()), label);
        }
        let label = match node.as_str() {
            Some("yes" | "on" | "Yes" | "On" | "YES" | "ON") if wanted.contains(JsonType::Boolean) => {
                "write `true`".to_owned()
            }
            Some("no" | "off" | "No" | "Off" | "NO" | "OFF") if wanted.contains(JsonType::Boolean) => {
                "write `false`".to_owned()
            }
            _ => hinted.unwrap_or_else(|| format!("expected {}", type_words(wanted))),
        };
        let message = format!("{} must be {}, not {}", place.name(), type_words(wanted), node.kind_in_words());
        self.push(span, "wrong-type", message, label);
    }

    /// Of the alternatives, explains the one that the value's type chooses.
    fn alternatives(&mut self, place: &Place<'_>, branches: &[Vec<ValidationError<'_>>], depth: usize) {
        let own = |e: &&ValidationError<'_>| e.instance_path().as_str() == place.pointer;
        let type_of = |branch: &Vec<ValidationError<'_>>| {
            branch.iter().filter(own).find_map(|e| match e.kind() {
                Kind::Type { kind } => Some(types(kind)),
                _ => None,
            })
        };
        // An enumeration of words is closed to lists, maps and numbers without saying so by its type.
        let closed = |branch: &Vec<ValidationError<'_>>| {
            place.node.as_str().is_none()
                && branch.iter().filter(own).any(|e| matches!(e.kind(), Kind::Enum { .. } | Kind::Constant { .. }))
        };
        let open: Vec<&Vec<ValidationError<'_>>> =
            branches.iter().filter(|b| !b.is_empty() && type_of(b).is_none() && !closed(b)).collect();
        let hinted = place.schema.and_then(hint);
        if open.is_empty() {
            let mut wanted = JsonTypeSet::empty();
            for branch in branches {
                wanted = match type_of(branch) {
                    Some(types) => types.iter().fold(wanted, JsonTypeSet::insert),
                    None => wanted.insert(JsonType::String),
                };
            }
            return self.wrong_type(place, wanted);
        }
        let only_own_words = |branch: &&Vec<ValidationError<'_>>| {
            branch.iter().all(|e| own(&e) && matches!(e.kind(), Kind::Enum { .. } | Kind::Constant { .. }))
        };
        if open.iter().all(only_own_words) {
            let all = open.iter().flat_map(|b| b.iter()).flat_map(|e| match e.kind() {
                Kind::Enum { options } => words(options),
                Kind::Constant { expected_value } => words(&Json::Array(vec![(**expected_value).clone()])),
                _ => Vec::new(),
            });
            return self.wrong_word(place, all.collect());
        }
        if let Some(hint) = hinted.filter(|_| open.len() > 1) {
            let missing = |e: &ValidationError<'_>| own(&e) && matches!(e.kind(), Kind::Required { .. });
            let message = match place.node.as_str() {
                Some(text) => format!("{} is not allowed here", quoted(text)),
                None if open.iter().all(|branch| branch.iter().all(missing)) => {
                    format!("{} is not complete", place.name())
                }
                None => format!("{} has no form that is allowed here", place.name()),
            };
            let span = place.node.entries().first().map_or(first_line(self.source, place.node.span), |(k, _)| k.span);
            let required = |e: &ValidationError<'_>| match e.kind() {
                Kind::Required { property } if own(&e) => property.as_str().map(str::to_owned),
                _ => None,
            };
            let keys = open.iter().flat_map(|branch| branch.iter()).filter_map(required).collect();
            let fault = Fault::error(self.source, span, "wrong-form", message).label(hint);
            self.missing.push((place.pointer.to_owned(), keys, fault));
            return;
        }
        // The alternative that fits best: a wrong word under a key (a discriminator) weighs more than anything.
        let weight = |branch: &&&Vec<ValidationError<'_>>| -> usize {
            branch
                .iter()
                .map(|e| if matches!(e.kind(), Kind::Enum { .. } | Kind::Constant { .. }) { 100 } else { 1 })
                .sum()
        };
        if let Some(branch) = open.iter().min_by_key(weight)
            && depth < ALTERNATIVES_DEPTH_MAX
        {
            for error in branch.iter() {
                self.explain_at(error, depth + 1);
            }
        }
    }
}

impl Place<'_> {
    /// What the value is called in a message.
    fn name(&self) -> String {
        match self.key {
            Some(key) => quoted(&key.text),
            None if self.pointer.is_empty() => "the document".to_owned(),
            None => "this entry".to_owned(),
        }
    }

    /// The value as written, for a message.
    fn written(&self, source: &Source) -> String {
        match &self.node.value {
            Value::Sequence(_) | Value::Mapping(_) => self.node.kind_in_words().to_owned(),
            Value::String(text) => quoted(text),
            _ => quoted(source.slice(self.node.span)),
        }
    }
}

/// Message and label for the errors about bounds, patterns and the like.
fn bound(kind: &Kind, place: &Place<'_>, source: &Source) -> (String, String) {
    let name = place.name();
    let entries = |n: u64| if n == 1 { "one entry".to_owned() } else { format!("{n} entries") };
    match kind {
        Kind::MinItems { limit } | Kind::MinProperties { limit } => {
            (format!("{name} needs at least {}", entries(*limit)), String::new())
        }
        Kind::MaxItems { limit } | Kind::MaxProperties { limit } => {
            (format!("{name} has more than {}", entries(*limit)), String::new())
        }
        Kind::MinLength { limit: 1 } => (format!("{name} is empty"), String::new()),
        Kind::MinLength { limit } => (format!("{name} needs at least {limit} characters"), String::new()),
        Kind::MaxLength { limit } => (format!("{name} has more than {limit} characters"), String::new()),
        Kind::Minimum { limit } => (format!("{name} must be at least {limit}"), String::new()),
        Kind::Maximum { limit } => (format!("{name} must be at most {limit}"), String::new()),
        Kind::OneOfMultipleValid { .. } | Kind::Not { .. } => (format!("{name} contradicts itself"), String::new()),
        Kind::Pattern { pattern } => {
            (format!("{} is not allowed here", place.written(source)), format!("must match {}", quoted(pattern)))
        }
        Kind::Format { format } => {
            (format!("{} is not allowed here", place.written(source)), format!("expected a {format}"))
        }
        other => (format!("{name} is not valid"), format!("fails `{}`", other.keyword())),
    }
}

/// Whether a scalar that YAML took for something else is right once it stands in quotes: `1.0` for a tag is,
/// `15` for a duration is not.
fn quoting_helps(schema: &Json, written: &str) -> bool {
    let matches = |p: &str| regex::Regex::new(p).is_ok_and(|regex| regex.is_match(written));
    schema.get("format").is_none() && schema.get("pattern").and_then(Json::as_str).is_none_or(matches)
}

/// The hint of a schema of ours.
fn hint(schema: &Json) -> Option<String> {
    schema.get("x-hint").and_then(Json::as_str).map(str::to_owned)
}

/// A span cut to its first line: a caret under one line says where, a block of carets says nothing.
fn first_line(source: &Source, span: Span) -> Span {
    let line = source.slice(span).lines().next().unwrap_or_default();
    Span::new(span.start, span.start + line.len())
}

fn types(kind: &TypeKind) -> JsonTypeSet {
    match kind {
        TypeKind::Single(one) => JsonTypeSet::empty().insert(*one),
        TypeKind::Multiple(many) => *many,
    }
}

fn type_words(types: JsonTypeSet) -> String {
    let words = [
        (JsonType::Boolean, "`true` or `false`"),
        (JsonType::String, "text"),
        (JsonType::Integer, "a whole number"),
        (JsonType::Number, "a number"),
        (JsonType::Array, "a list"),
        (JsonType::Object, "a map"),
        (JsonType::Null, "nothing"),
    ];
    let words: Vec<&str> = words.into_iter().filter(|(t, _)| types.contains(*t)).map(|(_, w)| w).collect();
    words.join(" or ")
}

/// What YAML took a plain scalar for.
fn plain_kind(node: &Node) -> &'static str {
    match node.value {
        Value::Bool(_) => "no text",
        _ => "a number",
    }
}

/// The words of an enumeration.
fn words(options: &Json) -> Vec<String> {
    options.as_array().into_iter().flatten().map(|w| w.as_str().map_or_else(|| w.to_string(), str::to_owned)).collect()
}

/// `a`, `b` or `c`.
fn list(words: &[&str], last: &str) -> String {
    let mut shown: Vec<String> = words.iter().take(WORDS_MAX).map(|w| format!("`{w}`")).collect();
    if words.len() > WORDS_MAX {
        shown.push("…".to_owned());
    }
    match shown.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{} {last} {end}", rest.join(", ")),
        _ => shown.concat(),
    }
}

/// The word that was probably meant.
fn nearest<'w>(given: &str, words: &[&'w str]) -> Option<&'w str> {
    // Longer text is no misspelling, and comparing it costs by the square of its length.
    if given.len() > 64 {
        return None;
    }
    let fold = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let given = fold(given);
    let likeness = |word: &str| {
        let word = fold(word);
        // Two letters swapped in a short word look unlike to Jaro-Winkler and are the commonest slip.
        let slips = strsim::damerau_levenshtein(&given, &word);
        let slip = if slips <= usize::from(word.len() > 2) { 0.9 } else { 0.0 };
        f64::max(strsim::jaro_winkler(&given, &word), slip)
    };
    let (best, word) = words.iter().map(|word| (likeness(word), *word)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best >= LIKENESS_MIN).then_some(word)
}
