package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tote/server/bench"
	"tote/server/proto"
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

// A host whose TCP memory carries 20 connections, a page of the next broadcast for each, gets 20: the next is told to come back, and whoever is in plays on. So
// it is with memory. The server sees such a host in a mount namespace of its own.
func TestServeRefusesWhatTheHostDoesNotCarry(t *testing.T) {
	const carried = 20
	for name, row := range map[string]struct{ over, says string }{
		"TCP memory": {"/proc/sys/net/ipv4/tcp_mem", fmt.Sprintf("10\t15\t%d\n", carried)},
		"memory":     {"/proc/meminfo", fmt.Sprintf("MemTotal: %d kB\n", 256<<10+carried*12)},
	} {
		t.Run(name, func(t *testing.T) {
			file, data := filepath.Join(t.TempDir(), "says"), t.TempDir()
			if err := os.WriteFile(file, []byte(row.says), 0o644); err != nil {
				t.Fatal(err)
			}
			command := exec.Command("sh", "-c", `mount --bind "$1" "$2" && shift 2 && exec "$@"`, "sh", file, row.over,
				binary, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data)
			command.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
			s := await(t, data, command)
			ada, _ := s.dial("Ada", 1e6)
			_, pools := s.game(1)
			for range carried - 1 {
				c, err := bench.Dial(t.Context(), s.players)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Abort() })
			}
			if c, err := bench.Dial(t.Context(), s.players); err == nil || !strings.Contains(err.Error(), "503") {
				t.Errorf("one more got in, or was not told why: %v, %v", c, err)
			}
			ask[*proto.Receipt](t, ada, proto.Request{Type: proto.RequestStake, Pool: pools[0], Amount: 10})
			if n := s.metric(`server_accepts_refused_total{reason="full"}`); n != 1 {
				t.Errorf("%v were refused", n)
			}
		})
	}
}

// A network namespace is made ready for 5,000 connections, they come through four addresses that were added, hold over some batches,
// and everything is taken back: what `make scale` does with 100,000 on a kernel of its own. What belongs to the host is told, and left alone.
func TestTuneHolds(t *testing.T) {
	t.Parallel()
	isolated(t, func(t *testing.T) {
		must(0, netlink.LinkSetUp(must(netlink.LinkByName("lo"))(t)))(t)
		must(0, os.WriteFile("/proc/sys/net/core/somaxconn", []byte("128"), 0o644))(t) // as kernels before 5.4 had it
		root := namespace(t)
		before, host := recorded(t, root), settings(t, "/proc/sys/fs", "/proc/sys/vm")

		const connections = "--connections=5000"
		out, err := limited(4096, "tune", "check", "--root", root, connections)
		if err == nil {
			t.Errorf("check is content with\n%s", out)
		}
		says(t, "check", out, "this is a network namespace of its own", "short  RLIMIT_NOFILE of this process        4096; wanted 16384",
			"low    net.core.somaxconn                   128; wanted 4096", "hidden net.ipv4.tcp_mem", "hidden net.core.netdev_max_backlog", "run server tune check there")
		if out, err = limited(4096, "tune", "check", "--root", root, "--connections", "536870912"); err == nil {
			t.Errorf("check is content with\n%s", out)
		}
		says(t, "check for more than any host holds", out, "not from here; on the host: sysctl -w fs.nr_open='1073741824'")

		if out, err = limited(4096, "tune", "apply", "--root", root, connections); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		says(t, "apply", out, "applied", "short  RLIMIT_NOFILE of this process        4096; wanted 16384", "a new login")
		descriptors := 0
		for line := range strings.Lines(string(must(os.ReadFile(filepath.Join(root, "etc/security/limits.d/99-tote.conf")))(t))) {
			_, _ = fmt.Sscanf(line, "root - nofile %d", &descriptors) // what a new login gets
		}
		if out, err = limited(descriptors, "tune", "check", "--root", root, connections); err != nil {
			t.Errorf("check with %d descriptors: %v\n%s", descriptors, err, out)
		}

		const addresses = "10.77.0.1-10.77.0.4"
		if out, err = tune("vip", "add", addresses, "--device", "lo", "--root", root); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		kept := filepath.Join(t.TempDir(), "report.json")
		played := make(chan error, 1)
		go func() {
			out, err := limited(descriptors, "bench", "smoke", "--users", "5000", "--through", addresses, "--stakes", "100", "--interval", "3s",
				"--duration", "15s", "--turnover", "6s", "--json", kept)
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
			played <- err
		}()
		held, last := false, []int(nil)
		for playing := true; playing; {
			select {
			case err := <-played:
				if playing = false; err != nil {
					t.Fatal(err)
				}
			case <-time.After(500 * time.Millisecond): // a look while they come or go counts some twice
				last = through(t)
				held = held || slices.Equal(last, []int{1250, 1250, 1250, 1250})
			}
		}
		if !held {
			t.Errorf("the server never had 1,250 connections through each of four addresses; it had %v at last", last)
		}
		var report bench.Report
		must(0, json.Unmarshal(must(os.ReadFile(kept))(t), &report))(t)
		if c := report.Connections; c.Joined != 5000 || c.Lost != 0 || report.Delivered.Broadcasts < 10 {
			t.Errorf("%+v, %d broadcasts", c, report.Delivered.Broadcasts)
		}

		if out, err = tune("vip", "remove", addresses, "--device", "lo", "--root", root); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if out, err = tune("revert", "--root", root); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		for what, is := range recorded(t, root) {
			if before[what] != is {
				t.Errorf("reverted, %s is\n%s, was\n%s", what, is, before[what])
			}
			delete(before, what)
		}
		if len(before) > 0 {
			t.Errorf("reverted, gone are %v", before)
		}
		if now := settings(t, "/proc/sys/fs", "/proc/sys/vm"); !maps.Equal(now, host) {
			t.Errorf("the host has\n%v, had\n%v", now, host)
		}
	})
}

