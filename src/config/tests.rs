//! Configurations as data under `tests/data/config`, with files and environment that exist only here.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::document::render;
use crate::policy::Severity;

/// What must never be seen outside [`Secret::expose`].
const CANARY: &str = "canary-hunter2-canary-hunter2";

/// Secrets by file name with their mode, and variables.
struct Stage {
    files: HashMap<&'static str, (&'static str, u32)>,
    variables: HashMap<&'static str, &'static str>,
}

fn stage() -> Stage {
    Stage {
        files: HashMap::from([
            ("secret", ("canary-hunter2-canary-hunter2\n", 0o600)),
            ("secret-old", ("canary-hunter2-canary-hunter2-old\r\n", 0o400)),
            ("slack-url", ("https://hooks.slack.example/services/canary-hunter2-canary-hunter2\n", 0o600)),
            ("signing", ("whsec_Y2FuYXJ5LWh1bnRlcjItY2FuYXJ5LWh1bnRlcjI=", 0o600)),
            ("short", ("hunter2", 0o600)),
            ("empty", (" \n", 0o600)),
            ("readable", ("hunter2", 0o644)),
        ]),
        variables: HashMap::from([("FORGE_SECRET", CANARY), ("PAGER_KEY", CANARY)]),
    }
}

impl Outside for Stage {
    fn read(&self, path: &Path) -> io::Result<String> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        self.files.get(name).map(|(text, _)| (*text).to_owned()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        self.files.get(name).map(|(_, mode)| Some(*mode)).ok_or(io::ErrorKind::NotFound.into())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|v| (*v).to_owned())
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config").join(name)
}

fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    Config::parse(&Source::new("tidewaiter.yaml", text), Path::new("/etc/tidewaiter"), &stage())
}

fn complete() -> Config {
    parse(&fs::read_to_string(data("complete.yaml")).unwrap()).unwrap_or_else(|f| panic!("{}", render(&f, false)))
}

/// The first fault of a text as one line.
fn fault(text: &str) -> String {
    parse(text).unwrap_err()[0].to_string()
}

#[test]
fn every_part_of_a_complete_configuration() {
    let config = complete();
    assert_eq!(config.listen.events.to_string(), "0.0.0.0:8443");
    assert_eq!(config.tls.as_ref().unwrap().certificate, Path::new("/etc/tidewaiter/tls.crt"));
    assert!(
        matches!(&config.store, StoreUrl::Sqlite(path) if path == Path::new("/etc/tidewaiter/state/tidewaiter.db"))
    );
    assert_eq!(config.state_folder(), Path::new("/etc/tidewaiter/state"));
    assert_eq!(config.policies, Policies::Paths(vec!["/etc/tidewaiter/policies/".into()]));
    let [azure, local, harbor] = &config.registries[..] else { panic!() };
    assert!(
        matches!(&azure.auth, RegistryAuth::Azure { client_id: Some(id), client_secret: None, .. } if id.starts_with("1111"))
    );
    assert_eq!(azure.limits, RegistryLimits { concurrency: 4, requests_per_second: Some(20) });
    assert_eq!(azure.reconcile.every.unwrap().as_secs(), 5400);
    assert_eq!((local.endpoint.as_str(), local.reconcile.every), ("http://localhost:5000/", None));
    assert_eq!(harbor.endpoint.as_str(), "https://10.0.0.5:8443/");
    assert!(
        matches!(&harbor.auth, RegistryAuth::Basic { username, password } if username == "robot" && password.expose() == CANARY)
    );
    let [acr, forge, google, amazon, dev] = &config.sources[..] else { panic!() };
    assert_eq!(acr.registry.as_ref().unwrap().as_str(), "contoso.azurecr.io", "an alias means its registry");
    let Some(SourceAuth::Header { name, values }) = &acr.auth else { panic!() };
    assert_eq!((name.as_str(), values.len()), ("authorization", 2));
    assert_eq!(values[1].expose(), "canary-hunter2-canary-hunter2-old", "one line ending is left out");
    assert!(
        matches!(&forge.auth, Some(SourceAuth::Hmac { prefix, algorithm: HmacAlgorithm::Sha256, .. }) if prefix == "sha256=")
    );
    assert_eq!(forge.registries.len(), 2);
    assert_eq!(google.registries.len(), 3, "all that are configured");
    assert!(matches!(&amazon.auth, Some(SourceAuth::Sns { topics, .. }) if topics.len() == 1));
    assert!(dev.auth.is_none());
    let [oncall, chat, page, bus] = &config.sinks[..] else { panic!() };
    assert_eq!((oncall.urls.len(), &oncall.severities[..]), (2, &[Severity::Critical][..]));
    assert_eq!(chat.severities, [Severity::Warning, Severity::Critical]);
    assert!(
        matches!(&page.kind, SinkKind::PagerDuty(_))
            && page.urls[0].expose().starts_with("https://events.pagerduty.com/")
    );
    assert!(matches!(&bus.kind, SinkKind::Webhook(keys) if keys.len() == 1));
    assert_eq!(
        (config.limits.event_body, config.limits.manifest, config.limits.connections),
        (512 << 10, 8 << 20, 100)
    );
    assert_eq!(config.limits.answer_deadline.as_millis(), 800);
    assert_eq!((config.retention.events.unwrap().as_secs(), config.retention.verdicts), (7 * 86_400, None));
    let most = (config.retention.events_max, config.retention.verdicts_max, config.retention.manifests_bytes_max);
    assert_eq!((most, config.retention.dead_letters_max), ((5_000, 100, 1 << 30), 10_000));
    assert_eq!(config.log, Log { format: LogFormat::Json, level: LogLevel::Debug });
    assert!(config.admin.token.is_some() && config.warnings.is_empty());
}

