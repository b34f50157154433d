package systemd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager is a socket where systemd would listen.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

func hear(t *testing.T, c *net.UnixConn, patience time.Duration) string {
	t.Helper()
	b := make([]byte, 256)
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func TestNotify(t *testing.T) {
	c := manager(t)
	s, err := Inherit()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("NOTIFY_SOCKET") != "" {
		t.Error("whoever is started by us could speak for us")
	}
	for _, row := range []struct {
		say  func() error
		want string
	}{
		{func() error { return s.Status("replaying") }, "STATUS=replaying"},
		{s.Ready, "READY=1\nSTATUS=serving"},
		{s.Stopping, "STOPPING=1\nSTATUS=draining"},
	} {
		if err := row.say(); err != nil {
			t.Error(err)
		}
		if got := hear(t, c, 10*time.Second); got != row.want {
			t.Errorf("it said %q, want %q", got, row.want)
		}
	}
	c.Close()
	os.Remove(c.LocalAddr().String())
	if err := s.Ready(); err == nil {
		t.Error("nobody listens, and nobody is told")
	}
	if s, err := Inherit(); err != nil || s.Ready() != nil {
		t.Errorf("without systemd: %v", err)
	}
}

// The watchdog is fed as long as everything moves, not when one part stands, and again when it moves again.
func TestWatchdog(t *testing.T) {
	c := manager(t)
	s, err := Inherit()
	if err != nil {
		t.Fatal(err)
	}
	s.watchdog = 60 * time.Millisecond // Inherit takes no less than watchdogMin
	var stands atomic.Bool
	var count atomic.Uint64
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	looks := make(chan struct{}, 1000)
	go func() {
		defer close(ended)
		s.Watch(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), func() map[string][]uint64 {
			n := count.Add(1)
			looks <- struct{}{}
			if stands.Load() {
				return map[string][]uint64{"loop": {n}, "shard": {n, 7}}
			}
			return map[string][]uint64{"loop": {n}, "shard": {n, n + 7}}
		})
	}()
	for range 3 {
		if got := hear(t, c, 10*time.Second); got != "WATCHDOG=1" {
			t.Fatalf("it moves, and systemd hears %q", got)
		}
	}
	stands.Store(true)
	for range 2 { // one look may have been under way, and the next finds a change from what it was
		<-looks
	}
	for len(looks) > 0 {
		<-looks
	}
	for range 3 {
		<-looks
	}
	for hear(t, c, time.Millisecond) != "" {
	}
	for range 3 {
		<-looks
	}
	if got := hear(t, c, time.Millisecond); got != "" {
		t.Errorf("a shard stands, and systemd hears %q", got)
	}
	stands.Store(false)
	if got := hear(t, c, 10*time.Second); got != "WATCHDOG=1" {
		t.Errorf("it moves again, and systemd hears %q", got)
	}
	end()
	<-ended
}

func TestInheritRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"a short watchdog", map[string]string{"WATCHDOG_USEC": "1000000"}, "at least"},
		{"a watchdog that is no number", map[string]string{"WATCHDOG_USEC": "soon"}, "soon"},
		{"sockets that are no number", map[string]string{"LISTEN_FDS": "two"}, "two"},
		{"a socket without a name", map[string]string{"LISTEN_FDS": "1"}, "FileDescriptorName=players"},
		{"a socket of another name", map[string]string{"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}, "web"},
		{"somebody else's watchdog", map[string]string{"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, ""},
		{"somebody else's sockets", map[string]string{"LISTEN_FDS": "9", "LISTEN_PID": "1"}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			for name, value := range row.env {
				t.Setenv(name, value)
			}
			_, err := Inherit()
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

// exposureMax is what systemd-analyze security may find, of 10: it finds 1.3, for the network that a server is there for.
const exposureMax = 1.3

// systemd itself reads the units, and finds nothing to complain of.
func TestUnits(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []Units{
		{Binary: self, Players: "0.0.0.0:8080", Operators: "127.0.0.1:8081", Descriptors: 262144},
		{Binary: self, Config: "/etc/tote/server.toml", Players: "[::]:443", Operators: "127.0.0.1:8081", User: "root", Descriptors: 2097152},
	} {
		files, err := u.Files()
		if err != nil {
			t.Fatal(err)
		}
		dir, args := t.TempDir(), []string{"verify", "--man=no"}
		for name, text := range files {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			args = append(args, file)
		}
		if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("systemd-analyze verify (Debian's package systemd has it): %v\n%s", err, out)
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", filepath.Join(dir, "tote.service")).CombinedOutput()
		level := regexp.MustCompile(`exposure level for tote.service: ([0-9.]+)`).FindSubmatch(out)
		if err != nil || level == nil {
			t.Fatalf("systemd-analyze security: %v\n%s", err, out)
		}
		exposure, err := strconv.ParseFloat(string(level[1]), 64)
		if most := exposureMax; err != nil || u.User == "" && exposure > most {
			t.Errorf("exposure %v, at most %v\n%s", exposure, most, out)
		}
	}
	for _, u := range []Units{
		{Binary: "server", Players: ":1", Operators: ":2"},
		{Binary: "/x y", Players: ":1", Operators: ":2"},
		{Binary: "/x", Players: "8080", Operators: ":2"},
		{Binary: "/x", Players: ":1", Operators: ":2", User: "a\nExecStart=/bin/sh"},
	} {
		if files, err := u.Files(); err == nil {
			t.Errorf("%+v makes %v", u, files)
		}
	}
}
