//! CEL expressions of `expect`: compiled once, bounded in length, depth and work, behind this one module.
//!
//! CEL has no loops but its macros (`all`, `exists`, `map`, …) over lists that come from manifests and configs. How deep
//! they nest is bounded when the policy is read, and how much work they are before each evaluation, so no expression
//! goes on for ever. Names and kinds are checked when the policy is read.

mod check;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr};
use cel::{Context, Env, IdedExpr, Program, Value};

use check::Size;

/// Longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4_096;
/// Deepest nesting of brackets: the parser is recursive.
const BRACKETS_MAX: usize = 24;
/// Deepest nesting of macros: a thousand entries within a thousand is the most work allowed.
const MACROS_MAX: usize = 2;

/// Most operations of one evaluation: less than a second on a small machine.
const WORK_MAX: u64 = 1_000_000;

/// The functions of CEL's standard, made once.
static FUNCTIONS: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// The variables that an expression may use.
pub const VARIABLES: &[&str] = &["image", "tag", "history", "now"];

/// A compiled expression with its name and message.
pub struct Expression {
    /// Its name, shown in findings.
    pub name: String,
    /// What to say when it is not true.
    pub message: String,
    text: String,
    program: Program,
}

/// Why a text is no usable expression, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What is wrong.
    pub message: String,
    /// Where, in characters of the text.
    pub range: Range<usize>,
    /// What would be right.
    pub help: String,
}

impl Error {
    /// Of the expression as a whole.
    fn whole(text: &str, message: String, help: &str) -> Error {
        Error { message, range: 0..text.chars().count(), help: help.to_owned() }
    }
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is not CEL, too long or too deep, names what there is not, or cannot be true or false.
    pub fn compile(name: &str, text: &str, message: &str) -> Result<Expression, Error> {
        if text.len() > EXPRESSION_BYTES_MAX {
            let message =
                format!("the expression has {} bytes, at most {EXPRESSION_BYTES_MAX} are allowed", text.len());
            return Err(Error::whole(text, message, "make several expressions of it"));
        }
        let too_deep = |what: &str| {
            Error::whole(text, format!("the expression nests its {what} too deeply"), "make several expressions of it")
        };
        let mut depth = 0_usize;
        for b in text.bytes() {
            match b {
                b'(' | b'[' | b'{' | b'?' | b'!' | b'-' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > BRACKETS_MAX {
                return Err(too_deep("brackets"));
            }
        }
        let program = Program::compile(text).map_err(|faults| {
            let first = faults.errors.first();
            let why = first.map(|fault| fault.msg.lines().next().unwrap_or_default()).unwrap_or_default();
            let why: String = why.chars().take(200).collect();
            let error = Error::whole(text, format!("this is no CEL expression: {why}"), "CEL is expected here");
            match first.and_then(|fault| character(text, fault.pos)) {
                Some(at) => Error { range: at..at + 1, ..error },
                None => error,
            }
        })?;
        if macros(program.expression()) > MACROS_MAX {
            return Err(too_deep("macros"));
        }
        check::check(&program)?;
        Ok(Expression { name: name.to_owned(), message: message.to_owned(), text: text.to_owned(), program })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the expression is true of these values.
    ///
    /// # Errors
    /// A sentence, where it could not be evaluated or is no boolean.
    pub fn holds(
        &self,
        image: &serde_json::Value,
        tag: &serde_json::Value,
        history: &serde_json::Value,
        now: i64,
    ) -> Result<bool, String> {
        let mut size = Size::default();
        for value in [image, tag, history] {
            measure(value, &mut size);
        }
        if check::work(self.program.expression(), size) > WORK_MAX {
            return Err(format!("the image is too large for it: at most {WORK_MAX} operations are made"));
        }
        let mut context = Context::with_env(FUNCTIONS.clone());
        for (name, value) in [("image", image), ("tag", tag), ("history", history)] {
            context.add_variable_from_value(name, value_of(value));
        }
        context.add_variable_from_value("now", Value::Int(now));
        match self.program.execute(&context) {
            Ok(Value::Bool(result)) => Ok(result),
            Ok(other) => Err(format!("it gives {:?}, not true or false", other.type_of())),
            Err(error) => Err(error.to_string().chars().take(200).collect()),
        }
    }
}

/// JSON as CEL sees it. Whole numbers become `int`, which is what literals in expressions are; CEL does not mix
/// them with `uint`.
fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => {
            n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        serde_json::Value::String(s) => Value::String(s.clone().into()),
        serde_json::Value::Array(items) => Value::List(items.iter().map(value_of).collect::<Vec<_>>().into()),
        serde_json::Value::Object(fields) => {
            let fields: std::collections::HashMap<String, Value> =
                fields.iter().map(|(k, v)| (k.clone(), value_of(v))).collect();
            fields.into()
        }
    }
}

/// How deeply macros nest within macros.
fn macros(node: &IdedExpr) -> usize {
    let deepest = children(&node.expr).into_iter().map(macros).max().unwrap_or(0);
    deepest + usize::from(matches!(node.expr, Expr::Comprehension(_)))
}

/// The longest list, map and text in a value.
fn measure(json: &serde_json::Value, size: &mut Size) {
    match json {
        serde_json::Value::String(text) => size.bytes = size.bytes.max(text.len() as u64),
        serde_json::Value::Array(items) => {
            size.entries = size.entries.max(items.len() as u64);
            items.iter().for_each(|item| measure(item, size));
        }
        serde_json::Value::Object(fields) => {
            size.entries = size.entries.max(fields.len() as u64);
            fields.values().for_each(|field| measure(field, size));
        }
        _ => {}
    }
}

/// The place of a line (from 1) and column (from 0), in characters.
fn character(text: &str, (line, column): (isize, isize)) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?.checked_sub(1)?, usize::try_from(column).ok()?);
    let before: usize = text.split_inclusive('\n').take(line).map(|l| l.chars().count()).sum();
    Some((before + column).min(text.chars().count()))
}

