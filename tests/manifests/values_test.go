package manifests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// chartValues are values that an administrator may set, by what they are for.
var chartValues = map[string]string{
	"another platform": `{shape: minimal, pluginDirectory: /var/lib/kubelet/volumeplugins}`,
	"a named place":    `{pluginDirectory: /opt/exec, stateDirectory: /run/oss}`,
	"configuration":    `config: {ossfs: /usr/local/bin/ossfs, mountTimeoutSeconds: 60, nodeCredentials: {buckets: ["*"]}}`,
	"packages":         `ossfsPackages: {volume: {hostPath: {path: /opt/packages, type: Directory}}}`,
	"packages inside":  `ossfsPackages: {directory: /packages}`,
	"a registry":       `image: {repository: "registry.example.com:5000/oss", tag: v1, pullPolicy: Always, pullSecrets: [{name: key}]}`,
	"a digest":         `image: {tag: v1, digest: "sha256:` + strings.Repeat("0", 64) + `"}`,
	"some nodes":       `{nodeSelector: {disk: ssd}, tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]}`,
	"resources":        `{resources: {limits: {memory: 64Mi, cpu: 0.5}}, maxUnavailable: 1}`,
	"dependencies":     `ossfsPackages: {directory: /packages, dependencies: repositories}`,
	"Pods":             `{podAnnotations: {a.example/b: c}, podLabels: {team: storage}, priorityClassName: "", extraEnv: [{name: OSS_INSTALLER_GRACE, value: "5"}], affinity: {podAffinity: {}}}`,
	"an update":        `{updateStrategy: {type: OnDelete}, networkPolicy: {enabled: false}}`,
	"a test":           `test: {bucket: docker, url: "https://oss.example", secretName: key}`,
	"logs":             `{logFormat: json, period: 300, seLinuxType: spc_t}`,
}

// facts of a rendering: what a value comes to.
type facts map[string]string

// TestValuesComeToTheirPlaces: each value where it belongs, and nothing else than without it.
func TestValuesComeToTheirPlaces(t *testing.T) {
	for _, c := range []struct {
		name     string
		expected facts
	}{
		{"another platform", facts{
			"env PLUGIN_DIR": "/var/lib/kubelet/volumeplugins",
			"mount plugins":  "/var/lib/kubelet/volumeplugins",
			"host plugins":   "/var/lib/kubelet/volumeplugins",
			"mount state":    "/run/alicloud-oss",
			"host state":     "/run/alicloud-oss",
		}},
		{"a named place", facts{
			"env HOST_ROOT":  "/proc/1/root",
			"env PLUGIN_DIR": "/opt/exec",
			"env STATE_DIR":  "/run/oss",
			"env CONFIG":     "/config/config.json",
			"mount config":   "/config",
			"config":         `{"stateDir": "/run/oss"}`,
		}},
		{"configuration", facts{
			"env HOST_ROOT": "/proc/1/root",
			"env CONFIG":    "/config/config.json",
			"mount config":  "/config",
			"config": `{"mountTimeoutSeconds": 60, "nodeCredentials": {"buckets": ["*"]}, ` +
				`"ossfs": "/usr/local/bin/ossfs"}`,
		}},
		{"packages", facts{
			"env HOST_ROOT":            "/proc/1/root",
			"ossfs env OSSFS_PACKAGES": "/ossfs-packages",
			"ossfs mount":              "/ossfs-packages",
			"host ossfs-packages":      "/opt/packages",
			"ossfs privileged":         "true",
		}},
		{"packages inside", facts{
			"env HOST_ROOT":            "/proc/1/root",
			"ossfs env OSSFS_PACKAGES": "/packages",
			"ossfs privileged":         "true",
		}},
		{"dependencies", facts{
			"env HOST_ROOT":                "/proc/1/root",
			"ossfs env OSSFS_PACKAGES":     "/packages",
			"ossfs env OSSFS_DEPENDENCIES": "repositories",
			"ossfs privileged":             "true",
		}},
		{"Pods", facts{
			"env HOST_ROOT": "/proc/1/root",
			"env GRACE":     "5",
			"annotations":   "map[a.example/b:c]",
			"label team":    "storage",
			"priority":      "",
			"pod affinity":  "true",
		}},
		{"an update", facts{
			"env HOST_ROOT":  "/proc/1/root",
			"update":         "OnDelete",
			"network policy": "none",
		}},
		{"a test", facts{
			"env HOST_ROOT": "/proc/1/root",
			"test":          "docker https://oss.example key",
		}},
		{"a registry", facts{
			"env HOST_ROOT": "/proc/1/root",
			"image":         "registry.example.com:5000/oss:v1",
			"pull":          "Always key",
		}},
		{"a digest", facts{
			"env HOST_ROOT": "/proc/1/root",
			"image":         "alicloud-oss-flexvolume@sha256:" + strings.Repeat("0", 64),
		}},
		{"some nodes", facts{
			"env HOST_ROOT": "/proc/1/root",
			// Helm merges maps: the default stays.
			"nodes":      "map[disk:ssd kubernetes.io/os:linux]",
			"toleration": "gpu NoSchedule",
		}},
		{"resources", facts{
			"env HOST_ROOT":   "/proc/1/root",
			"memory":          "64Mi",
			"max unavailable": "1",
		}},
		{"logs", facts{
			"env HOST_ROOT":  "/proc/1/root",
			"env LOG_FORMAT": "json",
			"env PERIOD":     "300",
			"SELinux type":   "spc_t",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := rendered(t, chartValues[c.name])
			for name, value := range c.expected {
				if found[name] != value {
					t.Errorf("%s is %q, %q is expected", name, found[name], value)
				}
			}
			for name, value := range found {
				if _, expected := c.expected[name]; !expected {
					t.Errorf("%s is %q, which nobody asked for", name, value)
				}
			}
		})
	}
	if len(chartValues) != 14 {
		t.Errorf("there are %d chartValues, and facts for 14 of them", len(chartValues))
	}
}

