//! The notes that Helm prints: how the webhook of each source is registered.

use std::fs;

use crate::manifests::{copied, values};
use crate::tools::{chart, objects, root, template, told};

#[test]
fn the_notes_tell_how_to_register_the_webhook() {
    // Helm prints notes only beside a cluster, so they are rendered into an object.
    let folder = tempfile::tempdir().unwrap();
    let copy = copied(folder.path());
    let templates = copy.join("templates");
    fs::rename(templates.join("NOTES.txt"), templates.join("_notes.tpl")).unwrap();
    let object = "kind: Notes\nmetadata: {name: notes}\ntext: {{ include (print .Template.BasePath \"/_notes.tpl\") . | quote }}\n";
    fs::write(templates.join("notes.yaml"), object).unwrap();
    let notes = |args: &[&str]| {
        let output = template(&copy, args);
        assert!(output.status.success(), "{}", told(&output));
        let objects = objects(&String::from_utf8(output.stdout).unwrap());
        crate::tools::object(&objects, "Notes", "notes")["text"].as_str().unwrap().to_owned()
    };
    let bare = notes(&[]);
    assert!(bare.contains("No source is configured yet") && bare.contains("helm test tw -n watch"), "{bare}");
    assert!(bare.contains("The certificate is self-signed"), "{bare}");
    let acr = chart().join("ci/acr-values.yaml");
    let acr = notes(&values(&acr));
    for part in [
        "az acr webhook create --registry contoso --name tidewaiter --actions push delete",
        "--uri \"https://YOUR-NAME/v1/events/contoso-acr\"",
        "SECRET=\"$(kubectl -n watch get secret tidewaiter-webhook -o jsonpath='{.data.new}' | base64 -d)\"",
        "--headers \"Authorization=$SECRET\"",
        "get service tw-tidewaiter",
    ] {
        assert!(acr.contains(part), "{part}:\n{acr}");
    }
    assert!(!acr.contains("Azure reaches public addresses only"), "{acr}");

    // How a source proves itself, wherever it is, is how it is registered.
    let source = |source: &str, args: &[&str]| {
        let file = folder.path().join("source.yaml");
        let registry = "config: {registries: [{host: contoso.azurecr.us, auth: {kind: azure}}], sources: ";
        fs::write(&file, format!("{registry}[{{name: a, {source}}}]}}")).unwrap();
        notes(&[&values(&file), args].concat())
    };
    const VALUE: &str = "valueFile: /etc/tidewaiter/secrets/hook/value.txt";
    const BASIC: &str = "Authorization=Basic $(printf %s 'me:'\"$SECRET\" | base64 -w0)";
    let plain = format!("auth: {{header: Authorization, {VALUE}}}");
    let basic = format!("auth: {{basic: me, {VALUE}}}");
    let query = format!("auth: {{query: token, {VALUE}}}");
    let hmac = format!("auth: {{hmac: X-Sig, {VALUE}}}");
    for (format, auth, args, there, absent) in [
        ("acr", &plain, &[][..], "--registry contoso --name", ".azurecr"),
        ("acr", &plain, &[], "Azure reaches public addresses only", "YOUR-NAME"),
        ("acr", &plain, &[], r"jsonpath='{.data.value\.txt}'", "$(cat"),
        ("acr", &plain, &["webhook.service.type=NodePort"], "https://NODE:NODE-PORT/v1/events/a\"", ".svc"),
        ("acr", &plain, &["webhook.service.type=NodePort"], "Azure reaches public addresses only", ".svc"),
        (
            "acr",
            &plain,
            &["webhook.service.type=LoadBalancer", "webhook.service.port=8443"],
            "https://YOUR-NAME:8443/v1/events/a\"",
            "Azure reaches",
        ),
        ("acr", &basic, &[], BASIC, "Authorization=$SECRET"),
        ("acr", &query, &[], "/v1/events/a?token=$SECRET\"", "--headers"),
        ("acr", &hmac, &[], "a: acr cannot send the sha256 HMAC", "az acr webhook create"),
        ("harbor", &plain, &[], "echo \"$SECRET\"", "basic"),
        ("harbor", &basic, &[], "echo \"Basic $(printf", "\"$SECRET\"\n"),
        ("distribution", &plain, &[], "headers: {Authorization: [\"$SECRET\"]}", "Basic"),
        ("distribution", &basic, &[], "headers: {Authorization: [\"Basic ...\"]}", "[\"$SECRET"),
        ("distribution", &query, &[], "/v1/events/a?token=$SECRET", "Authorization"),
        ("github", &hmac, &[], "HMAC of the body under the secret, in the header X-Sig", "Authorization"),
        ("gitlab", &basic, &[], "HTTP basic authentication as me, and SECRET as the password", "Authorization"),
        ("distribution", &"allowUnauthenticated: true".to_owned(), &[], "/v1/events/a\n", "SECRET"),
    ] {
        let sets: Vec<&str> = args.iter().flat_map(|set| ["--set", set]).collect();
        let said = source(&format!("format: {format}, {auth}"), &sets);
        assert!(said.contains(there) && !said.contains(absent), "{format}, {auth}: {there}; not {absent}:\n{said}");
    }
    let bounded = notes(&["--set", "networkPolicy.enabled=true,networkPolicy.egressPorts={8443}"]);
    assert!(bounded.contains("TCP ports 443, 8443 and to DNS"), "{bounded}");
    assert!(root().join("docs/kubernetes.md").exists());
}
