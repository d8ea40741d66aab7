//! The questions that the program asks a registry, and what counts as an answer.

use std::str::FromStr;
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, DATE, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::challenge::{self, Expectation, Scope};
use super::error::{RegistryError, remote_text};
use super::gate::Health;
use super::locks::{self, Locks};
use super::page::{CatalogBody, Cursor, PAGE_BYTES_MAX, Page, TagsBody};
use super::settings::{Auth, Budget, Observer, Operation, Origin, Scheme, Settings, SettingsError, TokenService};
use super::token::SignIn;
use super::transport::{Answer, Ask, Spend, Transport};
use crate::image::{Digest, Host, MANIFEST_BYTES_MAX, MediaType, RepositoryName, Tag};

/// Most redirects of one read (threat model, section 5).
const REDIRECTS_MAX: u32 = 3;
/// Longest body of a greeting, in bytes: registries send `{}`, and proxies before them a page.
const GREETING_BYTES_MAX: u64 = 64 << 10;

/// One registry with one credential. Cheap to clone: clones share connections, tokens and pace.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    origin: Origin,
    token_service: Option<TokenService>,
    sign_in: SignIn,
    transport: Transport,
    has_locks: bool,
}

/// One resolution at one registry, with its budget. All methods may run side by side and share it.
pub struct Session {
    client: Client,
    spend: Spend,
}

/// A manifest whose bytes match its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The digest, computed here from the bytes.
    pub digest: Digest,
    /// The media type that it was served with.
    pub media_type: MediaType,
    /// The bytes as they were pushed.
    pub bytes: Bytes,
}

/// What a registry says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Its clock, where it tells it.
    pub time: Option<Timestamp>,
    /// What it makes of the credential.
    pub access: Access,
}

/// What a registry makes of the credential, before it is asked for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It asks for none.
    Open,
    /// It takes it.
    Accepted,
    /// It refuses it, in its own words.
    Refused(RegistryError),
    /// Only asking for something tells: there is no credential, or one that is good for named rights only.
    Unknown,
}

/// What a read is about.
struct Read<'a> {
    operation: Operation,
    method: Method,
    path: String,
    scope: Scope,
    accept: &'a str,
    limit: u64,
    redirects: bool,
}

impl Client {
    /// A client for one registry. Opens no connection.
    pub fn new(settings: Settings, observer: Arc<dyn Observer>) -> Result<Client, SettingsError> {
        settings.check()?;
        let transport = Transport::new(&settings, observer.clone())?;
        let origin = settings.origin();
        let sign_in = SignIn::new(&settings, observer)?;
        let has_locks = matches!(settings.auth, Auth::Azure(_)) || locks::has_locks(&settings.host);
        let inner = Inner { origin, token_service: settings.token_service, sign_in, transport, has_locks };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// The registry's name in references.
    pub fn host(&self) -> &Host {
        self.inner.transport.registry()
    }

    /// Whether the registry has write locks, which [`Session::locks`] reads: it is Azure's by its name or its sign-in.
    pub fn has_locks(&self) -> bool {
        self.inner.has_locks
    }

    /// Whether the registry is worth asking now, by how the latest requests of all sessions ended.
    pub fn health(&self) -> Health {
        self.inner.transport.health()
    }

    /// How long the registry has answered nothing, from the first to the latest of the requests that failed since its
    /// last answer; `None` while it answers, or was not asked.
    pub fn unanswered(&self) -> Option<std::time::Duration> {
        self.inner.transport.unanswered()
    }

    /// Whether it answered the latest request that ended.
    pub fn answers(&self) -> bool {
        self.inner.transport.answers()
    }

    /// Begins a resolution; its time runs from now.
    pub fn session(&self, budget: Budget) -> Session {
        Session { client: self.clone(), spend: Spend::new(budget) }
    }
}

impl Session {
    /// The registry's name in references.
    pub fn host(&self) -> &Host {
        self.client.host()
    }

    /// Whether a registry is there (`GET /v2/`), what time it has, and whether it takes the credential.
    ///
    /// # Errors
    /// No answer, or one that no registry gives.
    pub async fn greet(&self) -> Result<Greeting, RegistryError> {
        let inner = &*self.client.inner;
        let read = Read {
            operation: Operation::Greet,
            method: Method::GET,
            path: "/v2/".to_owned(),
            scope: Scope::Login,
            accept: "application/json",
            limit: GREETING_BYTES_MAX,
            redirects: false,
        };
        let no_address = |_| RegistryError::Protocol("an address that cannot be built".into());
        let url = inner.origin.url(&read.path).map_err(no_address)?;
        let first = self.once(&read, &url, None).await?;
        let date = first.headers.get(DATE).and_then(|value| value.to_str().ok());
        let time = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok()).map(|zoned| zoned.timestamp());
        let access = match first.status {
            200 => Access::Open,
            401 if inner.sign_in.is_tried_by_login() => match self.log_in(&read, &url, &first).await {
                Ok(()) => Access::Accepted,
                Err(error @ (RegistryError::Unauthorized { .. } | RegistryError::Forbidden { .. })) => {
                    Access::Refused(error)
                }
                Err(error) => return Err(error),
            },
            401 => Access::Unknown,
            _ => return Err(failure(&first)),
        };
        Ok(Greeting { time, access })
    }

