//! What the chart renders to, over the matrix of values.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::tools::{chart, matrix, object, objects, program, rendered, template, told};

/// The oldest Kubernetes that the chart allows whose schemas matter here, and a new one.
const VERSIONS: &[&str] = &["1.25", "1.33"];

pub fn values(file: &Path) -> Vec<&str> {
    vec!["--values", file.to_str().unwrap()]
}

/// A copy of the chart, to be changed.
pub fn copied(folder: &Path) -> PathBuf {
    let copied = Command::new("cp").arg("-r").arg(chart()).arg(folder).status().unwrap();
    assert!(copied.success());
    folder.join("tidewaiter")
}

#[test]
fn helm_and_the_linters_find_nothing_to_say() {
    for file in matrix() {
        let output =
            program("helm").args(["lint", "--strict"]).arg(chart()).arg("--values").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}:\n{}", file.display(), told(&output));
    }
    let rules = "{extends: default, rules: {line-length: disable, document-start: disable, braces: disable, brackets: {max-spaces-inside: 0}, comments-indentation: disable}}";
    let plain = [chart().join("Chart.yaml"), chart().join("values.yaml"), chart().join("files/rules.yaml")];
    let output = program("yamllint").args(["--strict", "-d", rules]).args(plain).args(matrix()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn what_is_rendered_is_what_kubernetes_knows_and_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for file in matrix() {
        let text = rendered(&values(&file));
        assert_eq!(text, rendered(&values(&file)), "{}: two renders differ", file.display());
        assert!(!text.lines().any(|line| line.ends_with(' ')), "{}: spaces at a line's end", file.display());
        let out = folder.path().join(file.file_name().unwrap());
        fs::write(&out, &text).unwrap();
        files.push(out);

        for object in objects(&text) {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            assert_ne!(kind, "Secret", "{}: secrets are named, never made", file.display());
            let labels = &object["metadata"]["labels"];
            if !name.as_str().unwrap().ends_with("-extra") {
                assert_eq!(labels["app.kubernetes.io/instance"], "tw", "{kind} {name}");
                assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{kind} {name}");
            }
            // A second document under one name would replace the first.
            let same = |other: &&Value| &other["kind"] == kind && &other["metadata"]["name"] == name;
            assert_eq!(objects(&text).iter().filter(same).count(), 1, "{kind} {name}");
        }
    }
    for version in VERSIONS {
        let output = program("kubernetes-validate")
            .args(["--strict", "--quiet", "--no-warn", "-k", version])
            .args(&files)
            .output()
            .unwrap();
        assert!(output.status.success(), "Kubernetes {version}:\n{}", told(&output));
    }
}

#[test]
fn every_pod_is_restricted() {
    for file in matrix() {
        let objects = objects(&rendered(&values(&file)));
        let pods = objects.iter().filter_map(|object| match object["kind"].as_str() {
            Some("StatefulSet") => Some(&object["spec"]["template"]["spec"]),
            Some("Pod") => Some(&object["spec"]),
            _ => None,
        });
        let mut count = 0;
        for pod in pods {
            count += 1;
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert_eq!(pod["enableServiceLinks"], false);
            let security = &pod["securityContext"];
            assert_eq!((&security["runAsNonRoot"], &security["runAsUser"]), (&json!(true), &json!(65532)));
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
            let container = &pod["containers"][0]["securityContext"];
            assert_eq!(container["allowPrivilegeEscalation"], false);
            assert_eq!(container["readOnlyRootFilesystem"], true);
            assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
        }
        assert_eq!(count, 2, "{}: the daemon and the test's pod", file.display());
    }
}

#[test]
fn events_go_to_the_daemon_and_nowhere_else() {
    let objects = objects(&rendered(&[]));
    let workload = object(&objects, "StatefulSet", "tw-tidewaiter");
    let selector = &workload["spec"]["selector"]["matchLabels"];
    let names: Vec<&String> = selector.as_object().unwrap().keys().collect();
    assert_eq!(names, ["app.kubernetes.io/name", "app.kubernetes.io/instance"], "selectors cannot be changed later");
    for service in ["tw-tidewaiter", "tw-tidewaiter-admin"] {
        assert_eq!(&object(&objects, "Service", service)["spec"]["selector"], selector);
    }
    let doctor = &object(&objects, "Pod", "tw-tidewaiter-doctor")["metadata"];
    assert_ne!(doctor["labels"]["app.kubernetes.io/name"], selector["app.kubernetes.io/name"]);
    assert_eq!(doctor["annotations"]["helm.sh/hook"], "test");
    // It stays until the next, so that its warnings can be read.
    assert_eq!(doctor["annotations"]["helm.sh/hook-delete-policy"], "before-hook-creation");
    let container = &workload["spec"]["template"]["spec"]["containers"][0];
    for (probe, path) in [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "admin", "scheme": "HTTP"}), "{probe}");
    }
}

