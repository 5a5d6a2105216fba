{{/* What the schema cannot say: values that contradict each other. Every template begins with it. */}}
{{- define "serving.checks" -}}
{{- $v := .Values -}}
{{- $name := include "serving.fullname" . -}}
{{- if not $v.models.file -}}
{{- fail "models: is empty; render it: serving render-values models.yaml > models-values.yaml, and give it with -f models-values.yaml" -}}
{{- end -}}
{{- if ne (sha256sum $v.models.file) $v.models.digest -}}
{{- fail "models.file is not the file that the other values of `models` were computed from; render them again: serving render-values models.yaml" -}}
{{- end -}}
{{- if gt (len $name) 40 -}}
{{- fail (printf "the name '%s' has more than 40 characters, and KubeRay adds to it; set nameOverride" $name) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name '%s' must begin with a letter and have lower-case letters, digits and '-' only; set nameOverride" $name) -}}
{{- end -}}
{{- if lt (float64 $v.models.drainSeconds) (float64 $v.router.requestTimeoutSeconds) -}}
{{- fail (printf "drain_s: %v in the models file is shorter than router.requestTimeoutSeconds: %v; a stream that long would be cut when its replica is replaced. Write `drain_s: %v` into the models file, or lower the timeout" $v.models.drainSeconds $v.router.requestTimeoutSeconds $v.router.requestTimeoutSeconds) -}}
{{- end -}}
{{- range $setting := concat (keys $v.router.settings) (keys $v.engine.settings) -}}
{{- if has $setting (include "serving.ownSettings" $ | fromJsonArray) -}}
{{- fail (printf "settings: %s is set by the chart; see the value that it follows from in values.yaml" $setting) -}}
{{- end -}}
{{- end -}}
{{- $groups := list -}}
{{- range $v.models.groups }}{{ $groups = append $groups .name }}{{ end -}}
{{- range $group := keys $v.engine.groups -}}
{{- if not (has $group $groups) -}}
{{- fail (printf "engine.groups: no group is called '%s'; there are: %s" $group (join ", " $groups)) -}}
{{- end -}}
{{- end -}}
{{- range $provider := $v.models.providers -}}
{{- $found := false -}}
{{- range $v.secrets.providers -}}
{{- if and .env (eq .env $provider.env) }}{{ $found = true }}{{ end -}}
{{- if and .file (eq (printf "/etc/serving/providers/%s" .file) $provider.file) }}{{ $found = true }}{{ end -}}
{{- end -}}
{{- if and (or $provider.env $provider.file) (not $found) -}}
{{- fail (printf "secrets.providers: the models file has models of provider '%s', and no secret gives its key; add {%s, name: SECRET, key: KEY}" $provider.name (ternary (printf "file: %s" (base $provider.file)) (printf "env: %s" $provider.env) (ne $provider.file ""))) -}}
{{- end -}}
{{- end -}}
{{- range $v.secrets.providers -}}
{{- if eq (empty .env) (empty .file) -}}
{{- fail (printf "secrets.providers: the one of secret '%s' needs either `env` or `file`" .name) -}}
{{- end -}}
{{- end -}}
{{- if and $v.secrets.apiKeys.name (not $v.secrets.callerKey.name) -}}
{{- fail "secrets.callerKey: with a secret of your own for the keys, name one that has a single key, for `helm test`" -}}
{{- end -}}
{{- $cache := $v.cache -}}
{{- if and (eq $cache.type "hostPath") (not $cache.hostPath) }}{{ fail "cache.hostPath: is needed for cache.type: hostPath" }}{{ end -}}
{{- if and (eq $cache.type "claim") (not $cache.claim) }}{{ fail "cache.claim: is needed for cache.type: claim" }}{{ end -}}
{{- if and $cache.download (not (has $cache.type (list "claim" "create"))) -}}
{{- fail (printf "cache.download: there is no volume to fetch into with cache.type: %s; use `claim` or `create`" $cache.type) -}}
{{- end -}}
{{- range $cache.volumes -}}
{{- if eq (empty .claim) (empty .hostPath) }}{{ fail (printf "cache.volumes: '%s' needs either `claim` or `hostPath`" .name) }}{{ end -}}
{{- end -}}
{{- if and (eq $v.store.type "postgresql") (not $v.store.postgresql.secret.name) -}}
{{- fail "store.postgresql.secret.name: is needed for store.type: postgresql; the secret has the database's URL" -}}
{{- end -}}
{{- $ledger := include "serving.ledgerMode" . -}}
{{- if and (eq $v.store.type "none") (has $ledger (list "store" "journal")) -}}
{{- fail (printf "ledger.mode: %s needs a store; set store.type" $ledger) -}}
{{- end -}}
{{- if and (eq $ledger "journal") (ne $v.store.type "sqlite") (not $v.ledger.volume.hostPath) (not $v.ledger.volume.claim) -}}
{{- fail "ledger.mode: journal needs ledger.volume: a pod's own disk ends with the pod, and with it what has not been shipped. Use ledger.mode: store where there is no such volume" -}}
{{- end -}}
{{- if and $v.ledger.volume.hostPath $v.ledger.volume.claim }}{{ fail "ledger.volume: either hostPath or claim" }}{{ end -}}
{{- if and $v.networkPolicy.enabled (eq $v.store.type "postgresql") (not $v.networkPolicy.database) -}}
{{- fail "networkPolicy.database: routers may not reach the database; name its pods or addresses, as [{ipBlock: {cidr: 10.0.0.5/32}}]" -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled $v.ray.gcs.redisAddress (not $v.networkPolicy.redis) -}}
{{- fail "networkPolicy.redis: Ray's head may not reach Redis; name its pods or addresses" -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled $v.monitoring.podMonitors (not $v.networkPolicy.prometheus) -}}
{{- fail "networkPolicy.prometheus: Prometheus may reach nothing that monitoring.podMonitors has it scrape; name its pods" -}}
{{- end -}}
{{- if and $v.monitoring.alerts (not $v.monitoring.podMonitors) -}}
{{- fail "monitoring.alerts: ask for what monitoring.podMonitors collects; enable both" -}}
{{- end -}}
{{- range $v.loadTests.jobs -}}
{{- $pod := printf "%s-load-%s-%d-%d" $name .name (int $.Release.Revision) (int .pods) -}}
{{- if gt (len $pod) 63 -}}
{{- fail (printf "loadTests.jobs: a pod would be called '%s', which has more than 63 characters; shorten `name`" $pod) -}}
{{- end -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parents) }}{{ fail "gateway.parents: an HTTPRoute belongs to a Gateway; name one" }}{{ end -}}
{{- end }}

{{/* Settings that follow from other values. */}}
{{- define "serving.ownSettings" -}}
["SERVING_HOST", "SERVING_PORT", "SERVING_OWN_PORT", "SERVING_LINK_PORT", "SERVING_OPS_PORT",
"SERVING_API_KEYS", "SERVING_API_KEYS_FILE", "SERVING_STORE_URL", "SERVING_STORE_MIGRATES",
"SERVING_LEDGER", "SERVING_LEDGER_DIR", "SERVING_LEDGER_FULL", "SERVING_CLUSTER_TOKEN",
"SERVING_METRICS_TOKEN", "SERVING_LOG_DIR", "SERVING_SPOOL_DIR", "SERVING_REQUEST_TIMEOUT_S"]
{{- end }}
