//go:build kubernetes_1_32

package kubelet

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/flexvolume"
	"k8s.io/kubernetes/pkg/volume/util/operationexecutor"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"
)

func (h *host) GetMounter(string) mount.Interface { return h.mounter }

func newProber(_ *testing.T, plugins string, runner exec.Interface) volume.DynamicPluginProber {
	return flexvolume.GetDynamicPluginProber(plugins, runner)
}

func newGenerator(k *kubelet, recorder record.EventRecorder) operationexecutor.OperationGenerator {
	return operationexecutor.NewOperationGenerator(k.client, k.manager, recorder, nil)
}

func reconstruct(plugin volume.VolumePlugin, name, target string) (*volume.Spec, error) {
	reconstructed, err := plugin.ConstructVolumeSpec(name, target)
	return reconstructed.Spec, err
}

func relabels(attributes volume.Attributes) bool { return attributes.SELinuxRelabel }

func newMounter(t *testing.T, plugin volume.VolumePlugin, spec *volume.Spec, pod *v1.Pod) volume.Mounter {
	t.Helper()
	mounter, err := plugin.NewMounter(spec, pod)
	if err != nil {
		t.Fatal(err)
	}
	return mounter
}
