//! Which repositories a policy governs: globs over `registry-host/repository`, and the index that finds the
//! policies of a repository without asking each.
//!
//! `*` stays inside one path segment, `**` is any number of segments (at the end: at least one), `!`
//! excludes, and a later entry wins over an earlier one (threat T-40: matching is by whole segments, so
//! `team` is not `team-evil`).

use std::collections::HashMap;

use crate::image::Repository;

/// Longest glob, in bytes: a host and a repository name have at most 255 together, and a few stars.
const GLOB_BYTES_MAX: usize = 512;

/// Why a text is no glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing there.
    #[error("an empty pattern matches nothing")]
    Empty,
    /// Longer than any repository.
    #[error("the pattern is longer than {GLOB_BYTES_MAX} bytes")]
    TooLong,
    /// A character that no host and no repository has.
    #[error("`{0}` never occurs in a repository; patterns are HOST/REPOSITORY with `*` and `**`")]
    Character(char),
    /// No host in front.
    #[error("the pattern names no registry: begin with its host, as in `contoso.azurecr.io/iot/**`, or with `**/`")]
    NoHost,
    /// `**` beside other characters.
    #[error("`**` stands alone between slashes")]
    Stars,
    /// Two slashes with nothing between.
    #[error("a segment is empty")]
    EmptySegment,
}

/// One glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Box<str>),
    /// Literal parts between stars: `a*b` is `["a", "b"]`.
    Wild(Vec<Box<str>>),
    Any,
}

impl Segment {
    fn matches(&self, text: &str) -> bool {
        match self {
            Segment::Literal(literal) => **literal == *text,
            Segment::Wild(parts) => wild(parts, text),
            Segment::Any => true,
        }
    }
}

/// Greedy matching of literal parts in order: linear, since a star takes whatever lies between.
fn wild(parts: &[Box<str>], text: &str) -> bool {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return true };
    let Some(mut rest) = text.strip_prefix(&**first) else { return false };
    if parts.len() == 1 {
        return rest.is_empty();
    }
    for part in &parts[1..parts.len() - 1] {
        match rest.find(&**part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(&**last)
}

/// A pattern for tags, with `*` for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagGlob {
    parts: Vec<Box<str>>,
}

impl TagGlob {
    /// A pattern out of its text; every text is one.
    pub fn new(text: &str) -> TagGlob {
        TagGlob { parts: text.split('*').map(Into::into).collect() }
    }

    /// Whether the whole tag matches.
    pub fn matches(&self, tag: &str) -> bool {
        wild(&self.parts, tag)
    }
}

impl Glob {
    /// Compiles a glob, without its `!`.
    ///
    /// # Errors
    /// What [`GlobError`] lists.
    pub fn parse(text: &str) -> Result<Glob, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > GLOB_BYTES_MAX {
            return Err(GlobError::TooLong);
        }
        if let Some(bad) = text.chars().find(|c| {
            !(c.is_ascii_lowercase()
                || c.is_ascii_digit()
                || matches!(c, '.' | '_' | '-' | '/' | ':' | '*' | '[' | ']'))
        }) {
            return Err(GlobError::Character(bad));
        }
        let segments: Vec<Segment> = text
            .split('/')
            .map(|segment| match segment {
                "" => Err(GlobError::EmptySegment),
                "**" => Ok(Segment::Any),
                _ if segment.contains("**") => Err(GlobError::Stars),
                _ if segment.contains('*') => Ok(Segment::Wild(segment.split('*').map(Into::into).collect())),
                _ => Ok(Segment::Literal(segment.into())),
            })
            .collect::<Result<_, _>>()?;
        if segments.len() == 1 && segments[0] != Segment::Any {
            return Err(GlobError::NoHost);
        }
        Ok(Glob { segments })
    }

    /// Whether the glob matches a repository.
    pub fn matches(&self, repository: &Repository) -> bool {
        matches_segments(&self.segments, &path(repository))
    }
}

fn path(repository: &Repository) -> Vec<&str> {
    std::iter::once(repository.host.as_str()).chain(repository.name.as_str().split('/')).collect()
}

