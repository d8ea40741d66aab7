//! The JSON API: the record as lists, acceptances, and checks.

use std::collections::HashSet;

use hyper::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::query::{Query, quote};
use super::respond::{self, Fault};
use super::{Check, CheckError, Retry};
use crate::history::{Origin, Period};
use crate::image::{Host, Reference, RepositoryName, Tag};
use crate::listen::Answer;
use crate::policy::{self, Fact, Question, State};
use crate::report::{dead_letter_json, event_json, history_json, listing_json, violation_json};
use crate::store::{DeadLetter, Paging, Recheck, Store, ViolationFilter};

/// Longest reason of an acceptance, in characters.
const REASON_CHARS_MAX: usize = 1_000;
/// Most dead letters on one page.
const DEAD_LETTERS_MAX: usize = 50;
/// Most references of one check.
const TARGETS_MAX: usize = 100;

/// `GET /api/v1/violations`
pub(super) async fn violations<S: Store>(store: &S, query: &str) -> Result<Answer, Fault> {
    let allowed = &["state", "registry", "repository", "policy", "limit", "cursor"];
    let mut query = Query::read(query, allowed)?;
    let states = query.text("state").unwrap_or_default();
    let states = states.split(',').filter(|word| !word.is_empty()).map(|word| {
        let unknown = || Fault::Invalid(format!("`state`: `{}` is none of pending, firing, resolved", quote(word)));
        State::from_word(word).ok_or_else(unknown)
    });
    let filter = ViolationFilter {
        states: states.collect::<Result<_, _>>()?,
        registry: query.parsed("registry")?,
        repository: query.parsed::<RepositoryName>("repository")?.map(|name| name.to_string()),
        policy: query.text("policy"),
    };
    let page = store.violations(filter, query.paging()?).await?;
    let items = page.items.iter().map(violation_json).collect();
    Ok(respond::json(StatusCode::OK, &listing_json("violations", items, page.next.as_deref())))
}

/// `GET /api/v1/verdicts`
pub(super) async fn verdicts<S: Store>(store: &S, query: &str) -> Result<Answer, Fault> {
    let mut query = Query::read(query, &["registry", "repository", "tag", "limit", "cursor"])?;
    let registry: Option<Host> = query.parsed("registry")?;
    let repository = query.parsed::<RepositoryName>("repository")?.map(|name| name.to_string());
    let tag: Option<Tag> = query.parsed("tag")?;
    let page = store.verdicts(registry, repository, tag, query.paging()?).await?;
    // Each is a JSON object already, written by the report's own code.
    let next = json!(page.next);
    let text = format!(r#"{{"verdicts":[{}],"next":{next}}}"#, page.items.join(","));
    Ok(respond::raw_json(StatusCode::OK, text))
}

/// `GET /api/v1/history`
pub(super) async fn history<S: Store>(store: &S, query: &str) -> Result<Answer, Fault> {
    let mut query = Query::read(query, &["reference", "limit", "cursor"])?;
    let reference: Option<Reference> = query.parsed("reference")?;
    let whole = "`reference` is missing: write HOST/REPOSITORY:TAG, as in `contoso.azurecr.io/iot/sensor:1.0.1`";
    let reference = reference.ok_or_else(|| Fault::Invalid(whole.to_owned()))?;
    let tag =
        reference.tag.ok_or_else(|| Fault::Invalid("`reference`: a history is a tag's: add `:TAG`".to_owned()))?;
    let paging = query.paging()?;
    let answers = store.answer(&reference.repository, vec![Question::Tag(tag.clone())]).await?;
    let history = answers.into_iter().find_map(|(_, answer)| match answer {
        policy::Answer::Tag(Fact::Known(record)) => record.history.clone(),
        _ => None,
    });
    let mut periods = history.map(|history| history.periods()).unwrap_or_default();
    if periods.is_empty() {
        return Err(Fault::Unknown(format!("there is no record of {}:{tag}", reference.repository)));
    }
    if let Some(digest) = &reference.digest {
        periods.retain(|period| period.digest.as_ref() == Some(digest));
    }
    periods.reverse();
    let (items, next) = page_of(&periods, &paging)?;
    let items = items.iter().map(history_json).collect();
    Ok(respond::json(StatusCode::OK, &listing_json("history", items, next.as_deref())))
}

/// The page of a list that is at hand as a whole; the cursor is how many were shown.
fn page_of<'a>(all: &'a [Period], paging: &Paging) -> Result<(&'a [Period], Option<String>), Fault> {
    let from = match &paging.cursor {
        None => 0,
        Some(cursor) => cursor
            .parse()
            .ok()
            .filter(|from| *from <= all.len())
            .ok_or_else(|| Fault::Invalid("`cursor` is not one of this listing".to_owned()))?,
    };
    let to = all.len().min(from + paging.limit);
    Ok((&all[from..to], (to < all.len()).then(|| to.to_string())))
}

