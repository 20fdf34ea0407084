{{- define "oss.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "oss.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* The node configuration, with the state directory that the installer is told too. */ -}}
{{- define "oss.config" -}}
{{- $state := dict -}}
{{- if ne .Values.stateDirectory "/run/alicloud-oss" -}}
{{- $state = dict "stateDir" .Values.stateDirectory -}}
{{- end -}}
{{- $config := merge $state .Values.config -}}
{{- if $config -}}{{ toPrettyJson $config }}{{- end -}}
{{- end }}

{{- /* Values that contradict each other; what a value by itself may be says values.schema.json. */ -}}
{{- define "oss.check" -}}
{{- $packages := .Values.ossfsPackages -}}
{{- if eq .Values.shape "minimal" -}}
{{- if .Values.config -}}
{{- fail "config: the shape minimal does not reach the node's /etc; use shape: full, or write /etc/alicloud-oss/config.json on the nodes" -}}
{{- end -}}
{{- if or $packages.directory $packages.volume -}}
{{- fail "ossfsPackages: the shape minimal does not reach the node's package manager; use shape: full, or install ossfs on the nodes" -}}
{{- end -}}
{{- end -}}
{{- if and $packages.directory $packages.volume -}}
{{- fail "ossfsPackages: directory and volume are both set; one of them is expected" -}}
{{- end -}}
{{- end }}
