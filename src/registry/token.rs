//! Signing in: from a checked demand to the `Authorization` of a request. Tokens are kept per realm and scope,
//! got once for all who need them at the same time, and never outlive an hour (T-27).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method};
use moka::Expiry;
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::azure::AzureLogin;
use super::challenge::{Demand, Realm, Scope};
use super::error::{RegistryError, remote_text};
use super::settings::{Auth, Observer, Operation, Settings, SettingsError};
use super::transport::{Answer, Ask, Spend, Transport};

/// Longest life of a token here, whatever it says of itself.
pub(super) const LIFE_MAX: Duration = Duration::from_secs(3_600);
/// The life of a token that says nothing (distribution specification, token authentication: 60 s).
const LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// How long before its end a token is no longer used, if that leaves most of its life.
const MARGIN_MAX: Duration = Duration::from_secs(300);
/// Tokens kept at a time; one for each repository in recent use. At 2 KiB each this is 8 MiB at most.
const TOKENS_MAX: u64 = 4_096;
/// Largest answer of a token service, in bytes; Azure's tokens with many groups come near 20 KiB.
pub(super) const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// The content type of a token request.
pub(super) const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// A token as it is sent, with its life.
#[derive(Clone)]
struct Token {
    header: HeaderValue,
    life: Duration,
}

struct Life;

impl Expiry<String, Token> for Life {
    fn expire_after_create(&self, _: &String, token: &Token, _: Instant) -> Option<Duration> {
        Some(token.life)
    }
}

/// The sign-in of one client: one origin and one credential, so its cache cannot mix up either.
pub(super) struct SignIn {
    auth: Auth,
    azure: Option<AzureLogin>,
    /// What the registry last demanded, so that the next request need not be refused first. Only the realm is
    /// kept; the scope is each request's own.
    learned: Mutex<Option<Learned>>,
    tokens: Cache<String, Token>,
}

#[derive(Clone)]
enum Learned {
    Basic,
    Bearer(Realm),
}

impl SignIn {
    pub(super) fn new(settings: &Settings, observer: Arc<dyn Observer>) -> Result<SignIn, SettingsError> {
        let azure = match &settings.auth {
            Auth::Azure(azure) => Some(AzureLogin::new(azure.clone(), settings, observer)?),
            _ => None,
        };
        let tokens = Cache::builder().max_capacity(TOKENS_MAX).expire_after(Life).build();
        Ok(SignIn { auth: settings.auth.clone(), azure, learned: Mutex::new(None), tokens })
    }

    /// Whether signing in without asking for a right says if the credential is good. Refresh tokens are exchanged only
    /// for named rights.
    pub(super) fn is_tried_by_login(&self) -> bool {
        matches!(self.auth, Auth::Basic { .. } | Auth::Token { .. })
    }

    /// The authorization that is the same for everything.
    pub(super) fn fixed(&self) -> Result<Option<HeaderValue>, RegistryError> {
        match &self.auth {
            Auth::Token { token } => bearer(token.expose_secret()).map(Some),
            _ => Ok(None),
        }
    }

    /// The authorization to begin with: what the registry demanded of an earlier request.
    pub(super) async fn opening(
        &self,
        transport: &Transport,
        spend: &Spend,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        if let Some(fixed) = self.fixed()? {
            return Ok(Some(fixed));
        }
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match learned {
            None => Ok(None),
            Some(Learned::Basic) => self.answer(transport, spend, Demand::Basic, None).await,
            Some(Learned::Bearer(realm)) => {
                self.answer(transport, spend, Demand::Bearer { realm, scope: scope.to_text() }, None).await
            }
        }
    }

    /// The authorization that `demand` asks for; `None` where this credential has none to give. A token equal to
    /// `refused` is not offered again.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        spend: &Spend,
        demand: Demand,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let (header, learned) = match demand {
            Demand::Basic => match &self.auth {
                Auth::Basic { user, password } => (basic(user, password)?, Learned::Basic),
                _ => return Ok(None),
            },
            Demand::Bearer { realm, scope } => {
                if matches!(self.auth, Auth::Token { .. }) {
                    return Ok(None);
                }
                let key = format!("{} {} {scope}", realm.url, realm.service.as_deref().unwrap_or_default());
                if let Some(refused) = refused
                    && self.tokens.get(&key).await.is_some_and(|token| token.header == *refused)
                {
                    self.tokens.invalidate(&key).await;
                }
                let token = self.token(transport, spend, &realm, &scope, key).await?;
                (token.header, Learned::Bearer(realm))
            }
        };
        *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = Some(learned);
        Ok(Some(header).filter(|header| refused != Some(header)))
    }

    /// The kept token, or one that is got once for all who wait for it.
    async fn token(
        &self,
        transport: &Transport,
        spend: &Spend,
        realm: &Realm,
        scope: &str,
        key: String,
    ) -> Result<Token, RegistryError> {
        let shared = |key| async {
            // Boxed, because signing in is rare and its many steps would swell every request's future.
            let fetch = Box::pin(self.fetch(transport, spend, realm, scope));
            spend.within(self.tokens.try_get_with(key, fetch)).await?.map_err(Arc::unwrap_or_clone)
        };
        match shared(key.clone()).await {
            // Perhaps not our budget, but that of the session that fetched for both: once more with our own.
            Err(RegistryError::Budget(_)) => shared(key).await,
            result => result,
        }
    }

    async fn fetch(
        &self,
        transport: &Transport,
        spend: &Spend,
        realm: &Realm,
        scope: &str,
    ) -> Result<Token, RegistryError> {
        let result = self.fetch_inner(transport, spend, realm, scope).await;
        transport.observer().token_refresh(transport.registry(), result.is_ok());
        result
    }

    async fn fetch_inner(
        &self,
        transport: &Transport,
        spend: &Spend,
        realm: &Realm,
        scope: &str,
    ) -> Result<Token, RegistryError> {
        let mut url = realm.url.clone();
        let mut headers = HeaderMap::new();
        let refresh = match (&self.auth, &self.azure) {
            (Auth::Identity { token }, _) => Some(token.clone()),
            (_, Some(azure)) => Some(azure.refresh_token(transport, spend).await?),
            _ => None,
        };
        let (method, body) = match refresh {
            None => {
                let mut query = url.query_pairs_mut();
                realm.service.as_deref().map(|service| query.append_pair("service", service));
                // Without a scope the service says only whether the credential is good, as `docker login` asks it.
                if !scope.is_empty() {
                    query.append_pair("scope", scope);
                }
                drop(query);
                if let Auth::Basic { user, password } = &self.auth {
                    headers.insert(AUTHORIZATION, basic(user, password)?);
                }
                (Method::GET, String::new())
            }
            Some(token) => {
                headers.insert(CONTENT_TYPE, FORM);
                (Method::POST, refresh_form(realm, scope, &token))
            }
        };
        let ask = Ask {
            operation: Operation::Token,
            method,
            url: &url,
            headers,
            body: Bytes::from(body),
            limit: TOKEN_BYTES_MAX,
        };
        let result = transport.send(spend, ask).await.and_then(good);
        if let (Err(RegistryError::Unauthorized { .. }), Some(azure)) = (&result, &self.azure) {
            // The registry forgets refresh tokens when its permissions change: the next request gets a new one.
            azure.forget();
        }
        read_token(&result?.body)
    }
}