    async fn log_in(&self, read: &Read<'_>, url: &Url, refused: &Answer) -> Result<(), RegistryError> {
        let opening = self.client.inner.sign_in.fixed()?;
        let authorization = match opening {
            Some(value) => Some(value),
            None => self.answer_challenge(read, refused, None).await?,
        };
        let Some(authorization) = authorization else { return Err(failure(refused)) };
        let answer = self.once(read, url, Some(&authorization)).await?;
        if answer.status == 200 { Ok(()) } else { Err(failure(&answer)) }
    }

    /// Where `tag` points now, without its manifest. `None`: the registry says that there is no such tag.
    ///
    /// The digest is the registry's word and good only for asking for it (T-29).
    pub async fn head_tag(&self, name: &RepositoryName, tag: &Tag) -> Result<Option<Digest>, RegistryError> {
        let head = self.manifest(Operation::HeadManifest, Method::HEAD, name, tag.as_str()).await?;
        if head.status == 200
            && let Some(digest) = stated_digest(&head)?
        {
            return Ok(Some(digest));
        }
        match head.status {
            // A 404 to HEAD has no body that could say what is missing; registries may not offer HEAD, or not
            // the digest with it.
            200 | 404 | 405 => Ok(self.fetch_tag(name, tag).await?.map(|fetched| fetched.digest)),
            _ => Err(failure(&head)),
        }
    }

    /// What `tag` points to now: digest and bytes of one answer, so that nothing can change in between.
    pub async fn fetch_tag(&self, name: &RepositoryName, tag: &Tag) -> Result<Option<Fetched>, RegistryError> {
        let answer = self.manifest(Operation::GetManifest, Method::GET, name, tag.as_str()).await?;
        if !found(&answer)? {
            return Ok(None);
        }
        let digest = match stated_digest(&answer)? {
            Some(stated) => verified(stated, &answer.body)?,
            None => Digest::of(&answer.body),
        };
        fetched(digest, answer).map(Some)
    }

    /// The manifest of `digest`, verified.
    pub async fn fetch_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Fetched>, RegistryError> {
        let answer = self.manifest(Operation::GetManifest, Method::GET, name, digest.as_str()).await?;
        if !found(&answer)? {
            return Ok(None);
        }
        fetched(verified(digest.clone(), &answer.body)?, answer).map(Some)
    }

    /// Whether the registry says that it has the manifest of `digest`.
    pub async fn head_manifest(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, RegistryError> {
        let head = self.manifest(Operation::HeadManifest, Method::HEAD, name, digest.as_str()).await?;
        match head.status {
            200 => Ok(true),
            404 | 405 => Ok(self.fetch_manifest(name, digest).await?.is_some()),
            _ => Err(failure(&head)),
        }
    }

    /// The blob of `digest`, verified, of at most `bytes_max` bytes.
    pub async fn fetch_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        bytes_max: u64,
    ) -> Result<Option<Bytes>, RegistryError> {
        let answer = self.blob(Operation::GetBlob, Method::GET, name, digest, bytes_max).await?;
        if !found(&answer)? {
            return Ok(None);
        }
        verified(digest.clone(), &answer.body)?;
        Ok(Some(answer.body))
    }

