package kubelet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestAnInlineVolumeIsSetUpAndTornDownByMountAndUnmountAlone(t *testing.T) {
	n := newNode(t)
	first, second := n.pod(), n.pod()
	n.write(filepath.Join(n.setUp(first, inline(n.keyed())), "file"), "written")
	n.tearDown(first.UID, "oss1")
	n.assertContent(filepath.Join(n.setUp(second, inline(n.keyed())), "file"), "written")
	n.tearDown(second.UID, "oss1")
	if calls := n.runner.all(); calls != "init mount unmount mount unmount" {
		t.Errorf("calls: %s", calls)
	}
	assertNoSecret(t, "kubelet's log", n.log(), n.store.secret)
}

func TestAPersistentVolumeIsSetUpAndTornDownByMountAndUnmountAlone(t *testing.T) {
	n := newNode(t)
	pod := n.pod()
	n.write(filepath.Join(n.setUp(pod, persistent(n.keyed(), false)), "file"), "written")
	n.tearDown(pod.UID, "pv-oss")
	if calls := n.runner.all(); calls != "init mount unmount" {
		t.Errorf("calls: %s", calls)
	}
	assertNoSecret(t, "kubelet's log", n.log(), n.store.secret)
}

func TestReadOnlyVolumesCannotBeWrittenTo(t *testing.T) {
	n := newNode(t)
	writer := n.pod()
	n.write(filepath.Join(n.setUp(writer, inline(n.keyed())), "file"), "written")
	n.tearDown(writer.UID, "oss1")

	inlined, claimed := n.pod(), n.pod()
	readOnly := func(source *v1.FlexVolumeSource) { source.ReadOnly = true }
	for _, target := range []string{
		n.setUp(inlined, inline(n.keyed(), readOnly)),
		n.setUp(claimed, persistent(n.keyed(), true)),
	} {
		n.assertContent(filepath.Join(target, "file"), "written")
		if err := os.WriteFile(filepath.Join(target, "new"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
			t.Errorf("write to %s: %v", target, err)
		}
	}
	n.tearDown(inlined.UID, "oss1")
	n.tearDown(claimed.UID, "pv-oss")
}

// seedFiles puts files and a directory into the bucket.
func seedFiles(n *node) {
	n.t.Helper()
	pod := n.pod()
	target := n.setUp(pod, inline(n.keyed()))
	n.must(os.Mkdir(filepath.Join(target, "directory"), 0o755))
	n.write(filepath.Join(target, "file"), "written")
	n.write(filepath.Join(target, "directory/file"), "written")
	n.tearDown(pod.UID, "oss1")
}

func podOfGroup(n *node, group int64) *v1.Pod {
	pod := n.pod()
	pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: &group}
	return pod
}

func TestWithFSGroupFilesShowItAndNothingInTheBucketIsChanged(t *testing.T) {
	n := newNode(t)
	seedFiles(n)
	before := len(n.store.requestsSoFar(t))
	pod, claimed := podOfGroup(n, 4321), podOfGroup(n, 4321)
	for _, target := range []string{
		n.setUp(pod, inline(n.keyed())),
		n.setUp(claimed, persistent(n.keyed(), false)),
	} {
		for _, name := range []string{"", "file", "directory", "directory/file"} {
			info, err := os.Stat(filepath.Join(target, name))
			n.must(err)
			if gid := info.Sys().(*syscall.Stat_t).Gid; gid != 4321 {
				t.Errorf("%q shows the group %d", name, gid)
			}
		}
	}
	n.tearDown(pod.UID, "oss1")
	n.tearDown(claimed.UID, "pv-oss")
	requests := n.store.requestsSoFar(t)[before:]
	if found := writes(requests); len(found) > 0 {
		t.Errorf("requests that change the bucket: %q", found)
	}
	if len(requests) == 0 {
		t.Error("the store saw no request at all")
	}
}

// What the capability fsGroup, and the search for writes, are for.
func TestADriverWithTheCapabilityFSGroupHasTheWholeBucketChanged(t *testing.T) {
	n := newEmptyNode(t)
	n.install(n.wrapDriver(`[ "$1" = init ] && {
  echo '{"status":"Success","capabilities":{"attach":false,"selinuxRelabel":false,"fsGroup":true,"requiresFSResize":false}}'
  exit
}`))
	n.startKubelet()
	seedFiles(n)
	before := len(n.store.requestsSoFar(t))
	pod := podOfGroup(n, 4321)
	n.setUp(pod, inline(n.keyed()))
	n.tearDown(pod.UID, "oss1")
	changed := strings.Join(writes(n.store.requestsSoFar(t)[before:]), "\n")
	for _, key := range []string{"/docker/file ", "/docker/directory/ ", "/docker/directory/file "} {
		if !strings.Contains(changed, key) {
			t.Errorf("%q is not among the requests that change the bucket:\n%s", key, changed)
		}
	}
}

func TestTheKeyPairMayComeFromASecretNamedByThePod(t *testing.T) {
	n := newEmptyNode(t)
	n.install(program("OSS_DRIVER"))
	n.startKubelet(n.store.secretObject("default"))
	pod := n.pod()
	spec := inline(n.options(), func(source *v1.FlexVolumeSource) {
		source.SecretRef = &v1.LocalObjectReference{Name: "oss-key"}
	})
	n.write(filepath.Join(n.setUp(pod, spec), "file"), "written")
	n.tearDown(pod.UID, "oss1")
	assertNoSecret(t, "kubelet's log", n.log(), n.store.secret)
}

