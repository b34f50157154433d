package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tote/server/bench"
)

// host is a network namespace of its own, as good as a host to whoever looks at it from a socket. Its thread is in it, and so is whatever is
// started there.
type host struct {
	t       *testing.T
	address string
	deeds   chan func()
}

// network is a switch with hosts on it: 10.77.0.1, 10.77.0.2, …
type network struct {
	*host // the switch
	hosts []*host
}

// newHost makes a namespace, which ends with the test.
func newHost(t *testing.T, address string) *host {
	t.Helper()
	h := &host{t: t, address: address, deeds: make(chan func())}
	made, done := make(chan error), make(chan struct{})
	go func() { // ends with deeds; its thread, which is never unlocked, ends with it
		defer close(done)
		runtime.LockOSThread()
		made <- unix.Unshare(unix.CLONE_NEWNET)
		for do := range h.deeds {
			do()
		}
	}()
	if err := <-made; err != nil {
		t.Fatalf("make a network namespace, which needs root: %v", err)
	}
	t.Cleanup(func() { close(h.deeds); <-done })
	return h
}

// do does something on the host's thread.
func (h *host) do(what string, deed func() error) {
	h.t.Helper()
	wrong := make(chan error)
	h.deeds <- func() { wrong <- deed() }
	if err := <-wrong; err != nil {
		h.t.Fatalf("%s, on %s: %v", what, h.address, err)
	}
}

func newNetwork(t *testing.T, hosts int) *network {
	t.Helper()
	n := &network{host: newHost(t, "the switch")}
	n.do("make a bridge", func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "switch"}}
		return errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge))
	})
	for i := range hosts {
		h := newHost(t, fmt.Sprintf("10.77.0.%d", i+1))
		n.hosts = append(n.hosts, h)
		var there *os.File
		h.do("open its namespace", func() (err error) {
			there, err = os.Open("/proc/thread-self/ns/net")
			return err
		})
		n.do("lay a cable", func() error {
			defer there.Close()
			bridge, err := netlink.LinkByName("switch")
			if err != nil {
				return err
			}
			cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("port", i), MasterIndex: bridge.Attrs().Index}, PeerName: "eth0",
				PeerNamespace: netlink.NsFd(int(there.Fd()))}
			if err := netlink.LinkAdd(cable); err != nil {
				return err
			}
			return netlink.LinkSetUp(cable)
		})
		h.do("take its address", func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			eth, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			address := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(h.address), Mask: net.CIDRMask(24, 32)}}
			return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(eth, address), netlink.LinkSetUp(eth))
		})
	}
	return n
}

// plug plugs a host's cable in, or pulls it.
func (n *network) plug(i int, in bool) {
	n.t.Helper()
	n.do("plug a cable", func() error {
		cable, err := netlink.LinkByName(fmt.Sprint("port", i))
		if err != nil {
			return err
		}
		if in {
			return netlink.LinkSetUp(cable)
		}
		return netlink.LinkSetDown(cable)
	})
}

// reaches waits until a host whose cable is in again reaches an address: for a while it remembers that nobody answered there.
func (h *host) reaches(address string) {
	h.t.Helper()
	h.do("reach "+address, func() (err error) {
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			var c net.Conn
			if c, err = net.DialTimeout("tcp", address, time.Second); err == nil {
				return c.Close()
			}
		}
		return err
	})
}