/// `GET /api/v1/events`
pub(super) async fn events<S: Store>(
    store: &S,
    open: &HashSet<String>,
    query: &str,
    now: Timestamp,
) -> Result<Answer, Fault> {
    let mut query = Query::read(query, &["since", "source", "id", "limit", "cursor"])?;
    let since = query.text("since").map(|text| since(&text, now)).transpose()?;
    let (source, id) = (query.text("source"), query.text("id"));
    let mut page = store.events(since, source, id, query.paging()?).await?;
    page.items.iter_mut().for_each(|row| row.unauthenticated = open.contains(&row.source));
    let items = page.items.iter().map(event_json).collect();
    Ok(respond::json(StatusCode::OK, &listing_json("events", items, page.next.as_deref())))
}

/// A time, or how long ago.
fn since(text: &str, now: Timestamp) -> Result<Timestamp, Fault> {
    let ago = || text.parse::<SignedDuration>().ok().and_then(|ago| now.checked_sub(ago.abs()).ok());
    text.parse().ok().or_else(ago).ok_or_else(|| {
        let text = quote(text);
        Fault::Invalid(format!("`since`: `{text}` is neither a time (`2026-11-22T10:00:00Z`) nor a duration (`24h`)"))
    })
}

/// `GET /api/v1/dead-letters`
pub(super) async fn dead_letters<S: Store>(store: &S, open: &HashSet<String>, query: &str) -> Result<Answer, Fault> {
    let mut query = Query::read(query, &["limit", "cursor"])?;
    let paging = query.paging()?;
    // Each is read whole, and may have a mebibyte.
    let page = store.dead_letters(Paging { limit: paging.limit.min(DEAD_LETTERS_MAX), ..paging }).await?;
    let item = |letter: &DeadLetter| {
        let mut item = dead_letter_json(letter);
        if open.contains(&*letter.source) {
            item["unauthenticated"] = json!(true);
        }
        item
    };
    let items = page.items.iter().map(item).collect();
    Ok(respond::json(StatusCode::OK, &listing_json("dead-letters", items, page.next.as_deref())))
}

/// `POST /api/v1/dead-letters/retry`
pub(super) async fn retry(retry: &dyn Retry) -> Result<Answer, Fault> {
    match retry.retry().await {
        Ok(text) => Ok(respond::raw_json(StatusCode::OK, text)),
        Err(CheckError::Refused(message)) => Err(Fault::Invalid(message)),
        Err(CheckError::Unavailable(message)) => Err(Fault::Unavailable(message)),
    }
}

/// What an acceptance says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acceptance {
    reference: String,
    reason: String,
}

/// `POST /api/v1/acceptances`
pub(super) async fn accept<S: Store>(store: &S, body: &[u8], now: Timestamp) -> Result<Answer, Fault> {
    let Acceptance { reference, reason } = parse(body, r#"{"reference": "HOST/REPO:TAG@DIGEST", "reason": "…"}"#)?;
    let parsed: Reference = reference.parse().map_err(|error| Fault::Invalid(format!("`reference`: {error}")))?;
    let (Some(tag), Some(digest)) = (&parsed.tag, &parsed.digest) else {
        let whole = "`reference`: an acceptance names a tag and its digest: HOST/REPO:TAG@DIGEST";
        return Err(Fault::Invalid(whole.to_owned()));
    };
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
        return Err(Fault::Invalid(format!("`reason` must be one line of 1 to {REASON_CHARS_MAX} characters")));
    }
    store.accept(&parsed.repository, tag, digest, reason, now).await?;
    // What fired because the tag moved is judged again at once.
    let recheck = Recheck { tag: Some(tag.clone()), due: now, origin: Origin::PolicyChange, attempts: 0 };
    store.recheck(&parsed.repository, vec![recheck]).await?;
    tracing::info!(image.repository = %parsed.repository, image.tag = %tag, image.digest = %digest, reason, "a digest was accepted");
    Ok(respond::json(
        StatusCode::CREATED,
        &json!({ "reference": parsed.to_string(), "reason": reason, "acceptedAt": now.to_string() }),
    ))
}

/// What a check asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckRequest {
    targets: Vec<String>,
}

/// `POST /api/v1/check`
pub(super) async fn check(check: &dyn Check, body: &[u8]) -> Result<Answer, Fault> {
    let CheckRequest { targets } = parse(body, r#"{"targets": ["HOST/REPO:TAG"]}"#)?;
    if targets.is_empty() || targets.len() > TARGETS_MAX {
        return Err(Fault::Invalid(format!("`targets` must have 1 to {TARGETS_MAX} references")));
    }
    let references =
        targets.iter().map(|target| target.parse().map_err(|error| Fault::Invalid(format!("`targets`: {error}"))));
    let references: Vec<Reference> = references.collect::<Result<_, _>>()?;
    match check.check(references).await {
        Ok(report) => Ok(respond::raw_json(StatusCode::OK, report)),
        Err(CheckError::Refused(message)) => Err(Fault::Invalid(message)),
        Err(CheckError::Unavailable(message)) => Err(Fault::Unavailable(message)),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], shape: &str) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault::Invalid(format!("{error}; the body is {shape}")))
}
