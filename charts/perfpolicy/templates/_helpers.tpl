{{/* Name of every object of the release: the release's own name where it says perfpolicy. Room is left for suffixes. */}}
{{- define "perfpolicy.fullname" -}}
{{- $name := contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) -}}
{{- .Values.fullnameOverride | default $name | trunc 48 | trimSuffix "-" -}}
{{- end }}

{{/* The operator's pods, and nothing else of the release. */}}
{{- define "perfpolicy.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object. */}}
{{- define "perfpolicy.labels" -}}
{{ include "perfpolicy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- define "perfpolicy.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "perfpolicy.fullname" .) "default") -}}
{{- end }}

{{- define "perfpolicy.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- .Values.image.repository }}:{{ $tag }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Not empty where the operator handles only the namespaces of scope.namespaces. */}}
{{- define "perfpolicy.namespaced" -}}
{{- if .Values.scope.namespaces }}true{{ end -}}
{{- end }}

{{/* What any container of ours may do: nothing. */}}
{{- define "perfpolicy.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{- define "perfpolicy.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* The classes as {name: {default, spec}}, with what `prometheus` and `workloads` say filled in; what a class says itself wins. */}}
{{- define "perfpolicy.classes" -}}
{{- $prometheus := .Values.prometheus -}}
{{- $metrics := dict "address" $prometheus.address "namespace" $prometheus.namespace "timeout" $prometheus.timeout -}}
{{- with $prometheus.tenant }}{{ $_ := set $metrics "tenant" . }}{{ end -}}
{{- if $prometheus.auth.secretName }}{{ $_ := set $metrics "authFile" (include "perfpolicy.authFile" .) }}{{ end -}}
{{- $classes := dict -}}
{{- $defaults := list -}}
{{- range $name, $class := .Values.classes -}}
  {{- if $class -}}
    {{- $spec := deepCopy ($class.spec | default dict) -}}
    {{- $_ := set $spec "metrics" (mergeOverwrite (deepCopy $metrics) ($spec.metrics | default dict)) -}}
    {{- with $prometheus.ruleLabels -}}
      {{- $_ := set $spec "labels" (mergeOverwrite (dict "rules" (deepCopy .)) ($spec.labels | default dict)) -}}
    {{- end -}}
    {{- if not $.Values.workloads.create -}}
      {{- range $spec.grants }}{{ if .workloadCreation }}{{ $_ := set . "workloadCreation" "Denied" }}{{ end }}{{ end -}}
    {{- end -}}
    {{- $_ := set $classes $name (dict "default" ($class.default | default false) "spec" $spec) -}}
    {{- if $class.default }}{{ $defaults = append $defaults $name }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- /* The operator would take the newest, and the admission policy judge by another. */}}
{{- if gt (len $defaults) 1 -}}
  {{- fail (printf "only one class may be the default, not %s: set classes.<name>.default to false for the others" (join " and " $defaults)) -}}
{{- end -}}
{{- toYaml $classes -}}
{{- end }}

{{/* One PerformanceClass; takes {root, name, class}. */}}
{{- define "perfpolicy.class" -}}
apiVersion: perfpolicy.io/v1alpha1
kind: PerformanceClass
metadata:
  name: {{ .name | quote }}
  labels:
    {{- include "perfpolicy.labels" .root | nindent 4 }}
  {{- if .class.default }}
  annotations:
    perfpolicy.io/is-default-class: "true"
  {{- end }}
spec:
  {{- toYaml .class.spec | nindent 2 }}
{{- end }}

{{- define "perfpolicy.authFile" -}}
/etc/perfpolicy/prometheus/{{ .Values.prometheus.auth.secretKey }}
{{- end }}

{{/* Settings that exclude one another, which the operator would refuse at its start. The defaults are those of docs/settings.md. */}}
{{- define "perfpolicy.checkSettings" -}}
{{- $all := mergeOverwrite (dict "poll_min" 5 "poll_max" 30 "retry_min" 0.5 "retry_max" 30
    "lease_retry" 2 "lease_renew_deadline" 10 "lease_duration" 15) (deepCopy .Values.settings) -}}
{{- range list (list "poll_min" "poll_max") (list "retry_min" "retry_max") -}}
  {{- $low := get $all (first .) }}{{ $high := get $all (last .) -}}
  {{- if gt (float64 $low) (float64 $high) }}{{ fail (printf "settings.%s (%v) must not exceed settings.%s (%v)" (first .) $low (last .) $high) }}{{ end -}}
{{- end -}}
{{- range list (list "lease_retry" "lease_renew_deadline") (list "lease_renew_deadline" "lease_duration") -}}
  {{- $low := get $all (first .) }}{{ $high := get $all (last .) -}}
  {{- if ge (float64 $low) (float64 $high) }}{{ fail (printf "settings.%s (%v) must be below settings.%s (%v)" (first .) $low (last .) $high) }}{{ end -}}
{{- end -}}
{{- end }}