// program is a run of the binary on a host.
type program struct {
	t       *testing.T
	process *exec.Cmd
	out     bytes.Buffer
	exited  chan struct{} // closed after err is set
	err     error

	mu  sync.Mutex
	log bytes.Buffer // written while others read it
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// run starts the binary on the host; it ends with the test.
func (h *host) run(arguments ...string) *program {
	h.t.Helper()
	p := &program{t: h.t, process: exec.Command(binary, arguments...), exited: make(chan struct{})}
	p.process.Stdout, p.process.Stderr = &p.out, p
	p.process.Env = append(os.Environ(), "SERVER_AGENT_TOKEN=s3cret", "SERVER_ADMIN_TOKEN=operator")
	h.do("start "+arguments[0], p.process.Start)
	go func() { // ends with the process
		p.err = p.process.Wait()
		close(p.exited)
	}()
	h.t.Cleanup(func() {
		p.process.Process.Kill()
		<-p.exited
		if h.t.Failed() {
			h.t.Logf("%q on %s:\n%s", arguments, h.address, p.said())
		}
	})
	return p
}

// says waits until the program has said it so many times.
func (p *program) says(what string, times int) {
	p.t.Helper()
	p.await(fmt.Sprintf("that it says %q", what), func() bool { return strings.Count(p.said(), what) >= times })
}

// ended waits for its end.
func (p *program) ended() {
	p.t.Helper()
	p.await("its end", func() bool {
		select {
		case <-p.exited:
			return true
		default:
			return false
		}
	})
}

func (p *program) await(what string, done func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain for %s:\n%s", what, p.said())
		}
	}
}

// serving starts a server on the first host.
func (n *network) serving() (target, admin string) {
	n.t.Helper()
	h := n.hosts[0]
	target, admin = "ws://"+h.address+":8080", "http://"+h.address+":8081"
	h.run("serve", "--data", n.t.TempDir(), "--listen", h.address+":8080", "--admin", h.address+":8081", "--guest-credits", "1000000", "--stakes-per-second=0").
		says("serving", 1)
	return target, admin
}

// Five hosts: a server, three agents and their coordinator. One agent is killed and one's cable is pulled while all play. The run goes on with the third,
// every promise holds for what is left, the report says who died, and how the clocks stand. Then a coordinator is killed, and its agents are
// free for the next one.
func TestAgentsOnHostsOfTheirOwn(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, 5)
	target, admin := n.serving()
	var agents []*program
	var addresses []string
	for _, h := range n.hosts[1:4] {
		addresses = append(addresses, h.address+":9100")
		agents = append(agents, h.run("bench", "agent", "--listen", h.address+":9100", "--workers", "1"))
	}
	for _, a := range agents {
		a.says("waiting for coordinators", 1)
	}
	short := scenario(t, shortGame+"[players]\nstakes = \"100/s\"\n")
	arguments := []string{"bench", "run", short, "--target", target, "--admin", admin, "--json", filepath.Join(t.TempDir(), "report.json"), "--duration", "8s"}
	coordinator := n.hosts[4].run(append(arguments, "--agents", strings.Join(addresses, ","))...)
	for _, a := range agents {
		a.says("a run begins", 1)
	}
	coordinator.says("60 in a game", 1)
	agents[1].process.Process.Kill()
	n.plug(3, false)
	agents[2].says("nothing was heard of the coordinator", 1)
	coordinator.ended()
	if coordinator.err == nil {
		t.Error("it exits as if nobody had died")
	}
	var r bench.Report
	text, err := os.ReadFile(arguments[8])
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "s3cret") || strings.Contains(string(text), "operator\"") {
		t.Error("the report tells a secret")
	}
	for i, says := range []string{"", "its connection has ended", "nothing was heard of it for"} {
		a := r.Agents[i]
		if a.Users != 20 || a.Workers != 1 || !strings.HasPrefix(a.Died, says) || (a.Died == "") != (says == "") || a.Frames == 0 {
			t.Errorf("agent %d: %+v", i, a)
		}
		// They all have the clock of this host.
		if a.ClockError <= 0 || a.ClockAhead > a.ClockError || -a.ClockAhead > a.ClockError {
			t.Errorf("agent %d: clock %f µs ahead ± %f", i, a.ClockAhead, a.ClockError)
		}
	}
	if c := r.Clocks; c == nil || c.ServerError <= 0 || max(c.ServerAhead, -c.ServerAhead) > c.ServerError+1000 || c.Spread <= 0 {
		t.Errorf("%+v", c) // a request is stamped when its turn of the loop begins, which may be earlier
	}
	kept := 0
	for _, c := range r.Checks {
		if kept += int(c.Passed); c.Failed > 0 {
			t.Errorf("%s: %d times not: %s", c.Promise, c.Failed, c.Example)
		}
	}
	if kept < 1000 || r.Connections.Joined != 60 || len(r.Faults) > 0 || r.Unfinished != "" || r.Stakes.Receipts < 100 {
		t.Errorf("%d checks, %+v, %+v, %q, %+v", kept, r.Connections, r.Faults, r.Unfinished, r.Stakes)
	}
	// The server is on a host of its own, so its numbers are those that it tells.
	if !strings.Contains(strings.Join(r.Warnings, "\n"), "its metrics tell") {
		t.Errorf("%q", r.Warnings)
	}
	if s := r.Server; s == nil || s.CPU <= 0 || s.RSSLate < 1<<20 || r.Watched.TCP["PassiveOpens"]+r.Watched.TCP["CurrEstab"] == 0 {
		t.Errorf("%+v, %+v", r.Server, r.Watched)
	}
	if !strings.Contains(coordinator.out.String(), "  DIED  agent "+addresses[1]) || strings.Count(coordinator.said(), "an agent died") != 2 {
		t.Errorf("%s\n%s", coordinator.said(), &coordinator.out)
	}

	n.plug(3, true)
	n.hosts[3].reaches(n.hosts[0].address + ":8080")
	addresses = []string{addresses[0], addresses[2]}
	coordinator = n.hosts[4].run(append(arguments, "--agents", strings.Join(addresses, ","))...)
	agents[0].says("a run begins", 2)
	agents[2].says("a run begins", 2)
	coordinator.process.Process.Kill()
	agents[0].says("the coordinator has gone", 1)
	agents[2].says("the coordinator has gone", 1)
}

