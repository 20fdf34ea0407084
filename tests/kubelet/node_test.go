package kubelet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/kubernetes/pkg/volume"
)

// mounter is the program that mounts: s3fs in the place of ossfs, or the ossfs that OSSFS names.
func mounter() string {
	if ossfs := os.Getenv("OSSFS"); ossfs != "" {
		return ossfs
	}
	return "s3fs"
}

// daemon stands for ossfs: s3fs wants a scheme in the url, and both want the path style for a host
// without a name for each bucket.
func daemon() string {
	return strings.ReplaceAll(daemonScript, "MOUNTER", mounter())
}

const daemonScript = `#!/bin/sh
n=$#
while [ $n -gt 0 ]; do
  a=$1; shift; n=$((n - 1))
  case $a in
    url=http*) ;;
    url=*) a=url=http://${a#url=} ;;
  esac
  set -- "$@" "$a"
done
exec "MOUNTER" "$@" -o use_path_request_style
`

// node is a node for one test: a store, the driver's configuration and state, a plugin directory
// with the driver in it, and a kubelet.
type node struct {
	*kubelet
	t         *testing.T
	store     *store
	directory string
	logStart  int
	pods      int
}

// newNode starts a node on which the driver is installed; objects are what its kubelet may ask the
// API server for.
func newNode(t *testing.T, objects ...runtime.Object) *node {
	t.Helper()
	n := newEmptyNode(t)
	n.install(program("OSS_DRIVER"))
	n.startKubelet(objects...)
	return n
}

// newEmptyNode is a node without a driver and before its kubelet's start.
func newEmptyNode(t *testing.T) *node {
	t.Helper()
	// Not t.TempDir: kubelet makes its plugin directory again when that is removed.
	directory, err := os.MkdirTemp("", t.Name())
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, directory: directory, logStart: kubeletLog.length()}
	n.store = startStore(t)
	n.must(os.Mkdir(n.path("kubelet"), 0o755))
	// As on a node with systemd, what is mounted below it is shared with other namespaces.
	n.must(syscall.Mount(n.path("kubelet"), n.path("kubelet"), "", syscall.MS_BIND, ""))
	n.must(syscall.Mount("", n.path("kubelet"), "", syscall.MS_SHARED, ""))
	t.Cleanup(n.cleanUp)

	n.must(os.WriteFile(n.path("ossfs"), []byte(daemon()), 0o755))
	config, err := json.Marshal(map[string]any{
		"ossfs":                 n.path("ossfs"),
		"stateDir":              n.path("state"),
		"logFile":               n.path("log/oss.log"),
		"logLevel":              "debug",
		"launcher":              "direct",
		"mountTimeoutSeconds":   120,
		"unmountTimeoutSeconds": 120,
	})
	n.must(err)
	n.must(os.WriteFile(n.path("config.json"), config, 0o644))
	// The driver inherits kubelet's environment.
	t.Setenv("OSS_FLEXVOLUME_CONFIG", n.path("config.json"))
	return n
}

func (n *node) startKubelet(objects ...runtime.Object) {
	n.t.Helper()
	n.kubelet = startKubelet(n.t, n.path("kubelet"), n.path("plugins"), fake.NewSimpleClientset(objects...))
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) path(name string) string { return filepath.Join(n.directory, name) }

// install puts the program at from in the driver's place, the way that keeps it there throughout:
// a new directory comes into being with the driver in it, an old driver is renamed over.
func (n *node) install(from string) {
	n.t.Helper()
	plugins := n.path("plugins")
	directory := filepath.Join(plugins, driverDirectory)
	if _, err := os.Stat(directory); err == nil {
		n.copy(from, filepath.Join(directory, ".oss"))
		n.must(os.Rename(filepath.Join(directory, ".oss"), filepath.Join(directory, "oss")))
		return
	}
	hidden := filepath.Join(plugins, "."+driverDirectory)
	n.must(os.MkdirAll(hidden, 0o755))
	n.copy(from, filepath.Join(hidden, "oss"))
	n.must(os.Rename(hidden, directory))
}

