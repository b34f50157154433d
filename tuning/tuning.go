// Package tuning knows what a host must allow to hold many connections: descriptors, queues and TCP
// memory. The operator asks it before launch (server tune check), and the server says at its start what
// will limit it.
//
// It reads /proc and its own limits, needs no root, and changes nothing.
package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Finding is one knob of the host, held against what the connections need.
type Finding struct {
	Knob    string `json:"knob"`
	Current uint64 `json:"current"`
	Wanted  uint64 `json:"wanted"` // at least
	Reason  string `json:"reason"`
	Remedy  string `json:"remedy"`
}

// OK reports whether the knob stands high enough.
func (f Finding) OK() bool { return f.Current >= f.Wanted }

// What the knobs are computed from.
const (
	descriptorsKept = 256 // for the store, the admin listener, epoll, and connections on their way in
	backlogPer      = 16  // connections per place in the accept queue: a storm is accepted faster than it arrives
	backlogMin      = 4096
	backlogMax      = 65535
	pagesPer        = 2 // a queued byte costs a page of TCP memory per socket and direction
	descriptorsFree = 1 << 20
)

// Check compares the host with what connections need. root is "/" but in tests. A knob that this
// kernel or namespace does not show is left out.
func Check(root string, connections int) ([]Finding, error) {
	if connections <= 0 {
		return nil, fmt.Errorf("check the host for %d connections: name a positive number", connections)
	}
	n := uint64(connections)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	findings := []Finding{{
		Knob: "RLIMIT_NOFILE", Current: limit.Cur, Wanted: n + descriptorsKept,
		Reason: "each connection is a descriptor",
		Remedy: fmt.Sprintf("LimitNOFILE=%d in the systemd unit, or ulimit -n", n+descriptorsKept),
	}}
	queue := min(max(n/backlogPer, backlogMin), backlogMax)
	for _, knob := range []struct {
		key     string
		field   int
		wanted  uint64
		reason  string
		example string
	}{
		{"fs.file-max", 0, n + descriptorsFree, "descriptors of all processes together", "%d"},
		{"net.core.somaxconn", 0, queue, "a connect storm overflows the accept queue (ListenOverflows, ListenDrops)", "%d"},
		{"net.ipv4.tcp_max_syn_backlog", 0, queue, "and, before it, the queue of handshakes", "%d"},
		{"net.ipv4.tcp_mem", 2, n * pagesPer, "pages: one queued byte costs a page per socket and direction", "at least %d as the third number"},
	} {
		current, err := sysctl(root, knob.key, knob.field)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		findings = append(findings, Finding{Knob: knob.key, Current: current, Wanted: knob.wanted, Reason: knob.reason,
			Remedy: "sysctl " + knob.key + "=" + fmt.Sprintf(knob.example, knob.wanted)})
	}
	return findings, nil
}

// Connections is how many connections the descriptors of this process allow.
func Connections() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	return int(min(max(limit.Cur, descriptorsKept)-descriptorsKept, 1<<30)), nil
}

// sysctl reads one number of a key, as in net.core.somaxconn.
func sysctl(root, key string, field int) (uint64, error) {
	file := filepath.Join(root, "proc/sys", strings.ReplaceAll(key, ".", "/"))
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	fields := strings.Fields(string(b))
	if field >= len(fields) {
		return 0, fmt.Errorf("read %s: %q has no field %d", key, b, field+1)
	}
	v, err := strconv.ParseUint(fields[field], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	return v, nil
}