#[test]
fn defaults_are_those_that_the_schema_publishes() {
    let config = parse("# nothing\n").unwrap();
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let default = |pointer: &str| schema.pointer(&format!("/properties/{pointer}/default")).unwrap().clone();
    assert_eq!(config.listen.events.to_string(), default("listen/properties/events"));
    assert_eq!(config.listen.admin.to_string(), default("listen/properties/admin"));
    // Writing every default out gives the same values as writing nothing.
    for section in ["limits", "retention", "log", "listen"] {
        let properties = schema.pointer(&format!("/properties/{section}/properties")).unwrap().as_object().unwrap();
        let written: serde_json::Map<_, _> = properties
            .iter()
            .map(|(k, v)| (k.clone(), v.get("default").unwrap_or_else(|| panic!("{section}.{k}")).clone()))
            .collect();
        let text = serde_json::json!({ section: written }).to_string();
        let explicit = parse(&text).unwrap();
        assert_eq!(explicit.limits, config.limits);
        assert_eq!(explicit.retention, config.retention);
        assert_eq!(explicit.log, config.log);
        assert_eq!(explicit.listen, config.listen);
    }
    assert!(config.tls.is_none() && config.registries.is_empty() && config.policies == Policies::Shipped);
    assert!(matches!(&config.store, StoreUrl::Sqlite(path) if path == Path::new("/etc/tidewaiter/tidewaiter.db")));
    let none = Config::default_for_no_file();
    assert!(none.listen.events.ip().is_loopback() && none.listen.admin.ip().is_loopback());
    assert!(matches!(&none.store, StoreUrl::Sqlite(path) if path == Path::new("tidewaiter.db")));
}

