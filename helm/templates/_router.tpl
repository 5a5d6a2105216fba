{{/* The worker group of the routers: one in each pod, which no engine shares. */}}
{{- define "serving.routerGroup" -}}
{{- $v := .Values -}}
{{- $replicas := int $v.models.router.replicas -}}
groupName: router
replicas: {{ $replicas }}
{{- if $v.ray.autoscaler.enabled }}
minReplicas: {{ $replicas }}
maxReplicas: {{ add $replicas (int $v.ray.autoscaler.room) }}
{{- else }}
minReplicas: {{ $replicas }}
maxReplicas: {{ $replicas }}
{{- end }}
rayStartParams:
  num-cpus: {{ ceil $v.models.router.cpus | int | quote }}
  num-gpus: "0"
  resources: '"{\"router\": 1}"'
  {{- include "serving.rayPorts" . | nindent 2 }}
template:
  metadata:
    labels:
      {{- include "serving.selector" (list . "router") | nindent 6 }}
      serving/group: router
    {{- with $v.router.podAnnotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    serviceAccountName: {{ include "serving.fullname" . }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    terminationGracePeriodSeconds: {{ include "serving.grace.router" . }}
    {{- include "serving.pullSecrets" . | nindent 4 }}
    securityContext:
      {{- include "serving.podSecurity" . | nindent 6 }}
      {{- include "serving.raySysctls" . | nindent 6 }}
    {{- with $v.router.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    {{- with $v.router.nodeSelector }}
    nodeSelector: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $v.router.tolerations }}
    tolerations: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if eq $v.store.type "sqlite" }}
    # The store is a file: all routers share one node's.
    affinity:
      podAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels: {{- include "serving.selector" (list . "router") | nindent 16 }}
    {{- else }}
    topologySpreadConstraints:
      {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
      - topologyKey: {{ $key }}
        maxSkew: 1
        whenUnsatisfiable: {{ $v.topology.whenUnsatisfiable }}
        labelSelector:
          matchLabels: {{- include "serving.selector" (list $ "router") | nindent 12 }}
      {{- end }}
    {{- end }}
    {{- if $v.logs.toOutput }}
    initContainers:
      {{- include "serving.logSidecar" (list . true) | nindent 6 }}
    {{- end }}
    containers:
      - name: ray-worker
        image: {{ include "serving.image" (list . true) }}
        imagePullPolicy: {{ $v.image.pullPolicy }}
        env:
          {{- include "serving.rayEnv" . | nindent 10 }}
          - {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ include "serving.rayDrain.router" . | quote }}}
          - {name: HOME, value: /home/serving}
          - {name: SERVING_LOG_DIR, value: /var/log/serving}
          - {name: SERVING_SPOOL_DIR, value: /var/tmp}
          - {name: SERVING_HOST, value: 0.0.0.0}
          - {name: SERVING_PORT, value: "8000"}
          - {name: SERVING_OWN_PORT, value: "8001"}
          - {name: SERVING_REQUEST_TIMEOUT_S, value: {{ $v.router.requestTimeoutSeconds | toString | quote }}}
          - {name: SERVING_API_KEYS_FILE, value: /etc/serving/keys/{{ $v.secrets.apiKeys.key }}}
          - name: SERVING_CLUSTER_TOKEN
            valueFrom: {secretKeyRef: {{ include "serving.secretRef" (list . $v.secrets.clusterToken) }}}
          - name: SERVING_METRICS_TOKEN
            valueFrom: {secretKeyRef: {{ include "serving.secretRef" (list . $v.secrets.metricsToken) }}}
          {{- include "serving.storeEnv" . | nindent 10 }}
          {{- range $v.secrets.providers }}
          {{- if .env }}
          - name: {{ .env }}
            valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
          {{- end }}
          {{- end }}
          {{- include "serving.settings" $v.router.settings | nindent 10 }}
        ports:
          - {name: serve, containerPort: 8000}
          - {name: own, containerPort: 8001}
          - {name: metrics, containerPort: 8080}
        # Whether this router answers, and not whether all models do: a router without a model is
        # of use to the callers of the others.
        readinessProbe:
          httpGet: {path: /-/healthz, port: serve}
          periodSeconds: 5
          timeoutSeconds: 5
          failureThreshold: 3
        livenessProbe: {{- include "serving.livenessProbe" . | nindent 10 }}
        lifecycle:
          # Load balancers learn meanwhile that this pod goes; it still takes what they send.
          preStop: {exec: {command: [sleep, {{ $v.router.deregisterSeconds | toString | quote }}]}}
        resources:
          requests:
            cpu: {{ add (mulf $v.models.router.cpus 1000 | ceil | int) (int $v.ray.overheadMilliCpu) }}m
            memory: {{ $v.router.memory.request }}
          limits:
            memory: {{ $v.router.memory.limit }}
        securityContext: {{- include "serving.containerSecurity" . | nindent 10 }}
        volumeMounts:
          {{- include "serving.scratchMounts" . | nindent 10 }}
          - {name: api-keys, mountPath: /etc/serving/keys, readOnly: true}
          {{- range $v.secrets.providers }}
          {{- if .file }}
          - {name: provider-{{ .file }}, mountPath: /etc/serving/providers/{{ .file }}, readOnly: true}
          {{- end }}
          {{- end }}
          {{- if include "serving.ledgerVolume" . }}
          - {name: ledger, mountPath: /var/lib/serving}
          {{- end }}
    volumes:
      {{- include "serving.scratchVolumes" "1Gi" | nindent 6 }}
      # As a folder, so that a change of the secret reaches the routers.
      - name: api-keys
        secret:
          secretName: {{ include "serving.secretName" (list . $v.secrets.apiKeys) }}
          items: [{key: {{ $v.secrets.apiKeys.key }}, path: {{ $v.secrets.apiKeys.key }}}]
          defaultMode: 0440
      {{- range $v.secrets.providers }}
      {{- if .file }}
      - name: provider-{{ .file }}
        secret: {secretName: {{ .name }}, defaultMode: 0440}
      {{- end }}
      {{- end }}
      {{- with include "serving.ledgerVolume" . }}
      - name: ledger
        {{- . | nindent 8 }}
      {{- end }}
{{- end }}

