//! An Entra identity at an Azure Container Registry: Entra access token, exchanged for the registry's refresh
//! token, from which `token` gets access tokens as from any other. Talks to the configured authority or to the
//! metadata service, and to the registry; never elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use moka::Expiry;
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use url::Url;
use url::form_urlencoded::Serializer;

use super::error::{RegistryError, remote_text};
use super::settings::{Observer, Operation, Origin, Scheme, Settings, SettingsError};
use super::token::{FORM, LIFE_MAX, TOKEN_BYTES_MAX, good, jwt_life, usable_life};
use super::transport::{Ask, Spend, Transport};

/// What Entra tokens are asked for: the audience of the container registries of all clouds.
const RESOURCE: &str = "https://containerregistry.azure.net";
const AUTHORITY: &str = "https://login.microsoftonline.com";
const METADATA: &str = "http://169.254.169.254";

/// Who the daemon is in Entra.
#[derive(Debug, Clone)]
pub struct Azure {
    /// The identity.
    pub identity: AzureIdentity,
    /// The authority of the cloud, such as `https://login.microsoftonline.us`.
    pub authority: Origin,
    /// The metadata service of virtual machines and nodes.
    pub metadata: Origin,
}

/// How the identity is proved.
#[derive(Debug, Clone)]
pub enum AzureIdentity {
    /// An application with a secret.
    ClientSecret {
        /// The tenant's id or domain.
        tenant: String,
        /// The application's id.
        client: String,
        /// Its secret.
        secret: SecretString,
    },
    /// A Kubernetes service account that an application trusts.
    Workload {
        /// The tenant's id or domain.
        tenant: String,
        /// The application's id.
        client: String,
        /// The file with the service account's token; read anew for each use, because it is replaced.
        token_file: PathBuf,
    },
    /// The managed identity of a virtual machine or node.
    Managed {
        /// The id of a user-assigned identity.
        client: Option<String>,
    },
    /// The managed identity of App Service, Functions or Container Apps.
    Hosted {
        /// `IDENTITY_ENDPOINT`.
        endpoint: Url,
        /// `IDENTITY_HEADER`.
        header: SecretString,
        /// The id of a user-assigned identity.
        client: Option<String>,
    },
}

impl Azure {
    /// `identity` in the public cloud.
    pub fn new(identity: AzureIdentity) -> Result<Azure, SettingsError> {
        Ok(Azure { identity, authority: AUTHORITY.parse()?, metadata: METADATA.parse()? })
    }

    /// The identity that the platform sets up, by the variables that it sets: workload identity, then a client
    /// secret, then a hosted identity, then the machine's. The environment is asked through `variable`.
    pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Azure, SettingsError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let (tenant, client) = (get("AZURE_TENANT_ID"), get("AZURE_CLIENT_ID"));
        let identity = match (tenant, client, get("AZURE_FEDERATED_TOKEN_FILE"), get("AZURE_CLIENT_SECRET")) {
            (Some(tenant), Some(client), Some(file), _) => {
                AzureIdentity::Workload { tenant, client, token_file: file.into() }
            }
            (Some(tenant), Some(client), None, Some(secret)) => {
                AzureIdentity::ClientSecret { tenant, client, secret: secret.into() }
            }
            (_, client, _, _) => match (get("IDENTITY_ENDPOINT"), get("IDENTITY_HEADER")) {
                (Some(endpoint), Some(header)) => {
                    let endpoint = Url::parse(&endpoint).map_err(|_| fault("IDENTITY_ENDPOINT is not an address"))?;
                    AzureIdentity::Hosted { endpoint, header: header.into(), client }
                }
                _ => AzureIdentity::Managed { client },
            },
        };
        let mut azure = Azure::new(identity)?;
        if let Some(authority) = get("AZURE_AUTHORITY_HOST") {
            azure.authority = authority.parse()?;
        }
        Ok(azure)
    }

    /// What the types do not rule out.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.authority.scheme() != Scheme::Https {
            return Err(fault("the authority must be https"));
        }
        if let AzureIdentity::ClientSecret { tenant, .. } | AzureIdentity::Workload { tenant, .. } = &self.identity
            && (tenant.is_empty() || !tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'))
        {
            return Err(fault("the tenant must be an id or a domain"));
        }
        Ok(())
    }
}

fn fault(why: &str) -> SettingsError {
    SettingsError::Azure(why.to_owned())
}

