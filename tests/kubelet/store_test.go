package kubelet

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// bucket is the bucket that every store here has.
const bucket = "docker"

// store is an S3 server in a process of its own, with one key pair.
type store struct {
	url           string
	keyID, secret string

	mutex    sync.Mutex
	changed  *sync.Cond
	requests []string
	ended    bool
}

func startStore(t *testing.T) *store {
	t.Helper()
	s := &store{keyID: unique("LTAItest"), secret: unique("sEcrEt+/")}
	s.changed = sync.NewCond(&s.mutex)
	cmd := exec.Command(program("OSS_S3_STORE"), "--bucket", bucket, "--key", s.keyID+":"+s.secret, "--log")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		cmd.Wait()
	})
	go func() {
		s.read(log)
		close(read)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal("read the store's URL:", err)
	}
	s.url = strings.TrimSpace(line)
	return s
}

// read takes one line for each finished request: METHOD /BUCKET/KEY?QUERY KEY-ID STATUS.
func (s *store) read(log io.Reader) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		s.mutex.Lock()
		s.requests = append(s.requests, lines.Text())
		s.changed.Broadcast()
		s.mutex.Unlock()
	}
	s.mutex.Lock()
	s.ended = true
	s.changed.Broadcast()
	s.mutex.Unlock()
}

// requestsSoFar is every request that was answered before this call: the last one is this call's own.
func (s *store) requestsSoFar(t *testing.T) []string {
	t.Helper()
	mark := unique("mark")
	answer, err := http.Get(fmt.Sprintf("%s/%s/%s", s.url, bucket, mark))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for {
		for n, request := range s.requests {
			if strings.Contains(request, mark) {
				return append([]string(nil), s.requests[:n]...)
			}
		}
		if s.ended {
			t.Fatal("the store has ended")
		}
		s.changed.Wait()
	}
}

// writes are those of requests that change the bucket.
func writes(requests []string) []string {
	var found []string
	for _, request := range requests {
		method, _, _ := strings.Cut(request, " ")
		if method != "GET" && method != "HEAD" {
			found = append(found, request)
		}
	}
	return found
}
