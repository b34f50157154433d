// Package tuning knows what a Linux host must allow to hold many connections: descriptors, queues, TCP memory,
// addresses. The operator runs it before a launch, and the server asks it at its start what will limit it.
//
//	Host ──▶ knobs ──▶ Report          check: reads, needs no root, changes nothing
//	              └──▶ Plan ──▶ deed   apply: written down first, then done; revert undoes what is written down
//
// A knob's value follows from the number of connections and from the host's memory, by the formula that stands
// beside it in knobs.go. The package never asks the network, never restarts a service, and never touches what a
// command did not name: advice about network cards is printed as commands.
//
// Reading order: host.go (what is there), knobs.go (what is wanted, and why), check.go, plan.go, apply.go and
// deed.go (the change and its undoing), guard.go (when nobody confirms), vip.go (addresses), thesis.go. The systemd
// unit is in tuning/systemd, the command line in tuning/command.
package tuning

import (
	"fmt"
	"strconv"
)

// Want is what a host is held against.
type Want struct {
	Connections int
	Generator   bool // the host plays clients, and connects instead of being connected to
}

func (w Want) check() error {
	if w.Connections <= 0 || w.Connections > connectionsMax {
		return fmt.Errorf("%d connections: name a number from 1 to %s", w.Connections, count(connectionsMax))
	}
	return nil
}

// connectionsMax is where a process ends on Linux: fs.nr_open cannot be set above 2^31 - 64, and a place for as many again
// is wanted (descriptorsWanted).
const connectionsMax = 1 << 29

// count writes a number as people read it: 1,000,000.
func count[T int | uint64](n T) string {
	digits := strconv.FormatUint(uint64(n), 10)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// size writes bytes as people read them.
func size(bytes uint64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	default:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	}
}
