{{/*
How long things are waited for, in whole seconds. `serving render-values` computes it from the
models file (serving/catalogue/grace.py):

  a stream runs         at most drain_s, which is no less than requestTimeoutSeconds
  Ray drains a node     the time in which a replacement should be ready, then as long as Serve waits
                        for a replica to end
  Kubernetes waits      the deregistration, Ray's drain, and what ends Ray's processes

tests/helm/test_times.py compares these with the code.
*/}}
{{- define "serving.drain" -}}
{{ ceil .Values.models.drainSeconds | int }}
{{- end }}

{{- define "serving.rayDrain.router" -}}
{{ .Values.models.times.router.drain }}
{{- end }}

{{- define "serving.rayDrain.engine" -}}
{{ .Values.models.times.engine.drain }}
{{- end }}

{{/* Kubernetes counts the time of the preStop hook too. */}}
{{- define "serving.grace.router" -}}
{{ add .Values.router.deregisterSeconds .Values.models.times.router.termination }}
{{- end }}

{{- define "serving.grace.engine" -}}
{{ .Values.models.times.engine.termination }}
{{- end }}

{{/* The head carries no stream. */}}
{{- define "serving.grace.head" -}}
60
{{- end }}

{{- define "serving.oldCluster" -}}
{{ add .Values.router.deregisterSeconds (include "serving.drain" .) .Values.ray.oldClusterSeconds }}
{{- end }}