// copy copies a program, in a process of its own: this one starts others all the time, which would
// inherit a file open for writing, and the program would be busy.
func (n *node) copy(from, to string) {
	n.t.Helper()
	if out, err := exec.Command("cp", "--", from, to).CombinedOutput(); err != nil {
		n.t.Fatalf("cp: %v: %s", err, out)
	}
}

// wrapDriver returns a script that answers as body says and is else the driver.
func (n *node) wrapDriver(body string) string {
	n.t.Helper()
	path := n.path("wrapped-driver")
	script := fmt.Sprintf("#!/bin/sh\n%s\nexec %q \"$@\"\n", body, program("OSS_DRIVER"))
	n.must(os.WriteFile(path, []byte(script), 0o755))
	return path
}

// options are the options of a volume on the node's store, without a key pair.
func (n *node) options(more ...string) map[string]string {
	options := map[string]string{
		"bucket":    bucket,
		"url":       n.store.url,
		"otherOpts": "-o max_stat_cache_size=0",
	}
	for i := 0; i < len(more); i += 2 {
		options[more[i]] = more[i+1]
	}
	return options
}

// keyed are the options of a volume that brings its key pair.
func (n *node) keyed(more ...string) map[string]string {
	return n.options(append([]string{"akId", n.store.keyID, "akSecret", n.store.secret}, more...)...)
}

// pod is a new Pod.
func (n *node) pod() *v1.Pod {
	n.pods++
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:      fmt.Sprintf("pod%d", n.pods),
			Namespace: "default",
			UID:       types.UID(fmt.Sprintf("11111111-2222-3333-4444-%012d", n.pods)),
		},
		Spec: v1.PodSpec{ServiceAccountName: "default"},
	}
}

// inline is a volume that a Pod defines itself.
func inline(options map[string]string, change ...func(*v1.FlexVolumeSource)) *volume.Spec {
	source := &v1.FlexVolumeSource{Driver: driver, Options: options}
	for _, change := range change {
		change(source)
	}
	return volume.NewSpecFromVolume(&v1.Volume{
		Name:         "oss1",
		VolumeSource: v1.VolumeSource{FlexVolume: source},
	})
}

// persistent is a PersistentVolume, as a Pod mounts it through its claim.
func persistent(options map[string]string, readOnly bool, change ...func(*v1.FlexPersistentVolumeSource)) *volume.Spec {
	source := &v1.FlexPersistentVolumeSource{Driver: driver, Options: options, ReadOnly: readOnly}
	for _, change := range change {
		change(source)
	}
	return volume.NewSpecFromPersistentVolume(&v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-oss"},
		Spec: v1.PersistentVolumeSpec{
			AccessModes:            []v1.PersistentVolumeAccessMode{v1.ReadWriteMany},
			ClaimRef:               &v1.ObjectReference{Namespace: "default", Name: "claim"},
			PersistentVolumeSource: v1.PersistentVolumeSource{FlexVolume: source},
		},
	}, readOnly)
}

// secretObject is the Secret that holds the store's key pair, with the line break that kubectl
// create secret --from-file leaves.
func (s *store) secretObject(namespace string) *v1.Secret {
	return &v1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "oss-key"},
		Type:       driver,
		Data:       map[string][]byte{"akId": []byte(s.keyID + "\n"), "akSecret": []byte(s.secret + "\n")},
	}
}

// setUp has kubelet mount a volume, and returns TARGET.
func (n *node) setUp(pod *v1.Pod, spec *volume.Spec) string {
	n.t.Helper()
	if result := n.mount(pod, spec); result.err != nil {
		n.t.Fatalf("%v\nevents: %q", result.err, result.events)
	}
	target := n.target(pod.UID, spec.Name())
	if kind := n.mountedAt(target); kind != "fuse.ossfs" {
		n.t.Fatalf("SetUp succeeded, but %s has a mount of type %q", target, kind)
	}
	return target
}

// tearDown has kubelet unmount a volume, and checks that TARGET is gone.
func (n *node) tearDown(pod types.UID, name string) {
	n.t.Helper()
	if result := n.unmount(pod, name); result.err != nil {
		n.t.Fatalf("%v\nevents: %q", result.err, result.events)
	}
	n.assertGone(n.target(pod, name))
}

