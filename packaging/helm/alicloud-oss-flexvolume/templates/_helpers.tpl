{{- define "oss.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* What a Pod is found by, beside `app`. */ -}}
{{- define "oss.podLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: installer
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* "true" where the field of AppArmor is known: Kubernetes 1.30 and later. */ -}}
{{- define "oss.hasAppArmorField" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}true{{- end -}}
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
{{- if and .Values.test.bucket (not .Values.test.url) -}}
{{- fail "test: bucket is set and url is not; the endpoint of the bucket is expected" -}}
{{- end -}}
{{- if and $packages.directory $packages.volume -}}
{{- fail "ossfsPackages: directory and volume are both set; one of them is expected" -}}
{{- end -}}
{{- end }}

{{- /* What each container of the installer has. Of: the chart's scope as root, and the variables of
daemonset.yaml by their names; with packages it is the one that installs ossfs. */ -}}
{{- define "oss.container" -}}
image: {{ include "oss.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
env:
{{- if .full }}
- name: OSS_INSTALLER_HOST_ROOT
  value: /proc/1/root
{{- end }}
{{- with .pluginDirectory }}
- name: OSS_INSTALLER_PLUGIN_DIR
  value: {{ . }}
{{- end }}
{{- if ne .root.Values.stateDirectory "/run/alicloud-oss" }}
- name: OSS_INSTALLER_STATE_DIR
  value: {{ .root.Values.stateDirectory }}
{{- end }}
{{- if .config }}
- name: OSS_INSTALLER_CONFIG
  value: /config/config.json
{{- end }}
{{- with .packages }}
- name: OSS_INSTALLER_OSSFS_PACKAGES
  value: {{ . }}
{{- if ne $.root.Values.ossfsPackages.dependencies "installed" }}
- name: OSS_INSTALLER_OSSFS_DEPENDENCIES
  value: {{ $.root.Values.ossfsPackages.dependencies }}
{{- end }}
{{- end }}
{{- if ne .root.Values.logFormat "text" }}
- name: OSS_INSTALLER_LOG_FORMAT
  value: {{ .root.Values.logFormat }}
{{- end }}
{{- if ne (int .root.Values.period) 60 }}
- name: OSS_INSTALLER_PERIOD
  value: {{ int .root.Values.period | quote }}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with .root.Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  readOnlyRootFilesystem: true
  {{- with .root.Values.seLinuxType }}
  seLinuxOptions:
    type: {{ . }}
  {{- end }}
  {{- if and .full (include "oss.hasAppArmorField" .root) }}
  # AppArmor's profile for containers keeps one from looking at processes outside of it, and so from
  # /proc/1/root.
  appArmorProfile:
    type: Unconfined
  {{- end }}
  {{- if .packages }}
  # The node's package manager changes files of all owners.
  privileged: true
  {{- else }}
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
    {{- if .full }}
    add:
    # To look into /proc/PID/root and /proc/PID/cwd of kubelet and of the host's first process.
    - SYS_PTRACE
    # To enter the host's mount namespace (setns) for ossfs --version, systemctl and heal.
    - SYS_ADMIN
    # To make the host's root the root of those programs; setns asks for it too.
    - SYS_CHROOT
    # The rest is for heal where no systemd runs: what it starts is not the Pod's, and can do no
    # more than the Pod. To empty the caches of an ossfs that has died, which are not root's.
    - DAC_OVERRIDE
    # To give a volume's ossfs, which is not root, its own key file and directories, and
    - CHOWN
    # to map its user in its user namespace, and
    - SETUID
    # its group.
    - SETGID
    {{- end }}
  {{- end }}
volumeMounts:
{{- if .minimal }}
# Both at the host's own paths.
- name: plugins
  mountPath: {{ .pluginDirectory }}
- name: state
  mountPath: {{ .root.Values.stateDirectory }}
{{- end }}
{{- if .config }}
- name: config
  mountPath: /config
  readOnly: true
{{- end }}
{{- if and .packages .root.Values.ossfsPackages.volume }}
- name: ossfs-packages
  mountPath: /ossfs-packages
  readOnly: true
{{- end }}
- name: sync
  mountPath: /sync
  readOnly: true
{{- end }}