{{- define "serving.storeEnv" -}}
{{- if eq .Values.store.type "postgresql" -}}
- name: SERVING_STORE_URL
  valueFrom: {secretKeyRef: {{ include "serving.secretRef" (list . .Values.store.postgresql.secret) }}}
- {name: SERVING_STORE_MIGRATES, value: {{ .Values.store.postgresql.migrate | ternary "false" "true" | quote }}}
{{- else if eq .Values.store.type "sqlite" -}}
- {name: SERVING_STORE_URL, value: "sqlite:////var/lib/serving/store.sqlite3"}
- {name: SERVING_STORE_MIGRATES, value: "true"}
{{- end }}
- {name: SERVING_LEDGER, value: {{ include "serving.ledgerMode" . | quote }}}
- {name: SERVING_LEDGER_FULL, value: {{ .Values.ledger.full }}}
{{- if include "serving.ledgerVolume" . }}
- {name: SERVING_LEDGER_DIR, value: /var/lib/serving/journals}
{{- end }}
{{- end }}

{{/* The disk that outlives a router: of its journal, or of SQLite's file with the journals. */}}
{{- define "serving.ledgerVolume" -}}
{{- $v := .Values -}}
{{- if eq $v.store.type "sqlite" -}}
persistentVolumeClaim: {claimName: {{ $v.store.sqlite.claim | default (printf "%s-store" (include "serving.fullname" .)) }}}
{{- else if eq (include "serving.ledgerMode" .) "journal" -}}
{{- if $v.ledger.volume.hostPath -}}
hostPath: {path: {{ $v.ledger.volume.hostPath }}, type: DirectoryOrCreate}
{{- else -}}
persistentVolumeClaim: {claimName: {{ $v.ledger.volume.claim }}}
{{- end -}}
{{- end -}}
{{- end }}