// rendered returns what the chart makes of values, as far as it is not so without any.
func rendered(t *testing.T, values string) facts {
	t.Helper()
	_, objects := mustRender(t, values)
	found := facts{}
	set, container := daemonSet(t, objects)
	spec := set.Spec.Template.Spec
	for _, variable := range container.Env {
		found["env "+strings.TrimPrefix(variable.Name, "OSS_INSTALLER_")] = variable.Value
	}
	for _, mount := range container.VolumeMounts {
		if mount.Name == "sync" {
			continue
		}
		found["mount "+mount.Name] = mount.MountPath
		if written := mount.Name == "plugins" || mount.Name == "state"; mount.ReadOnly == written {
			t.Errorf("the mount of %s is read-only: %v", mount.Name, mount.ReadOnly)
		}
	}
	for _, first := range spec.InitContainers {
		if first.Name != "ossfs" {
			continue
		}
		for _, variable := range first.Env {
			if name, ours := strings.CutPrefix(variable.Name, "OSS_INSTALLER_OSSFS_"); ours {
				found["ossfs env OSSFS_"+name] = variable.Value
			}
		}
		for _, mount := range first.VolumeMounts {
			if mount.Name == "ossfs-packages" && mount.ReadOnly {
				found["ossfs mount"] = mount.MountPath
			}
		}
		found["ossfs privileged"] = fmt.Sprint(*first.SecurityContext.Privileged)
	}
	for _, volume := range spec.Volumes {
		if volume.HostPath != nil {
			found["host "+volume.Name] = volume.HostPath.Path
		}
	}
	for _, object := range objects {
		if config, ok := object.(*corev1.ConfigMap); ok {
			found["config"] = strings.Join(strings.Fields(config.Data["config.json"]), " ")
			found["config"] = strings.NewReplacer("{ ", "{", " }", "}", "[ ", "[", " ]", "]").Replace(found["config"])
		}
		if pod, ok := object.(*corev1.Pod); ok && pod.Annotations["helm.sh/hook"] == "test" {
			volume := pod.Spec.Volumes[0].FlexVolume
			found["test"] = volume.Options["bucket"] + " " + volume.Options["url"] + " " + volume.SecretRef.Name
		}
	}
	unless := func(name, usual, value string) {
		if value != usual {
			found[name] = value
		}
	}
	unless("image", "alicloud-oss-flexvolume:0.1.0", container.Image)
	pull := string(container.ImagePullPolicy)
	for _, secret := range spec.ImagePullSecrets {
		pull += " " + secret.Name
	}
	unless("pull", "IfNotPresent", pull)
	unless("nodes", "map[kubernetes.io/os:linux]", fmt.Sprint(spec.NodeSelector))
	unless("toleration", " ", spec.Tolerations[0].Key+" "+string(spec.Tolerations[0].Effect))
	unless("memory", "16Mi", container.Resources.Limits.Memory().String())
	unless("update", "RollingUpdate", string(set.Spec.UpdateStrategy.Type))
	if rolling := set.Spec.UpdateStrategy.RollingUpdate; rolling != nil {
		unless("max unavailable", "10%", rolling.MaxUnavailable.String())
	}
	unless("annotations", "map[]", fmt.Sprint(set.Spec.Template.Annotations))
	for label, value := range set.Spec.Template.Labels {
		if label != "app" && !strings.HasPrefix(label, "app.kubernetes.io/") {
			found["label "+label] = value
		}
	}
	unless("priority", "system-node-critical", spec.PriorityClassName)
	unless("pod affinity", "false", fmt.Sprint(spec.Affinity.PodAffinity != nil))
	policies := slices.ContainsFunc(objects, func(object runtime.Object) bool {
		_, policy := object.(*networkingv1.NetworkPolicy)
		return policy
	})
	unless("network policy", "true", map[bool]string{true: "true", false: "none"}[policies])
	context := container.SecurityContext
	unless("privileged", "false", fmt.Sprint(context.Privileged != nil && *context.Privileged))
	if context.SELinuxOptions != nil {
		found["SELinux type"] = context.SELinuxOptions.Type
	}
	return found
}

