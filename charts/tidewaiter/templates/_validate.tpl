{{/* What values can say and must not. Each message says what to do. */}}
{{- define "tidewaiter.validate" -}}
{{- include "tidewaiter.validate.postgresql" . }}
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