#[test]
fn every_certificate_names_the_service() {
    const SERVICE: [&str; 4] =
        ["tw-tidewaiter", "tw-tidewaiter.watch", "tw-tidewaiter.watch.svc", "tw-tidewaiter.watch.svc.cluster.local"];
    let config = |args: &[&str]| -> Value {
        let objects = objects(&rendered(args));
        let text = &object(&objects, "ConfigMap", "tw-tidewaiter")["data"]["tidewaiter.yaml"];
        serde_saphyr::from_str(text.as_str().unwrap()).unwrap()
    };
    assert_eq!(config(&[])["listen"]["names"], json!(SERVICE));
    let more = config(&["--set", "config.listen.names[0]=hooks.contoso.example"]);
    assert_eq!(more["listen"]["names"][0], "hooks.contoso.example");
    assert_eq!(more["listen"]["names"].as_array().unwrap().len(), 5);
    let own = config(&["--set", "tls.mode=existingSecret,tls.existingSecret=a"]);
    assert!(own["listen"].get("names").is_none(), "names are for the certificate that the program makes: {own}");

    let managed = ["--set", "tls.mode=certManager", "--set", "tls.certManager.dnsNames[0]=hooks.contoso.example"];
    let objects = objects(&rendered(&managed));
    let names = object(&objects, "Certificate", "tw-tidewaiter")["spec"]["dnsNames"].as_array().unwrap().clone();
    assert!(names.contains(&json!("hooks.contoso.example")) && SERVICE.iter().all(|n| names.contains(&json!(n))));

    // A public authority refuses an order with names inside the cluster, all of it.
    let named = |args: &[&str]| {
        let acr = chart().join("ci/acr-values.yaml");
        let all = [&values(&acr), args].concat();
        let objects = self::objects(&rendered(&all));
        object(&objects, "Certificate", "tw-tidewaiter")["spec"].clone()
    };
    let public = named(&[]);
    assert_eq!(public["issuerRef"]["name"], "letsencrypt");
    assert_eq!(public["dnsNames"], json!(["tidewaiter.contoso.example"]));
    let inside = named(&["--set", "tls.certManager.internalNames=true"]);
    assert_eq!(inside["dnsNames"].as_array().unwrap().len(), 5, "an issuer of one's own may sign them");
}

/// What a file of the matrix switches on.
pub fn of(file: &str) -> Vec<Value> {
    let file = chart().join(format!("ci/{file}-values.yaml"));
    objects(&rendered(&values(&file)))
}

