//! Signatures of Amazon SNS messages ("Verifying the signatures of Amazon SNS messages"). The certificate is
//! passed in: it is fetched only from an address that [`signing_cert_url_is_trusted`] allows.

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::Refused;
use crate::event::json::{self, Limits};
use crate::event::sns::url_is_of_the_service;

const LIMITS: Limits = Limits::with_documents(&["Message"]);

/// The signed fields of a message, and the signature.
#[derive(Debug, Deserialize)]
pub struct SnsMessage {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "MessageId")]
    id: String,
    #[serde(rename = "TopicArn")]
    topic: String,
    #[serde(rename = "Message")]
    message: String,
    #[serde(rename = "Timestamp")]
    timestamp: String,
    #[serde(rename = "Subject")]
    subject: Option<String>,
    #[serde(rename = "Token")]
    token: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    #[serde(rename = "SignatureVersion")]
    version: String,
    #[serde(rename = "Signature")]
    signature: String,
    #[serde(rename = "SigningCertURL")]
    cert_url: String,
}

/// Whether a signing certificate may be fetched from `url`: https, a host of the service itself, a file whose
/// name ends in `.pem`, nothing else.
pub fn signing_cert_url_is_trusted(url: &str) -> bool {
    url_is_of_the_service(url) && url.ends_with(".pem") && !url.contains(['?', '#', '%'])
}

impl SnsMessage {
    /// Reads a body that SNS wrapped. A raw delivery has no signature and cannot be read as one.
    ///
    /// # Errors
    /// [`Refused::Malformed`] for a body of another shape, or a certificate address elsewhere.
    pub fn read(body: &[u8]) -> Result<SnsMessage, Refused> {
        let message: SnsMessage = json::from_json(body, LIMITS).map_err(|_| Refused::Malformed)?;
        if signing_cert_url_is_trusted(&message.cert_url) { Ok(message) } else { Err(Refused::Malformed) }
    }

    /// Where the certificate is, a trusted address.
    pub fn signing_cert_url(&self) -> &str {
        &self.cert_url
    }

    /// The topic, to be compared with the configured one: anyone's topic is signed as well.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Verifies the signature with `certificate`, in DER, at the time `now`.
    ///
    /// # Errors
    /// The certificate is unreadable or not valid now, or the signature is not of this message.
    pub fn verify(&self, certificate: &[u8], now: Timestamp) -> Result<(), Refused> {
        let algorithm = match self.version.as_str() {
            "1" => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            "2" => &RSA_PKCS1_2048_8192_SHA256,
            _ => return Err(Refused::Malformed),
        };
        let signature = STANDARD.decode(&self.signature).map_err(|_| Refused::Malformed)?;
        let signed = self.signed().ok_or(Refused::Malformed)?;
        let (rest, certificate) = X509Certificate::from_der(certificate).map_err(|_| Refused::Malformed)?;
        let now = ASN1Time::from_timestamp(now.as_second()).map_err(|_| Refused::Expired)?;
        if !rest.is_empty() || !certificate.validity().is_valid_at(now) {
            return Err(Refused::Expired);
        }
        let key = &certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(algorithm, key).verify(signed.as_bytes(), &signature).map_err(|_| Refused::Wrong)
    }

    /// The signed text: the names and values of certain fields, in the order of their names, each on a line.
    fn signed(&self) -> Option<String> {
        let mut out = String::new();
        let mut add = |name: &str, value: &str| {
            for part in [name, "\n", value, "\n"] {
                out.push_str(part);
            }
        };
        add("Message", &self.message);
        add("MessageId", &self.id);
        match self.kind.as_str() {
            "Notification" => {
                if let Some(subject) = &self.subject {
                    add("Subject", subject);
                }
                add("Timestamp", &self.timestamp);
            }
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
                add("SubscribeURL", self.subscribe_url.as_deref()?);
                add("Timestamp", &self.timestamp);
                add("Token", self.token.as_deref()?);
            }
            _ => return None,
        }
        add("TopicArn", &self.topic);
        add("Type", &self.kind);
        Some(out)
    }
}
