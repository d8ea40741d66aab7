//! What can be told of an expression without evaluating it: names that there are not, what cannot be true or false, and
//! how much work it is at most.

use std::ops::Range;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo};
use cel::{IdedExpr, Program};

use super::{Error, VARIABLES};
use crate::document::quoted;

/// Largest compiled pattern of `matches`, in bytes: it is compiled anew for each evaluation.
const PATTERN_BYTES_MAX: usize = 1 << 16;
/// What one call of `matches` costs beside another operation, for the compiling.
const PATTERN_WORK: u64 = 100;
/// Bytes that one operation reads in the time that it takes anyway.
const BYTES_FREE: u64 = 1_000;
/// How alike two words must be for one to be offered for the other (Jaro-Winkler, 0 to 1).
const LIKENESS_MIN: f64 = 0.75;

/// What an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Number,
    Text,
    List,
    Map,
    Null,
    Type,
}

impl Kind {
    fn in_words(self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Number => "a number",
            Kind::Text => "text",
            Kind::List => "a list",
            Kind::Map => "a map",
            Kind::Null => "nothing",
            Kind::Type => "a type",
        }
    }
}

/// A field's name, and what it is where that is certain.
type Field = (&'static str, Option<Kind>);

/// The fields of the variables that have fields.
const FIELDS: &[(&str, &[Field])] = &[
    (
        "image",
        &[
            ("digest", Some(Kind::Text)),
            // Null where what the tag leads to has none.
            ("kind", None),
            ("platforms", Some(Kind::List)),
            ("annotations", Some(Kind::Map)),
            ("mediaType", Some(Kind::Text)),
            ("isImage", Some(Kind::Bool)),
            ("configs", Some(Kind::List)),
        ],
    ),
    ("tag", &[("name", Some(Kind::Text)), ("class", Some(Kind::Text)), ("captures", Some(Kind::Map))]),
];

/// The functions, with what they give.
const FUNCTIONS: &[(&str, Kind)] = &[
    ("size", Kind::Number),
    ("contains", Kind::Bool),
    ("startsWith", Kind::Bool),
    ("endsWith", Kind::Bool),
    ("matches", Kind::Bool),
    ("int", Kind::Number),
    ("uint", Kind::Number),
    ("double", Kind::Number),
    ("string", Kind::Text),
    ("bool", Kind::Bool),
    ("bytes", Kind::Text),
    ("type", Kind::Type),
];
/// What is expanded by the parser.
const MACROS: &[&str] = &["has", "all", "exists", "exists_one", "map", "filter"];
/// Names of types, as in `type(x) == string`.
const TYPES: &[&str] = &["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];

/// Checks a parsed expression.
pub(super) fn check(program: &Program) -> Result<(), Error> {
    let mut checker = Checker { places: program.source_info(), bound: Vec::new() };
    let root = program.expression();
    match checker.kind(root)? {
        Some(kind) if kind != Kind::Bool => {
            let message = format!("the expression gives {}, not true or false", kind.in_words());
            let whole = 0..program.source_info().source.chars().count();
            Err(Error { message, range: whole, help: "compare it with something".to_owned() })
        }
        _ => Ok(()),
    }
}

struct Checker<'a> {
    places: &'a SourceInfo,
    /// Variables that macros bind, innermost last, with what they are.
    bound: Vec<(String, Option<Kind>)>,
}

impl Checker<'_> {
    /// A fault at a node. Places are in characters; that of a macro's parts is the macro's.
    fn error(&self, node: &IdedExpr, message: String, help: String) -> Error {
        Error { message, range: self.range(node), help }
    }

    fn range(&self, node: &IdedExpr) -> Range<usize> {
        let (start, stop) = self.places.offset_for(node.id).unwrap_or_default();
        let (start, end) = (start as usize, (stop as usize + 1).max(start as usize));
        // The parser's place of a selection is its dot, that of a call its bracket; people look for the name.
        match &node.expr {
            Expr::Select(select) if !select.test => start + 1..start + 1 + select.field.chars().count(),
            Expr::Call(call) if call.func_name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                start.saturating_sub(call.func_name.chars().count())..start
            }
            _ => start..end,
        }
    }

    /// What a node gives, where that is certain.
    fn kind(&mut self, node: &IdedExpr) -> Result<Option<Kind>, Error> {
        Ok(match &node.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Some(Kind::Bool),
                LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Some(Kind::Number),
                LiteralValue::String(_) | LiteralValue::Bytes(_) => Some(Kind::Text),
                LiteralValue::Null => Some(Kind::Null),
            },
            Expr::Ident(name) => self.variable(node, name)?,
            Expr::Select(select) => {
                let field = match &select.operand.expr {
                    Expr::Ident(name) if !self.is_bound(name) => self.field(node, name, &select.field)?,
                    _ => None,
                };
                self.kind(&select.operand)?;
                if select.test { Some(Kind::Bool) } else { field }
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.kind(element)?;
                }
                Some(Kind::List)
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.kind(&entry.key)?;
                        self.kind(&entry.value)?;
                    }
                }
                Some(Kind::Map)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension)?,
            Expr::Call(call) => self.call(node, call)?,
            Expr::Struct(made) => {
                let message = format!("there is no type {} to make something of", quoted(&made.type_name));
                return Err(self.error(node, message, "a map is written `{'key': value}`".to_owned()));
            }
            Expr::Unspecified => None,
        })
    }

    fn is_bound(&self, name: &str) -> bool {
        self.bound.iter().any(|(bound, _)| bound == name)
    }

    fn variable(&self, node: &IdedExpr, name: &str) -> Result<Option<Kind>, Error> {
        if let Some((_, kind)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return Ok(*kind);
        }
        match name {
            "image" | "tag" => Ok(Some(Kind::Map)),
            "history" => Ok(Some(Kind::List)),
            "now" => Ok(Some(Kind::Number)),
            _ if TYPES.contains(&name) => Ok(Some(Kind::Type)),
            _ => {
                let help = near(name, VARIABLES.iter().copied());
                Err(self.error(node, format!("there is no variable {}", quoted(name)), help))
            }
        }
    }

    fn field(&self, node: &IdedExpr, of: &str, name: &str) -> Result<Option<Kind>, Error> {
        let Some((_, fields)) = FIELDS.iter().find(|(variable, _)| *variable == of) else { return Ok(None) };
        match fields.iter().find(|(field, _)| *field == name) {
            Some((_, kind)) => Ok(*kind),
            None => {
                let message = format!("{} has no field {}", quoted(of), quoted(name));
                Err(self.error(node, message, near(name, fields.iter().map(|(field, _)| *field))))
            }
        }
    }

    fn comprehension(&mut self, made: &ComprehensionExpr) -> Result<Option<Kind>, Error> {
        self.kind(&made.iter_range)?;
        let accumulated = self.kind(&made.accu_init)?;
        let before = self.bound.len();
        self.bound.push((made.iter_var.clone(), None));
        self.bound.extend(made.iter_var2.clone().map(|name| (name, None)));
        self.bound.push((made.accu_var.clone(), accumulated));
        for part in [&made.loop_cond, &made.loop_step] {
            self.kind(part)?;
        }
        let result = self.kind(&made.result);
        self.bound.truncate(before);
        result
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr) -> Result<Option<Kind>, Error> {
        let name = call.func_name.as_str();
        if MACROS.contains(&name) {
            let help = "as in `image.platforms.all(p, p != '')` or `has(image.annotations.title)`";
            return Err(self.error(node, format!("{} is not used like this", quoted(name)), help.to_owned()));
        }
        let mut kinds = Vec::new();
        for part in call.target.iter().map(|target| &**target).chain(&call.args) {
            kinds.push((part, self.kind(part)?));
        }
        // Both sides must be true or false; a word that is neither is a slip.
        let booleans: &[(&IdedExpr, Option<Kind>)] = match name {
            "_&&_" | "_||_" | "!_" => &kinds,
            "_?_:_" => kinds.get(..1).unwrap_or_default(),
            _ => &[],
        };
        for (part, kind) in booleans {
            if let Some(kind) = kind.filter(|kind| *kind != Kind::Bool) {
                let message = format!("this gives {}, where true or false is needed", kind.in_words());
                return Err(self.error(part, message, "compare it with something".to_owned()));
            }
        }
        Ok(match name {
            "_&&_"
            | "_||_"
            | "!_"
            | "_==_"
            | "_!=_"
            | "_>_"
            | "_>=_"
            | "_<_"
            | "_<=_"
            | "@in"
            | "@not_strictly_false" => Some(Kind::Bool),
            "_?_:_" => match kinds.as_slice() {
                [_, (_, a), (_, b)] if a == b => *a,
                _ => None,
            },
            "-_" | "_-_" | "_*_" | "_/_" | "_%_" => Some(Kind::Number),
            // A sum of anything is of its own kind.
            "_+_" => kinds.iter().find_map(|(_, kind)| *kind),
            "_[_]" => None,
            _ if name.starts_with('_') || name.starts_with('@') => None,
            _ => match FUNCTIONS.iter().find(|(function, _)| *function == name) {
                Some((_, kind)) => {
                    if name == "matches" {
                        self.pattern(node, call)?;
                    }
                    Some(*kind)
                }
                None => {
                    let names = FUNCTIONS.iter().map(|(function, _)| *function).chain(MACROS.iter().copied());
                    let message = format!("there is no function {}", quoted(name));
                    let help = near(name, names);
                    return Err(self.error(node, message, help));
                }
            },
        })
    }

    /// A pattern stands in the policy, where it can be checked, and not in what it is asked of.
    fn pattern(&self, node: &IdedExpr, call: &CallExpr) -> Result<(), Error> {
        let Some(Expr::Literal(LiteralValue::String(pattern))) = call.args.last().map(|arg| &arg.expr) else {
            let message = "`matches` takes its pattern as text written in the policy".to_owned();
            return Err(self.error(node, message, "as in `tag.name.matches('^[0-9]+$')`".to_owned()));
        };
        match regex::RegexBuilder::new(pattern.inner()).size_limit(PATTERN_BYTES_MAX).build() {
            Ok(_) => Ok(()),
            Err(error) => {
                let last = error.to_string();
                let why = last.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let message = format!("the pattern {} cannot be used: {}", quoted(pattern.inner()), quoted(why));
                Err(self.error(call.args.last().unwrap_or(node), message, "a regular expression".to_owned()))
            }
        }
    }
}

