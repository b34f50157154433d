package page_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests look at the server from outside: they build the real binary, run it, and play against it with programs in
// another language (Node, in the folder outside) and with a real browser. Whatever the scripts say is logged; they end with
// an error where a promise of the protocol is broken.

// A match is played to its end, staked on and recomputed to the unit.
func TestScriptedClientPlaysAMatch(t *testing.T) {
	s := serve(t, t.TempDir(), "127.0.0.1:0")
	var feed *process
	script(t, s, "play.mjs", map[string]func(){
		"feed": func() {
			feed = run(t, exec.Command(binary(t), "ctl", "--admin", "http://"+s.Admin, "feed", "--find", "Argentina-France",
				"--speed", "600", "--interval", "100ms", "--lead", "2s"))
		},
	})
	if feed == nil {
		t.Fatal("the script ended without a match")
	}
	feed.wait(t)
	s.stop(t)
}

// Two windows show the same odds for the same distribution; visitors predict, and are paid or not.
func TestTwoWindowsSeeTheSameOdds(t *testing.T) {
	s := serve(t, t.TempDir(), "127.0.0.1:0")
	shots := pictures(t)
	script(t, s, "windows.mjs", nil, "--shots", shots)
	s.stop(t)
}

// The server is killed under a window's eyes. The page says so, and comes back by itself with what it had.
func TestWindowComesBackAfterAKill(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir, "127.0.0.1:0")
	script(t, s, "lost.mjs", map[string]func(){
		"freeze":  func() { s.signal(t, syscall.SIGSTOP) },
		"kill":    func() { s.kill(t) },
		"restart": func() { s = serve(t, dir, s.Listen) },
	}, "--shots", pictures(t))
	s.stop(t)
}

// Over https the page is what it is over http, and its WebSocket is wss.
func TestWindowOverTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	run(t, exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
		"-subj", "/CN=tote.example", "-keyout", key, "-out", cert)).wait(t)
	s := serve(t, t.TempDir(), "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
	secured := *s
	secured.Listen = s.TLS
	script(t, &secured, "secured.mjs", nil, "--scheme", "https")
	s.stop(t)
}

// The page's pure parts, in the language that they are written in.
func TestPageModules(t *testing.T) {
	setUp(t)
	run(t, node("--test", "--test-reporter=spec", "pure.test.mjs")).wait(t)
}

// pictures is where screenshots go; they stay until the next run, for whoever wants to see.
func pictures(t *testing.T) string {
	dir := filepath.Join(os.TempDir(), "tote-pictures")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Logf("pictures are in %s", dir)
	return dir
}

// setUp fails where something is missing that `make setup` installs: a test that skips itself is no test.
func setUp(t *testing.T) {
	t.Helper()
	_, node := exec.LookPath("node")
	_, browser := os.Stat("/usr/bin/chromium")
	_, modules := os.Stat("outside/node_modules/ws/package.json")
	if err := errors.Join(node, browser, modules); err != nil {
		t.Fatalf("the outside tests need node, its modules and chromium; run make setup: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

func node(args ...string) *exec.Cmd {
	c := exec.Command("node", args...)
	c.Dir = "outside"
	return c
}

// script runs a Node script against s. A line "@word" of it asks for a deed of ours; it waits until that is done.
func script(t *testing.T, s *server, name string, deeds map[string]func(), args ...string) {
	t.Helper()
	setUp(t)
	c := node(append([]string{name, "--listen", s.Listen, "--admin", s.Admin}, args...)...)
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1) // a script that asks waits
	p := runTold(t, c, func(line string) {
		if word, ok := strings.CutPrefix(line, "@"); ok {
			asked <- word
		}
	})
	for {
		select {
		case word := <-asked:
			deed, ok := deeds[word]
			if !ok {
				t.Fatalf("%s asks for %q, which nobody knows", name, word)
			}
			deed()
			if _, err := io.WriteString(stdin, "done\n"); err != nil {
				t.Fatalf("answer %s: %v", name, err)
			}
		case <-p.ended:
			if p.err != nil {
				t.Logf("the server said last:\n%s", s.stderr)
			}
			p.wait(t)
			return
		}
	}
}

// server is a running server. Listen, Admin and TLS are what it wrote to addresses.json.
type server struct {
	*process
	Listen, Admin, TLS string
}

// serve starts a server and waits until it is ready.
func serve(t *testing.T, dir, listen string, flags ...string) *server {
	t.Helper()
	file := filepath.Join(dir, "addresses.json")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	s := &server{process: run(t, exec.Command(binary(t), append([]string{"serve", "--listen", listen, "--admin", "127.0.0.1:0", "--data", dir,
		"--guest-credits", "10000"}, flags...)...))}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-s.ended:
			t.Fatalf("the server ended before it was ready: %v", s.err)
		case <-look.C:
		}
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(b, s)
		}
		if err != nil {
			t.Fatalf("read the server's addresses: %v", err)
		}
		return s
	}
}

// stop asks the server to end, which it does without an error.
func (s *server) stop(t *testing.T) {
	t.Helper()
	s.signal(t, syscall.SIGTERM)
	s.wait(t)
}

// kill ends the server as a power failure would.
func (s *server) kill(t *testing.T) {
	t.Helper()
	s.signal(t, syscall.SIGKILL)
	<-s.ended
}

// process is a child whose output goes to the test's log.
type process struct {
	cmd    *exec.Cmd
	stderr *tail
	ended  chan struct{} // closed when it has ended; err is set before
	err    error
}

// childMax is how long a child may run. It measures nothing: a child that hangs shall not hold up everything else.
const childMax = 5 * time.Minute

func run(t *testing.T, c *exec.Cmd) *process {
	t.Helper()
	return runTold(t, c, func(string) {})
}

// runTold starts c; each line of its standard output is told. The child, and what it started, ends with the test at the
// latest.
func runTold(t *testing.T, c *exec.Cmd, told func(line string)) *process {
	t.Helper()
	name := filepath.Base(c.Path) + " " + c.Args[1]
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = time.Second
	stderr := &tail{}
	c.Stderr = stderr
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &process{cmd: c, stderr: stderr, ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), childTime(t))
	watch := context.AfterFunc(ctx, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			t.Logf("%s: %s", name, lines.Text())
			told(lines.Text())
		}
		if err := c.Wait(); err != nil {
			p.err = fmt.Errorf("%s: %w\n%s", name, err, stderr)
		}
		watch()
	}()
	t.Cleanup(func() {
		cancel()
		<-p.ended
	})
	return p
}

// childTime ends a little before the test would be ended by force, which would leave children behind.
func childTime(t *testing.T) time.Duration {
	if deadline, ok := t.Deadline(); ok {
		return min(childMax, time.Until(deadline)-10*time.Second)
	}
	return childMax
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %v to process %d: %v", s, p.cmd.Process.Pid, err)
	}
}

// wait fails the test where the process did not end well.
func (p *process) wait(t *testing.T) {
	t.Helper()
	<-p.ended
	if p.err != nil {
		t.Fatal(p.err)
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailMax = 16 << 10

func (w *tail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, b...)
	w.b = w.b[max(0, len(w.b)-tailMax):]
	return len(b), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(bytes.TrimSpace(w.b))
}

// The binary is built once, into a folder that TestMain takes away.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "tote-server-"); built.err != nil {
			return
		}
		if out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, "server"), "tote/server").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the server: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "server")
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}