// TestADisabledPartIsNothing: for charts that have this one as a part.
func TestADisabledPartIsNothing(t *testing.T) {
	for _, values := range []string{"enabled: false", "{enabled: false, config: {ossfs: x}, test: {bucket: abc, url: x}}"} {
		rendered, err := renderChart(values)
		if err != nil || strings.Contains(string(rendered.manifests), "kind:") {
			t.Errorf("%s: %v\n%s", values, err, rendered.manifests)
		}
	}
}

// TestNotesSayHowToVerify: with the names of this release.
func TestNotesSayHowToVerify(t *testing.T) {
	for _, shape := range shapes {
		notes, _ := mustRender(t, "{shape: "+shape+"}")
		for _, expected := range []string{
			"-n kube-system rollout status daemonset/alicloud-oss-installer", "/oss-installer check",
			"driver: alicloud/oss", "shape " + shape,
		} {
			if !strings.Contains(notes.notes, expected) {
				t.Errorf("%q is not in the notes:\n%s", expected, notes.notes)
			}
		}
		named := strings.Contains(notes.notes, "no volume plugin matched")
		if named != (shape == "minimal") {
			t.Errorf("%s: the plugin directory is spoken of: %v", shape, named)
		}
	}
	// The Pod in the notes is one.
	notes, _ := mustRender(t, "{}")
	_, rest, _ := strings.Cut(notes.notes, "<<'END'\n")
	manifest, _, _ := strings.Cut(rest, "END")
	var indented strings.Builder
	for line := range strings.Lines(manifest) {
		indented.WriteString(strings.TrimPrefix(line, "  "))
	}
	pod := only[*corev1.Pod](t, mustDecode(t, []byte(indented.String())))
	if problems, _ := validate(pod); len(problems) > 0 {
		t.Error(problems)
	}
}
