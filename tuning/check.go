package tuning

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// Report is a host held against what is wanted of it.
type Report struct {
	Want
	Host      *Host      `json:"host"`
	Findings  []Finding  `json:"findings"`
	Conflicts []Conflict `json:"conflicts"`
	Advice    []string   `json:"advice"` // for people; each with its commands
	Left      string     `json:"left"`   // what an apply or revert has left half done; "": nothing
	Holds     int        `json:"holds"`  // connections that the host allows as it is
	HeldBy    string     `json:"heldBy"` // what allows no more
}

// Finding is one knob.
type Finding struct {
	Knob    string            `json:"knob"`
	Scope   Scope             `json:"scope"`
	Current string            `json:"current"`
	Wanted  string            `json:"wanted"`
	Holds   uint64            `json:"holds,omitempty"` // connections that the current value allows
	Verdict Verdict           `json:"verdict"`
	Reason  string            `json:"reason"`
	Remedy  string            `json:"remedy,omitempty"`
	Bites   map[string]uint64 `json:"bites,omitempty"` // counters that rise when it does, since boot
	bounds  bool              // Holds counts
}

// Verdict is what a knob's value means for the connections.
type Verdict string

const (
	OK     Verdict = "ok"
	Low    Verdict = "low"    // they can be held, but a storm or a hostile client hurts more than it must
	Short  Verdict = "short"  // they cannot be held
	Hidden Verdict = "hidden" // the host's, which this container does not see
	Absent Verdict = "absent" // this kernel has no such knob, so it bounds nothing
)

// Ready reports whether nothing stands below what the connections need, and nothing is half done.
func (r *Report) Ready() bool {
	for _, f := range r.Findings {
		if f.Verdict == Short {
			return false
		}
	}
	return r.Left == ""
}

// Check compares the host behind root with what is wanted.
func Check(root string, w Want) (*Report, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	h, err := ReadHost(root)
	if err != nil {
		return nil, err
	}
	r := &Report{Want: w, Host: h, Advice: h.hardware(w), Left: left(root)}
	s := sizing{uint64(w.Connections), h.Memory}
	r.Findings = append(r.Findings, memoryFinding(h, s))
	limits, err := descriptorFindings(h, s)
	if err != nil {
		return nil, err
	}
	r.Findings = append(r.Findings, limits...)
	for _, k := range knobs {
		if !w.turns(k) {
			continue
		}
		f, err := k.find(h, s)
		if err != nil {
			return nil, err
		}
		r.Findings = append(r.Findings, *f)
	}
	if r.Conflicts, err = h.conflicts(w, s); err != nil {
		return nil, err
	}
	r.Holds, r.HeldBy = ceiling(r.Findings, "")
	return r, nil
}

// ceiling finds what allows the fewest connections, but for one knob.
func ceiling(findings []Finding, but string) (connections int, by string) {
	connections, by = connectionsMax, "Linux"
	for _, f := range findings {
		if f.bounds && f.Knob != but && f.Holds < uint64(connections) {
			connections, by = int(f.Holds), f.Knob+" "+f.Current
		}
	}
	return connections, by
}

// Ceiling says what will limit a server that this process is, whatever a unit says of others.
func Ceiling(root string) (connections int, by string, err error) {
	r, err := Check(root, Want{Connections: 1})
	if err != nil {
		return 0, "", err
	}
	connections, by = ceiling(r.Findings, knobUnit)
	return connections, by, nil
}

// turns reports whether the knob matters to what is wanted.
func (w Want) turns(k knob) bool {
	return k.role == everyone || w.Generator == (k.role == generators)
}

