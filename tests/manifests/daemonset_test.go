package manifests

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
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
		profile := each.SecurityContext.AppArmorProfile
		claim((profile != nil) == (shape == "full") &&
			(profile == nil || profile.Type == corev1.AppArmorProfileTypeUnconfined), "AppArmor leaves "+each.Name+" of full alone")
	}
	claim(len(set.Spec.Template.Annotations) == 0, "no annotation warns of itself")
	policy := only[*networkingv1.NetworkPolicy](t, objects).Spec
	claim(len(policy.PolicyTypes) == 2 && len(policy.Ingress)+len(policy.Egress) == 0 &&
		maps.Equal(policy.PodSelector.MatchLabels, set.Spec.Selector.MatchLabels), "its network is closed")
	claim(set.Spec.Template.Labels["app.kubernetes.io/name"] == "alicloud-oss-flexvolume", "its Pods have the usual labels")
	expression := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchExpressions[0]
	claim(expression.Key == "type" && expression.Operator == corev1.NodeSelectorOpNotIn &&
		slices.Equal(expression.Values, []string{"virtual-kubelet"}), "it leaves nodes without kubelet alone")
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

// TestClustersBefore130HaveTheAnnotation: the field is unknown there.
func TestClustersBefore130HaveTheAnnotation(t *testing.T) {
	old, err := renderChartFor("v1.29.9-gke.1", "{shape: full, podAnnotations: {a: b}}")
	if err != nil {
		t.Fatal(err)
	}
	for source, objects := range map[string][]runtime.Object{
		"chart":   mustDecode(t, old.manifests),
		"overlay": mustDecode(t, renderOverlay(t, "full-before-1.30")),
	} {
		set, container := daemonSet(t, objects)
		for _, each := range append(slices.Clone(set.Spec.Template.Spec.InitContainers), *container) {
			profile := set.Spec.Template.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+each.Name]
			if profile != "unconfined" || each.SecurityContext.AppArmorProfile != nil {
				t.Errorf("%s: %s has the annotation %q and the field %v", source, each.Name, profile, each.SecurityContext.AppArmorProfile)
			}
		}
	}
}

// TestTheRemoverTakesTheInstallersPlace: under its name and selector, so that none is left that would
// install the driver again, and as privileged as that.
func TestTheRemoverTakesTheInstallersPlace(t *testing.T) {
	remover, stays := daemonSet(t, mustDecode(t, renderOverlay(t, "remove")))
	installer, works := daemonSet(t, mustDecode(t, renderOverlay(t, "full")))
	if remover.Name != installer.Name || remover.Namespace != installer.Namespace ||
		cmp.Diff(remover.Spec.Selector, installer.Spec.Selector) != "" {
		t.Error("it does not replace the installer")
	}
	spec := remover.Spec.Template.Spec
	removes := spec.InitContainers[0]
	if len(spec.InitContainers) != 1 || !slices.Equal(removes.Command, []string{"/oss-installer", "uninstall", "--drain"}) {
		t.Errorf("its Pod is ready before it has run %q", removes.Command)
	}
	if !slices.Equal(stays.Command, []string{"/oss-installer", "wait"}) || len(stays.SecurityContext.Capabilities.Add) > 0 {
		t.Errorf("%q stays", stays.Command)
	}
	if difference := cmp.Diff(works.SecurityContext.Capabilities, removes.SecurityContext.Capabilities); difference != "" {
		t.Error(difference)
	}
	if !spec.HostPID || cmp.Diff(works.Env, removes.Env) != "" {
		t.Error("it does not reach the host as the installer does")
	}
	profile := remover.Spec.Template.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+removes.Name]
	if profile != "unconfined" {
		t.Errorf("AppArmor has the profile %q", profile)
	}
}

// TestTheOverlayForSELinuxIsTheChartsValue: nothing but the type of the containers differs from full.
func TestTheOverlayForSELinuxIsTheChartsValue(t *testing.T) {
	_, fromChart := mustRender(t, "seLinuxType: spc_t")
	set, _ := daemonSet(t, fromChart)
	delete(set.Spec.Template.Labels, "app.kubernetes.io/instance")
	same(t, set, only[*appsv1.DaemonSet](t, mustDecode(t, renderOverlay(t, "full-selinux"))))
}
