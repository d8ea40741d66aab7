//! What a class asks of its tags: each requirement with its settings, and what it relates to.

use std::sync::Arc;

use jiff::SignedDuration;

use super::{Compiler, Context, add_line, asked, names_of_all, text, unwritten, within};
use crate::document::{Node, Schema, Source};
use crate::policy::expression::Expression;
use crate::policy::set::{
    FollowsRule, ImmutableRule, IndexRule, KeepsPlatforms, Pairing, PlatformRule, PlatformSet, Relation, Requirements,
    Revision, Setting, WantedKind, Withdrawn,
};
use crate::policy::verdict::Severity;

impl Compiler<'_> {
    /// What a class asks of its tags.
    pub(super) fn requirements(
        &mut self,
        context: &mut Context<'_>,
        class: usize,
        node: Option<&Node>,
    ) -> Requirements {
        let Some(node) = node else { return Requirements::default() };
        let source = context.source;
        let severity = context.severity;
        let span = |key: &str| node.entry(key).map_or(node.span, |(k, _)| k.span);
        let plain =
            |this: &mut Self, key: &str| asked(node.get(key)).map(|n| this.setting(source, severity, span(key), n));

        let immutable = asked(node.get("immutable")).map(|n| {
            let settle = n.get("settle").map(|s| self.wait(source, Some(s)));
            let forget_after_delete = text(n.get("afterDelete")) == "forget";
            (self.setting(source, severity, span("immutable"), n), ImmutableRule { settle, forget_after_delete })
        });
        let index = asked(node.get("index")).map(|n| {
            let unless_single_platform = n.get("unlessSinglePlatform").and_then(Node::as_bool).unwrap_or(false);
            (self.setting(source, severity, span("index"), n), IndexRule { unless_single_platform })
        });
        let platforms = asked(node.get("platforms")).map(|n| {
            let mut set = |node: Option<&Node>| node.and_then(|v| self.platform_use(context, v));
            // Short: a set's name or a list, which means `all`.
            let rule = if n.is_mapping() {
                PlatformRule { all: set(n.get("all")), any: set(n.get("any")), only: set(n.get("only")) }
            } else {
                PlatformRule { all: set(Some(n)), any: None, only: None }
            };
            (self.setting(source, severity, span("platforms"), n), rule)
        });
        let follows = asked(node.get("follows")).and_then(|n| {
            let target = self.relation(context, class, n.get("class").unwrap_or(n), "follows")?;
            let mut withdrawn = Vec::new();
            for item in n.get("withdrawn").map(Node::items).unwrap_or_default() {
                withdrawn.push(Withdrawn {
                    tag: text(item.get("tag")).into(),
                    reason: text(item.get("reason")).into(),
                    until: item.get("until").and_then(|d| self.date(source, d)),
                });
            }
            Some((self.setting(source, severity, span("follows"), n), FollowsRule { target, withdrawn }))
        });
        let member_of = asked(node.get("memberOf")).and_then(|n| {
            let target = self.relation(context, class, n.get("class").unwrap_or(n), "memberOf")?;
            Some((self.setting(source, severity, span("memberOf"), n), target))
        });
        let members_tagged = asked(node.get("membersTagged")).map(|n| {
            let by = n
                .get("by")
                .or(Some(n).filter(|n| n.as_str().is_some()))
                .and_then(|by| self.relation(context, class, by, "membersTagged"));
            (self.setting(source, severity, span("membersTagged"), n), by)
        });
        let keeps_platforms = asked(node.get("keepsPlatforms")).map(|n| {
            let own = &context.classes[class];
            let major: Arc<str> = "major".into();
            let has_major = own.forms.iter().all(|f| f.names().contains(&major));
            let shared = if has_major { vec![major] } else { Vec::new() };
            let line = add_line(&mut context.lines, class, &context.identities[class], None, shared.clone());
            (self.setting(source, severity, span("keepsPlatforms"), n), KeepsPlatforms { shared, line })
        });
        let kind = match asked(node.get("kind")) {
            Some(n) => {
                let wanted = match text(Some(n.get("is").unwrap_or(n))) {
                    "chart" => WantedKind::Chart,
                    "artifact" => WantedKind::Artifact,
                    _ => WantedKind::Image,
                };
                Some((self.setting(source, severity, span("kind"), n), wanted))
            }
            // Whoever asks for an index or platforms means an image.
            None => index.as_ref().map(|(s, _)| s).or(platforms.as_ref().map(|(s, _)| s)).map(|s| {
                (
                    Setting { wait: SignedDuration::ZERO, note: None, enforce: Vec::new(), ..s.clone() },
                    WantedKind::Image,
                )
            }),
        };
        Requirements {
            kind,
            index,
            platforms,
            keeps_platforms,
            intact: plain(self, "intact"),
            immutable,
            present: plain(self, "present"),
            follows,
            member_of,
            members_tagged,
            locked: plain(self, "locked"),
            config: self.schema(context, node, "config"),
            manifest: self.schema(context, node, "manifest"),
            expect: self.expressions(source, severity, node),
        }
    }

    /// A platform set by its name, or a list written in place.
    fn platform_use(&mut self, context: &mut Context<'_>, node: &Node) -> Option<Arc<PlatformSet>> {
        let Some(name) = node.as_str() else {
            let platforms = self.platforms(context.source, Some(node));
            return Some(Arc::new(PlatformSet { name: None, revisions: vec![Revision { from: None, platforms }] }));
        };
        if let Some((set, _)) = self.sets.get(name) {
            context.sets_used.push(name.to_owned());
            return Some(set.clone());
        }
        if self.doubts.sets {
            return None;
        }
        let label = nearest(name, self.sets.keys().map(String::as_str)).map_or_else(
            || "there is no PlatformSet of this name".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        self.fault(context.source, node.span, "unknown-platform-set", format!("unknown platform set `{name}`"), label);
        None
    }

    /// The class that a relation names, the captures shared with it, and lines both ways.
    fn relation(
        &mut self,
        context: &mut Context<'_>,
        class: usize,
        node: &Node,
        relation: &'static str,
    ) -> Option<Relation> {
        let name = text(Some(node));
        let Some(target) = context.classes.iter().position(|c| &*c.name == name) else {
            // It may be the class whose own name is told to be missing.
            if context.classes.iter().any(|c| c.name.is_empty()) {
                return None;
            }
            let label = nearest(name, context.classes.iter().map(|c| &*c.name))
                .map_or_else(|| "there is no class of this name".to_owned(), |near| format!("did you mean `{near}`?"));
            self.fault(
                context.source,
                node.span,
                "unknown-class",
                format!("`{relation}` names the class `{name}`, which the policy does not have"),
                label,
            );
            return None;
        };
        if target == class {
            self.fault(
                context.source,
                node.span,
                "self-relation",
                format!("`{relation}` names its own class"),
                "name another class",
            );
            return None;
        }
        let (own, other) = (&context.classes[class], &context.classes[target]);
        // A class without a form is one whose form is told to be wrong.
        if own.forms.is_empty() || other.forms.is_empty() {
            return None;
        }
        let theirs = names_of_all(other);
        let mut by_form = Vec::with_capacity(own.forms.len());
        for (n, form) in own.forms.iter().enumerate() {
            let mut shared: Vec<Arc<str>> = form.names().iter().filter(|name| theirs.contains(name)).cloned().collect();
            shared.sort();
            if shared.is_empty() && relation != "follows" {
                self.fault(
                    context.source,
                    node.span,
                    "no-shared-capture",
                    format!("the form `{form}` and the class `{}` share no capture, so `{relation}` would pair every tag with every other", other.name),
                    "give both forms the same placeholders",
                );
                return None;
            }
            by_form.push(Pairing {
                theirs: add_line(&mut context.lines, target, &context.identities[target], None, shared.clone()),
                ours: add_line(&mut context.lines, class, &context.identities[class], Some(n), shared.clone()),
                shared,
            });
        }
        Some(Relation { class: target, by_form })
    }

    /// A JSON Schema: inline, `file:NAME`, or either under `schema:`/`file:` beside severity, for and note.
    fn schema(&mut self, context: &mut Context<'_>, node: &Node, key: &str) -> Option<(Setting, Arc<Schema>)> {
        let (source, severity) = (context.source, context.severity);
        let (name, value) = node.entry(key)?;
        let wrapped = value.get("schema").or_else(|| value.get("file"));
        let setting = self.setting(source, severity, name.span, if wrapped.is_some() { value } else { unwritten() });
        let schema = wrapped.unwrap_or(value);
        let json = match schema.as_str() {
            Some(path) => {
                let path = path.strip_prefix("file:").unwrap_or(path);
                let read = (self.read_file)(source, path);
                let parsed = |text: String| {
                    let json: Result<serde_json::Value, _> = serde_json::from_str(&text);
                    json.map(|json| (json, text)).map_err(|error| error.to_string())
                };
                match read.and_then(parsed) {
                    Ok((json, text)) => {
                        context.files.push(text);
                        json
                    }
                    Err(error) => {
                        let message = format!("cannot read the schema `{path}`: {error}");
                        self.fault(
                            source,
                            schema.span,
                            "unreadable-schema",
                            message,
                            "a JSON Schema beside the policy",
                        );
                        return None;
                    }
                }
            }
            None => schema.to_json(),
        };
        match Schema::foreign(json) {
            Ok(schema) => Some((setting, Arc::new(schema))),
            Err(error) => {
                self.fault(
                    source,
                    schema.span,
                    "invalid-schema",
                    error.to_string(),
                    "a JSON Schema of draft 2020-12 that stands for itself",
                );
                None
            }
        }
    }

    fn expressions(&mut self, source: &Source, severity: Severity, node: &Node) -> Option<(Setting, Vec<Expression>)> {
        let (key, value) = node.entry("expect")?;
        let mut expressions = Vec::new();
        for item in value.get("expressions").unwrap_or(value).items() {
            match Expression::compile(text(item.get("name")), text(item.get("cel")), text(item.get("message"))) {
                Ok(expression) => expressions.push(expression),
                Err(error) => {
                    let span = item.get("cel").map_or(item.span, |n| n.span);
                    let written = text(item.get("cel"));
                    let bytes = |at: usize| written.char_indices().nth(at).map_or(written.len(), |(byte, _)| byte);
                    let range = bytes(error.range.start)..bytes(error.range.end);
                    let exact = within(source, span, written, &range);
                    self.fault(source, exact, "invalid-expression", error.message, error.help);
                }
            }
        }
        Some((self.setting(source, severity, key.span, value), expressions))
    }
}

fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|n| (strsim::jaro_winkler(name, n), n))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, n)| n)
}
