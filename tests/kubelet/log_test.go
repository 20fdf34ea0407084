package kubelet

import (
	"bytes"
	"encoding/base64"
	"flag"
	"strings"
	"sync"
	"testing"

	"k8s.io/klog/v2"
)

// kubeletLog is everything that kubelet's code writes to its log, at the highest verbosity.
var kubeletLog logBuffer

type logBuffer struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.buffer.Write(p)
}

// since is what was written behind the first length bytes.
func (l *logBuffer) since(length int) string {
	klog.Flush()
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.buffer.String()[length:]
}

func (l *logBuffer) length() int { return len(l.since(0)) }

func captureLog() {
	flags := flag.NewFlagSet("klog", flag.PanicOnError)
	klog.InitFlags(flags)
	for name, value := range map[string]string{
		"logtostderr":     "false",
		"stderrthreshold": "FATAL",
		"one_output":      "true",
		"v":               "10",
	} {
		if err := flags.Set(name, value); err != nil {
			panic(err)
		}
	}
	klog.SetOutput(&kubeletLog)
}

// assertNoSecret checks that text holds secret neither plainly nor as kubelet hands it over.
func assertNoSecret(t *testing.T, where, text, secret string) {
	t.Helper()
	if holdsSecret(text, secret) {
		t.Errorf("the secret is in %s:\n%s", where, text)
	}
}

func holdsSecret(text, secret string) bool {
	// Whole groups of three bytes have the same encoding whatever comes behind them.
	encoded := base64.StdEncoding.EncodeToString([]byte(secret[:len(secret)/3*3]))
	return strings.Contains(text, secret) || strings.Contains(text, encoded)
}
