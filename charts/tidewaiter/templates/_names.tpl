{{/* The name of the chart. */}}
{{- define "tidewaiter.name" -}}
{{- default .Chart.Name .Values.nameOverride }}
{{- end }}

{{/* The name that objects begin with. Room is left for their own endings. */}}
{{- define "tidewaiter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tidewaiter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tidewaiter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The secret with the certificate; nothing where the program makes its own. */}}
{{- define "tidewaiter.tlsSecret" -}}
{{- if eq .Values.tls.mode "existingSecret" }}
{{- .Values.tls.existingSecret }}
{{- else if eq .Values.tls.mode "certManager" }}
{{- printf "%s-tls" (include "tidewaiter.fullname" .) }}
{{- end }}
{{- end }}

{{/* The ConfigMap with policies; nothing where the shipped ones are in force. */}}
{{- define "tidewaiter.policiesConfigMap" -}}
{{- if .Values.existingPoliciesConfigMap }}
{{- .Values.existingPoliciesConfigMap }}
{{- else if .Values.policies }}
{{- printf "%s-policies" (include "tidewaiter.fullname" .) }}
{{- end }}
{{- end }}

{{/* The names in the certificate of cert-manager. A public authority refuses an order with names inside the cluster as
a whole, so these are for the chart's own authority, or where it is asked for. */}}
{{- define "tidewaiter.certificateNames" -}}
{{- $own := .Values.tls.certManager }}
{{- $inside := $own.internalNames }}
{{- if kindIs "invalid" $inside }}
{{- $inside = not $own.issuerRef }}
{{- end }}
{{- $names := $own.dnsNames }}
{{- if $inside }}
{{- $names = concat $names (include "tidewaiter.serviceNames" . | fromJsonArray) }}
{{- end }}
{{- uniq $names | toJson }}
{{- end }}

{{/* The names of the service that senders inside the cluster use. */}}
{{- define "tidewaiter.serviceNames" -}}
{{- $name := include "tidewaiter.fullname" . }}
{{- $service := printf "%s.%s.svc" $name .Release.Namespace }}
{{- list $name (printf "%s.%s" $name .Release.Namespace) $service (printf "%s.cluster.local" $service) | toJson }}
{{- end }}

{{/* What the series of this release have in common, as matchers. */}}
{{- define "tidewaiter.seriesSelector" -}}
{{- $labels := .Values.prometheusRule.selector }}
{{- if not $labels }}
{{- $labels = dict "job" (printf "%s-admin" (include "tidewaiter.fullname" .)) "namespace" .Release.Namespace }}
{{- end }}
{{- $matchers := list }}
{{- range $name, $value := $labels }}
{{- $matchers = append $matchers (printf "%s=%q" $name $value) }}
{{- end }}
{{- join "," $matchers }}
{{- end }}