/// Iterative matching with one point to go back to: `**` takes as few segments as it can.
fn matches_segments(glob: &[Segment], path: &[&str]) -> bool {
    let (mut g, mut p) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        match glob.get(g) {
            Some(Segment::Any) if g + 1 == glob.len() => return p < path.len(),
            Some(Segment::Any) => {
                back = Some((g, p));
                g += 1;
                continue;
            }
            Some(segment) if p < path.len() && segment.matches(path[p]) => {
                g += 1;
                p += 1;
                continue;
            }
            None if p == path.len() => return true,
            _ => {}
        }
        match &mut back {
            Some((star, from)) if *from < path.len() => {
                *from += 1;
                g = *star + 1;
                p = *from;
            }
            _ => return false,
        }
    }
}

/// What a policy governs: globs in order, later ones winning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    entries: Vec<(bool, Glob)>,
}

impl Scope {
    /// A scope of entries in order, each with whether it includes.
    pub fn new(entries: Vec<(bool, Glob)>) -> Scope {
        Scope { entries }
    }

    /// Whether the last entry that matches includes.
    pub fn governs(&self, repository: &Repository) -> bool {
        let path = path(repository);
        self.entries
            .iter()
            .rev()
            .find(|(_, glob)| matches_segments(&glob.segments, &path))
            .is_some_and(|(includes, _)| *includes)
    }

    fn including(&self) -> impl Iterator<Item = &Glob> {
        self.entries.iter().filter(|(includes, _)| *includes).map(|(_, glob)| glob)
    }
}

/// The policies by their globs: a tree over path segments, so that finding those of a repository costs by the
/// length of its name and by those found, not by how many policies there are.
#[derive(Debug, Clone, Default)]
pub struct ScopeIndex {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    literal: HashMap<Box<str>, usize>,
    wild: Wild,
    any: Option<usize>,
    /// Whether this node stands behind a `**`, so that it stays reachable by every further segment.
    behind_any: bool,
    /// Policies whose glob ends here.
    here: Vec<usize>,
    /// Policies whose glob ends in `**` here.
    below: Vec<usize>,
}

/// Segments with stars at one node, found by the text before their first star: a thousand of the form `team-7-*`
/// cost no more than one.
#[derive(Debug, Clone, Default)]
struct Wild {
    by_head: HashMap<Box<str>, Vec<(Segment, usize)>>,
    /// How long these texts are, each length once.
    lengths: Vec<usize>,
}

impl Wild {
    /// The node of a segment, made by `next` where there is none.
    fn entry(&mut self, segment: &Segment, next: usize) -> usize {
        let head: &str = match segment {
            Segment::Wild(parts) => parts.first().map_or("", |part| part),
            Segment::Literal(_) | Segment::Any => "",
        };
        if !self.lengths.contains(&head.len()) {
            self.lengths.push(head.len());
        }
        let same = self.by_head.entry(head.into()).or_default();
        match same.iter().find(|(known, _)| known == segment) {
            Some((_, known)) => *known,
            None => {
                same.push((segment.clone(), next));
                next
            }
        }
    }

    /// The nodes that a segment's text leads to.
    fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        let heads = self.lengths.iter().filter_map(|length| text.get(..*length));
        heads
            .filter_map(|head| self.by_head.get(head))
            .flatten()
            .filter(|(segment, _)| segment.matches(text))
            .map(|(_, node)| *node)
    }
}

