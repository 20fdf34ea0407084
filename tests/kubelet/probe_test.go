package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/kubernetes/pkg/volume"
)

// probeFailure is what kubelet logs when it meets a driver that does not answer init.
const probeFailure = "Error dynamically probing plugins"

func TestAnInstalledDriverIsFoundAtStart(t *testing.T) {
	n := newNode(t)
	if _, err := n.manager.FindPluginByName(driver); err != nil {
		t.Fatal(err)
	}
	if calls := n.runner.all(); calls != "init" {
		t.Errorf("calls: %s", calls)
	}
}

func TestADriverInstalledLaterIsFoundWithoutARestart(t *testing.T) {
	n := newEmptyNode(t)
	n.must(os.Mkdir(n.path("plugins"), 0o755))
	n.startKubelet()
	if _, err := n.manager.FindPluginByName(driver); err == nil {
		t.Fatal("a driver was found that is not installed")
	}
	n.install(program("OSS_DRIVER"))
	n.askUntil(func(err error) bool { return err == nil })
	if log := n.log(); strings.Contains(log, probeFailure) {
		t.Errorf("kubelet met a driver that was not complete:\n%s", log)
	}
}

func TestAnUpgradedDriverRunsInitAgainAndStaysRegistered(t *testing.T) {
	n := newNode(t)
	for range 20 {
		before := n.runner.count("init")
		n.install(program("OSS_DRIVER"))
		n.askUntil(func(err error) bool {
			if err != nil {
				t.Fatal("the driver was deregistered:", err)
			}
			return n.runner.count("init") > before
		})
	}
	if log := n.log(); strings.Contains(log, probeFailure) {
		t.Errorf("init failed in between:\n%s", log)
	}
	pod := n.pod()
	n.setUp(pod, inline(n.keyed()))
	n.tearDown(pod.UID, "oss1")
}

// What the way of upgrading above is for.
func TestADriverThatIsRemovedFirstIsDeregisteredInBetween(t *testing.T) {
	n := newNode(t)
	n.must(os.Remove(filepath.Join(n.path("plugins"), driverDirectory, "oss")))
	n.askUntil(func(err error) bool { return err != nil })
	n.install(program("OSS_DRIVER"))
	n.askUntil(func(err error) bool { return err == nil })
}

// askUntil looks for the driver again and again, as kubelet does, until what it finds is enough:
// kubelet's watch of the directory cannot be waited for.
func (n *node) askUntil(enough func(err error) bool) {
	n.t.Helper()
	for limit := time.Now().Add(time.Minute); ; {
		_, err := n.manager.FindPluginByName(driver)
		if enough(err) {
			return
		}
		if time.Now().After(limit) {
			n.t.Fatalf("kubelet has not taken notice: %v\n%s", err, n.log())
		}
	}
}

func TestCapabilitiesAreParsedAsNone(t *testing.T) {
	n := newNode(t)
	spec := persistent(n.keyed(), false)
	plugin, err := n.manager.FindPluginBySpec(spec)
	n.must(err)
	if _, is := plugin.(volume.AttachableVolumePlugin); is {
		t.Error("kubelet would wait for the volume to be attached")
	}
	if found, err := n.manager.FindAttachablePluginBySpec(spec); found != nil || err != nil {
		t.Errorf("attachable: %v, %v", found, err)
	}
	if found, err := n.manager.FindDeviceMountablePluginBySpec(spec); found != nil || err != nil {
		t.Errorf("device-mountable: %v, %v", found, err)
	}
	expandable, is := plugin.(volume.NodeExpandableVolumePlugin)
	if !is || expandable.RequiresFSResize() {
		t.Error("kubelet would call expandfs")
	}
	pod := n.pod()
	mounter := newMounter(t, plugin, spec, pod)
	if relabels(mounter.GetAttributes()) {
		t.Error("the container's runtime would relabel the bucket")
	}
	if _, err := mounter.GetMetrics(); err == nil || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("metrics: %v", err)
	}
	// That fsGroup is false shows in what kubelet does: see the tests of fsGroup.
	if calls := n.runner.all(); calls != "init" {
		t.Errorf("calls: %s", calls)
	}
}
