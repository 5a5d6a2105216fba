{{/*
What KubeRay deploys: the builders of deployments/app.py. The models file is in it as text, so that a
change of it reaches the routers whole and at once; a mounted file would come minutes later.
*/}}
{{- define "serving.serveConfig" -}}
proxy_location: Disabled
applications:
  - name: router
    route_prefix: null
    import_path: deployments.app:build_router
    args: {{ dict "models_yaml" .Values.models.file "group" "router" | toJson }}
  {{- range .Values.models.engines }}
  - name: {{ .app | quote }}
    route_prefix: null
    import_path: deployments.app:build_engine
    args: {{ dict "models_yaml" $.Values.models.file "model" .id "group" .group | toJson }}
  {{- end }}
{{- end }}