    /// Whether the registry says that it has the blob of `digest`. `false` is the word of a status alone, as a
    /// missing blob cannot be asked for twice without the risk of reading a large one.
    pub async fn head_blob(&self, name: &RepositoryName, digest: &Digest) -> Result<bool, RegistryError> {
        let head = self.blob(Operation::HeadBlob, Method::HEAD, name, digest, 0).await?;
        match head.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(failure(&head)),
        }
    }

    /// A page of the tags of a repository, from the beginning or `after` an earlier page. `None`: the registry
    /// says that there is no such repository.
    pub async fn tags(&self, name: &RepositoryName, after: Option<Cursor>) -> Result<Option<Page<Tag>>, RegistryError> {
        let path = format!("/v2/{name}/tags/list");
        let list = self.list::<TagsBody>(Operation::ListTags, path, Scope::Pull(name.clone()), after).await?;
        Ok(list.map(|(body, next)| Page::of(body.tags, next)))
    }

    /// A page of the repositories of the registry. Many registries refuse this, or list only some.
    pub async fn catalog(&self, after: Option<Cursor>) -> Result<Page<RepositoryName>, RegistryError> {
        let list = self.list::<CatalogBody>(Operation::Catalog, "/v2/_catalog".into(), Scope::Catalog, after).await?;
        let (body, next) = list.ok_or(RegistryError::Unexpected { status: 404, said: String::new() })?;
        Ok(Page::of(body.repositories, next))
    }

    /// Whether the registry has write locks.
    pub fn has_locks(&self) -> bool {
        self.client.has_locks()
    }

    /// Whether the write locks on `tag` and on the manifest of `digest`, to which it leads, are set; of registries that
    /// have locks. The manifest is asked about only where the tag's own is set.
    ///
    /// # Errors
    /// Also where the registry says that there is no such tag, or where the credential may read content and not its
    /// attributes: that no lock was seen is not that there is none.
    pub async fn locks(&self, name: &RepositoryName, tag: &Tag, digest: &Digest) -> Result<Locks, RegistryError> {
        let body = self.attributes(name, format!("/acr/v1/{name}/_tags/{tag}")).await?;
        match locks::of_tag(&body, tag, digest)? {
            Locks::Set => {
                let body = self.attributes(name, format!("/acr/v1/{name}/_manifests/{digest}")).await?;
                locks::of_manifest(&body, digest)
            }
            other => Ok(other),
        }
    }

    async fn attributes(&self, name: &RepositoryName, path: String) -> Result<Bytes, RegistryError> {
        let read = Read {
            operation: Operation::GetLock,
            method: Method::GET,
            path,
            scope: Scope::Metadata(name.clone()),
            accept: "application/json",
            // A manifest's answer names all of its tags.
            limit: PAGE_BYTES_MAX,
            redirects: false,
        };
        let (answer, _) = self.read(&read).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(failure(&answer)) }
    }

    async fn manifest(
        &self,
        operation: Operation,
        method: Method,
        name: &RepositoryName,
        reference: &str,
    ) -> Result<Answer, RegistryError> {
        let read = Read {
            operation,
            method,
            path: format!("/v2/{name}/manifests/{reference}"),
            scope: Scope::Pull(name.clone()),
            accept: MediaType::ACCEPT,
            limit: MANIFEST_BYTES_MAX as u64,
            redirects: true,
        };
        self.read(&read).await.map(|(answer, _)| answer)
    }

    async fn blob(
        &self,
        operation: Operation,
        method: Method,
        name: &RepositoryName,
        digest: &Digest,
        limit: u64,
    ) -> Result<Answer, RegistryError> {
        let path = format!("/v2/{name}/blobs/{digest}");
        let scope = Scope::Pull(name.clone());
        let read = Read { operation, method, path, scope, accept: "*/*", limit, redirects: true };
        self.read(&read).await.map(|(answer, _)| answer)
    }

    async fn list<T: DeserializeOwned>(
        &self,
        operation: Operation,
        path: String,
        scope: Scope,
        after: Option<Cursor>,
    ) -> Result<Option<(T, Option<Cursor>)>, RegistryError> {
        let cursor = after.unwrap_or_else(Cursor::first);
        let read = Read {
            operation,
            method: Method::GET,
            path: format!("{path}?{}", cursor.query()),
            scope,
            accept: "application/json",
            limit: PAGE_BYTES_MAX,
            redirects: false,
        };
        let (answer, url) = self.read(&read).await?;
        if !found(&answer)? {
            return Ok(None);
        }
        let body = serde_json::from_slice(&answer.body).map_err(|error| {
            RegistryError::Protocol(format!(
                "a list that cannot be read: {}",
                remote_text(error.to_string().as_bytes())
            ))
        })?;
        Ok(Some((body, cursor.next(&url, &answer.headers)?)))
    }

    /// Asks, signs in at most once, and follows redirects without the credential (T-25, T-26).
    async fn read(&self, read: &Read<'_>) -> Result<(Answer, Url), RegistryError> {
        let inner = &*self.client.inner;
        let no_address = |_| RegistryError::Protocol("an address that cannot be built".into());
        let mut url = inner.origin.url(&read.path).map_err(no_address)?;
        let mut authorization = inner.sign_in.opening(&inner.transport, &self.spend, &read.scope).await?;
        let (mut challenged, mut redirects) = (false, 0);
        loop {
            let answer = self.once(read, &url, authorization.as_ref()).await?;
            match answer.status {
                401 if !challenged && redirects == 0 => {
                    challenged = true;
                    authorization = match self.answer_challenge(read, &answer, authorization.as_ref()).await? {
                        Some(value) => Some(value),
                        None => return Err(failure(&answer)),
                    };
                }
                301 | 302 | 303 | 307 | 308 => {
                    redirects += 1;
                    if !read.redirects || redirects > REDIRECTS_MAX {
                        return Err(RegistryError::Untrusted(
                            "the registry redirects where it must not, or too often".into(),
                        ));
                    }
                    url = redirect(&url, &answer)?;
                    // Gone once, it stays away: coming back to the registry does not bring it back.
                    if Origin::of_url(&url).as_ref() != Some(&inner.origin) {
                        authorization = None;
                    }
                }
                _ => return Ok((answer, url)),
            }
        }
    }

    /// Asks once, with this authorization.
    async fn once(
        &self,
        read: &Read<'_>,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RegistryError> {
        let mut headers = HeaderMap::new();
        let accept = HeaderValue::from_str(read.accept).map_err(|_| RegistryError::Protocol("accept".into()))?;
        headers.insert(ACCEPT, accept);
        authorization.into_iter().for_each(|value| drop(headers.insert(AUTHORIZATION, value.clone())));
        let ask = Ask {
            operation: read.operation,
            method: read.method.clone(),
            url,
            headers,
            body: Bytes::new(),
            limit: read.limit,
        };
        self.client.inner.transport.send(&self.spend, ask).await
    }

    async fn answer_challenge(
        &self,
        read: &Read<'_>,
        answer: &Answer,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let inner = &*self.client.inner;
        let expected =
            Expectation { origin: &inner.origin, token_service: inner.token_service.as_ref(), scope: &read.scope };
        let headers = answer.headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes);
        match challenge::demand(headers, &expected)? {
            Some(demand) => inner.sign_in.answer(&inner.transport, &self.spend, demand, refused).await,
            None => Ok(None),
        }
    }
}