/// The answer of a token service, if it is a good one.
pub(super) fn good(answer: Answer) -> Result<Answer, RegistryError> {
    match answer.status {
        200 => Ok(answer),
        // Followed, the secret would go wherever the answer says (T-25).
        300..=399 => Err(RegistryError::Untrusted("the token service redirects".into())),
        400 | 401 => Err(RegistryError::Unauthorized { said: remote_text(&answer.body) }),
        403 => Err(RegistryError::Forbidden { said: remote_text(&answer.body) }),
        status @ 500.. => Err(RegistryError::Server { status, said: remote_text(&answer.body) }),
        status => Err(RegistryError::Unexpected { status, said: remote_text(&answer.body) }),
    }
}

fn refresh_form(realm: &Realm, scope: &str, token: &SecretString) -> String {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("client_id", "tidewaiter");
    realm.service.as_deref().map(|service| form.append_pair("service", service));
    form.append_pair("scope", scope).append_pair("refresh_token", token.expose_secret());
    form.finish()
}

#[derive(Deserialize)]
struct TokenBody {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

fn read_token(body: &[u8]) -> Result<Token, RegistryError> {
    let unusable = || RegistryError::Protocol("an answer of the token service that holds no token".into());
    let body: TokenBody = serde_json::from_slice(body).map_err(|_| unusable())?;
    let text = body.token.or(body.access_token).filter(|text| !text.is_empty()).ok_or_else(unusable)?;
    let stated = body.expires_in.map(Duration::from_secs).or_else(|| jwt_life(&text)).unwrap_or(LIFE_DEFAULT);
    Ok(Token { header: bearer(&text)?, life: usable_life(stated) })
}

/// The part of a stated life in which a token is used.
pub(super) fn usable_life(stated: Duration) -> Duration {
    (stated - MARGIN_MAX.min(stated / 6)).min(LIFE_MAX)
}

/// How long a JSON Web Token lives, by its own claims. They are not verified: whoever forges them shortens or
/// lengthens only the life of a token that they made.
pub(super) fn jwt_life(token: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
        iat: u64,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    Some(Duration::from_secs(claims.exp.checked_sub(claims.iat)?))
}

fn basic(user: &str, password: &SecretString) -> Result<HeaderValue, RegistryError> {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.expose_secret()))))
}

fn bearer(token: &str) -> Result<HeaderValue, RegistryError> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Result<HeaderValue, RegistryError> {
    let fault = |_| RegistryError::Protocol("a token with characters that no header can carry".into());
    let mut value = HeaderValue::from_str(text).map_err(fault)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t27_a_token_never_outlives_its_word_nor_an_hour() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":1497993407,"iat":1497988907}"#);
        let jwt = format!("e30.{claims}.c2ln");
        for (body, life) in [
            (r#"{"token":"t"}"#.to_owned(), 50),
            (r#"{"token":"t","expires_in":300}"#.to_owned(), 250),
            (r#"{"access_token":"t","expires_in":86400}"#.to_owned(), 3_600),
            (r#"{"access_token":"t","expires_in":3600}"#.to_owned(), 3_300),
            (format!(r#"{{"access_token":"{jwt}"}}"#), 3_600),
            (r#"{"token":"a.b.c","expires_in":0}"#.to_owned(), 0),
        ] {
            assert_eq!(read_token(body.as_bytes()).unwrap().life, Duration::from_secs(life), "{body}");
        }
        assert_eq!(jwt_life(&jwt), Some(Duration::from_secs(4_500)));
    }

    #[test]
    fn t25_unusable_tokens_are_refused_and_good_ones_not_shown() {
        for body in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\r\nX: y"}"#, r#"{"token":1}"#, "<html>"] {
            assert!(read_token(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(format!("{:?}", bearer("hunter2").unwrap()), "Sensitive");
    }
}
