{{/* The port of an address as in "https://name:8443/path", or of its scheme. */}}
{{- define "tidewaiter.urlPort" -}}
{{- $authority := regexReplaceAll "^[A-Za-z]+://([^/?#]*).*$" . "${1}" }}
{{- regexFind ":[0-9]+$" $authority | trimPrefix ":" | default (ternary "80" "443" (hasPrefix "http://" (lower .))) }}
{{- end }}

{{/* The ports that the configuration leads to. What an address from a file or a variable says is not known here, and 443
where it is that of a service outside. */}}
{{- define "tidewaiter.egressPorts" -}}
{{- $ports := list 443 }}
{{- range .Values.config.registries }}
{{- if .endpoint }}
{{- $ports = append $ports (include "tidewaiter.urlPort" .endpoint | int) }}
{{- else }}
{{- $ports = append $ports (include "tidewaiter.urlPort" (printf "%s://%s" (ternary "http" "https" (default false .insecure)) .host) | int) }}
{{- end }}
{{- with dig "auth" "authority" "" . }}
{{- $ports = append $ports (include "tidewaiter.urlPort" . | int) }}
{{- end }}
{{- end }}
{{- range .Values.config.sinks }}
{{- range concat (list .url) (default list .urls) }}
{{- if . }}
{{- $ports = append $ports (include "tidewaiter.urlPort" . | int) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.config.sources }}
{{- $oidc := dig "auth" "oidc" dict . }}
{{- range list $oidc.issuer $oidc.jwks }}
{{- if . }}
{{- $ports = append $ports (include "tidewaiter.urlPort" . | int) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.networkPolicy.egressPorts }}
{{- $ports = append $ports (int .) }}
{{- end }}
{{- uniq $ports | toJson }}
{{- end }}

{{/* Whether an identity of the node may sign in: Azure, with no secret of its own and no workload identity. */}}
{{- define "tidewaiter.asksMetadata" -}}
{{- $workload := eq (get .Values.podLabels "azure.workload.identity/use") "true" }}
{{- range .Values.config.registries }}
{{- $auth := default dict .auth }}
{{- if and (eq (default "" $auth.kind) "azure") (not $workload) (not $auth.clientSecretFile) (not $auth.clientSecretEnv) -}}
yes
{{- end }}
{{- end }}
{{- end }}
