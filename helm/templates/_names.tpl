{{- define "serving.fullname" -}}
{{- .Values.nameOverride | default .Release.Name -}}
{{- end }}

{{/* Labels of everything. */}}
{{- define "serving.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{ include "serving.of" . }}
{{- end }}

{{/* What tells this release's things from others; selectors have these and a component. */}}
{{- define "serving.of" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "serving.selector" -}}
{{- $root := index . 0 -}}
{{ include "serving.of" $root }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* KubeRay makes this service, from `serveService`. */}}
{{- define "serving.service" -}}
{{ include "serving.fullname" . }}-serve-svc
{{- end }}

{{- define "serving.url" -}}
http://{{ include "serving.service" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end }}

{{/* The image: (root, whether it is for pods without GPUs). */}}
{{- define "serving.image" -}}
{{- $root := index . 0 -}}
{{- $image := omit $root.Values.image "cpu" -}}
{{- if index . 1 }}{{ $image = mergeOverwrite (deepCopy $image) $root.Values.image.cpu }}{{ end -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Names of secrets: the given one, or that of the secret which the chart makes. */}}
{{- define "serving.madeSecret" -}}
{{ include "serving.fullname" . }}-secrets
{{- end }}

{{- define "serving.secretName" -}}
{{- $root := index . 0 -}}
{{- $named := index . 1 -}}
{{ $named.name | default (include "serving.madeSecret" $root) }}
{{- end }}

{{/* As a `secretKeyRef`. */}}
{{- define "serving.secretRef" -}}
{name: {{ include "serving.secretName" . }}, key: {{ (index . 1).key }}}
{{- end }}

{{/* Ray's token has a secret of its own, since KubeRay sets its key. */}}
{{- define "serving.raySecret" -}}
{{ .Values.secrets.rayToken.name | default (printf "%s-ray-token" (include "serving.fullname" .)) }}
{{- end }}

{{- define "serving.ledgerMode" -}}
{{- if ne .Values.ledger.mode "auto" -}}
{{ .Values.ledger.mode }}
{{- else if eq .Values.store.type "postgresql" -}}
store
{{- else if eq .Values.store.type "sqlite" -}}
journal
{{- else -}}
off
{{- end -}}
{{- end }}
