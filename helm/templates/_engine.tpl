{{/* One worker group of engines: (root, group of `models.groups`). */}}
{{- define "serving.engineGroup" -}}
{{- $root := index . 0 -}}
{{- $group := index . 1 -}}
{{- $v := $root.Values -}}
{{- $own := get $v.engine.groups $group.name | default dict -}}
{{- $gpus := int $group.gpus -}}
{{- $memory := $own.memory | default (printf "%dGi" (int $group.memoryGiB)) -}}
{{- $shm := $own.shm | default (printf "%dGi" (add 1 $gpus)) -}}
{{- $selector := dict -}}
{{- if $gpus -}}
{{- $selector = merge (dict) ($own.nodeSelector | default dict) (get $v.engine.nodeSelectors (printf "%v" $group.gpuMemoryGiB) | default dict) -}}
{{- else -}}
{{- $selector = $own.nodeSelector | default dict -}}
{{- end -}}
{{- $tolerations := concat (ternary $v.engine.tolerations list (gt $gpus 0)) ($own.tolerations | default list) -}}
groupName: {{ $group.name }}
# Ray's autoscaler changes it; it begins with what the models take when all are awake.
replicas: {{ int $group.replicas }}
{{- if $v.ray.autoscaler.enabled }}
minReplicas: 0
maxReplicas: {{ add (int $group.replicas) (int $v.ray.autoscaler.room) }}
{{- else }}
minReplicas: {{ int $group.replicas }}
maxReplicas: {{ int $group.replicas }}
{{- end }}
rayStartParams:
  num-cpus: {{ ceil $group.cpus | int | quote }}
  num-gpus: {{ $gpus | quote }}
  # One replica takes the one of these that a pod has.
  resources: {{ printf "\"{\\\"%s\\\": 1}\"" $group.name | squote }}
  {{- include "serving.rayPorts" $root | nindent 2 }}
template:
  metadata:
    labels:
      {{- include "serving.selector" (list $root "engine") | nindent 6 }}
      serving/group: {{ $group.name }}
    {{- with $own.podAnnotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    serviceAccountName: {{ include "serving.fullname" $root }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    terminationGracePeriodSeconds: {{ include "serving.grace.engine" $root }}
    {{- include "serving.pullSecrets" $root | nindent 4 }}
    securityContext:
      {{- include "serving.podSecurity" $root | nindent 6 }}
      {{- include "serving.raySysctls" $root | nindent 6 }}
    {{- with $own.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    {{- if and $gpus $v.engine.runtimeClassName }}
    runtimeClassName: {{ $v.engine.runtimeClassName }}
    {{- end }}
    {{- with $selector }}
    nodeSelector: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $tolerations }}
    tolerations: {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $v.topology.spreadEngines }}
    topologySpreadConstraints:
      - topologyKey: kubernetes.io/hostname
        maxSkew: 1
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchLabels:
            {{- include "serving.selector" (list $root "engine") | nindent 12 }}
            serving/group: {{ $group.name }}
    {{- end }}
    {{- if and $gpus $group.gpuMemoryGiB $v.engine.matchGpuMemory }}
    affinity:
      nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms:
            - matchExpressions:
                # In MiB. A card of "24 GiB" has 22.5 or more.
                - key: nvidia.com/gpu.memory
                  operator: Gt
                  values: [{{ mulf (float64 $group.gpuMemoryGiB) 1024 0.9 | floor | int | quote }}]
    {{- end }}
    {{- if $v.logs.toOutput }}
    initContainers:
      {{- include "serving.logSidecar" (list $root (not $gpus)) | nindent 6 }}
    {{- end }}
    containers:
      - name: ray-worker
        image: {{ include "serving.image" (list $root (not $gpus)) }}
        imagePullPolicy: {{ $v.image.pullPolicy }}
        env:
          {{- include "serving.rayEnv" $root | nindent 10 }}
          - {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ include "serving.rayDrain.engine" $root | quote }}}
          - {name: HOME, value: /home/serving}
          - {name: SERVING_LOG_DIR, value: /var/log/serving}
          - {name: SERVING_LINK_PORT, value: "8002"}
          - {name: SERVING_OPS_PORT, value: "8003"}
          - name: SERVING_CLUSTER_TOKEN
            valueFrom: {secretKeyRef: {{ include "serving.secretRef" (list $root $v.secrets.clusterToken) }}}
          - name: SERVING_METRICS_TOKEN
            valueFrom: {secretKeyRef: {{ include "serving.secretRef" (list $root $v.secrets.metricsToken) }}}
          # The processes of one replica are in one pod.
          - {name: GLOO_SOCKET_IFNAME, value: lo}
          - {name: NCCL_SOCKET_IFNAME, value: lo}
          - {name: HF_HOME, value: /var/cache/huggingface}
          - {name: HF_HUB_OFFLINE, value: {{ $v.cache.offline | ternary "1" "0" | quote }}}
          {{- if $v.secrets.huggingFace.name }}
          - name: HF_TOKEN
            valueFrom: {secretKeyRef: {{ include "serving.secretRef" (list $root $v.secrets.huggingFace) }}}
          {{- end }}
          {{- include "serving.settings" $v.engine.settings | nindent 10 }}
        ports:
          - {name: links, containerPort: 8002}
          - {name: ops, containerPort: 8003}
          - {name: metrics, containerPort: 8080}
        # KubeRay's own would ask for a router, which is not here.
        readinessProbe: {{- include "serving.nodeReadinessProbe" $root | nindent 10 }}
        livenessProbe: {{- include "serving.livenessProbe" $root | nindent 10 }}
        resources:
          requests:
            cpu: {{ add (mulf $group.cpus 1000 | ceil | int) (int $v.ray.overheadMilliCpu) }}m
            memory: {{ $memory }}
            {{- if $gpus }}
            {{ $v.engine.gpuResource }}: {{ $gpus }}
            {{- end }}
          limits:
            memory: {{ $memory }}
            {{- if $gpus }}
            {{ $v.engine.gpuResource }}: {{ $gpus }}
            {{- end }}
        securityContext: {{- include "serving.containerSecurity" $root | nindent 10 }}
        volumeMounts:
          {{- include "serving.scratchMounts" $root | nindent 10 }}
          - {name: cache, mountPath: /var/cache/huggingface}
          {{- range $v.cache.volumes }}
          - {name: {{ .name }}, mountPath: {{ .mountPath }}, readOnly: true}
          {{- end }}
    volumes:
      {{- include "serving.scratchVolumes" $shm | nindent 6 }}
      - name: cache
        {{- include "serving.cacheVolume" $root | nindent 8 }}
      {{- range $v.cache.volumes }}
      - name: {{ .name }}
        {{- if .claim }}
        persistentVolumeClaim: {claimName: {{ .claim }}, readOnly: true}
        {{- else }}
        hostPath: {path: {{ .hostPath }}, type: Directory}
        {{- end }}
      {{- end }}
{{- end }}

{{- define "serving.cacheVolume" -}}
{{- with .Values.cache -}}
{{- if eq .type "emptyDir" -}}
emptyDir: {sizeLimit: {{ .size }}}
{{- else if eq .type "hostPath" -}}
hostPath: {path: {{ .hostPath }}, type: DirectoryOrCreate}
{{- else -}}
persistentVolumeClaim: {claimName: {{ eq .type "create" | ternary (printf "%s-cache" (include "serving.fullname" $)) .claim }}}
{{- end -}}
{{- end -}}
{{- end }}
