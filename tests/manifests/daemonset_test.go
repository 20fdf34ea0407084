package manifests

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubernetes/pkg/apis/scheduling"
)

// added are the capabilities of each shape.
var added = map[string][]corev1.Capability{
	"minimal": nil,
	"full":    {"CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE"},
}

// TestEveryInstallerIsConfined: what holds for both shapes, by whichever way they are installed.
func TestEveryInstallerIsConfined(t *testing.T) {
	for _, shape := range shapes {
		_, fromChart := mustRender(t, "shape: "+shape)
		for source, objects := range map[string][]runtime.Object{
			"overlay": mustDecode(t, renderOverlay(t, shape)),
			"chart":   fromChart,
		} {
			t.Run(source+" "+shape, func(t *testing.T) { confined(t, shape, objects) })
		}
	}
}

func confined(t *testing.T, shape string, objects []runtime.Object) {
	set, container := daemonSet(t, objects)
	account := only[*corev1.ServiceAccount](t, objects)
	spec := set.Spec.Template.Spec
	first := spec.InitContainers
	context := container.SecurityContext
	claim := func(holds bool, what string) {
		t.Helper()
		if !holds {
			t.Error("not so:", what)
		}
	}
	no := func(flag *bool) bool { return flag != nil && !*flag }
	yes := func(flag *bool) bool { return flag != nil && *flag }

	claim(set.Namespace == "kube-system" && account.Namespace == "kube-system", "it is in kube-system")
	claim(spec.ServiceAccountName == account.Name, "it has an account of its own")
	claim(no(account.AutomountServiceAccountToken) && no(spec.AutomountServiceAccountToken), "it has no token")
	claim(spec.PriorityClassName == scheduling.SystemNodeCritical, "it is evicted last")
	claim(slices.Equal(spec.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}), "it runs on every node")
	claim(spec.NodeSelector["kubernetes.io/os"] == "linux", "it runs on Linux")
	claim(set.Spec.UpdateStrategy.Type == "RollingUpdate", "an upgrade goes from node to node")
	claim(!spec.HostNetwork && !spec.HostIPC, "it has not the node's network")
	claim(spec.HostPID == (shape == "full"), "full alone sees the node's processes")
	claim(spec.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, "system calls are filtered")
	claim(yes(context.ReadOnlyRootFilesystem), "its own files are read-only")
	claim(no(context.AllowPrivilegeEscalation), "it gains no privileges")
	claim(context.Privileged == nil, "it is not privileged")
	claim(slices.Equal(context.Capabilities.Drop, []corev1.Capability{"ALL"}), "it drops all capabilities")
	claim(slices.Equal(slices.Sorted(slices.Values(context.Capabilities.Add)), added[shape]), "it adds those it needs")
	claim(!container.Resources.Requests.Cpu().IsZero(), "it asks for a share of the processor")
	claim(container.Resources.Limits.Memory().Cmp(resource.MustParse("16Mi")) <= 0, "it has 16 MiB at most")
	claim(container.ReadinessProbe.Exec.Command[1] == "check", "it is ready when its check says so")
	claim(container.ReadinessProbe.PeriodSeconds <= 5, "it is ready seconds after kubelet has the driver")
	claim(len(first) == 1 && slices.Equal(first[0].Command, append(slices.Clone(container.Command), "--once")),
		"the driver is there before kubelet starts the container that stays")
	for _, installs := range first {
		alike := *container.DeepCopy()
		alike.Name, alike.Command, alike.ReadinessProbe = installs.Name, installs.Command, nil
		claim(cmp.Diff(alike, installs) == "", "what installs first may do as much, and no more")
	}
	for _, each := range append(slices.Clone(first), *container) {
		profile, there := set.Spec.Template.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+each.Name]
		claim(there == (shape == "full") && (!there || profile == "unconfined"), "AppArmor leaves "+each.Name+" of full alone")
	}
	if shape == "full" {
		claim(len(spec.Volumes) == 1, "full reaches the node through /proc/1/root alone")
	}
	// kubelet reads a new driver only when it sets up or syncs a Pod that has a volume, and passes over
	// those that no container mounts (GetPodVolumeNames in `pkg/volume/util`).
	own := func(volume corev1.Volume) bool {
		mounts := func(mount corev1.VolumeMount) bool { return mount.Name == volume.Name && mount.ReadOnly }
		return volume.EmptyDir != nil && slices.ContainsFunc(container.VolumeMounts, mounts)
	}
	claim(slices.ContainsFunc(spec.Volumes, own), "it mounts a volume of its own, so that kubelet reads the driver")
}

// TestEveryCapabilityHasItsReason: as a comment above it, where an administrator reads it.
func TestEveryCapabilityHasItsReason(t *testing.T) {
	rendered, err := renderChart("shape: full")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(rendered.manifests), "\n")
	item := regexp.MustCompile(`^ +- ([A-Z_]+)$`)
	var found []corev1.Capability
	for number, line := range lines {
		if match := item.FindStringSubmatch(line); match != nil {
			found = append(found, corev1.Capability(match[1]))
			if before := strings.TrimSpace(lines[number-1]); !strings.HasPrefix(before, "# ") {
				t.Errorf("%s: %q is above it, a reason is expected", match[1], before)
			}
		}
	}
	slices.Sort(found)
	// Each container adds them.
	if !slices.Equal(slices.Compact(found), added["full"]) {
		t.Errorf("capabilities in the text: %q", found)
	}
}