func (n *node) assertGone(target string) {
	n.t.Helper()
	if _, err := os.Lstat(target); !os.IsNotExist(err) {
		n.t.Fatalf("%s is still there: %v", target, err)
	}
}

func (n *node) write(path, text string) {
	n.t.Helper()
	n.must(os.WriteFile(path, []byte(text), 0o644))
}

func (n *node) assertContent(path, text string) {
	n.t.Helper()
	content, err := os.ReadFile(path)
	n.must(err)
	if string(content) != text {
		n.t.Fatalf("%s: %q is not %q", path, content, text)
	}
}

// log is what kubelet wrote to its log on this node.
func (n *node) log() string { return kubeletLog.since(n.logStart) }

// mounts are the mount points below the node's directory with their types, but for kubelet's root.
func (n *node) mounts() map[string]string {
	n.t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	n.must(err)
	found := map[string]string{}
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		for i, field := range fields {
			if field == "-" && strings.HasPrefix(fields[4], n.directory+"/") && fields[4] != n.path("kubelet") {
				found[fields[4]] = fields[i+1]
			}
		}
	}
	return found
}

// mountedAt is the type of the file system mounted at path; nothing if there is none.
func (n *node) mountedAt(path string) string { return n.mounts()[path] }

// daemons are the processes that serve volumes of this node.
func (n *node) daemons() []int {
	n.t.Helper()
	return n.processes("passwd_file=" + n.path("state") + "/")
}

// processes are those with text in their arguments, the oldest first as a rule.
func (n *node) processes(text string) []int {
	n.t.Helper()
	entries, err := os.ReadDir("/proc")
	n.must(err)
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		// A process that has ended meanwhile is none of these.
		line, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if bytes.Contains(line, []byte(text)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killVolumes kills all that serves volumes, and returns when it has ended: what starts others anew
// first, then what keeps the mount, then ossfs.
func (n *node) killVolumes() {
	n.t.Helper()
	volumes := n.path("state") + "/volumes/"
	for _, text := range []string{"serve\x00--parent\x00" + volumes, "serve\x00--child\x00" + volumes, volumes} {
		for _, pid := range n.processes(text) {
			process, err := os.FindProcess(pid)
			n.must(err)
			// It ends with the one before, too.
			if err := process.Kill(); errors.Is(err, os.ErrProcessDone) {
				continue
			} else {
				n.must(err)
			}
			n.must(process.WithHandle(func(handle uintptr) { err = waitForEnd(int(handle)) }))
			n.must(err)
		}
	}
}

// waitForEnd returns when the process behind a pidfd, which need not be a child, has ended.
func waitForEnd(pidfd int) error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			return err
		}
	}
}

// cleanUp checks, for a test that went well, that it left nothing, and removes what it left if not.
func (n *node) cleanUp() {
	if !n.t.Failed() {
		if mounts := n.mounts(); len(mounts) > 0 {
			n.t.Errorf("mounts are left: %v", mounts)
		}
		// One may be on its way out: a failed mount kills it, and does not wait for its end.
		for _, pid := range n.daemons() {
			if process, err := os.FindProcess(pid); err == nil {
				_ = process.WithHandle(func(handle uintptr) {
					_, _ = unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, 10_000)
				})
			}
		}
		if pids := n.daemons(); len(pids) > 0 {
			n.t.Errorf("daemons are left: %v", pids)
		}
		if left, _ := os.ReadDir(n.path("state/volumes")); len(left) > 0 {
			n.t.Errorf("volumes are left in the state directory: %v", left)
		}
	}
	if n.t.Failed() {
		driverLog, _ := os.ReadFile(n.path("log/oss.log"))
		n.t.Logf("the driver's log:\n%s", driverLog)
	}
	n.killVolumes()
	var points []string
	for point := range n.mounts() {
		points = append(points, point)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	for _, point := range append(points, n.path("kubelet")) {
		for syscall.Unmount(point, syscall.MNT_DETACH) == nil {
			// Another one may be below it.
		}
	}
}