#[test]
fn the_record_is_kept_in_a_claim_that_outlives_the_release() {
    let objects = objects(&rendered(&[]));
    let spec = &object(&objects, "StatefulSet", "tw-tidewaiter")["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], "Retain");
    let claim = &spec["volumeClaimTemplates"][0];
    assert_eq!(
        (&claim["metadata"]["name"], &claim["spec"]["accessModes"]),
        (&json!("data"), &json!(["ReadWriteOnce"]))
    );
    let mounts = spec["template"]["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.contains(&json!({"name": "data", "mountPath": "/var/lib/tidewaiter"})), "{mounts:?}");

    let volume = |objects: &[Value], name: &str| {
        let spec = &object(objects, "StatefulSet", name)["spec"];
        assert!(spec.get("volumeClaimTemplates").is_none(), "{spec}");
        let volumes = spec["template"]["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == "data").unwrap().clone()
    };
    let there = of("existing-secret");
    assert_eq!(volume(&there, "tw-tidewaiter")["persistentVolumeClaim"]["claimName"], "tidewaiter-data");
    assert_eq!(volume(&of("scheduling"), "watcher")["emptyDir"], json!({}));
}

#[test]
fn an_identity_of_the_cloud_is_that_of_the_pod() {
    let objects = of("acr");
    let account = object(&objects, "ServiceAccount", "tw-tidewaiter");
    let client = "11111111-2222-3333-4444-555555555555";
    assert_eq!(account["metadata"]["annotations"]["azure.workload.identity/client-id"], client);
    let pod = &object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["template"];
    assert_eq!(pod["spec"]["serviceAccountName"], "tw-tidewaiter");
    assert_eq!(pod["metadata"]["labels"]["azure.workload.identity/use"], "true");
    // The digest goes before the tag.
    let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
    assert!(image.starts_with("ghcr.io/tidewaiter/tidewaiter") && image.contains("@sha256:0000"), "{image}");

    let other = of("existing-secret");
    assert!(!other.iter().any(|object| object["kind"] == "ServiceAccount"), "it is made elsewhere");
    let pod = &object(&other, "StatefulSet", "tw-tidewaiter")["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "registry-watchers");
}

#[test]
fn senders_reach_the_service_from_outside() {
    let balanced = of("acr");
    let service = &object(&balanced, "Service", "tw-tidewaiter")["spec"];
    assert_eq!((&service["type"], &service["externalTrafficPolicy"]), (&json!("LoadBalancer"), &json!("Local")));
    assert_eq!((&service["ports"][0]["port"], &service["ports"][0]["targetPort"]), (&json!(443), &json!("events")));

    let behind = of("ingress");
    let ingress = object(&behind, "Ingress", "tw-tidewaiter");
    assert_eq!(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"], "HTTPS");
    assert_eq!(ingress["spec"]["ingressClassName"], "nginx");
    let rule = &ingress["spec"]["rules"][0];
    assert_eq!(rule["host"], "tidewaiter.contoso.example");
    let path = &rule["http"]["paths"][0];
    let backend = &path["backend"]["service"];
    assert_eq!((&path["path"], &backend["name"]), (&json!("/v1/events/"), &json!("tw-tidewaiter")));
    let ports = &object(&behind, "Service", "tw-tidewaiter")["spec"]["ports"];
    assert_eq!(ports[0]["name"], backend["port"]["name"], "the port that the ingress names is there");
    assert_eq!(object(&behind, "Service", "tw-tidewaiter-admin")["spec"]["type"], "ClusterIP", "never from outside");
}

/// The ports that a policy lets out.
pub fn outgoing(policy: &Value) -> Vec<u64> {
    let rules = policy["egress"].as_array().unwrap().iter().flat_map(|rule| rule["ports"].as_array().unwrap());
    rules.map(|port| port["port"].as_u64().unwrap()).collect()
}

/// Values in a file of their own, rendered.
pub fn of_text(text: &str, args: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.yaml");
    fs::write(&file, text).unwrap();
    objects(&rendered(&[&values(&file), args].concat()))
}

/// Whatever the configuration leads to is let out, so that the blocks of the documentation work together.
#[test]
fn the_network_policy_follows_the_configuration() {
    let policy = |config: &str, args: &[&str]| {
        let objects = of_text(&format!("networkPolicy: {{enabled: true}}\nconfig: {config}"), args);
        object(&objects, "NetworkPolicy", "tw-tidewaiter")["spec"].clone()
    };
    for (config, more) in [
        ("{}", &[][..]),
        (r#"{sinks: [{name: a, kind: alertmanager, url: "http://alertmanager.monitoring.svc:9093/path"}]}"#, &[9093]),
        (
            r#"{sinks: [{name: a, kind: alertmanager, urls: ["http://a:9093", "HTTP://b/x:1", "https://[fd00::1]:9094"]}]}"#,
            &[9093, 80, 9094],
        ),
        ("{sinks: [{name: a, kind: slack, urlFile: /a}, {name: b, kind: pagerduty, routingKeyFile: /b}]}", &[]),
        (
            r#"{registries: [{host: "registry.svc:5000"}, {host: r.example, endpoint: "https://10.0.0.5:8443/"}]}"#,
            &[5000, 8443],
        ),
        ("{registries: [{host: registry.svc, insecure: true}, {host: plain.example}]}", &[80]),
        (
            r#"{sources: [{name: a, format: harbor, auth: {oidc: {issuer: "https://sso.example:8444/realm", audience: b, subjects: [c]}}}]}"#,
            &[8444],
        ),
    ] {
        assert_eq!(outgoing(&policy(config, &[])), [&[53, 53, 443], more].concat(), "{config}");
    }
    let given = policy("{}", &["--set", "networkPolicy.egressPorts={8443}"]);
    assert_eq!(outgoing(&given), [53, 53, 443, 8443]);

    // An identity of the node signs in at the node's metadata service, and nowhere else is port 80 open.
    let azure = "{registries: [{host: contoso.azurecr.io, auth: {kind: azure}}]}";
    let metadata = policy(azure, &[]);
    let rule = metadata["egress"].as_array().unwrap().last().unwrap();
    assert_eq!(rule["to"], json!([{"ipBlock": {"cidr": "169.254.169.254/32"}}]));
    assert_eq!(rule["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    let workload = policy(azure, &["--set-string", r"podLabels.azure\.workload\.identity/use=true"]);
    assert_eq!(outgoing(&workload), [53, 53, 443]);
}

#[test]
fn the_network_and_disruptions_are_bounded() {
    let objects = of("network");
    let policy = &object(&objects, "NetworkPolicy", "tw-tidewaiter")["spec"];
    let selector = &object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["selector"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    // What the test's pod reaches is what the daemon reaches.
    let pods = [
        object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["template"]["metadata"]["labels"].clone(),
        object(&objects, "Pod", "tw-tidewaiter-doctor")["metadata"]["labels"].clone(),
    ];
    for labels in pods {
        let of = &policy["podSelector"];
        for (name, value) in of["matchLabels"].as_object().unwrap() {
            assert_eq!(&labels[name], value);
        }
        let [one] = &of["matchExpressions"].as_array().unwrap()[..] else { panic!("{of}") };
        assert!(one["values"].as_array().unwrap().contains(&labels[one["key"].as_str().unwrap()]), "{one} {labels}");
    }
    let (events, admin) = (&policy["ingress"][0], &policy["ingress"][1]);
    assert_eq!(
        (&events["ports"][0]["port"], &events["from"][0]["ipBlock"]["cidr"]),
        (&json!("events"), &json!("10.0.0.0/8"))
    );
    assert_eq!(admin["ports"][0]["port"], "admin");
    assert!(admin["from"][0]["namespaceSelector"].is_object(), "{admin}");
    assert_eq!(outgoing(policy), [53, 53, 443, 5000, 8443, 80, 9093], "names, registries, and what is configured");
    let names: Vec<&str> = object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["template"]["spec"]["containers"]
        [0]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["events", "admin"], "the policy's names of ports are the pod's");
    let budget = &object(&objects, "PodDisruptionBudget", "tw-tidewaiter")["spec"];
    assert_eq!((&budget["minAvailable"], &budget["selector"]), (&json!(0), selector));
    let usual = of("scheduling");
    assert_eq!(object(&usual, "PodDisruptionBudget", "watcher")["spec"]["maxUnavailable"], 1);
}

#[test]
fn a_changed_configuration_is_a_new_pod_and_changed_policies_are_not() {
    let template = |args: &[&str]| {
        let objects = objects(&rendered(args));
        object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["template"].clone()
    };
    let policies = |note: &str| template(&["--set-string", &format!("policies.a\\.yaml=kind: {note}")]);
    assert_eq!(policies("one"), policies("two"));
    assert_ne!(template(&[]), template(&["--set", "config.log.level=debug"]));
}

/// A text keeps its own indentation, wherever it was pasted from.
#[test]
fn a_policy_as_a_text_is_what_was_written() {
    let plain = "# a comment\napiVersion: a\n\nspec:\n  b: 1\n";
    let indented = "\n\n    # a comment\n    apiVersion: a\n   \n    spec:\n      b: 1\n\n";
    let first = "      # a comment\n  apiVersion: a\n\n  spec:\n    b: 1";
    let windows = plain.replace('\n', "\r\n");
    for text in [plain, indented, &windows, first] {
        let objects = of_text(&json!({"policies": {"a.yaml": text}}).to_string(), &[]);
        let given =
            object(&objects, "ConfigMap", "tw-tidewaiter-policies")["data"]["a.yaml"].as_str().unwrap().to_owned();
        let wanted = if text == first { format!("    {plain}") } else { plain.to_owned() };
        assert_eq!(given, wanted, "{text:?}");
    }
}

/// PostgreSQL is not there yet, and its values have their place: without the one guard that says so, what they will
/// make is right already.
#[test]
fn what_postgresql_will_make_is_right_already() {
    let folder = tempfile::tempdir().unwrap();
    let copy = copied(folder.path());
    let guard = copy.join("templates/_validate.tpl");
    let text = fs::read_to_string(&guard).unwrap();
    let without = text.replace("{{- include \"tidewaiter.validate.postgresql\" . }}\n", "");
    assert_ne!(text, without);
    fs::write(&guard, without).unwrap();
    let alone = template(&copy, &["--set", "postgresql.enabled=true"]);
    assert!(told(&alone).contains("postgresql.existingSecret: name the secret"), "{}", told(&alone));
    let sets = ["postgresql.enabled=true", "postgresql.existingSecret=database", "autoscaling.enabled=true"];
    let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let output = template(&copy, &args);
    assert!(output.status.success(), "{}", told(&output));
    let out = folder.path().join("out.yaml");
    fs::write(&out, &output.stdout).unwrap();
    let mut checked = program("kubernetes-validate");
    let checked = checked.args(["--strict", "--quiet", "--no-warn", "-k", "1.33"]).arg(&out).output().unwrap();
    assert!(checked.status.success(), "{}", told(&checked));
    let objects = objects(&String::from_utf8(output.stdout).unwrap());
    let deployment = object(&objects, "Deployment", "tw-tidewaiter");
    assert!(deployment["spec"].get("replicas").is_none(), "the autoscaler says how many");
    assert_eq!(
        object(&objects, "HorizontalPodAutoscaler", "tw-tidewaiter")["spec"]["scaleTargetRef"]["kind"],
        "Deployment"
    );
    let config = object(&objects, "ConfigMap", "tw-tidewaiter")["data"]["tidewaiter.yaml"].as_str().unwrap();
    assert!(config.contains("urlEnv: TIDEWAITER_STORE_URL"), "{config}");
}
