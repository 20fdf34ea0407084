package manifests

import (
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestExamplesShowWhatTheySay: each the one thing that it is for.
func TestExamplesShowWhatTheySay(t *testing.T) {
	shows := map[string]func(*corev1.Pod, *corev1.FlexVolumeSource) bool{
		"inline-pod.yaml": func(pod *corev1.Pod, _ *corev1.FlexVolumeSource) bool {
			return pod.Spec.SecurityContext.FSGroup == nil
		},
		"sub-directory.yaml": func(_ *corev1.Pod, volume *corev1.FlexVolumeSource) bool {
			return strings.HasPrefix(volume.Options["path"], "/")
		},
		"read-only.yaml": func(_ *corev1.Pod, volume *corev1.FlexVolumeSource) bool { return volume.ReadOnly },
		"non-root.yaml": func(pod *corev1.Pod, _ *corev1.FlexVolumeSource) bool {
			return *pod.Spec.SecurityContext.RunAsNonRoot && *pod.Spec.SecurityContext.FSGroup > 0
		},
		"private-endpoint.yaml": func(_ *corev1.Pod, volume *corev1.FlexVolumeSource) bool {
			return strings.Contains(volume.Options["url"], "-internal.aliyuncs.com")
		},
	}
	secret := only[*corev1.Secret](t, readObjects(t, filepath.Join(examples, "secret.yaml")))
	for file, shown := range shows {
		pod := only[*corev1.Pod](t, readObjects(t, filepath.Join(examples, file)))
		volume := pod.Spec.Volumes[0].FlexVolume
		checkVolume(t, file, volume.Driver, volume.SecretRef.Name, volume.Options, secret)
		if !shown(pod, volume) {
			t.Errorf("%s does not show it", file)
		}
	}
	volume := only[*corev1.PersistentVolume](t, readObjects(t, filepath.Join(examples, "pv-pvc-deployment.yaml")))
	flex := volume.Spec.FlexVolume
	checkVolume(t, volume.Name, flex.Driver, flex.SecretRef.Name, flex.Options, secret)
}

// checkVolume holds what every example's volume has in common.
func checkVolume(t *testing.T, name, driver, ref string, options map[string]string, secret *corev1.Secret) {
	t.Helper()
	// kubelet hands a Secret to the driver only if its type is the driver's name.
	if driver != "alicloud/oss" || string(secret.Type) != driver || ref != secret.Name {
		t.Errorf("%s: driver %q, Secret %q", name, driver, ref)
	}
	documented := strings.Join(firstColumn(t, "../../README.md", "## Options of a volume"), " ")
	for key := range options {
		if !strings.Contains(documented, key) || strings.HasPrefix(key, "ak") {
			t.Errorf("%s: the option %q", name, key)
		}
	}
	if options["bucket"] == "" || !strings.HasPrefix(options["url"], "https://") {
		t.Errorf("%s: bucket %q at %q", name, options["bucket"], options["url"])
	}
}

// TestTheClaimFindsItsVolume: a static volume is found by its label, and by no provisioner.
func TestTheClaimFindsItsVolume(t *testing.T) {
	objects := readObjects(t, filepath.Join(examples, "pv-pvc-deployment.yaml"))
	volume := only[*corev1.PersistentVolume](t, objects)
	claim := only[*corev1.PersistentVolumeClaim](t, objects)
	for key, value := range claim.Spec.Selector.MatchLabels {
		if volume.Labels[key] != value {
			t.Errorf("the volume's label %s is %q, not %q", key, volume.Labels[key], value)
		}
	}
	if class := claim.Spec.StorageClassName; class == nil || *class != "" || volume.Spec.StorageClassName != "" {
		t.Error("without an empty class the cluster's default one would provide another volume")
	}
	if volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
		t.Error("the bucket outlives its volume")
	}
	offered, wanted := volume.Spec.Capacity[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if offered.Cmp(wanted) < 0 {
		t.Errorf("%s are offered and %s wanted", offered.String(), wanted.String())
	}
	if name := pods(objects)[0].Spec.Volumes[0].PersistentVolumeClaim.ClaimName; name != claim.Name {
		t.Errorf("the Deployment claims %q", name)
	}
}

// TestTheOldProbeIsExplained: it is there for those who look for it, and not in force.
func TestTheOldProbeIsExplained(t *testing.T) {
	path := filepath.Join(examples, "pv-pvc-deployment.yaml")
	if pods(readObjects(t, path))[0].Spec.Containers[0].LivenessProbe != nil {
		t.Error("the probe is in force")
	}
	if !strings.Contains(read(t, path), "# livenessProbe:") {
		t.Error("the probe is not spoken of")
	}
}
