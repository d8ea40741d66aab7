{{/* The name of the chart. */}}
{{- define "tidewaiter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
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

{{/* The names of the service that senders inside the cluster use. */}}
{{- define "tidewaiter.serviceNames" -}}
{{- $name := include "tidewaiter.fullname" . }}
{{- $service := printf "%s.%s.svc" $name .Release.Namespace }}
{{- list $name (printf "%s.%s" $name .Release.Namespace) $service (printf "%s.cluster.local" $service) | toJson }}
{{- end }}
