{{/* What all pods of Ray have in common. */}}

{{- define "serving.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The ports that Ray takes by itself lie in the range of ports for connections that go out. */}}
{{- define "serving.raySysctls" -}}
sysctls:
  - {name: net.ipv4.ip_local_reserved_ports, value: "44217,44227,52365"}
{{- end }}

{{- define "serving.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* As deployments/environment.py has it; KubeRay adds the mode and the token. */}}
{{- define "serving.rayEnv" -}}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_ENABLE_DIRECT_INGRESS, value: "0"}
- {name: RAY_SERVE_USE_GRPC_BY_DEFAULT, value: "0"}
- {name: RAY_worker_niceness, value: "0"}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- end }}

{{/* Ports of Ray's own, the same in every pod, so that policies can name them. */}}
{{- define "serving.rayPorts" -}}
node-manager-port: "6380"
object-manager-port: "6381"
dashboard-agent-grpc-port: "6382"
runtime-env-agent-port: "6383"
dashboard-agent-listen-port: "52365"
metrics-export-port: "8080"
min-worker-port: "10002"
max-worker-port: "10999"
object-store-memory: "104857600"
{{- end }}

{{- define "serving.livenessProbe" -}}
# Ray's node, which the raylet shares its fate with.
httpGet: {path: /api/healthz, port: 52365}
initialDelaySeconds: 30
periodSeconds: 5
timeoutSeconds: 5
failureThreshold: 24
{{- end }}

{{- define "serving.nodeReadinessProbe" -}}
httpGet: {path: /api/healthz, port: 52365}
initialDelaySeconds: 5
periodSeconds: 5
timeoutSeconds: 5
failureThreshold: 3
{{- end }}

{{/* Volumes that a pod with a read-only root needs: (memory of /dev/shm). */}}
{{- define "serving.scratchVolumes" -}}
- {name: tmp, emptyDir: {}}
- {name: var-tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
- {name: logs, emptyDir: {sizeLimit: 10Gi}}
# These two have KubeRay's own names, which then adds none.
- {name: ray-logs, emptyDir: {}}
- {name: shared-mem, emptyDir: {medium: Memory, sizeLimit: {{ . }}}}
{{- end }}

{{- define "serving.scratchMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: var-tmp, mountPath: /var/tmp}
- {name: home, mountPath: /home/serving}
- {name: logs, mountPath: /var/log/serving}
- {name: ray-logs, mountPath: /tmp/ray}
- {name: shared-mem, mountPath: /dev/shm}
{{- end }}

{{/* JSON logs to the pod's output: (root, whether the pod has no GPU). */}}
{{- define "serving.logSidecar" -}}
{{- $root := index . 0 -}}
- name: logs
  image: {{ include "serving.image" . }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  restartPolicy: Always
  command: [bash, -c]
  args:
    - |
      declare -A seen
      while sleep 1; do
        for file in /var/log/serving/*.jsonl; do
          if [[ -e $file && -z ${seen[$file]:-} ]]; then
            seen[$file]=1
            tail -n +1 -F "$file" 2>/dev/null &
          fi
        done
      done
  resources:
    requests: {cpu: 10m, memory: 32Mi}
    limits: {memory: 64Mi}
  securityContext: {{- include "serving.containerSecurity" $root | nindent 4 }}
  volumeMounts:
    - {name: logs, mountPath: /var/log/serving, readOnly: true}
{{- end }}

{{- define "serving.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . }}}
  {{- end }}
{{- end }}
{{- end }}

{{- define "serving.settings" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}
