//! CEL expressions of `expect`: compiled once, bounded in length, depth and work, behind this one module.
//!
//! CEL has no loops but its macros (`all`, `exists`, `map`, …) over lists that come from manifests, which are
//! bounded; nesting them is bounded here, so an expression that never ends cannot be written.

use std::fmt;

use cel::common::ast::Expr;
use cel::{Context, IdedExpr, Program, Value};

/// Longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4_096;
/// Deepest nesting of brackets: the parser is recursive.
const BRACKETS_MAX: usize = 24;
/// Deepest nesting of macros: a thousand entries within a thousand is the most work allowed.
const MACROS_MAX: usize = 2;

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

/// Why a text is no usable expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Too long.
    #[error("the expression has {0} bytes, at most {EXPRESSION_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Too deep.
    #[error("the expression nests its {0} too deeply")]
    TooDeep(&'static str),
    /// Not CEL.
    #[error("not a CEL expression: {0}")]
    Syntax(String),
    /// A variable that there is not.
    #[error("there is no variable `{0}`; use `image`, `tag`, `history` or `now`")]
    Variable(String),
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What [`ExpressionError`] lists.
    pub fn compile(name: &str, text: &str, message: &str) -> Result<Expression, ExpressionError> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(ExpressionError::TooLong(text.len()));
        }
        let mut depth = 0_usize;
        for b in text.bytes() {
            match b {
                b'(' | b'[' | b'{' | b'?' | b'!' | b'-' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > BRACKETS_MAX {
                return Err(ExpressionError::TooDeep("brackets"));
            }
        }
        let program = Program::compile(text).map_err(|e| {
            let line = e.to_string().lines().next().unwrap_or_default().chars().take(200).collect();
            ExpressionError::Syntax(line)
        })?;
        if macros(program.expression()) > MACROS_MAX {
            return Err(ExpressionError::TooDeep("macros"));
        }
        // Macros bring variables of their own; only what no macro binds must be one of ours.
        let mut bound = Vec::new();
        bindings(program.expression(), &mut bound);
        if let Some(unknown) = program
            .references()
            .variables()
            .into_iter()
            .find(|v| !VARIABLES.contains(v) && !bound.iter().any(|b| b == v) && !v.starts_with('@'))
        {
            return Err(ExpressionError::Variable(unknown.to_owned()));
        }
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
        let mut context = Context::default();
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

fn bindings(node: &IdedExpr, bound: &mut Vec<String>) {
    if let Expr::Comprehension(c) = &node.expr {
        bound.push(c.iter_var.clone());
        bound.extend(c.iter_var2.clone());
        bound.push(c.accu_var.clone());
    }
    for child in children(&node.expr) {
        bindings(child, bound);
    }
}

fn children(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.iter().map(|t| &**t).chain(&call.args).collect(),
        Expr::Comprehension(c) => vec![&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
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
        assert!(holds("image.nothing == 1").is_err());
        assert!(holds("1 + 1").unwrap_err().contains("not true or false"));
    }

    #[test]
    fn t39_expressions_are_bounded() {
        assert!(
            matches!(Expression::compile("x", "env.HOME == ''", ""), Err(ExpressionError::Variable(v)) if v == "env")
        );
        assert!(matches!(Expression::compile("x", &"(".repeat(2_000), ""), Err(ExpressionError::TooDeep(_))));
        assert!(matches!(Expression::compile("x", &"a".repeat(5_000), ""), Err(ExpressionError::TooLong(_))));
        let nested = "image.platforms.all(a, image.platforms.all(b, image.platforms.all(c, a == c)))";
        assert!(matches!(Expression::compile("x", nested, ""), Err(ExpressionError::TooDeep("macros"))));
        assert!(matches!(Expression::compile("x", "image.kind ==", ""), Err(ExpressionError::Syntax(_))));
    }
}
