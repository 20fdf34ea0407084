package kubelet

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// installer is one run of the node installer, beside kubelet on the same node.
type installer struct {
	n   *node
	cmd *exec.Cmd
	// err may be read once ended is closed.
	ended chan struct{}
	err   error

	mutex  sync.Mutex
	output string
	// more is closed, and another, with each output.
	more chan struct{}
}

// start starts the installer, which sees the node's directory as its host when it removes the driver.
func (n *node) start(image, word string, args ...string) *installer {
	n.t.Helper()
	all := []string{word, "--driver", image}
	if word == "uninstall" {
		all = append(all, "--host-root", n.directory, "--plugin-dir", "/plugins", "--state-dir", "/state")
	} else {
		all = append(all, "--plugin-dir", n.path("plugins"), "--state-dir", n.path("state"))
	}
	i := &installer{
		n:     n,
		cmd:   exec.Command(program("OSS_INSTALLER"), append(all, args...)...),
		ended: make(chan struct{}),
		more:  make(chan struct{}),
	}
	i.cmd.Stdout, i.cmd.Stderr = i, i
	n.must(i.cmd.Start())
	go func() {
		i.err = i.cmd.Wait()
		close(i.ended)
	}()
	n.t.Cleanup(func() {
		_ = i.cmd.Process.Kill()
		<-i.ended
	})
	return i
}

func (i *installer) Write(p []byte) (int, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	i.output += string(p)
	close(i.more)
	i.more = make(chan struct{})
	return len(p), nil
}

// said is what it has logged so far, and a channel that is closed when there is more.
func (i *installer) said() (string, chan struct{}) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	return i.output, i.more
}

// awaitLine returns when text was logged.
func (i *installer) awaitLine(text string) {
	i.n.t.Helper()
	for {
		output, more := i.said()
		if strings.Contains(output, text) {
			return
		}
		select {
		case <-more:
		case <-i.ended:
			i.n.t.Fatalf("the installer has ended (%v) without %q:\n%s", i.err, text, output)
		}
	}
}

// awaitEnd is its error and what it has logged, once it has ended.
func (i *installer) awaitEnd() (error, string) {
	<-i.ended
	output, _ := i.said()
	return i.err, output
}

// stop asks the installer to end, which leaves the driver.
func (i *installer) stop() {
	i.n.t.Helper()
	i.n.must(i.cmd.Process.Signal(syscall.SIGTERM))
	if err, output := i.awaitEnd(); err != nil {
		i.n.t.Fatalf("the installer: %v\n%s", err, output)
	}
}

// ready asks as the readiness probe does whether the driver in image is the one that kubelet has
// loaded; the error says what it is instead.
func (n *node) ready(image string) error {
	err, output := n.start(image, "check").awaitEnd()
	if err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}

// anotherBuild is the driver with another build id.
func (n *node) anotherBuild() string {
	n.t.Helper()
	version, err := exec.Command(program("OSS_DRIVER"), "--version").Output()
	n.must(err)
	id := regexp.MustCompile(`\(([0-9a-f]{16})\)`).FindSubmatch(version)
	if id == nil {
		n.t.Fatalf("no build id in %q", version)
	}
	file, err := os.ReadFile(program("OSS_DRIVER"))
	n.must(err)
	file = bytes.ReplaceAll(file, id[1], []byte("0123456789abcdef"))
	n.must(os.WriteFile(n.path("changed"), file, 0o755))
	n.copy(n.path("changed"), n.path("another-oss"))
	return n.path("another-oss")
}

func TestTheInstallerInstallsUpgradesAndUninstallsUnderKubelet(t *testing.T) {
	// The record of init has who ran it.
	own, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/comm", []byte("kubelet"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile("/proc/self/comm", bytes.TrimSpace(own), 0) })
	n := newEmptyNode(t)
	first, second := program("OSS_DRIVER"), n.anotherBuild()
	n.must(os.Mkdir(n.path("plugins"), 0o755))
	// As kubelet makes it for a Pod that mounts it.
	n.must(os.Mkdir(n.path("state"), 0o755))
	n.startKubelet()

	run := n.start(first, "run")
	n.askUntil(func(err error) bool { return err == nil })
	n.must(n.ready(first))
	if n.ready(second) == nil {
		t.Error("ready with a driver that is not the one of the image")
	}
	pod := n.pod()
	target := n.setUp(pod, inline(n.keyed()))
	n.write(target+"/file", "written before the upgrade")
	run.stop()

	run = n.start(second, "run")
	n.askUntil(func(err error) bool {
		if err != nil {
			t.Fatal("the driver was deregistered:", err)
		}
		return n.runner.count("init") > 1
	})
	n.must(n.ready(second))
	n.assertContent(target+"/file", "written before the upgrade")
	run.stop()
	if inits := n.runner.count("init"); inits != 2 {
		t.Errorf("kubelet ran init %d times for two drivers", inits)
	}
	if log := n.log(); strings.Contains(log, probeFailure) {
		t.Errorf("kubelet met a driver that was not complete:\n%s", log)
	}

	if err, output := n.start(second, "uninstall").awaitEnd(); err == nil || !strings.Contains(output, string(pod.UID)) {
		t.Fatalf("an uninstall with a volume mounted: %v\n%s", err, output)
	}
	drain := n.start(second, "uninstall", "--drain")
	drain.awaitLine("waiting for")
	result := n.mount(n.pod(), inline(n.keyed()))
	if events := strings.Join(result.events, " "); result.err == nil || !strings.Contains(events, "being removed from the node") {
		t.Errorf("a mount while the node is drained: %v, events %q", result.err, events)
	}
	n.assertContent(target+"/file", "written before the upgrade")
	n.tearDown(pod.UID, "oss1")
	if err, output := drain.awaitEnd(); err != nil {
		t.Fatalf("the uninstall: %v\n%s", err, output)
	}
	n.askUntil(func(err error) bool { return err != nil })
	// kubelet may make the directory of a driver that has gone again, and finds it empty.
	for _, directory := range []string{"plugins", "plugins/" + driverDirectory} {
		left, _ := os.ReadDir(n.path(directory))
		for _, entry := range left {
			if entry.Name() != driverDirectory {
				t.Errorf("left in %s: %s", directory, entry.Name())
			}
		}
	}
}
