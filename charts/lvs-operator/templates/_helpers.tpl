{{/* The name of everything that belongs to the directors. */}}
{{- define "lvs-operator.director" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- printf "%s-director" (.Release.Name | trunc 53 | trimSuffix "-") -}}
{{- else -}}
{{- printf "%s-%s-director" (.Release.Name | trunc 40 | trimSuffix "-") .Chart.Name -}}
{{- end -}}
{{- end }}

{{/* Labels by which the directors' pods are found. They can't be changed. */}}
{{- define "lvs-operator.selectorLabels" -}}
app.kubernetes.io/name: lvs-operator
app.kubernetes.io/component: director
{{- end }}

{{/* The name of everything that belongs to the real-server agents. */}}
{{- define "lvs-operator.realserver" -}}
{{- include "lvs-operator.director" . | trimSuffix "director" }}realserver
{{- end }}

{{/* Labels by which the agents' pods are found. They can't be changed. */}}
{{- define "lvs-operator.realserverLabels" -}}
app.kubernetes.io/name: lvs-operator
app.kubernetes.io/component: realserver
{{- end }}

{{/* The name of everything that belongs to an uninstallation. */}}
{{- define "lvs-operator.uninstall" -}}
{{- include "lvs-operator.director" . | trimSuffix "director" }}uninstall
{{- end }}

{{/* Labels of the uninstallation's Job and pod. */}}
{{- define "lvs-operator.uninstallLabels" -}}
app.kubernetes.io/name: lvs-operator
app.kubernetes.io/component: uninstall
{{- end }}

{{/* What makes an object part of an uninstallation, before its Job. */}}
{{- define "lvs-operator.uninstallRights" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: "-1"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Labels of Helm's own, on every object. */}}
{{- define "lvs-operator.helmLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}