#[test]
fn t62_no_secret_in_debug_nor_in_any_fault() {
    assert!(!format!("{:?} {0:#?}", complete()).contains("hunter2"));
    let postgres = parse("store: {urlEnv: PAGER_KEY}").unwrap_err();
    assert!(!format!("{postgres:?}{}", render(&postgres, true)).contains("hunter2"));
    let faults = parse(&fs::read_to_string(data("faults.yaml")).unwrap()).unwrap_err();
    let shown =
        format!("{faults:?}{}{}", render(&faults, false), faults.iter().map(ToString::to_string).collect::<String>());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch for people who write expectations anew")]
fn t65_faults_look_as_recorded() {
    for name in ["faults.yaml", "schema-faults.yaml"] {
        let actual = render(&parse(&fs::read_to_string(data(name)).unwrap()).unwrap_err(), false);
        let expected = data(name).with_extension("txt");
        if std::env::var_os("TIDEWAITER_BLESS").is_some() {
            fs::write(&expected, &actual).unwrap();
        }
        assert_eq!(fs::read_to_string(&expected).unwrap_or_default(), actual, "{name}");
    }
}

#[test]
fn names_for_the_self_signed_certificate_are_host_names_or_addresses() {
    let names = |list: &str| format!("listen: {{names: {list}}}");
    let config = parse(&names("[Tidewaiter.watch.svc, 10.0.0.5, \"fd00::5\"]")).unwrap();
    assert_eq!(config.listen.names, ["tidewaiter.watch.svc", "10.0.0.5", "fd00::5"]);
    assert!(config.warnings.is_empty());
    for wrong in ["https://tidewaiter.example", "tidewaiter.example:8443", "a..b", "-a.example", "a b", "*.example"] {
        assert!(fault(&names(&format!("[\"{wrong}\"]"))).contains("is not a host name or an address"), "{wrong}");
    }
    let both = parse(&format!("{}\ntls: {{certificate: tls.crt, key: tls.key}}", names("[a.example]"))).unwrap();
    assert!(both.warnings[0].to_string().contains("`tls` brings another"), "{}", both.warnings[0]);
}

#[test]
fn the_hash_is_that_of_the_text() {
    let (one, two) = (parse("log: {level: info}").unwrap(), parse("log: {level: warn}").unwrap());
    assert_eq!(one.hash, parse("log: {level: info}").unwrap().hash);
    assert!(one.hash.len() == 64 && one.hash != two.hash);
}

#[test]
fn what_only_follows_from_another_fault_is_not_told() {
    let registry = "registries: [{host: a.example}]\n";
    let auth = "auth: {header: A, valueFile: secret}";
    for (text, told) in [
        // The source is bound to a registry that has a fault of its own.
        (
            format!(
                "registries: [{{host: a.example, auth: {{kind: token}}}}]\nsources: [{{name: x, format: harbor, registry: a.example, {auth}}}]"
            ),
            &["the secret is missing"][..],
        ),
        (
            format!(
                "registries: [{{host: a.example, endpoint: nowhere}}]\nsources: [{{name: x, format: harbor, {auth}}}]"
            ),
            &["no address"],
        ),
        (
            format!(
                "registries: [{{hsot: a.example}}]\nsources: [{{name: x, format: harbor, registry: a.example, {auth}}}]"
            ),
            &["`hsot`"],
        ),
        (
            format!(
                "registrys: [{{host: a.example}}]\nsources: [{{name: x, format: harbor, registry: a.example, {auth}}}]"
            ),
            &["`registrys`"],
        ),
        (format!("registrys: [{{host: a.example}}]\nsources: [{{name: x, format: harbor, {auth}}}]"), &["`registrys`"]),
        // What is said to be missing is there under a misspelt key.
        (
            format!("{registry}sources: [{{name: x, format: harbor, auht: {{header: A, valueFile: secret}}}}]"),
            &["`auht`"],
        ),
        (format!("{registry}sources: [{{name: x, format: zot, registri: a.example, {auth}}}]"), &["`registri`"]),
        (
            format!("{registry}sources: [{{name: x, format: harbor, auth: {{header: A, valuFile: secret}}}}]"),
            &["`valuFile`"],
        ),
        (
            format!(
                "{registry}tsl: {{}}\nsources: [{{name: x, format: harbor, auth: {{clientCertificate: {{names: [a]}}}}}}]"
            ),
            &["`tsl`"],
        ),
        ("registries: [{host: a.example, auth: {kind: tokn, tokenFile: secret}}]".to_owned(), &["`tokn`"]),
        ("sinks: [{name: a, kind: pagerdty, routingKeyFile: secret}]".to_owned(), &["`pagerdty`"]),
        ("sinks: [{name: a, kind: slack, ulr: \"https://hooks.example/x\"}]".to_owned(), &["`ulr`"]),
        // What does not follow is told.
        (
            format!(
                "{registry}sources: [{{name: x, format: harbor, registry: b.example, auht: {{}}}}, {{name: y, format: harbor}}]"
            ),
            &["`b.example`", "`auht`", "takes events from anybody"],
        ),
    ] {
        let faults = parse(&text).unwrap_err();
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let all = lines.len() == told.len() && lines.iter().zip(told).all(|(line, told)| line.contains(told));
        assert!(all, "{text}\n{lines:#?}");
    }
}

#[test]
fn t65_readable_secrets_are_refused_unless_allowed() {
    let text = "registries: [{host: a.example, auth: {kind: token, tokenFile: readable}}]";
    assert!(fault(text).contains("can be read by group or others"));
    assert!(parse(&format!("{text}\nallowReadableSecrets: true")).is_ok());
}

#[test]
fn t01_a_source_without_a_credential_says_so() {
    let head = "registries: [{host: a.example}]\nsources: [{name: x, format: harbor";
    assert!(fault(&format!("{head}}}]")).contains("takes events from anybody"));
    let open = parse(&format!("{head}, allowUnauthenticated: true}}]")).unwrap();
    assert!(open.sources[0].auth.is_none());
    assert!(
        fault(&format!("{head}, auth: {{oidc: {{issuer: https://a.example, audience: x}}}}}}]"))
            .contains("not complete")
    );
}

#[test]
fn t02_an_empty_secret_is_refused() {
    let text =
        "registries: [{host: a.example}]\nsources: [{name: x, format: harbor, auth: {header: A, valueFile: empty}}]";
    assert!(fault(text).contains("is empty"));
}

#[test]
fn t28_plain_http_never_carries_credentials() {
    for (text, refused) in [
        ("registries: [{host: a.example, insecure: true, auth: {kind: token, tokenFile: secret}}]", true),
        ("registries: [{host: a.example, insecure: true}]", false),
        ("registries: [{host: a.example, endpoint: http://10.0.0.1}]", true),
        ("sinks: [{name: a, kind: alertmanager, url: http://am.example, tokenFile: secret}]", true),
        ("sinks: [{name: a, kind: alertmanager, url: http://am.example}]", false),
        ("sinks: [{name: a, kind: pagerduty, url: http://hooks.example/x, routingKeyFile: secret}]", true),
        ("sinks: [{name: a, kind: pagerduty, url: http://127.0.0.1:9/x, routingKeyFile: secret}]", false),
    ] {
        assert_eq!(parse(text).is_err(), refused, "{text}");
    }
}

#[test]
fn t62_the_address_of_a_chat_is_a_secret_of_its_own() {
    for kind in ["slack", "teams"] {
        let text = format!("sinks: [{{name: a, kind: {kind}, url: \"https://hooks.example/services/hunter2\"}}]");
        let told = fault(&text);
        assert!(told.contains("is a secret") && told.contains("`urlFile`") && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn t63_an_open_admin_listener_is_pointed_out() {
    let config = parse("listen: {admin: \"0.0.0.0:9464\"}").unwrap();
    assert_eq!(config.warnings.len(), 1);
    assert!(parse("listen: {admin: \"0.0.0.0:9464\"}\nadmin: {tokenFile: secret}").unwrap().warnings.is_empty());
}

#[test]
fn databases_are_told_from_files() {
    for (url, expected) in [
        ("sqlite:a.db", "Sqlite(\"/etc/tidewaiter/a.db\")"),
        ("sqlite:/var/lib/a.db", "Sqlite(\"/var/lib/a.db\")"),
        ("sqlite:///var/lib/a.db", "Sqlite(\"/var/lib/a.db\")"),
        ("postgres://db.example/tidewaiter", "Postgres(Secret(Configuration))"),
    ] {
        assert_eq!(format!("{:?}", parse(&format!("store: {{url: \"{url}\"}}")).unwrap().store), expected);
    }
    for url in ["a.db", "sqlite:", "http://x", "postgres://u:hunter2@db.example/x"] {
        assert!(parse(&format!("store: {{url: \"{url}\"}}")).is_err(), "{url}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let faults = Config::load_with(Path::new("/etc/tidewaiter/none.yaml"), &stage()).unwrap_err();
    assert!(faults[0].to_string().starts_with("/etc/tidewaiter/none.yaml:1:1: error: cannot read the configuration"));
}

#[test]
fn real_files_have_modes_and_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "hunter2\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(System.mode(&secret).unwrap().unwrap() & 0o777, 0o640);
    }
    let path = folder.path().join("tidewaiter.yaml");
    fs::write(
        &path,
        "registries: [{host: a.example, auth: {kind: token, tokenFile: secret}}]\nallowReadableSecrets: true\n",
    )
    .unwrap();
    let config = Config::load(&path).unwrap();
    assert!(
        matches!(&config.registries[0].auth, RegistryAuth::Token(token) if token.expose() == "hunter2" && *token.origin() == Origin::File(secret))
    );
    fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
    assert!(Config::load(&path).is_err());
}

#[test]
fn the_schema_names_every_format() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let known: Vec<&str> = crate::event::Format::ALL.iter().map(|format| format.as_str()).collect();
    assert_eq!(schema.pointer("/$defs/source/properties/format/enum"), Some(&serde_json::json!(known)));
}

#[test]
fn t01_only_a_sender_that_asks_and_proves_itself_is_answered_from_the_record() {
    let text = |format: &str, auth: &str| {
        format!(
            "registries: [{{host: a.example}}]\nsources: [{{name: x, format: {format}, registry: a.example, admission: true, {auth}}}]"
        )
    };
    let header = "auth: {header: Authorization, valueFile: secret}";
    assert!(parse(&text("angos", header)).unwrap().sources[0].admission);
    for (format, auth, says) in [
        ("acr", header, "do not ask before they write"),
        ("angos", "allowUnauthenticated: true", "this source answers anybody"),
    ] {
        let faults = render(&parse(&text(format, auth)).unwrap_err(), false);
        assert!(faults.contains(says), "{faults}");
    }
}

#[test]
fn t01_tokens_and_signatures_say_how_they_are_checked() {
    let text = |auth: &str| {
        format!("registries: [{{host: a.example}}]\nsources: [{{name: x, format: acr, auth: {{{auth}}}}}]")
    };
    let oidc =
        |more: &str| text(&format!("oidc: {{issuer: \"https://issuer.example\", audience: a, subjects: [s]{more}}}"));
    let source =
        parse(&oidc(", jwks: \"https://keys.example/certs\", ca: ca.crt, allowPrivate: true")).unwrap().sources;
    let Some(SourceAuth::Oidc { issuer, jwks, reach, .. }) = &source[0].auth else { panic!("{source:?}") };
    // As written: `iss` is compared letter by letter, and a parsed address would gain a slash.
    assert_eq!(issuer, "https://issuer.example");
    assert_eq!(jwks.as_ref().map(url::Url::as_str), Some("https://keys.example/certs"));
    assert_eq!(reach, &Reach { ca: Some("/etc/tidewaiter/ca.crt".into()), allow_private: true });
    for bad in ["http://keys.example/", "https://user@keys.example/", "https://keys.example/?key=1", "keys.example"] {
        assert!(parse(&oidc(&format!(", jwks: \"{bad}\""))).is_err(), "{bad}");
    }
    let hmac = text("hmac: X-Signature, encoding: base64, valueFile: secret");
    assert!(matches!(
        parse(&hmac).unwrap().sources[0].auth,
        Some(SourceAuth::Hmac { encoding: HmacEncoding::Base64, .. })
    ));
    assert!(parse(&text("header: X-Secret, encoding: base64, valueFile: secret")).is_err());
}