// A host with 16 ports, of 10 users who drop their connections and come back: the ports of the old ones stay taken for a minute. That is said in one line, with
// what to do about it, and the generator is named as the bottleneck. More users than ports are refused before they come.
func TestPortsRunOutDuringARun(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, 2)
	target, admin := n.serving()
	cramped := n.hosts[1]
	cramped.do("set sysctls", func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40015"), 0o644),
			os.WriteFile("/proc/sys/net/ipv4/tcp_tw_reuse", []byte("0"), 0o644))
	})
	file := filepath.Join(t.TempDir(), "report.json")
	text := shortGame + "[players]\nstakes = \"50/s\"\n[[storms]]\nat = \"1s\"\nshare = 1.0\nback = \"200ms\"\n[[storms]]\nat = \"2s\"\nshare = 1.0\nback = \"200ms\"\n"
	arguments := []string{"bench", "run", scenario(t, text), "--target", target, "--admin", admin, "--json", file, "--no-limit", "--quiet"}
	crowd := cramped.run(append(arguments, "--users", "17")...)
	crowd.ended()
	if said := crowd.said(); crowd.err == nil || !strings.Contains(said, "17 users need as many local ports") || strings.Count(strings.TrimSpace(said), "\n") > 0 {
		t.Errorf("%v: %s", crowd.err, said)
	}
	run := cramped.run(append(arguments, "--users", "10")...)
	run.ended()
	var r bench.Report
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	const remedy = "no local port is free, or no such address: widen net.ipv4.ip_local_port_range, or connect from more addresses (--from)"
	if len(r.Faults) != 1 || r.Faults[0].Kind != "connect: "+remedy || r.Faults[0].Count == 0 || !r.Generator.Bottleneck {
		t.Errorf("%+v, %+v", r.Faults, r.Generator)
	}
	var exit *exec.ExitError
	if !errors.As(run.err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("it ends with %v", run.err)
	}
	if warned := strings.Join(r.Warnings, "\n"); !strings.Contains(warned, "the generator was the bottleneck: ") || !strings.Contains(warned, remedy) {
		t.Errorf("%s", warned)
	}
	lines := 0
	for line := range strings.Lines(run.said()) {
		if strings.Contains(line, remedy) {
			lines++
		}
	}
	if lines != 1 && lines != 2 { // as it is met, and at the end
		t.Errorf("said %d times:\n%s", lines, run.said())
	}
}