func TestTheKeyPairMayComeFromASecretOfAnotherNamespaceNamedByThePersistentVolume(t *testing.T) {
	n := newEmptyNode(t)
	n.install(program("OSS_DRIVER"))
	n.startKubelet(n.store.secretObject("storage"))
	pod := n.pod()
	spec := persistent(n.options(), false, func(source *v1.FlexPersistentVolumeSource) {
		source.SecretRef = &v1.SecretReference{Namespace: "storage", Name: "oss-key"}
	})
	n.write(filepath.Join(n.setUp(pod, spec), "file"), "written")
	n.tearDown(pod.UID, "pv-oss")
	assertNoSecret(t, "kubelet's log", n.log(), n.store.secret)
}

func TestADriverReplacedBetweenSetUpAndTearDownUnmountsAllTheSame(t *testing.T) {
	n := newNode(t)
	probed, unprobed := n.pod(), n.pod()
	n.write(filepath.Join(n.setUp(probed, inline(n.keyed())), "one"), "written")
	n.write(filepath.Join(n.setUp(unprobed, persistent(n.keyed(), false)), "two"), "written")

	// This one's unmounter was made before the upgrade, and calls whatever is there.
	plugin, err := n.manager.FindPluginByName(driver)
	n.must(err)
	unmounter, err := plugin.NewUnmounter("pv-oss", unprobed.UID)
	n.must(err)
	n.install(n.wrapDriver(""))
	n.must(unmounter.TearDown())
	n.assertGone(n.target(unprobed.UID, "pv-oss"))

	n.askUntil(func(err error) bool {
		n.must(err)
		return n.runner.count("init") > 1
	})
	n.tearDown(probed.UID, "oss1")
	pod := n.pod()
	target := n.setUp(pod, inline(n.keyed()))
	n.assertContent(filepath.Join(target, "one"), "written")
	n.assertContent(filepath.Join(target, "two"), "written")
	n.tearDown(pod.UID, "oss1")
}

// After its restart kubelet has nothing but the directories below its root.
func TestAVolumeRebuiltFromTheDirectoryTreeIsUnmounted(t *testing.T) {
	n := newNode(t)
	inlined, claimed := n.pod(), n.pod()
	n.write(filepath.Join(n.setUp(inlined, inline(n.keyed())), "one"), "written")
	n.write(filepath.Join(n.setUp(claimed, persistent(n.keyed(), false)), "two"), "written")
	n.startKubelet()

	targets, err := filepath.Glob(filepath.Join(n.podsDirectory(), "*", "volumes", driverDirectory, "*"))
	n.must(err)
	if len(targets) != 2 {
		t.Fatalf("the tree shows %q", targets)
	}
	for _, target := range targets {
		name := filepath.Base(target)
		plugin, err := n.manager.FindPluginByName(driver)
		n.must(err)
		spec, err := reconstruct(plugin, name, target)
		n.must(err)
		if found, err := n.manager.FindPluginBySpec(spec); err != nil || found != plugin {
			t.Fatalf("the rebuilt volume is of another plugin: %v, %v", found, err)
		}
		for _, pod := range []*v1.Pod{inlined, claimed} {
			if strings.Contains(target, string(pod.UID)) {
				n.tearDown(pod.UID, spec.Name())
			}
		}
	}
	if calls := n.runner.all(); calls != "init unmount unmount" {
		t.Errorf("calls: %s", calls)
	}
}

func TestFiftyVolumesAtOnce(t *testing.T) {
	n := newNode(t)
	const volumes = 50
	seed := n.pod()
	target := n.setUp(seed, inline(n.keyed()))
	var pods []*v1.Pod
	for i := range volumes {
		n.must(os.Mkdir(filepath.Join(target, fmt.Sprint("directory", i)), 0o755))
		pods = append(pods, n.pod())
	}
	n.tearDown(seed.UID, "oss1")

	atOnce(t, volumes, func(i int) error {
		spec := inline(n.keyed("path", fmt.Sprint("/directory", i)))
		if result := n.mount(pods[i], spec); result.err != nil {
			return result.err
		}
		return os.WriteFile(filepath.Join(n.target(pods[i].UID, "oss1"), "file"), fmt.Append(nil, i), 0o644)
	})
	if served := len(n.daemons()); served != volumes && !t.Failed() {
		t.Errorf("%d daemons serve %d volumes", served, volumes)
	}
	atOnce(t, volumes, func(i int) error { return n.unmount(pods[i].UID, "oss1").err })

	target = n.setUp(seed, inline(n.keyed()))
	for i, pod := range pods {
		n.assertGone(n.target(pod.UID, "oss1"))
		n.assertContent(filepath.Join(target, fmt.Sprint("directory", i), "file"), fmt.Sprint(i))
	}
	n.tearDown(seed.UID, "oss1")
	assertNoSecret(t, "kubelet's log", n.log(), n.store.secret)
}

// atOnce runs step with each number below n, all at the same time.
func atOnce(t *testing.T, n int, step func(int) error) {
	t.Helper()
	var all sync.WaitGroup
	for i := range n {
		all.Add(1)
		go func() {
			defer all.Done()
			if err := step(i); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}()
	}
	all.Wait()
}