/// The sign-in of one registry's identity, with the refresh token that it has now.
pub(super) struct AzureLogin {
    azure: Azure,
    transport: Transport,
    exchange: Url,
    /// The login server.
    service: String,
    refresh: Cache<(), Refresh>,
}

#[derive(Clone)]
struct Refresh {
    token: SecretString,
    life: Duration,
}

struct Life;

impl Expiry<(), Refresh> for Life {
    fn expire_after_create(&self, (): &(), refresh: &Refresh, _: Instant) -> Option<Duration> {
        Some(refresh.life)
    }
}

#[derive(Deserialize)]
struct EntraBody {
    access_token: String,
}

#[derive(Deserialize)]
struct ExchangeBody {
    refresh_token: String,
}

impl AzureLogin {
    pub(super) fn new(
        azure: Azure,
        settings: &Settings,
        observer: Arc<dyn Observer>,
    ) -> Result<AzureLogin, SettingsError> {
        let no_address = |_| fault("the registry has no address");
        Ok(AzureLogin {
            azure,
            transport: Transport::identity(settings, observer)?,
            exchange: settings.origin().url("/oauth2/exchange").map_err(no_address)?,
            service: settings.host.name().to_owned(),
            refresh: Cache::builder().max_capacity(1).expire_after(Life).build(),
        })
    }

    /// The registry's refresh token: the kept one, or one that is got once for all who wait for it.
    pub(super) async fn refresh_token(
        &self,
        registry: &Transport,
        spend: &Spend,
    ) -> Result<SecretString, RegistryError> {
        let shared = || async {
            let fetch = Box::pin(async {
                let entra = self.entra_token(spend).await?;
                self.exchange(registry, spend, &entra).await
            });
            spend.within(self.refresh.try_get_with((), fetch)).await?.map_err(Arc::unwrap_or_clone)
        };
        let refresh = match shared().await {
            // Perhaps not our budget, but that of the session that fetched for both: once more with our own.
            Err(RegistryError::Budget(_)) => shared().await,
            result => result,
        };
        refresh.map(|refresh| refresh.token)
    }

    /// The refresh token is no longer good.
    pub(super) fn forget(&self) {
        self.refresh.invalidate_all();
    }

    async fn exchange(
        &self,
        registry: &Transport,
        spend: &Spend,
        entra: &SecretString,
    ) -> Result<Refresh, RegistryError> {
        let mut pairs = vec![("grant_type", "access_token"), ("service", &*self.service)];
        if let AzureIdentity::ClientSecret { tenant, .. } | AzureIdentity::Workload { tenant, .. } =
            &self.azure.identity
        {
            pairs.push(("tenant", tenant));
        }
        pairs.push(("access_token", entra.expose_secret()));
        let answer = registry.send(spend, post(&self.exchange, form(&pairs))).await.and_then(good)?;
        let body: ExchangeBody = parse(&answer.body)?;
        let life = jwt_life(&body.refresh_token).map_or(LIFE_MAX, usable_life);
        Ok(Refresh { token: body.refresh_token.into(), life })
    }

    /// A token of Entra, used once: the registry's own is kept instead.
    async fn entra_token(&self, spend: &Spend) -> Result<SecretString, RegistryError> {
        let answer = match &self.azure.identity {
            AzureIdentity::ClientSecret { tenant, client, secret } => {
                let proof = [("client_secret", secret.expose_secret())];
                self.authority(spend, tenant, client, &proof).await?
            }
            AzureIdentity::Workload { tenant, client, token_file } => {
                let assertion = read_token_file(token_file).await?;
                let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                let proof = [("client_assertion_type", kind), ("client_assertion", assertion.expose_secret().trim())];
                self.authority(spend, tenant, client, &proof).await?
            }
            AzureIdentity::Managed { client } => {
                let url = self.azure.metadata.url("/metadata/identity/oauth2/token").map_err(no_address)?;
                let header = (HeaderName::from_static("metadata"), HeaderValue::from_static("true"));
                self.metadata(spend, url, "2018-02-01", client.as_deref(), header).await?
            }
            AzureIdentity::Hosted { endpoint, header, client } => {
                let mut value = HeaderValue::from_str(header.expose_secret())
                    .map_err(|_| RegistryError::Local("IDENTITY_HEADER cannot be sent as a header".into()))?;
                value.set_sensitive(true);
                let header = (HeaderName::from_static("x-identity-header"), value);
                self.metadata(spend, endpoint.clone(), "2019-08-01", client.as_deref(), header).await?
            }
        };
        Ok(parse::<EntraBody>(&answer)?.access_token.into())
    }

