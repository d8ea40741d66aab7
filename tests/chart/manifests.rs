//! What the chart renders to, over the matrix of values.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::tools::{chart, matrix, object, objects, program, rendered, root, template, told};

/// The oldest Kubernetes that the chart allows whose schemas matter here, and a new one.
const VERSIONS: &[&str] = &["1.25", "1.33"];

fn values(file: &Path) -> Vec<&str> {
    vec!["--values", file.to_str().unwrap()]
}

/// A copy of the chart, to be changed.
fn copied(folder: &Path) -> PathBuf {
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
}

/// What a file of the matrix switches on.
fn of(file: &str) -> Vec<Value> {
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

#[test]
fn the_network_and_disruptions_are_bounded() {
    let objects = of("network");
    let policy = &object(&objects, "NetworkPolicy", "tw-tidewaiter")["spec"];
    let selector = &object(&objects, "StatefulSet", "tw-tidewaiter")["spec"]["selector"];
    assert_eq!((&policy["podSelector"], &policy["policyTypes"]), (selector, &json!(["Ingress", "Egress"])));
    let (events, admin) = (&policy["ingress"][0], &policy["ingress"][1]);
    assert_eq!(
        (&events["ports"][0]["port"], &events["from"][0]["ipBlock"]["cidr"]),
        (&json!("events"), &json!("10.0.0.0/8"))
    );
    assert_eq!(admin["ports"][0]["port"], "admin");
    assert!(admin["from"][0]["namespaceSelector"].is_object(), "{admin}");
    let outgoing: Vec<u64> = policy["egress"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| rule["ports"].as_array().unwrap())
        .map(|port| port["port"].as_u64().unwrap())
        .collect();
    assert_eq!(outgoing, [53, 53, 443, 9093], "names, registries, and what is configured");
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

#[test]
fn the_rules_arrive_as_they_were_tested() {
    let file = chart().join("ci/monitoring-values.yaml");
    let objects = objects(&rendered(&values(&file)));
    let spec = &object(&objects, "PrometheusRule", "tw-tidewaiter")["spec"];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    fs::write(&path, spec.to_string()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));

    let shipped = fs::read_to_string(chart().join("files/rules.yaml")).unwrap();
    let shipped = shipped.replace("https://tidewaiter.dev/runbooks/", "https://wiki.contoso.example/runbooks/");
    let shipped: Value = serde_saphyr::from_str(&shipped).unwrap();
    let names = |spec: &Value| -> Vec<Value> {
        spec["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    };
    let mut wanted = names(&shipped);
    wanted.retain(|rule| rule["alert"] != "TidewaiterSourceSilent");
    let mut given = names(spec);
    assert_eq!(given.pop().unwrap()["alert"], "OursBusy");
    assert_eq!(given, wanted);

    let dashboard = &object(&objects, "ConfigMap", "tw-tidewaiter-dashboard");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let json = dashboard["data"]["tidewaiter.json"].as_str().unwrap();
    assert_eq!(json, fs::read_to_string(chart().join("files/dashboards/tidewaiter.json")).unwrap());
    let monitor = &object(&objects, "ServiceMonitor", "tw-tidewaiter")["spec"];
    assert_eq!(
        (&monitor["endpoints"][0]["scheme"], &monitor["endpoints"][0]["port"]),
        (&json!("https"), &json!("admin"))
    );
    let admin = object(&objects, "Service", "tw-tidewaiter-admin");
    for (name, value) in monitor["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&admin["metadata"]["labels"][name], value, "the monitor finds the service");
    }
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    for (sets, message) in [
        (&["replicaCount=2"][..], "replicaCount: the embedded store belongs to one process"),
        (&["autoscaling.enabled=true"], "autoscaling.enabled: the embedded store belongs to one process"),
        (&["postgresql.enabled=true"], "postgresql.enabled: this version of tidewaiter has no PostgreSQL store yet"),
        (&["tls.mode=existingSecret"], "tls.existingSecret: name the secret"),
        (&["tls.existingSecret=a"], "tls.existingSecret: it is used only with"),
        (&["tls.mode=certManager", "config.tls.certificate=a", "config.tls.key=b"], "config.tls: the chart sets it"),
        (&["webhook.ingress.enabled=true"], "webhook.ingress.hosts: name the host"),
        (&["existingPoliciesConfigMap=a", "policies.a\\.yaml=b"], "policies, existingPoliciesConfigMap: set one"),
        (&["podDisruptionBudget.minAvailable=0", "podDisruptionBudget.maxUnavailable=1"], "not both"),
        (&["config.listen.admin=127.0.0.1:9464"], "config.listen.admin: the kubelet cannot reach loopback"),
        (&["config.listen.events=127.0.0.1:8443"], "config.listen.events: senders cannot reach loopback"),
        (&["config.store.url=sqlite:elsewhere.db"], "config.store.url: the volume is at /var/lib/tidewaiter"),
        // The schema's own: names that are wrong, in the values and in the configuration.
        (&["replicas=2"], "Additional property replicas is not allowed"),
        (&["config.sinks[0].name=a", "config.sinks[0].kind=pigeon"], "config.sinks.0.kind"),
        (&["config.listn.events=a"], "Additional property listn is not allowed"),
        (&["image.pullPolicy=Sometimes"], "image.pullPolicy"),
    ] {
        let args: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let output = template(&chart(), &args);
        let said = told(&output);
        assert!(!output.status.success(), "{sets:?} is refused");
        assert!(said.contains(message), "{sets:?}: {message}:\n{said}");
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
        "--uri https://YOUR-NAME/v1/events/contoso-acr",
        "--headers \"Authorization=$(cat webhook-secret)\"",
        "get service tw-tidewaiter",
    ] {
        assert!(acr.contains(part), "{part}:\n{acr}");
    }
    assert!(root().join("docs/kubernetes.md").exists());
}

/// The YAML in the pages about clusters is values of the chart, or a piece of the configuration.
#[test]
fn what_the_documentation_shows_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for page in ["docs/kubernetes.md", "docs/acr-aks.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let values = if block.starts_with("registries:") {
                let indented: Vec<String> = block.lines().map(|line| format!("  {line}")).collect();
                format!("config:\n{}\n", indented.join("\n"))
            } else {
                block.to_owned()
            };
            let file = folder.path().join("values.yaml");
            fs::write(&file, &values).unwrap();
            let output = template(&chart(), &["--values", file.to_str().unwrap()]);
            assert!(output.status.success(), "{page}:\n{block}\n{}", told(&output));
            count += 1;
        }
    }
    assert_eq!(count, 5, "blocks were found");
}
