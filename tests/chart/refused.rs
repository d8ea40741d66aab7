//! What the chart refuses, and with which words: what the daemon could not do, what Kubernetes would not take.

use crate::tools::{chart, program, template, told};

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
        (&["tls.mode=certManager", "tls.certManager.issuerRef.name=a"], "tls.certManager.dnsNames: name the host"),
        (
            &["tls.mode=certManager", "tls.certManager.issuerRef.kind=Issuer"],
            "tls.certManager.issuerRef.name: name the",
        ),
        (&["tls.certManager.renewBefore=2160h"], "tls.certManager.renewBefore: it must be shorter"),
        (&["tls.certManager.duration=90m", "tls.certManager.renewBefore=1h31m"], "it must be shorter"),
        (&["serviceMonitor.interval=5s"], "serviceMonitor.scrapeTimeout: Prometheus refuses"),
        // What the API would refuse.
        (&["commonLabels.app\\.kubernetes\\.io/name=a"], "commonLabels: the chart sets app.kubernetes.io/name itself"),
        (&["podLabels.app\\.kubernetes\\.io/name=a"], "podLabels: the chart sets app.kubernetes.io/name itself"),
        (&["podLabels.team=a", "commonLabels.team=b"], "podLabels: team is among commonLabels already"),
        (&["webhook.service.nodePort=30443"], "webhook.service.nodePort: ClusterIP has none"),
        (&["webhook.service.externalTrafficPolicy=Local"], "webhook.service.externalTrafficPolicy: ClusterIP has none"),
        (
            &["webhook.service.type=NodePort", "webhook.service.loadBalancerClass=a"],
            "webhook.service.loadBalancerClass: it is for webhook.service.type=LoadBalancer",
        ),
        (&["webhook.service.loadBalancerSourceRanges={10.0.0.0/8}"], "webhook.service.loadBalancerSourceRanges: it is"),
        (&["config.listen.admin=0.0.0.0:8443"], "config.listen: the two listeners have one port"),
        (&["config.listen.admin=0.0.0.0"], "config.listen.admin: write an address and a port"),
        (&["config.listen.events=0.0.0.0:70000"], "config.listen.events: write an address and a port"),
        (
            &["prometheusRule.enabled=true", "prometheusRule.disabled={TidewaiterDwn}"],
            "prometheusRule.disabled: there is no alert TidewaiterDwn; there are TidewaiterDown,",
        ),
        (&["fullnameOverride=My_Name"], "fullnameOverride"),
        (&["fullnameOverride=1a"], "fullnameOverride"),
        (&["nameOverride=a\"b"], "nameOverride"),
        (&["commonLabels.a=b c"], "commonLabels.a"),
        (&["commonLabels.a b=c"], "commonLabels: Property name of \"a b\" does not match"),
        (&["podLabels.a=0123456789012345678901234567890123456789012345678901234567890123x"], "podLabels.a"),
        (&["resources.limits.memory=lots"], "resources.limits.memory"),
        (&["webhook.ingress.enabled=true", "webhook.ingress.hosts={https://a.example}"], "webhook.ingress.hosts.0"),
        // What is taken away with null.
        (&["config=null"], "config is required"),
        (&["config.listen=null"], "config: listen is required"),
        (&["config.listen.admin=null"], "config.listen: admin is required"),
        (&["config.store=null"], "config: store is required"),
        (&["tls=null"], "tls is required"),
        (&["webhook.service=null"], "webhook: service is required"),
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
    for release in ["1-a", "a.b"] {
        let output = program("helm")
            .args(["template", release])
            .arg(chart())
            .args(["--kube-version", "1.33.0"])
            .output()
            .unwrap();
        let said = told(&output);
        assert!(said.contains("set fullnameOverride, or name the release otherwise"), "{release}:\n{said}");
    }
}
