package manifests

import (
	"path/filepath"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/policy"
)

// forbidden returns the checks of the Pod Security Standards, in their newest version, that a Pod fails.
func forbidden(meta *metav1.ObjectMeta, spec *corev1.PodSpec) map[string][]policy.CheckID {
	failed := map[string][]policy.CheckID{}
	for _, check := range policy.DefaultChecks() {
		newest := check.Versions[len(check.Versions)-1]
		if !newest.CheckPod(meta, spec).Allowed {
			failed[string(check.Level)] = append(failed[string(check.Level)], check.ID)
		}
	}
	return failed
}

// pods returns the Pods among objects and in their templates.
func pods(objects []runtime.Object) []*corev1.PodTemplateSpec {
	var found []*corev1.PodTemplateSpec
	for _, object := range objects {
		switch o := object.(type) {
		case *corev1.Pod:
			found = append(found, &corev1.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec})
		case *appsv1.DaemonSet:
			found = append(found, &o.Spec.Template)
		case *appsv1.Deployment:
			found = append(found, &o.Spec.Template)
		}
	}
	return found
}

// TestPodSecurity names what keeps each shape out of "baseline": minimal its hostPath volumes alone,
// full nothing but its sight of the node. Pods with a flexVolume of the driver are "baseline".
func TestPodSecurity(t *testing.T) {
	_, packages := mustRender(t, "ossfsPackages: {directory: /packages}")
	sources := map[string][]runtime.Object{
		"minimal":       mustDecode(t, renderOverlay(t, "minimal")),
		"full":          mustDecode(t, renderOverlay(t, "full")),
		"with packages": packages,
	}
	baseline := map[string][]policy.CheckID{
		"minimal":       {"hostPathVolumes"},
		"full":          {"appArmorProfile", "capabilities_baseline", "hostNamespaces"},
		"with packages": {"appArmorProfile", "capabilities_baseline", "hostNamespaces", "privileged"},
	}
	for _, path := range exampleFiles(t) {
		sources[filepath.Base(path)] = readObjects(t, path)
	}
	for source, objects := range sources {
		for _, pod := range pods(objects) {
			failed := forbidden(&pod.ObjectMeta, &pod.Spec)["baseline"]
			slices.Sort(failed)
			if !slices.Equal(failed, baseline[source]) {
				t.Errorf("%s fails %q of baseline, %q is expected", source, failed, baseline[source])
			}
		}
	}
}

// TestRestrictedNamespacesNeedAPersistentVolume: there a Pod may not have a flexVolume of its own, and
// the check is on the Pod's volumes, not on what is bound to its claim.
func TestRestrictedNamespacesNeedAPersistentVolume(t *testing.T) {
	const volumes = policy.CheckID("restrictedVolumes")
	for file, expected := range map[string]bool{"inline-pod.yaml": true, "pv-pvc-deployment.yaml": false} {
		pod := pods(readObjects(t, filepath.Join(examples, file)))[0]
		failed := forbidden(&pod.ObjectMeta, &pod.Spec)["restricted"]
		if slices.Contains(failed, volumes) != expected {
			t.Errorf("%s fails %q of restricted", file, failed)
		}
	}
}
