//! Lists in pages. A `Link` is followed only to the same list at the same origin (T-26): what is kept of it is
//! the query, so that there is nothing else to follow.

use hyper::HeaderMap;
use hyper::header::LINK;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::error::{RegistryError, remote_text};
use super::settings::Origin;

/// Most pages of one list (threat model, section 5): 100,000 tags at the usual size.
pub const PAGES_MAX: u32 = 1_000;
/// Items asked for per page: the most that every registry known to us allows.
pub(super) const PAGE_ITEMS: u32 = 100;
/// Largest page read, in bytes. A thousand tags of the longest kind are 130 KiB; some registries answer everything at once.
pub(super) const PAGE_BYTES_MAX: u64 = 4 << 20;
/// Longest query of a link, in bytes: longer than any tag with its encoding.
const QUERY_BYTES_MAX: usize = 2_048;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in the registry's order, which means nothing.
    pub items: Vec<T>,
    /// How many more there were that are outside the grammar, and can be the name of nothing.
    pub skipped: usize,
    /// Where the list goes on.
    pub next: Option<Cursor>,
}

/// Where a list goes on. Good for the list that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    query: String,
    page: u32,
}

impl Cursor {
    /// The query of the first page.
    pub(super) fn first() -> Cursor {
        Cursor { query: format!("n={PAGE_ITEMS}"), page: 1 }
    }

    pub(super) fn query(&self) -> &str {
        &self.query
    }

    /// The cursor after this one, from the answer to `url`.
    pub(super) fn next(&self, url: &Url, headers: &HeaderMap) -> Result<Option<Cursor>, RegistryError> {
        let mut found = None;
        for header in headers.get_all(LINK) {
            let header = header.to_str().map_err(|_| unreadable())?;
            if let Some(target) = next_target(header)?
                && found.replace(target).is_some()
            {
                return Err(RegistryError::Protocol("more than one next page".into()));
            }
        }
        let Some(target) = found else { return Ok(None) };
        let next = url.join(target).map_err(|_| unreadable())?;
        let same_user = next.username().is_empty() && next.password().is_none();
        if Origin::of_url(&next) != Origin::of_url(url) || next.path() != url.path() || !same_user {
            let target = remote_text(target.as_bytes());
            return Err(RegistryError::Untrusted(format!("the next page is said to be elsewhere, at `{target}`")));
        }
        let query = next.query().unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            return Err(unreadable());
        }
        if query == self.query {
            return Err(RegistryError::Protocol("the next page of a list is the same page".into()));
        }
        if self.page == PAGES_MAX {
            return Err(RegistryError::Protocol(format!("a list of more than {PAGES_MAX} pages")));
        }
        Ok(Some(Cursor { query: query.to_owned(), page: self.page + 1 }))
    }
}

fn unreadable() -> RegistryError {
    RegistryError::Protocol("a Link header that cannot be read".into())
}

/// The target of the link whose relation is `next` (RFC 8288, section 3).
fn next_target(header: &str) -> Result<Option<&str>, RegistryError> {
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Ok(None);
        }
        let (target, after) = rest.strip_prefix('<').and_then(|r| r.split_once('>')).ok_or_else(unreadable)?;
        let mut quoted = false;
        let end = after
            .find(|c| {
                quoted ^= c == '"';
                c == ',' && !quoted
            })
            .unwrap_or(after.len());
        let (params, following) = after.split_at(end);
        let is_next = params.split(';').filter_map(|p| p.split_once('=')).any(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel")
                && value.trim().trim_matches('"').split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
        });
        if is_next {
            return Ok(Some(target));
        }
        rest = following;
    }
}

/// The body of `GET /v2/{name}/tags/list`. The field must be there: a proxy's `{}` must not read as "all tags
/// are gone" (T-33).
#[derive(Deserialize)]
pub(super) struct TagsBody {
    #[serde(deserialize_with = "null_is_none")]
    pub(super) tags: Vec<String>,
}

/// The body of `GET /v2/_catalog`.
#[derive(Deserialize)]
pub(super) struct CatalogBody {
    #[serde(deserialize_with = "null_is_none")]
    pub(super) repositories: Vec<String>,
}

/// Some registries say `null` where there are none.
fn null_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl<T: std::str::FromStr> Page<T> {
    /// A page of those `texts` that are well-formed.
    pub(super) fn of(texts: Vec<String>, next: Option<Cursor>) -> Page<T> {
        let all = texts.len();
        let items: Vec<T> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        Page { skipped: all - items.len(), items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Tag;

    fn follow(link: &str) -> Result<Option<Cursor>, RegistryError> {
        let url = Url::parse("https://r.io/v2/iot/sensor/tags/list?n=100").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(LINK, link.parse().unwrap());
        Cursor::first().next(&url, &headers)
    }

    #[test]
    fn t26_pages_stay_in_their_list() {
        for good in [
            r#"</v2/iot/sensor/tags/list?last=1.0&n=100>; rel="next""#,
            "</v2/iot/sensor/tags/list?last=1.0&n=100>; rel=next",
            r#"<list?last=1.0&n=100>; rel="next""#,
            r#"<https://r.io/v2/iot/sensor/tags/list?last=1.0&n=100>; title="a, b"; rel="next""#,
            r#"<https://evil.example/>; rel="prev", <?last=1.0&n=100>; rel="last next""#,
        ] {
            let cursor = follow(good).unwrap().unwrap();
            assert_eq!((cursor.query(), cursor.page), ("last=1.0&n=100", 2), "{good}");
        }
        for elsewhere in [
            "https://evil.example/v2/iot/sensor/tags/list?last=1",
            "//evil.example/v2/iot/sensor/tags/list?last=1",
            "http://r.io/v2/iot/sensor/tags/list?last=1",
            "https://r.io:8443/v2/iot/sensor/tags/list?last=1",
            "https://user@r.io/v2/iot/sensor/tags/list?last=1",
            "/v2/iot/other/tags/list?last=1",
            "/v2/iot/sensor/tags/list/../../../../admin?last=1",
            "/v2/iot/sensor/tags/list%2f..?last=1",
            "file:///etc/passwd",
        ] {
            let error = follow(&format!(r#"<{elsewhere}>; rel="next""#)).unwrap_err();
            assert!(matches!(error, RegistryError::Untrusted(_)), "{elsewhere}: {error}");
        }
        assert_eq!(follow(r#"</x>; rel="prev""#).unwrap(), None);
    }

    #[test]
    fn t31_a_list_advances_and_ends() {
        let same = r#"</v2/iot/sensor/tags/list?n=100>; rel="next""#;
        assert!(matches!(follow(same), Err(RegistryError::Protocol(_))));
        let url = Url::parse("https://r.io/v2/_catalog").unwrap();
        let mut cursor = Cursor::first();
        let mut pages = 1;
        let error = loop {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, format!("<?last={pages}>; rel=next").parse().unwrap());
            match cursor.next(&url, &headers) {
                Ok(next) => cursor = next.unwrap(),
                Err(error) => break error,
            }
            pages += 1;
        };
        assert!(matches!(error, RegistryError::Protocol(_)) && pages == PAGES_MAX, "{pages}: {error}");
    }

    #[test]
    fn t21_malformed_tags_are_skipped_and_counted() {
        let texts = ["1.0", "../etc", "", "a b", "latest"].map(str::to_owned).to_vec();
        let page: Page<Tag> = Page::of(texts, None);
        assert_eq!((page.items.len(), page.skipped), (2, 3));
    }
}
