{{/* Where senders reach the events listener, without a path. */}}
{{- define "tidewaiter.senderUrl" -}}
{{- $service := .Values.webhook.service }}
{{- if .Values.webhook.ingress.enabled -}}
https://{{ first .Values.webhook.ingress.hosts }}
{{- else if eq $service.type "NodePort" -}}
https://NODE:{{ default "NODE-PORT" $service.nodePort }}
{{- else -}}
{{- $host := ternary "YOUR-NAME" (printf "%s.%s.svc" (include "tidewaiter.fullname" .) .Release.Namespace) (eq $service.type "LoadBalancer") -}}
https://{{ $host }}{{ if ne (int $service.port) 443 }}:{{ $service.port }}{{ end }}
{{- end }}
{{- end }}

{{/* The command that gives a source's secret, where it is one of `secrets`. Takes the root and the source. */}}
{{- define "tidewaiter.secretCommand" -}}
{{- $auth := default dict .source.auth }}
{{- $file := default "" (coalesce $auth.valueFile (first (default list $auth.valueFiles))) }}
{{- if hasPrefix "/etc/tidewaiter/secrets/" $file }}
{{- $parts := splitList "/" (trimPrefix "/etc/tidewaiter/secrets/" $file) -}}
SECRET="$(kubectl -n {{ .root.Release.Namespace }} get secret {{ first $parts }} -o jsonpath='{.data.{{ last $parts | replace "." "\\." }}}' | base64 -d)"
{{- else -}}
SECRET=...   # what {{ default (coalesce $auth.valueEnv (first (default list $auth.valueEnvs)) "the source's secret" | printf "%s") $file }} holds
{{- end }}
{{- end }}
