{{/*
How long things are waited for, in whole seconds. All of it follows from the models file's `drain_s`:

  a stream runs         at most drain_s, which is no less than requestTimeoutSeconds
  Serve waits           drain_s + 5 for a router, drain_s + 10 + 5 for an engine (deployments/app.py)
  Ray drains a node     that, and before it the time in which a replacement should be ready
  Kubernetes waits      the deregistration, Ray's drain, and 30 s to end what is left

tests/helm/test_times.py compares these with the code.
*/}}
{{- define "serving.drain" -}}
{{ ceil .Values.models.drainSeconds | int }}
{{- end }}

{{- define "serving.stop.router" -}}
{{ add (include "serving.drain" .) 5 }}
{{- end }}

{{- define "serving.stop.engine" -}}
{{ add (include "serving.drain" .) 15 }}
{{- end }}

{{/* Routers start in seconds; a pod for one takes longer. */}}
{{- define "serving.rayDrain.router" -}}
{{ add (include "serving.stop.router" .) 60 }}
{{- end }}

{{- define "serving.rayDrain.engine" -}}
{{ add (include "serving.stop.engine" .) .Values.engine.replacementSeconds }}
{{- end }}

{{- define "serving.grace.router" -}}
{{ add .Values.router.deregisterSeconds (include "serving.rayDrain.router" .) 30 }}
{{- end }}

{{- define "serving.grace.engine" -}}
{{ add (include "serving.rayDrain.engine" .) 30 }}
{{- end }}

{{/* The head carries no stream. */}}
{{- define "serving.grace.head" -}}
60
{{- end }}

{{- define "serving.oldCluster" -}}
{{ add .Values.router.deregisterSeconds (include "serving.drain" .) .Values.ray.oldClusterSeconds }}
{{- end }}
