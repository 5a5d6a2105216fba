{{/* The pod of a job: (root, component). Its container follows at the end. */}}
{{- define "serving.jobPod" -}}
{{- $root := index . 0 -}}
metadata:
  labels: {{- include "serving.selector" . | nindent 4 }}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- include "serving.pullSecrets" $root | nindent 2 }}
  securityContext: {{- include "serving.podSecurity" $root | nindent 4 }}
{{- end }}

{{/* A word for a shell, whatever is in it. */}}
{{- define "serving.word" -}}
'{{ . | toString | replace "'" "'\\''" }}'
{{- end }}