/// Where a redirect leads. Its query may hold a signature, so messages never show it.
fn redirect(from: &Url, answer: &Answer) -> Result<Url, RegistryError> {
    let location =
        answer.one(LOCATION.as_str())?.ok_or_else(|| RegistryError::Protocol("a redirect to nowhere".into()))?;
    let to = from.join(location).map_err(|_| RegistryError::Protocol("a redirect to no address".into()))?;
    let origin = Origin::of_url(&to)
        .ok_or_else(|| RegistryError::Untrusted("a redirect to something other than https".into()))?;
    if !to.username().is_empty() || to.password().is_some() {
        return Err(RegistryError::Untrusted(format!("a redirect to {origin} with user information")));
    }
    if from.scheme() == "https" && origin.scheme() == Scheme::Http {
        return Err(RegistryError::Untrusted(format!("a redirect from https to {origin}")));
    }
    Ok(to)
}

/// Whether the content is there. `false` only where the body says in the protocol's own form that it is not:
/// a proxy's 404 means "not known" (T-33).
fn found(answer: &Answer) -> Result<bool, RegistryError> {
    match answer.status {
        200 => Ok(true),
        404 if says_not_there(&answer.body) => Ok(false),
        _ => Err(failure(answer)),
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn says_not_there(body: &[u8]) -> bool {
    // `NOT_FOUND` is Harbor's.
    const CODES: [&str; 5] = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "TAG_UNKNOWN", "BLOB_UNKNOWN", "NOT_FOUND"];
    serde_json::from_slice::<ErrorBody>(body)
        .is_ok_and(|body| !body.errors.is_empty() && body.errors.iter().all(|e| CODES.contains(&e.code.as_str())))
}

/// The error that an answer stands for, with the registry's words: its first error if it speaks the protocol.
fn failure(answer: &Answer) -> RegistryError {
    let parsed = serde_json::from_slice::<ErrorBody>(&answer.body).ok().and_then(|body| body.errors.into_iter().next());
    let said = match parsed {
        Some(entry) => remote_text(format!("{}: {}", entry.code, entry.message).as_bytes()),
        None => remote_text(&answer.body),
    };
    match answer.status {
        401 => RegistryError::Unauthorized { said },
        403 => RegistryError::Forbidden { said },
        status @ 500.. => RegistryError::Server { status, said },
        status => RegistryError::Unexpected { status, said },
    }
}

fn stated_digest(answer: &Answer) -> Result<Option<Digest>, RegistryError> {
    let stated = answer.one("docker-content-digest")?;
    stated.map(Digest::from_str).transpose().map_err(|error| RegistryError::Protocol(error.to_string()))
}

fn verified(expected: Digest, bytes: &[u8]) -> Result<Digest, RegistryError> {
    let actual = Digest::with(expected.algorithm(), bytes);
    if actual == expected || cfg!(sabotage = "no_digest_check") {
        Ok(actual)
    } else {
        Err(RegistryError::DigestMismatch { expected, actual })
    }
}

fn fetched(digest: Digest, answer: Answer) -> Result<Fetched, RegistryError> {
    let text = answer.one("content-type")?;
    let text = text.ok_or_else(|| RegistryError::Protocol("a manifest without a content type".into()))?;
    Ok(Fetched { digest, media_type: MediaType::parse(text), bytes: answer.body })
}
