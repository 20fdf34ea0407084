package kubelet

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// failed has kubelet try to mount, checks that it fails and leaves nothing, and returns the one
// Event of the Pod.
func (n *node) failed(options map[string]string, change ...func(*v1.FlexVolumeSource)) string {
	n.t.Helper()
	pod := n.pod()
	result := n.mount(pod, inline(options, change...))
	if result.err == nil || len(result.events) != 1 {
		n.t.Fatalf("error: %v, events: %q", result.err, result.events)
	}
	n.assertGone(n.target(pod.UID, "oss1"))
	assertNoSecret(n.t, "the error", result.err.Error(), n.store.secret)
	assertNoSecret(n.t, "the Event", result.events[0], n.store.secret)
	assertNoSecret(n.t, "kubelet's log", n.log(), n.store.secret)
	return result.events[0]
}

const eventPrefix = `Warning FailedMount MountVolume.SetUp failed for volume "oss1" : ` +
	`mount command failed, status: Failure, reason: `

func TestARefusedOptionIsNamedInThePodsEvent(t *testing.T) {
	n := newNode(t)
	event := n.failed(n.keyed("bucket", "My_Data"))
	if want := eventPrefix + `option "bucket": "My_Data" is not a bucket name: `; !strings.HasPrefix(event, want) {
		t.Errorf("the Event is\n%s\nand does not begin with\n%s", event, want)
	}
}

func TestAWrongKeyIsExplainedInThePodsEventAndKeptOutOfKubeletsLog(t *testing.T) {
	n := newNode(t)
	wrong := n.store.secret
	n.store.secret = "wrong" + wrong
	event := n.failed(n.keyed())
	if !strings.HasPrefix(event, eventPrefix+"ossfs ") || strings.Contains(event, "\n") {
		t.Errorf("the Event is\n%s", event)
	}
	assertNoSecret(t, "kubelet's log", n.log(), wrong)
}

func TestAWrongKeyFromASecretIsKeptOutOfKubeletsLog(t *testing.T) {
	n := newEmptyNode(t)
	n.install(program("OSS_DRIVER"))
	n.store.secret = "wrong" + n.store.secret
	n.startKubelet(n.store.secretObject("default"))
	n.failed(n.options(), func(source *v1.FlexVolumeSource) {
		source.SecretRef = &v1.LocalObjectReference{Name: "oss-key"}
	})
}

func TestAFailedMountSucceedsWhenItsCauseIsGone(t *testing.T) {
	n := newNode(t)
	n.failed(n.keyed("bucket", "nosuchbucket"))
	pod := n.pod()
	n.setUp(pod, inline(n.keyed()))
	n.tearDown(pod.UID, "oss1")
}

// What the exit status 0 of every answer, and the search of kubelet's log, are for.
func TestADriverThatEndsWithAnotherStatusHasItsArgumentsInKubeletsLog(t *testing.T) {
	n := newEmptyNode(t)
	n.install(n.wrapDriver(`[ "$1" = mount ] && {
  echo '{"status":"Failure","message":"no"}'
  exit 1
}`))
	n.startKubelet()
	if result := n.mount(n.pod(), inline(n.keyed())); result.err == nil {
		t.Fatal("the mount succeeded")
	}
	if !holdsSecret(n.log(), n.store.secret) {
		t.Errorf("the secret is not in kubelet's log:\n%s", n.log())
	}
}

func TestAVolumeWhoseDaemonIsDeadIsTornDown(t *testing.T) {
	n := newNode(t)
	inlined, claimed := n.pod(), n.pod()
	targets := []string{
		n.setUp(inlined, inline(n.keyed())),
		n.setUp(claimed, persistent(n.keyed(), false)),
	}
	n.write(filepath.Join(targets[0], "file"), "written")
	n.killVolumes()
	for _, target := range targets {
		if _, err := os.Stat(target); !errors.Is(err, syscall.ENOTCONN) {
			t.Fatalf("%s is not dead: %v", target, err)
		}
	}
	n.tearDown(inlined.UID, "oss1")
	n.tearDown(claimed.UID, "pv-oss")

	pod := n.pod()
	n.assertContent(filepath.Join(n.setUp(pod, inline(n.keyed())), "file"), "written")
	n.tearDown(pod.UID, "oss1")
}

// A dead volume passes for mounted (where the kernel has statx) or cannot be looked at: a driver
// that repaired it on the next mount call would wait for ever.
func TestADeadVolumeIsNotMountedAgainByKubelet(t *testing.T) {
	n := newNode(t)
	pod := n.pod()
	n.setUp(pod, inline(n.keyed()))
	n.killVolumes()
	t.Log("SetUp:", n.mount(pod, inline(n.keyed())).err)
	if calls := n.runner.all(); calls != "init mount" {
		t.Errorf("calls: %s", calls)
	}
	n.tearDown(pod.UID, "oss1")
}

func TestADeadVolumeRebuiltFromTheDirectoryTreeIsTornDown(t *testing.T) {
	n := newNode(t)
	pod := n.pod()
	n.setUp(pod, inline(n.keyed()))
	n.killVolumes()
	n.startKubelet()
	n.tearDown(pod.UID, "oss1")
}
