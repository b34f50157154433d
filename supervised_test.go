package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/proto"
	"tote/server/proto/control"
)

// Under systemd's own socket activation the server takes both doors, says when it is ready, feeds the watchdog while it moves, says that it
// stops, and stops.
func TestSupervised(t *testing.T) {
	doors := make([]string, 2)
	for i := range doors {
		l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
		doors[i] = l.Addr().String()
		must(0, l.Close())(t)
	}
	manager := filepath.Join(t.TempDir(), "notify")
	heard := must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: manager, Net: "unixgram"}))(t)
	defer heard.Close()
	wait := func(want string) {
		t.Helper()
		must(0, heard.SetReadDeadline(time.Now().Add(60*time.Second)))(t)
		for b := make([]byte, 256); ; {
			n, err := heard.Read(b)
			if err != nil {
				t.Fatalf("waiting for %s: %v", want, err)
			}
			if strings.Contains(string(b[:n]), want) {
				return
			}
		}
	}
	data := t.TempDir()
	log := must(os.Create(filepath.Join(t.TempDir(), "log")))(t)
	defer log.Close()
	// Flags name other addresses: the doors that are passed count.
	activate := exec.Command("systemd-socket-activate", "--listen", doors[0], "--listen", doors[1], "--fdname", "players:operators",
		"-E", "NOTIFY_SOCKET="+manager, "-E", "WATCHDOG_USEC=6000000",
		binary, "serve", "--listen", "127.0.0.1:1", "--admin", "0.0.0.0:1", "--guest-credits", "10", "--data", data)
	activate.Stdout, activate.Stderr = log, log
	must(0, activate.Start())(t)
	exited := make(chan error, 1)
	go func() { exited <- activate.Wait() }()
	defer func() {
		_ = activate.Process.Kill()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("its log:\n%s", b)
		}
	}()
	var first net.Conn // the first knock starts the server, which then lets it in
	for deadline := time.Now().Add(30 * time.Second); first == nil; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", doors[0]); err == nil {
			first = c
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	wait("READY=1")
	must(fmt.Fprintf(first, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))(t)
	must(0, first.SetReadDeadline(time.Now().Add(30*time.Second)))(t)
	answer := make([]byte, 15)
	if _, err := first.Read(answer); err != nil || string(answer) != "HTTP/1.1 200 OK" {
		t.Errorf("who knocked before the server was there is answered %q, %v", answer, err)
	}
	must(0, first.Close())(t)
	c := must(bench.Dial(t.Context(), "ws://"+doors[0]+"/ws"))(t)
	defer c.Close()
	ask[*proto.Welcome](t, c, proto.Request{Type: proto.RequestHello, Guest: "Ada"})
	desk := &control.Client{Base: "http://" + doors[1]}
	must(desk.OpenAccount(t.Context(), proto.AccountOpening{Name: "Bob"}))(t)
	if probes(t, activate.Process.Pid, doors[0]) {
		t.Error("the kernel probes idle connections")
	}
	wait("WATCHDOG=1")
	must(0, activate.Process.Signal(syscall.SIGTERM))(t)
	wait("STOPPING=1")
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("it stopped with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it does not stop")
	}
}

// probes reports whether the kernel's keepalive timer runs on a connection that came through a door: timer 2 in the sixth column
// of proc_net_tcp(5).
func probes(t *testing.T, pid int, door string) bool {
	t.Helper()
	_, port, _ := net.SplitHostPort(door)
	local := fmt.Sprintf(":%04X", must(strconv.Atoi(port))(t))
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var timers []string
		for line := range strings.Lines(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid)))(t))) {
			if column := strings.Fields(line); strings.HasSuffix(column[1], local) && column[3] == "01" { // established
				timers = append(timers, column[5][:2])
			}
		}
		if len(timers) == 0 || time.Now().After(deadline) {
			t.Fatalf("the kernel shows connections with timers %v", timers)
		}
		if !slices.Contains(timers, "01") { // which waits for the client to acknowledge, and comes first
			return slices.Contains(timers, "02")
		}
	}
}
