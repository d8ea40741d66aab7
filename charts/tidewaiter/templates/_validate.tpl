{{/* What values can say and must not. Each message says what to do. */}}
{{- define "tidewaiter.validate" -}}
{{- include "tidewaiter.validate.postgresql" . }}
{{- include "tidewaiter.validate.names" . }}
{{- include "tidewaiter.validate.labels" . }}
{{- include "tidewaiter.validate.ports" . }}
{{- include "tidewaiter.validate.times" . }}
{{- $v := .Values }}
{{- if and $v.postgresql.enabled (not $v.postgresql.existingSecret) }}
{{- fail "postgresql.existingSecret: name the secret that holds the address of the database" }}
{{- end }}
{{- if and (not $v.postgresql.enabled) (gt (int $v.replicaCount) 1) }}
{{- fail "replicaCount: the embedded store belongs to one process, so set it to 1" }}
{{- end }}
{{- if and (not $v.postgresql.enabled) $v.autoscaling.enabled }}
{{- fail "autoscaling.enabled: the embedded store belongs to one process, which cannot be scaled; set it to false" }}
{{- end }}
{{- if and (eq $v.tls.mode "existingSecret") (not $v.tls.existingSecret) }}
{{- fail "tls.existingSecret: name the secret with tls.crt and tls.key, or choose another tls.mode" }}
{{- end }}
{{- if and (ne $v.tls.mode "existingSecret") $v.tls.existingSecret }}
{{- fail "tls.existingSecret: it is used only with tls.mode=existingSecret" }}
{{- end }}
{{- if and (ne $v.tls.mode "selfSigned") (hasKey $v.config "tls") }}
{{- fail "config.tls: the chart sets it for tls.mode existingSecret and certManager; leave it out, or set tls.mode=selfSigned and mount your files with `secrets`" }}
{{- end }}
{{- if eq $v.tls.mode "certManager" }}
{{- if and $v.tls.certManager.issuerRef (not $v.tls.certManager.issuerRef.name) }}
{{- fail "tls.certManager.issuerRef.name: name the issuer, or leave `issuerRef` out to have an authority made" }}
{{- end }}
{{- if not (include "tidewaiter.certificateNames" . | fromJsonArray) }}
{{- fail "tls.certManager.dnsNames: name the host under which senders reach it; where they are inside the cluster and your issuer signs such names, set tls.certManager.internalNames=true" }}
{{- end }}
{{- end }}
{{- if and $v.policies $v.existingPoliciesConfigMap }}
{{- fail "policies, existingPoliciesConfigMap: set one of them" }}
{{- end }}
{{- if and $v.webhook.ingress.enabled (not $v.webhook.ingress.hosts) }}
{{- fail "webhook.ingress.hosts: name the host under which senders reach it" }}
{{- end }}
{{- if and (ne (print $v.podDisruptionBudget.minAvailable) "<nil>") (ne (print $v.podDisruptionBudget.maxUnavailable) "<nil>") }}
{{- fail "podDisruptionBudget: set minAvailable or maxUnavailable, not both" }}
{{- end }}
{{- if regexMatch "^(127\\.|\\[::1\\]|localhost)" $v.config.listen.admin }}
{{- fail "config.listen.admin: the kubelet cannot reach loopback in a pod; write \"0.0.0.0:9464\"" }}
{{- end }}
{{- if regexMatch "^(127\\.|\\[::1\\]|localhost)" $v.config.listen.events }}
{{- fail "config.listen.events: senders cannot reach loopback in a pod; write \"0.0.0.0:8443\"" }}
{{- end }}
{{- if and (not $v.postgresql.enabled) (not (hasPrefix "sqlite:/var/lib/tidewaiter/" $v.config.store.url)) }}
{{- fail "config.store.url: the volume is at /var/lib/tidewaiter, so write \"sqlite:/var/lib/tidewaiter/NAME\"" }}
{{- end }}
{{- end }}

{{- define "tidewaiter.validate.postgresql" -}}
{{- if .Values.postgresql.enabled }}
{{- fail "postgresql.enabled: this version of tidewaiter has no PostgreSQL store yet; set it to false" }}
{{- end }}
{{- end }}

