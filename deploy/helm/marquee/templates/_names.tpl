{{- define "marquee.name" -}}
{{- ternary .Release.Name (printf "%s-marquee" .Release.Name) (contains "marquee" .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- /* The job label of all its series */}}
{{- define "marquee.job" -}}
{{- .Values.monitoring.job | default (printf "%s/%s" .Release.Namespace .Release.Name) -}}
{{- end }}

{{- /* What selects the pods of a role: (list . "worker") */}}
{{- define "marquee.selector" -}}
app.kubernetes.io/name: marquee
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "marquee.labels" -}}
{{ include "marquee.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{- /* The metadata of a thing: (list . "worker") */}}
{{- define "marquee.metadata" -}}
name: {{ include "marquee.name" (index . 0) }}-{{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace }}
labels: {{- include "marquee.labels" . | nindent 2 }}
{{- end }}

{{- /* A tree of settings as variables: text as it is, numbers and lists as JSON. (list "MARQUEE" tree) */}}
{{- define "marquee.variables" -}}
{{- $prefix := index . 0 }}
{{- range $key, $value := index . 1 }}
{{- $name := printf "%s%s" $prefix (upper $key) }}
{{- if kindIs "map" $value }}
{{- include "marquee.variables" (list (printf "%s__" $name) $value) }}
{{- else if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The whole environment: (list . more-settings) */}}
{{- define "marquee.environment" -}}
{{- $ := index . 0 }}
{{- include "marquee.variables" (list "MARQUEE_" (merge (deepCopy (index . 1)) $.Values.settings)) }}
{{- range $setting, $of := $.Values.secrets }}
- name: MARQUEE_{{ $setting | upper | replace "." "__" }}
  valueFrom: {secretKeyRef: {name: {{ $of.secret }}, key: {{ $of.key }}}}
{{- end }}
{{- end }}

{{- define "marquee.scheme" -}}
{{ ternary "HTTPS" "HTTP" (not (empty (dig "http" "tls_cert" "" .Values.settings))) }}
{{- end }}

{{- define "marquee.port" -}}
{{ dig "http" "port" 6066 .Values.settings }}
{{- end }}

{{- /* What every pod has: (list . place) with nodeSelector, tolerations, affinity */}}
{{- define "marquee.pod" -}}
{{- $ := index . 0 }}{{ $place := index . 1 -}}
enableServiceLinks: false
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ $.Values.terminationGracePeriodSeconds }}
securityContext: {{- toYaml $.Values.podSecurityContext | nindent 2 }}
{{- with $.Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $place.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $place.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $place.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 256Mi}
{{- range $name, $path := $.Values.secretFolders }}
  - name: {{ $name }}
    secret: {secretName: {{ $name }}}
{{- end }}
{{- end }}

{{- define "marquee.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "marquee.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- range $name, $path := .Values.secretFolders }}
- {name: {{ $name }}, mountPath: {{ $path }}, readOnly: true}
{{- end }}
{{- end }}

{{- /* A start may read a whole catalogue; a process that hangs is restarted; one that is not ready gets no requests. */}}
{{- define "marquee.probes" -}}
startupProbe:
  httpGet: {path: /startupz, port: http, scheme: {{ include "marquee.scheme" . }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 300
livenessProbe:
  httpGet: {path: /livez, port: http, scheme: {{ include "marquee.scheme" . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http, scheme: {{ include "marquee.scheme" . }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 3
{{- end }}
