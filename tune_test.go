package main

import (
	"bytes"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests run `server tune` as an operator does, on a directory that stands for the host.

// image makes such a directory.
func image(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"proc/meminfo": "MemTotal: 67108864 kB\n", "etc/hostname": "host\n",
		"proc/sys/fs/nr_open": "1048576\n", "proc/sys/fs/file-max": "9223372036854775807\n", "proc/sys/net/core/somaxconn": "4096\n",
		"proc/sys/net/ipv4/tcp_mem": "187000\t249000\t374000\n", "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
		"etc/sysctl.d/99-tote.conf": "# somebody's\n",
	} {
		must(0, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))(t)
		must(0, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))(t)
	}
	return root
}

// contents are all files below a directory.
func contents(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(0, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			all[path] = "a directory"
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	}))(t)
	return all
}

func tune(args ...string) (string, error) {
	out, err := exec.Command(binary, append([]string{"tune"}, args...)...).CombinedOutput()
	return string(out), err
}

// Whenever apply is killed, the next command says so if there is anything to say, and revert restores everything.
func TestTuneKilled(t *testing.T) {
	root := image(t)
	before := contents(t, root)
	for range 12 {
		apply := exec.Command(binary, "tune", "apply", "--root", root, "--connections", "1000000")
		must(0, apply.Start())(t)
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // most of it is the process's start
		_ = apply.Process.Kill()
		_ = apply.Wait()
		said, _ := tune("check", "--root", root, "--connections", "1000000")
		knob := must(os.ReadFile(filepath.Join(root, "proc/sys/net/core/somaxconn")))(t)
		if _, err := os.Stat(filepath.Join(root, "etc/sysctl.d/.99-tote.conf.tote-before")); err != nil && string(knob) == "65535" && !strings.Contains(said, "half done") {
			t.Errorf("it is half done, and check says\n%s", said)
		}
		if out, err := tune("revert", "--root", root); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		now := contents(t, root)
		delete(now, filepath.Join(root, "var")) // made, and not yet written down why
		delete(now, filepath.Join(root, "var/lib"))
		delete(now, filepath.Join(root, "var/lib/tote-tune"))
		if !maps.Equal(now, before) {
			t.Fatalf("after a kill and revert\n%v\nbefore\n%v", now, before)
		}
	}
}

// An apply that nobody confirms is undone, though the session that it was typed in has died with all its processes.
func TestTuneDeadMansSwitch(t *testing.T) {
	root := image(t)
	before := contents(t, root)
	session := exec.Command("sh", "-c", binary+" tune apply --confirm 3s --connections 1000000 --root "+root+"; echo done; sleep 600")
	session.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	said := must(session.StdoutPipe())(t)
	must(0, session.Start())(t)
	var heard bytes.Buffer
	for b := make([]byte, 512); !strings.Contains(heard.String(), "done"); {
		n, err := said.Read(b)
		if heard.Write(b[:n]); err != nil {
			t.Fatalf("apply said %q: %v", heard.String(), err)
		}
	}
	if !strings.Contains(heard.String(), "server tune confirm") {
		t.Errorf("apply said %q", heard.String())
	}
	now := contents(t, root)
	if got := now[filepath.Join(root, "proc/sys/net/core/somaxconn")]; got != "65535" {
		t.Errorf("the kernel has %q", got)
	}
	if got := now[filepath.Join(root, "etc/sysctl.d/99-tote.conf")]; got != "# somebody's\n" {
		t.Errorf("the next boot would keep what is not confirmed: %q", got)
	}
	must(0, syscall.Kill(-session.Process.Pid, syscall.SIGHUP))(t)
	_ = syscall.Kill(-session.Process.Pid, syscall.SIGKILL)
	_ = session.Wait()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if maps.Equal(contents(t, root), before) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody reverts: %v", contents(t, root))
		}
	}
	if out, err := tune("confirm", "--root", root); err == nil || !strings.Contains(out, "it has been reverted") {
		t.Errorf("a late confirm: %v, %s", err, out)
	}
}

// One that is confirmed stays, and its guard goes.
func TestTuneConfirmed(t *testing.T) {
	root := image(t)
	before := contents(t, root)
	if out, err := tune("apply", "--confirm", "1m", "--connections", "1000000", "--root", root); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tune("check", "--connections", "1000", "--root", root); err == nil || !strings.Contains(out, "waits until") {
		t.Errorf("check before it is confirmed: %v, %s", err, out)
	}
	if out, err := tune("apply", "--connections", "1000000", "--root", root); err == nil || !strings.Contains(out, "waits until") {
		t.Errorf("apply before it is confirmed: %v, %s", err, out)
	}
	if out, err := tune("confirm", "--root", root); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	now := contents(t, root)
	if got := now[filepath.Join(root, "etc/sysctl.d/99-tote.conf")]; !strings.Contains(got, "net.core.somaxconn = 65535\n") {
		t.Errorf("the next boot reads %q", got)
	}
	for deadline := time.Now().Add(60 * time.Second); guards(t, root) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the guard stays")
		}
	}
	if out, err := tune("confirm", "--root", root); err == nil || !strings.Contains(out, "lasts already") {
		t.Errorf("a second confirm: %v, %s", err, out)
	}
	if out, err := tune("revert", "--root", root); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if now := contents(t, root); !maps.Equal(now, before) {
		t.Errorf("reverted, it is %v, was %v", now, before)
	}
}

// guards counts the processes that guard a root.
func guards(t *testing.T, root string) (n int) {
	t.Helper()
	lines := must(filepath.Glob("/proc/[0-9]*/cmdline"))(t)
	for _, line := range lines {
		if b, err := os.ReadFile(line); err == nil && bytes.Contains(b, []byte("guard\x00--root\x00"+root)) {
			n++
		}
	}
	return n
}
