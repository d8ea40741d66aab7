{{/* The configuration: the values' own, with the policies and the certificate that the chart mounts. */}}
{{- define "tidewaiter.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if and (include "tidewaiter.policiesConfigMap" .) (not (hasKey $config "policies")) }}
{{- $_ := set $config "policies" (list "/etc/tidewaiter/policies") }}
{{- end }}
{{- if and (include "tidewaiter.tlsSecret" .) (not (hasKey $config "tls")) }}
{{- $_ := set $config "tls" (dict "certificate" "/etc/tidewaiter/tls/tls.crt" "key" "/etc/tidewaiter/tls/tls.key") }}
{{- end }}
{{- if not (hasKey $config "tls") }}
{{- /* The certificate that the program makes of itself names the service. */}}
{{- $names := concat (dig "listen" "names" (list) $config) (include "tidewaiter.serviceNames" . | fromJsonArray) }}
{{- $_ := set $config.listen "names" (uniq $names) }}
{{- end }}
{{- if .Values.postgresql.enabled }}
{{- $_ := set $config "store" (dict "urlEnv" "TIDEWAITER_STORE_URL") }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* A text without the indentation that all of its lines have, and without empty lines around it. */}}
{{- define "tidewaiter.unindented" -}}
{{- $text := regexReplaceAll "(?m)^[ \t]+$" (replace "\r\n" "\n" .) "" | trimAll "\n" }}
{{- $least := 200 }}
{{- range splitList "\n" $text }}
{{- if . }}
{{- $least = min $least (regexFind "^ *" . | len) }}
{{- end }}
{{- end }}
{{- regexReplaceAll (printf "(?m)^ {%d}" (int $least)) $text "" }}
{{- end }}

{{/* The port of an address, as in "0.0.0.0:8443". */}}
{{- define "tidewaiter.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{- define "tidewaiter.adminScheme" -}}
{{- if dig "admin" "tls" nil .Values.config }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}

{{/* What the pod and the test's pod mount, beside the record. */}}
{{- define "tidewaiter.volumeMounts" -}}
- name: config
  mountPath: /etc/tidewaiter/config
  readOnly: true
{{- if include "tidewaiter.policiesConfigMap" . }}
- name: policies
  mountPath: /etc/tidewaiter/policies
  readOnly: true
{{- end }}
{{- if include "tidewaiter.tlsSecret" . }}
- name: tls
  mountPath: /etc/tidewaiter/tls
  readOnly: true
{{- end }}
{{- range $n, $secret := .Values.secrets }}
- name: secret-{{ $n }}
  mountPath: /etc/tidewaiter/secrets/{{ $secret }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tidewaiter.volumes" -}}
- name: config
  configMap:
    name: {{ include "tidewaiter.fullname" . }}
{{- with include "tidewaiter.policiesConfigMap" . }}
- name: policies
  configMap:
    name: {{ . }}
{{- end }}
{{- with include "tidewaiter.tlsSecret" . }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 288 {{- /* 0440: the pod's group reads */}}
{{- end }}
{{- range $n, $secret := .Values.secrets }}
- name: secret-{{ $n }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 288 {{- /* 0440: the pod's group reads */}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