impl ScopeIndex {
    /// An index of scopes; what is found are their places in the slice.
    pub fn new<'a>(scopes: impl IntoIterator<Item = &'a Scope>) -> ScopeIndex {
        let mut index = ScopeIndex { nodes: vec![Node::default()] };
        for (place, scope) in scopes.into_iter().enumerate() {
            for glob in scope.including() {
                index.insert(glob, place);
            }
        }
        index
    }

    fn insert(&mut self, glob: &Glob, place: usize) {
        let mut at = 0;
        let last = glob.segments.len() - 1;
        for (n, segment) in glob.segments.iter().enumerate() {
            if *segment == Segment::Any && n == last {
                self.nodes[at].below.push(place);
                return;
            }
            let next = self.nodes.len();
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Literal(text) => *node.literal.entry(text.clone()).or_insert(next),
                Segment::Any => *node.any.get_or_insert(next),
                wild => node.wild.entry(wild, next),
            };
            if at == next {
                self.nodes.push(Node { behind_any: *segment == Segment::Any, ..Node::default() });
            }
        }
        self.nodes[at].here.push(place);
    }

    /// The scopes one of whose including globs matches, in order, each once. Exclusions are the scope's own
    /// business: ask [`Scope::governs`].
    pub fn find(&self, repository: &Repository) -> Vec<usize> {
        let mut found = Vec::new();
        let path = path(repository);
        // Nodes that the path so far leads to. `**` in the middle stays as it is for every further segment.
        let mut front: Vec<usize> = Vec::with_capacity(4);
        self.enter(0, &mut front);
        for segment in &path {
            let mut next: Vec<usize> = Vec::with_capacity(4);
            for &at in &front {
                let node = &self.nodes[at];
                found.extend_from_slice(&node.below);
                if let Some(&to) = node.literal.get(*segment) {
                    self.enter(to, &mut next);
                }
                for to in node.wild.find(segment) {
                    self.enter(to, &mut next);
                }
            }
            // A node reached through `**` may be reached again by the next segment.
            for &at in &front {
                if self.nodes[at].behind_any && !next.contains(&at) {
                    next.push(at);
                }
            }
            front = next;
        }
        for &at in &front {
            found.extend_from_slice(&self.nodes[at].here);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Adds a node, and the one behind its `**`, which may stand for no segment.
    fn enter(&self, at: usize, front: &mut Vec<usize>) {
        if front.contains(&at) {
            return;
        }
        front.push(at);
        if let Some(any) = self.nodes[at].any {
            self.enter(any, front);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repository(text: &str) -> Repository {
        text.parse().unwrap()
    }

    #[test]
    fn t40_globs_match_whole_segments() {
        for (glob, text, good) in [
            ("contoso.azurecr.io/iot/**", "contoso.azurecr.io/iot/sensor", true),
            ("contoso.azurecr.io/iot/**", "contoso.azurecr.io/iot/a/b", true),
            ("contoso.azurecr.io/iot/**", "contoso.azurecr.io/iot", false),
            ("contoso.azurecr.io/iot/**", "contoso.azurecr.io/iot-evil/x", false),
            ("contoso.azurecr.io/team", "contoso.azurecr.io/team-evil", false),
            ("contoso.azurecr.io/*", "contoso.azurecr.io/a", true),
            ("contoso.azurecr.io/*", "contoso.azurecr.io/a/b", false),
            ("contoso.azurecr.io/iot-*", "contoso.azurecr.io/iot-x", true),
            ("**/sensor", "contoso.azurecr.io/iot/sensor", true),
            ("**", "localhost:5000/a", true),
            ("*.azurecr.io/**/x", "contoso.azurecr.io/x", true),
            ("*.azurecr.io/**/x", "contoso.azurecr.io/a/b/x", true),
            ("*.azurecr.io/**/x", "contosozazurecr-io/x", false),
            ("localhost:5000/a*b*c", "localhost:5000/axxbyyc", true),
            ("localhost:5000/a*b*c", "localhost:5000/acb", false),
        ] {
            assert_eq!(Glob::parse(glob).unwrap().matches(&repository(text)), good, "{glob} {text}");
        }
        for bad in ["", "iot", "a//b", "a/b**", "A/b", "a/b?"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_later_entry_wins() {
        let scope = Scope::new(vec![
            (true, Glob::parse("r.io/iot/**").unwrap()),
            (false, Glob::parse("r.io/iot/sandbox/**").unwrap()),
            (true, Glob::parse("r.io/iot/sandbox/kept").unwrap()),
        ]);
        assert!(scope.governs(&repository("r.io/iot/sensor")));
        assert!(!scope.governs(&repository("r.io/iot/sandbox/x")));
        assert!(scope.governs(&repository("r.io/iot/sandbox/kept")));
        assert!(!scope.governs(&repository("r.io/other")));
    }

    proptest! {
        #[test]
        fn the_index_finds_what_the_globs_match(
            globs in proptest::collection::vec("(r\\.io|\\*|\\*\\*)(/(a|b|a\\*|\\*|\\*\\*)){0,4}", 1..12),
            name in "(a|b|ab)(/(a|b|ab)){0,4}",
        ) {
            let scopes: Vec<Scope> = globs.iter().filter_map(|g| Glob::parse(g).ok()).map(|g| Scope::new(vec![(true, g)])).collect();
            let repository = repository(&format!("r.io/{name}"));
            let straight: Vec<usize> = scopes.iter().enumerate().filter(|(_, s)| s.governs(&repository)).map(|(n, _)| n).collect();
            prop_assert_eq!(ScopeIndex::new(&scopes).find(&repository), straight);
        }
    }
}