fn children(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.iter().map(|t| &**t).chain(&call.args).collect(),
        Expr::Comprehension(c) => vec![&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => {
            let parts = map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            });
            parts.collect()
        }
        _ => Vec::new(),
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").field("name", &self.name).field("cel", &self.text).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(text: &str) -> Result<bool, String> {
        let image = json!({"kind": "index", "platforms": ["linux/amd64", "linux/arm64"]});
        let tag = json!({"name": "1.2.3", "captures": {"major": "1"}});
        Expression::compile("x", text, "").map_err(|e| e.to_string())?.holds(&image, &tag, &json!([{"from": 5}]), 10)
    }

    #[test]
    fn expressions_see_image_tag_history_and_now() {
        assert_eq!(holds("image.kind == 'index' && image.platforms.size() == 2"), Ok(true));
        assert_eq!(holds("image.platforms.all(p, p.startsWith('linux/'))"), Ok(true));
        assert_eq!(holds("tag.name.matches('^2')"), Ok(false));
        assert_eq!(holds("now - history[0].from < 10"), Ok(true));
        assert!(holds("image.annotations.nothing == 1").is_err());
        assert!(holds("tag.captures.major").unwrap_err().contains("not true or false"));
    }

    #[test]
    fn t39_expressions_are_bounded() {
        let fault = |text: &str| Expression::compile("x", text, "").unwrap_err().message;
        assert!(fault(&"(".repeat(2_000)).contains("brackets too deeply"));
        assert!(fault(&"a".repeat(5_000)).contains("has 5000 bytes"));
        let nested = "image.platforms.all(a, image.platforms.all(b, image.platforms.all(c, a == c)))";
        assert!(fault(nested).contains("macros too deeply"));
        assert!(fault("{'a': image.platforms.all(a, {'b': image.platforms.all(b, {'c': [1].all(c, true)} != {})} != {})} != {}").contains("macros"));

        // What an image brings along decides how much work there is: no product of lists goes on for ever.
        let many = json!({"platforms": vec!["linux/amd64"; 100_000]});
        let start = std::time::Instant::now();
        for text in [
            "image.platforms.all(a, image.platforms.all(b, a == b))",
            "image.platforms.all(a, a.matches('^(linux|windows)/'))",
            "(image.platforms + image.platforms + image.platforms + image.platforms).all(a, a == a && a != 'x' && a != 'y')",
        ] {
            let refused = Expression::compile("x", text, "").unwrap().holds(&many, &json!({}), &json!([]), 0);
            assert!(refused.as_ref().is_err_and(|why| why.contains("too large")), "{text}: {refused:?}");
        }
        assert!(start.elapsed().as_secs() < 2);
        // Over what images have there is no end in sight.
        let ten = json!({"platforms": vec!["linux/amd64"; 20]});
        let judged = |text: &str| Expression::compile("x", text, "").unwrap().holds(&ten, &json!({}), &json!([]), 0);
        assert_eq!(judged("image.platforms.all(a, image.platforms.all(b, a == b))"), Ok(true));
        assert_eq!(judged("image.platforms.all(a, a.matches('^(linux|windows)/'))"), Ok(true));
    }

    /// The message, the text at the place, and the help.
    fn told(text: &str) -> (String, String, String) {
        let error = Expression::compile("x", text, "").expect_err(text);
        (error.message, text.chars().skip(error.range.start).take(error.range.len()).collect(), error.help)
    }

    #[test]
    fn what_cannot_be_is_told_when_the_policy_is_read() {
        for (text, message, place, help) in [
            ("env.HOME == ''", "there is no variable `env`", "env", "there are `image`, `tag`, `history`, `now`"),
            ("imge.kind == 'index'", "there is no variable `imge`", "imge", "did you mean `image`?"),
            ("image.platforms.all(p, q == 'x')", "there is no variable `q`", "q", "there are"),
            ("image.platform.size() > 1", "`image` has no field `platform`", "platform", "did you mean `platforms`?"),
            ("tag.nmae == ''", "`tag` has no field `nmae`", "nmae", "did you mean `name`?"),
            ("tag.name.startWith('1')", "there is no function `startWith`", "startWith", "did you mean `startsWith`?"),
            ("lower(tag.name) == ''", "there is no function `lower`", "lower", "there are `size`"),
            ("image.platforms.all(p)", "`all` is not used like this", "all", "as in"),
            ("1 + 1", "the expression gives a number, not true or false", "1 + 1", "compare"),
            ("tag.name", "the expression gives text", "tag.name", "compare"),
            ("image.platforms.map(p, p)", "the expression gives a list", "image.platforms.map(p, p)", "compare"),
            (
                "image.platforms.filter(p, p != '')",
                "the expression gives a list",
                "image.platforms.filter(p, p != '')",
                "compare",
            ),
            ("image.isImage && size(image.platforms)", "this gives a number, where true or false", "size", "compare"),
            ("!tag.name", "this gives text, where true or false", "name", "compare"),
            ("image.isImage ? 1 : 2", "the expression gives a number", "image.isImage ? 1 : 2", "compare"),
            ("tag.name.matches('(')", "the pattern `(` cannot be used", "'('", "a regular expression"),
            ("tag.name.matches('(a{500}){500}')", "cannot be used", "'(a{500}){500}'", "a regular expression"),
            ("tag.name.matches(tag.class)", "takes its pattern as text", "matches", "as in"),
            ("image.kind ==", "this is no CEL expression", "", "CEL"),
            ("Foo{a: 1} == 1", "there is no type `Foo`", "{", "a map is written"),
        ] {
            let found = told(text);
            assert!(found.0.contains(message), "{text}: {found:?}");
            assert!(found.1.starts_with(place) && found.1.is_empty() == place.is_empty(), "{text}: {found:?}");
            assert!(found.2.contains(help), "{text}: {found:?}");
        }
        for text in [
            "true",
            "image.isImage",
            "has(image.annotations.a)",
            "image.configs.exists(c, has(c.config) && 'A' in c.config)",
            "image.configs.exists_one(c, c.os == 'linux')",
            "image.annotations['org.opencontainers.image.version'] == tag.name",
            "image.annotations['x']",
            "size(history.filter(h, h.digest == image.digest)) == 1 || int(tag.captures.major) > 2",
            "type(image.kind) == string ? image.kind == 'index' : false",
            "now - history[0].from < 60 * 60",
            "tag.name in ['a', 'b'] && !(tag.name == 'c')",
            "image.platforms.map(p, p + '/x').all(p, p.endsWith('x'))",
        ] {
            Expression::compile("x", text, "").unwrap_or_else(|error| panic!("{text}: {error:?}"));
        }
    }
}