// find holds one knob against its formula.
func (k *knob) find(h *Host, s sizing) (*Finding, error) {
	f := &Finding{Knob: k.key, Scope: k.scope, Reason: k.reason, Verdict: OK}
	for _, name := range k.bites {
		if n, ok := h.counters[name]; ok {
			if f.Bites == nil {
				f.Bites = map[string]uint64{}
			}
			f.Bites[name] = n
		}
	}
	now, err := h.read(k.key)
	if errors.Is(err, fs.ErrNotExist) {
		if h.Contained == "" || k.scope == ScopeNamespace {
			f.Verdict, f.Current, f.Remedy = Absent, "-", "nothing: the kernel was built without it, or has not loaded it"
			return f, nil
		}
		f.Verdict, f.Current, f.Remedy = Hidden, "?", "ask the host: run server tune check there"
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	if want := map[string]int{"net.ipv4.tcp_mem": 3, "net.ipv4.tcp_rmem": 3, "net.ipv4.tcp_wmem": 3, "net.ipv4.ip_local_port_range": 2}[k.key]; len(now) < want {
		return nil, fmt.Errorf("read %s: %d numbers, not %d", k.key, len(now), want)
	}
	wanted := k.wanted(s, now)
	f.Current, f.Wanted = formatNumbers(now), formatNumbers(wanted)
	if f.Current != f.Wanted {
		f.Verdict, f.Remedy = Low, "server tune apply"
	}
	if k.holds != nil {
		if f.Holds, f.bounds = k.holds(now), true; f.Holds < s.connections {
			f.Verdict = Short
		}
	}
	switch {
	case f.Verdict == OK:
	case k.scope == ScopeBoot:
		f.Remedy = fmt.Sprintf("thash_entries=%s on the kernel's command line, and a reboot", f.Wanted)
	case !h.settable(k.key):
		f.Remedy = fmt.Sprintf("not from here; on the host: sysctl -w %s='%s'", k.key, f.Wanted)
	}
	return f, nil
}

func memoryFinding(h *Host, s sizing) Finding {
	f := Finding{Knob: "memory", Scope: ScopeHost, Current: size(h.Memory), Wanted: size(memoryBase + s.connections*memoryConnection),
		Holds: memoryHolds(h.Memory), bounds: true, Verdict: OK, Reason: "as " + h.MemoryBound + " has it: " + arithmetic(s)}
	if f.Holds < s.connections {
		f.Verdict, f.Remedy = Short, "more memory, or fewer connections"
	}
	return f
}

// arithmetic is how the memory that connections need comes about.
func arithmetic(s sizing) string {
	return fmt.Sprintf("%s + %s × (%s idle + %s in flight during a broadcast)", size(memoryBase), count(s.connections), size(memoryIdle), size(page))
}

const (
	knobDescriptors = "RLIMIT_NOFILE of this process"
	knobUnit        = "LimitNOFILE of " + serviceName
)

// descriptorFindings looks at this process, and at the service where there is one, which then decides.
func descriptorFindings(h *Host, s sizing) ([]Finding, error) {
	finding := func(knob string, limit uint64, remedy string) Finding {
		f := Finding{Knob: knob, Scope: ScopeProcess, Current: fmt.Sprint(limit), Wanted: fmt.Sprint(max(limit, s.descriptorsWanted())),
			Holds: limit - min(limit, descriptorsKept), bounds: true, Verdict: OK, Reason: "each connection is a descriptor"}
		if f.Current != f.Wanted {
			f.Verdict, f.Remedy = Low, remedy
		}
		if f.Holds < s.connections {
			f.Verdict = Short
		}
		return f
	}
	limit, err := descriptors()
	if err != nil {
		return nil, err
	}
	remedy := fmt.Sprintf("server tune apply, and a new login; or ulimit -n %d", s.descriptorsWanted())
	if !h.readsLimits() {
		remedy = fmt.Sprintf("ulimit -n %d where the server is started: no login of this host reads limits from files (it has no PAM)", s.descriptorsWanted())
	}
	shell := finding(knobDescriptors, limit, remedy)
	served, ok, err := h.unitLimit()
	if err != nil || !ok {
		return []Finding{shell}, err
	}
	if shell.Verdict == Short { // it is not what the service gets
		shell.bounds = false
		shell.Verdict = Low
	}
	return []Finding{finding(knobUnit, served, "server tune apply"), shell}, nil
}

// WriteShort prints what is still short: what no apply can mend.
func (r *Report) WriteShort(w io.Writer) {
	for _, f := range r.Findings {
		if f.Verdict == Short {
			f.writeText(w)
		}
	}
}

func (f *Finding) writeText(w io.Writer) {
	fmt.Fprintf(w, "%-6s %-36s %s", f.Verdict, f.Knob, f.Current)
	if f.Verdict != OK && f.Wanted != "" && f.Wanted != f.Current {
		fmt.Fprintf(w, "; wanted %s", f.Wanted)
	}
	fmt.Fprintln(w)
	if f.Verdict == OK || f.Verdict == Absent {
		return
	}
	fmt.Fprintf(w, "       why: %s (%s)\n       do:  %s\n", f.Reason, f.Scope, f.Remedy)
	var bites []string
	for _, name := range slices.Sorted(maps.Keys(f.Bites)) {
		if n := f.Bites[name]; n > 0 {
			bites = append(bites, fmt.Sprintf("%s %d", name, n))
		}
	}
	if len(bites) > 0 {
		fmt.Fprintf(w, "       since boot: %s\n", strings.Join(bites, ", "))
	}
}

// WriteText prints the report as a table for people.
func (r *Report) WriteText(w io.Writer) {
	fmt.Fprintf(w, "%d cores, %s of memory (%s)\n", r.Host.Cores, size(r.Host.Memory), r.Host.MemoryBound)
	if r.Host.Contained != "" {
		fmt.Fprintf(w, "this is %s\n", r.Host.Contained)
	}
	fmt.Fprintln(w)
	for _, f := range r.Findings {
		f.writeText(w)
	}
	for _, c := range r.Conflicts {
		fmt.Fprintf(w, "file   %s sets %s = %s, which wins at the next boot; wanted %s\n", c.File, c.Key, c.Value, c.Wanted)
	}
	for _, a := range r.Advice {
		fmt.Fprintf(w, "advice %s\n", a)
	}
	if r.Left != "" {
		fmt.Fprintf(w, "left   %s\n", r.Left)
	}
	fmt.Fprintf(w, "\nas it is, this host holds %s connections (%s)\n", count(r.Holds), r.HeldBy)
}