fn near<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    let likest = known
        .clone()
        .map(|other| (strsim::jaro_winkler(name, other), other))
        .filter(|(score, _)| *score >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match likest {
        Some((_, other)) => format!("did you mean `{other}`?"),
        None => format!("there are {}", known.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")),
    }
}

/// The size of what an expression is evaluated over.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    /// Entries of the longest list or map.
    pub entries: u64,
    /// Bytes of the longest text.
    pub bytes: u64,
}

/// How many operations an expression is at most, over data of a size.
pub(super) fn work(node: &IdedExpr, size: Size) -> u64 {
    let each = 1 + size.bytes / BYTES_FREE;
    match &node.expr {
        Expr::Comprehension(made) => {
            let round = work(&made.loop_cond, size).saturating_add(work(&made.loop_step, size));
            work(&made.iter_range, size)
                .saturating_add(work(&made.accu_init, size))
                .saturating_add(work(&made.result, size))
                .saturating_add(longest(&made.iter_range, size).saturating_mul(round))
        }
        Expr::Call(call) => {
            let own = if call.func_name == "matches" { each + PATTERN_WORK } else { each };
            let parts = call.target.iter().map(|target| &**target).chain(&call.args);
            parts.fold(own, |sum, part| sum.saturating_add(work(part, size)))
        }
        expr => super::children(expr).into_iter().fold(1, |sum, part| sum.saturating_add(work(part, size))),
    }
}

/// The most entries that a list can have: of the data, or written, and as often as lists are joined.
fn longest(node: &IdedExpr, size: Size) -> u64 {
    match &node.expr {
        Expr::List(list) => (list.elements.len() as u64).max(1),
        Expr::Call(call) if call.func_name == "_+_" => {
            call.args.iter().fold(0, |sum, part| sum.saturating_add(longest(part, size)))
        }
        Expr::Call(call) if call.func_name == "_?_:_" => {
            call.args.iter().map(|part| longest(part, size)).max().unwrap_or(1)
        }
        Expr::Comprehension(made) => longest(&made.iter_range, size),
        _ => size.entries.max(1),
    }
}