    async fn authority(
        &self,
        spend: &Spend,
        tenant: &str,
        client: &str,
        proof: &[(&str, &str)],
    ) -> Result<Bytes, RegistryError> {
        let url = self.azure.authority.url(&format!("/{tenant}/oauth2/v2.0/token")).map_err(no_address)?;
        let scope = format!("{RESOURCE}/.default");
        let asked = [("grant_type", "client_credentials"), ("client_id", client), ("scope", &scope)];
        let answer = self.transport.send(spend, post(&url, form(&[&asked, proof].concat()))).await.and_then(good)?;
        Ok(answer.body)
    }

    async fn metadata(
        &self,
        spend: &Spend,
        mut url: Url,
        version: &str,
        client: Option<&str>,
        (name, value): (HeaderName, HeaderValue),
    ) -> Result<Bytes, RegistryError> {
        url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", RESOURCE);
        if let Some(client) = client {
            url.query_pairs_mut().append_pair("client_id", client);
        }
        let ask =
            Ask { method: Method::GET, headers: HeaderMap::from_iter([(name, value)]), ..post(&url, String::new()) };
        let answer = self.transport.send(spend, ask).await.and_then(good)?;
        Ok(answer.body)
    }
}

/// A form of these fields. A function of its own, because the serializer must not live across a wait.
fn form(pairs: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn post(url: &Url, form: String) -> Ask<'_> {
    Ask {
        operation: Operation::Token,
        method: Method::POST,
        url,
        headers: HeaderMap::from_iter([(CONTENT_TYPE, FORM)]),
        body: Bytes::from(form),
        limit: TOKEN_BYTES_MAX,
    }
}

fn parse<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, RegistryError> {
    let fault = |_| RegistryError::Protocol("an answer of the identity service that holds no token".into());
    serde_json::from_slice(body).map_err(fault)
}

fn no_address(_: url::ParseError) -> RegistryError {
    RegistryError::Local("an identity service without an address".into())
}

async fn read_token_file(path: &PathBuf) -> Result<SecretString, RegistryError> {
    let fault = |error: std::io::Error| {
        let path = remote_text(path.as_os_str().as_encoded_bytes());
        RegistryError::Local(format!("the workload identity's token in `{path}` cannot be read: {error}"))
    };
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.map_err(fault)?;
    file.take(TOKEN_BYTES_MAX).read_to_string(&mut text).await.map_err(fault)?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Azure, SettingsError> {
        Azure::detect(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_platforms_identity_is_detected() {
        let ids = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")];
        let with = |more: &[(&'static str, &'static str)]| detect(&[&ids, more].concat()).unwrap().identity;
        assert!(matches!(with(&[("AZURE_FEDERATED_TOKEN_FILE", "/f")]), AzureIdentity::Workload { .. }));
        assert!(matches!(with(&[("AZURE_CLIENT_SECRET", "s")]), AzureIdentity::ClientSecret { .. }));
        assert!(matches!(with(&[]), AzureIdentity::Managed { client: Some(_) }));
        assert!(matches!(detect(&[]).unwrap().identity, AzureIdentity::Managed { client: None }));
        let hosted = [("IDENTITY_ENDPOINT", "http://127.0.0.1:41/msi/token"), ("IDENTITY_HEADER", "h")];
        assert!(matches!(detect(&hosted).unwrap().identity, AzureIdentity::Hosted { .. }));
        let other = detect(&[("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")]).unwrap();
        assert_eq!(other.authority.to_string(), "https://login.microsoftonline.us:443");
    }

    #[test]
    fn t25_secrets_go_only_to_an_https_authority_and_a_plain_tenant() {
        for (authority, tenant, good) in [
            ("https://login.microsoftonline.com", "contoso.example", true),
            ("http://login.microsoftonline.com", "contoso.example", false),
            ("https://login.microsoftonline.com", "../x", false),
            ("https://login.microsoftonline.com", "a/b", false),
            ("https://login.microsoftonline.com", "", false),
        ] {
            let identity =
                AzureIdentity::ClientSecret { tenant: tenant.into(), client: "c".into(), secret: "hunter2".into() };
            let azure = Azure { authority: authority.parse().unwrap(), ..Azure::new(identity).unwrap() };
            assert_eq!(azure.check().is_ok(), good, "{authority} {tenant}");
            assert!(!format!("{azure:?}").contains("hunter2"));
        }
    }
}