{{/* What Kubernetes takes for the name of a service: the narrowest rule of all that these names are for. */}}
{{- define "tidewaiter.validate.names" -}}
{{- $name := include "tidewaiter.fullname" . }}
{{- if or (not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name)) (has $name (list "true" "false" "null" "yes" "no" "on" "off" "y" "n")) }}
{{- fail (printf "the name %q, made of the release's, cannot be that of a service: begin with a letter, go on with lower-case letters, digits and dashes; set fullnameOverride, or name the release otherwise" $name) }}
{{- end }}
{{- end }}

{{/* A label twice in one object is refused, and the chart's own are what its selectors go by. */}}
{{- define "tidewaiter.validate.labels" -}}
{{- $own := list "helm.sh/chart" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/component" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "tidewaiter.dev/listener" }}
{{- $v := .Values }}
{{- $sets := dict "commonLabels" $v.commonLabels "podLabels" $v.podLabels "serviceMonitor.labels" $v.serviceMonitor.labels "prometheusRule.labels" $v.prometheusRule.labels "dashboard.labels" $v.dashboard.labels }}
{{- range $set, $labels := $sets }}
{{- range $label, $_ := $labels }}
{{- if has $label $own }}
{{- fail (printf "%s: the chart sets %s itself; leave it out" $set $label) }}
{{- end }}
{{- if and (ne $set "commonLabels") (hasKey $v.commonLabels $label) }}
{{- fail (printf "%s: %s is among commonLabels already; leave it out of one of them" $set $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Ports of the listeners, and what only some types of service have. */}}
{{- define "tidewaiter.validate.ports" -}}
{{- $listen := .Values.config.listen }}
{{- range $listener, $address := dict "events" $listen.events "admin" $listen.admin }}
{{- $port := include "tidewaiter.port" $address }}
{{- if or (not (regexMatch ":[0-9]{1,5}$" $address)) (lt (int $port) 1) (gt (int $port) 65535) }}
{{- fail (printf "config.listen.%s: write an address and a port of 1 to 65535, as in \"0.0.0.0:8443\"" $listener) }}
{{- end }}
{{- end }}
{{- if eq (include "tidewaiter.port" $listen.events) (include "tidewaiter.port" $listen.admin) }}
{{- fail "config.listen: the two listeners have one port; give each its own" }}
{{- end }}
{{- $service := .Values.webhook.service }}
{{- $outside := eq $service.type "ClusterIP" | ternary "ClusterIP has none; leave it out, or set webhook.service.type to NodePort or LoadBalancer" "" }}
{{- if and $outside $service.nodePort }}
{{- fail (printf "webhook.service.nodePort: %s" $outside) }}
{{- end }}
{{- if and $outside $service.externalTrafficPolicy }}
{{- fail (printf "webhook.service.externalTrafficPolicy: %s" $outside) }}
{{- end }}
{{- if ne $service.type "LoadBalancer" }}
{{- range list "loadBalancerClass" "loadBalancerSourceRanges" }}
{{- if get $service . }}
{{- fail (printf "webhook.service.%s: it is for webhook.service.type=LoadBalancer; leave it out, or set that" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tidewaiter.validate.times" -}}
{{- $managed := .Values.tls.certManager }}
{{- if le (include "tidewaiter.seconds" $managed.duration | int) (include "tidewaiter.seconds" $managed.renewBefore | int) }}
{{- fail "tls.certManager.renewBefore: it must be shorter than tls.certManager.duration, or the certificate would be renewed without end" }}
{{- end }}
{{- $monitor := .Values.serviceMonitor }}
{{- if lt (include "tidewaiter.seconds" $monitor.interval | int) (include "tidewaiter.seconds" $monitor.scrapeTimeout | int) }}
{{- fail "serviceMonitor.scrapeTimeout: Prometheus refuses one that is longer than serviceMonitor.interval" }}
{{- end }}
{{- end }}

{{/* The seconds in a text as 1d2h3m4s; the schema has seen to its form. */}}
{{- define "tidewaiter.seconds" -}}
{{- $sum := 0 }}
{{- range $unit, $seconds := dict "d" 86400 "h" 3600 "m" 60 "s" 1 }}
{{- $sum = add $sum (mul $seconds (regexFind (printf "[0-9]+%s" $unit) $ | trimSuffix $unit | int)) }}
{{- end }}
{{- $sum }}
{{- end }}
