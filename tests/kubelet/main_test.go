// Package kubelet drives kubelet's own FlexVolume code (k8s.io/kubernetes, pkg/volume/flexvolume)
// against the driver's release binary, with buckets that s3fs, or the ossfs that OSSFS names, really
// mounts.
//
// OSS_DRIVER names that binary, OSS_INSTALLER the installer's, OSS_S3_STORE the object store's; all
// are built by the workspace above this directory.
package kubelet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// stage is the variable that tells a copy of this program what it is.
const stage = "OSS_CONFORMANCE_STAGE"

// TestMain runs the tests in namespaces of their own, which end with them: no mount, no file, no
// daemon and no store is left over, whatever happens to a test.
func TestMain(m *testing.M) {
	switch os.Getenv(stage) {
	case "":
		if why := missing(); why != nil {
			os.Exit(skip(why))
		}
		os.Exit(enterNamespaces())
	case "init":
		os.Exit(initialProcess())
	default:
		os.Unsetenv(stage)
		captureLog()
		os.Exit(m.Run())
	}
}

// missing says what this machine lacks for these tests.
func missing() error {
	if os.Geteuid() != 0 {
		return errors.New("root is needed to mount")
	}
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("/dev/fuse is needed: %w", err)
	}
	fuse.Close()
	if _, err := exec.LookPath(mounter()); err != nil {
		return fmt.Errorf("%s is needed: %w", mounter(), err)
	}
	return nil
}

// skip passes where the tests cannot run, but not in CI, where they have to.
func skip(why error) int {
	fmt.Println("skipped:", why)
	if os.Getenv("CI") == "true" {
		return 1
	}
	return 0
}

// enterNamespaces runs this program again as the first process of a PID namespace and in a mount
// namespace, and returns its exit status.
func enterNamespaces() int {
	for _, name := range []string{"OSS_DRIVER", "OSS_INSTALLER", "OSS_S3_STORE"} {
		if path := os.Getenv(name); !filepath.IsAbs(path) {
			fmt.Printf("%s is %q: the absolute path of a program is expected\n", name, path)
			return 1
		}
	}
	// In the namespace a file system of its own is mounted here, which ends with it too.
	directory, err := os.MkdirTemp("", "oss-kubelet-")
	if err != nil {
		fmt.Println("make a directory:", err)
		return 1
	}
	defer os.Remove(directory)
	// The signal below is sent when the thread ends, not the process.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stage+"=init", "TMPDIR="+directory)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Start()
	if errors.Is(err, syscall.EPERM) {
		return skip(fmt.Errorf("namespaces are needed: %w", err))
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		fmt.Println("tests in their namespaces:", err)
		return 1
	}
	return 0
}

// initialProcess starts the tests and reaps the daemons that outlive their parents, as a node's
// first process does. When it ends, the kernel kills the rest.
func initialProcess() int {
	err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	if err == nil {
		err = syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "")
	}
	if err == nil {
		err = syscall.Mount("tmpfs", os.TempDir(), "tmpfs", 0, "mode=0755")
	}
	if err != nil {
		fmt.Println("private mounts:", err)
		return 1
	}
	os.Setenv(stage, "tests")
	tests, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		fmt.Println("start the tests:", err)
		return 1
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Println("wait for the tests:", err)
			return 1
		case pid == tests && status.Exited():
			return status.ExitStatus()
		case pid == tests:
			fmt.Println("the tests ended by", status.Signal())
			return 1
		}
	}
}

// program is the absolute path that the variable name holds.
func program(name string) string { return os.Getenv(name) }

// unique is a text that no other test has.
func unique(prefix string) string {
	count++
	return prefix + strconv.Itoa(os.Getpid()) + "n" + strconv.Itoa(count)
}

var count int
