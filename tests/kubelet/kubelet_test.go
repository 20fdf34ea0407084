package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	clientset "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/util/operationexecutor"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
	volumetypes "k8s.io/kubernetes/pkg/volume/util/types"
	"k8s.io/mount-utils"
	"k8s.io/utils/exec"
)

// driver is the name that volumes ask for, driverDirectory what kubelet makes of it.
const (
	driver          = "alicloud/oss"
	driverDirectory = "alicloud~oss"
)

// kubelet is what kubelet has for volumes: its plugin manager with the FlexVolume prober, and its
// operations on them. One for each run of a kubelet; a restart is another one.
type kubelet struct {
	root    string
	client  clientset.Interface
	runner  *recordingRunner
	manager *volume.VolumePluginMgr
}

// startKubelet starts a kubelet that keeps its data at root and looks for drivers in plugins.
func startKubelet(t *testing.T, root, plugins string, client clientset.Interface) *kubelet {
	t.Helper()
	k := &kubelet{
		root:    root,
		client:  client,
		runner:  &recordingRunner{Interface: exec.New()},
		manager: &volume.VolumePluginMgr{},
	}
	mounter := mount.New("")
	host := &host{root: root, client: client, mounter: mounter, subpather: subpath.New(mounter)}
	if err := k.manager.InitPlugins(nil, newProber(t, plugins, k.runner), host); err != nil {
		t.Fatal(err)
	}
	return k
}

// result is what came of a mount or an unmount: the operation's error, as kubelet logs it, and the
// Events of the Pod.
type result struct {
	err    error
	events []string
}

// mount is what kubelet does for one volume of a Pod: FindPluginBySpec, NewMounter, SetUp.
func (k *kubelet) mount(pod *v1.Pod, spec *volume.Spec) result {
	// kubelet makes the Pod's directories first.
	if err := os.MkdirAll(filepath.Join(k.podsDirectory(), string(pod.UID), "volumes"), 0o750); err != nil {
		return result{err: err}
	}
	recorder := record.NewFakeRecorder(16)
	operation := newGenerator(k, recorder).GenerateMountVolumeFunc(time.Minute, operationexecutor.VolumeToMount{
		VolumeName: v1.UniqueVolumeName(driver + "/" + string(pod.UID) + "-" + spec.Name()),
		PodName:    volumetypes.UniquePodName(pod.UID),
		Pod:        pod,
		VolumeSpec: spec,
	}, world{}, false)
	_, err := operation.Run()
	return result{err, events(recorder)}
}

// unmount is what kubelet does to take a volume off a Pod, for which it needs no more than these
// two names: FindPluginByName, NewUnmounter, CleanSubPaths, TearDown.
func (k *kubelet) unmount(pod types.UID, name string) result {
	recorder := record.NewFakeRecorder(16)
	operation, err := newGenerator(k, recorder).GenerateUnmountVolumeFunc(operationexecutor.MountedVolume{
		VolumeName:          v1.UniqueVolumeName(name),
		PodName:             volumetypes.UniquePodName(pod),
		PodUID:              pod,
		InnerVolumeSpecName: name,
		PluginName:          driver,
	}, world{}, k.podsDirectory())
	if err != nil {
		return result{err: err}
	}
	_, err = operation.Run()
	return result{err, events(recorder)}
}

func events(recorder *record.FakeRecorder) []string {
	close(recorder.Events)
	var texts []string
	for text := range recorder.Events {
		texts = append(texts, text)
	}
	return texts
}

func (k *kubelet) podsDirectory() string { return filepath.Join(k.root, "pods") }

// target is where kubelet has a volume mounted.
func (k *kubelet) target(pod types.UID, name string) string {
	return filepath.Join(k.podsDirectory(), string(pod), "volumes", driverDirectory, name)
}

// host answers what FlexVolume and the operations ask of kubelet; the rest stays nil.
type host struct {
	volume.VolumeHost
	root      string
	client    clientset.Interface
	mounter   mount.Interface
	subpather subpath.Interface
}

func (h *host) GetPodVolumeDir(pod types.UID, plugin, name string) string {
	return filepath.Join(h.root, "pods", string(pod), "volumes", plugin, name)
}
func (h *host) GetPluginDir(plugin string) string         { return filepath.Join(h.root, "plugins", plugin) }
func (h *host) GetKubeClient() clientset.Interface        { return h.client }
func (h *host) GetSubpather() subpath.Interface           { return h.subpather }
func (h *host) GetNodeLabels() (map[string]string, error) { return map[string]string{}, nil }

// world is kubelet's notion of what is mounted; here nothing depends on it.
type world struct {
	operationexecutor.ActualStateOfWorldMounterUpdater
}

func (world) MarkVolumeAsMounted(operationexecutor.MarkVolumeOpts) error        { return nil }
func (world) MarkVolumeMountAsUncertain(operationexecutor.MarkVolumeOpts) error { return nil }
func (world) MarkVolumeAsUnmounted(volumetypes.UniquePodName, v1.UniqueVolumeName) error {
	return nil
}
func (world) GetVolumeMountState(v1.UniqueVolumeName, volumetypes.UniquePodName) operationexecutor.VolumeMountState {
	return operationexecutor.VolumeNotMounted
}
func (world) IsVolumeMountedElsewhere(v1.UniqueVolumeName, volumetypes.UniquePodName) bool {
	return false
}
func (world) IsVolumeReconstructed(v1.UniqueVolumeName, volumetypes.UniquePodName) bool {
	return false
}

// recordingRunner runs programs as kubelet does and remembers the driver's calls.
type recordingRunner struct {
	exec.Interface
	mutex sync.Mutex
	calls []string
}

func (r *recordingRunner) Command(cmd string, args ...string) exec.Cmd {
	r.mutex.Lock()
	r.calls = append(r.calls, args[0])
	r.mutex.Unlock()
	return r.Interface.Command(cmd, args...)
}

// all are the names of the calls so far, with blanks between them.
func (r *recordingRunner) all() string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return strings.Join(r.calls, " ")
}

func (r *recordingRunner) count(call string) int {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	n := 0
	for _, c := range r.calls {
		if c == call {
			n++
		}
	}
	return n
}