// isolated runs a test in namespaces of its own, of network and mounts, by starting this binary again; it needs root.
func isolated(t *testing.T, test func(t *testing.T)) {
	const outside = "SERVER_TEST_NAMESPACE"
	here := must(os.Readlink("/proc/self/ns/net"))(t)
	if was := os.Getenv(outside); was != "" {
		if was == here {
			t.Fatal("this is the host's own network")
		}
		must(0, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))(t)
		test(t)
		return
	}
	again := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), outside+"="+here, built+"="+binary)
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	if out, err := again.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in namespaces of its own: %v\n%s", err, out)
	}
}

// namespace makes a root whose kernel is ours as this namespace has it, with what is the host's read-only, as a container sees it.
func namespace(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"proc/sys", "etc/pam.d", "etc/systemd/system", "var/lib"} {
		must(0, os.MkdirAll(filepath.Join(root, dir), 0o755))(t)
	}
	must(0, os.WriteFile(filepath.Join(root, "etc/hostname"), []byte("host\n"), 0o644))(t)
	for _, dir := range []string{"/proc/sys/fs", "/proc/sys/vm"} {
		must(0, unix.Mount(dir, dir, "", unix.MS_BIND, ""))(t)
		must(0, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))(t)
	}
	for _, name := range []string{"meminfo", "self", "net", "sys/net", "sys/fs", "sys/vm"} {
		must(0, os.Symlink("/proc/"+name, filepath.Join(root, "proc", name)))(t)
	}
	return root
}

// recorded is all that may be changed: files below root, the namespace's settings, addresses and routes.
func recorded(t *testing.T, root string) map[string]string {
	t.Helper()
	all := contents(t, filepath.Join(root, "etc"))
	maps.Copy(all, contents(t, filepath.Join(root, "var")))
	maps.Copy(all, settings(t, "/proc/sys/net"))
	for _, list := range []string{"/proc/net/fib_trie", "/proc/net/route", "/proc/net/if_inet6", "/proc/net/ipv6_route"} {
		all[list] = string(must(os.ReadFile(list))(t))
	}
	return all
}

// settings are the kernel's below these directories: what can be written and read.
func settings(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range dirs {
		must(0, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if info, err := d.Info(); err != nil || info.Mode()&0o600 != 0o600 {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil { // some have nothing to say before they are set
				all[path] = string(b)
			}
			return nil
		}))(t)
	}
	return all
}

// limited runs the server with so many descriptors.
func limited(descriptors int, args ...string) (string, error) {
	out, err := exec.Command("sh", append([]string{"-c", `ulimit -n "$1" && shift && exec "$@"`, "sh", fmt.Sprint(descriptors), binary}, args...)...).CombinedOutput()
	return string(out), err
}

// says fails where one of the texts is missing.
func says(t *testing.T, who, said string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("%s does not say %q:\n%s", who, text, said)
		}
	}
}

// through counts established connections by the server's addresses: those of the local port that has most.
func through(t *testing.T) []int {
	t.Helper()
	total, ports := map[string]int{}, map[string]map[string]int{}
	server := ""
	for _, list := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for line := range strings.Lines(string(must(os.ReadFile(list))(t))) {
			f := strings.Fields(line) // field 2 is the local address, field 4 the state, 01: established
			address, port, _ := strings.Cut(f[1], ":")
			if f[3] != "01" {
				continue
			}
			if ports[port] == nil {
				ports[port] = map[string]int{}
			}
			ports[port][address[len(address)-8:]]++ // the same for IPv4 in IPv6
			if total[port]++; total[port] > total[server] {
				server = port
			}
		}
	}
	return slices.Sorted(maps.Values(ports[server]))
}
