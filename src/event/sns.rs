//! Amazon SNS as a carrier: which addresses are the service's own.

use url::Url;

/// Longest address of the service that is taken, in bytes; the token has some 250.
const URL_BYTES_MAX: usize = 2048;

/// Whether `text` is an https address at `sns.<region>.amazonaws.com` or `sns.<region>.amazonaws.com.cn`, with
/// neither user information nor a port. Anyone can send a message that says anything else (T-17, T-18).
pub fn url_is_of_the_service(text: &str) -> bool {
    // The parser drops control characters and folds slashes; an address that needs it is not the service's.
    let plain = text.len() <= URL_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let Some(url) = Url::parse(text).ok().filter(|_| plain) else { return false };
    let host = url.host_str().unwrap_or_default();
    let region = host
        .strip_prefix("sns.")
        .and_then(|rest| rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn")));
    text.starts_with(&format!("https://{host}/"))
        && region.is_some_and(|region| {
            !region.is_empty() && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t18_only_the_services_own_addresses() {
        for good in [
            "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=1",
            "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1.pem",
        ] {
            assert!(url_is_of_the_service(good), "{good}");
        }
        for bad in [
            "",
            "http://sns.eu-west-1.amazonaws.com/",
            "https://sns.eu-west-1.amazonaws.com.evil.example/",
            "https://sns.eu-west-1.amazonaws.com@evil.example/",
            "https://user@sns.eu-west-1.amazonaws.com/",
            "https://sns.eu-west-1.amazonaws.com:8443/",
            "https://sns.eu-west-1.amazonaws.com:443/",
            "https://sns.eu-west-1.amazonaws.com./",
            "https://sns.eu-west-1.amazonaws.com\\@evil.example/",
            "https://sns.evil.example/?.amazonaws.com",
            "https://sns.a.b.amazonaws.com/",
            "https://sns..amazonaws.com/",
            "https://sns.amazonaws.com/",
            "https://evil-sns.eu-west-1.amazonaws.com/",
            "https://SNS.eu-west-1.amazonaws.com/",
            "https:sns.eu-west-1.amazonaws.com/",
            "https://s3.eu-west-1.amazonaws.com/bucket",
            "https://sns.eu-west-1.amazonaws.com",
            "https://sns.eu-west-1.amazonaws.com/\n",
            "https://sns%2eeu-west-1.amazonaws.com/",
        ] {
            assert!(!url_is_of_the_service(bad), "{bad:?}");
        }
    }
}
