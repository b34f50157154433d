package tuning

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// What apply writes, below the root. 99 and the letter t: after the distribution's files and the host's sysctl.conf.
const (
	sysctlFile = "etc/sysctl.d/99-tote.conf"
	limitsFile = "etc/security/limits.d/99-tote.conf"
	dropInFile = "etc/systemd/system/" + serviceName + ".d/99-tune.conf"
)

// memoryHighPercent of the memory is where the kernel begins to press the service, before it would have to kill.
const memoryHighPercent = 85

// Plan is what apply would change.
type Plan struct {
	Want
	Host      *Host        `json:"host"`
	Knobs     []KnobChange `json:"knobs"`
	Files     []FileChange `json:"files"`
	Cannot    []Finding    `json:"cannot"` // wanted, but not to be had from here
	Conflicts []Conflict   `json:"conflicts"`
}

// KnobChange is one setting of the running kernel.
type KnobChange struct {
	Key    string `json:"key"`
	Before string `json:"before"` // as the kernel writes it, so that the same bytes go back
	After  string `json:"after"`
	Reason string `json:"reason,omitempty"`
}

// FileChange is one file that the next boot, login or start of the service reads.
type FileChange struct {
	Path   string   `json:"path"` // below the root
	Text   string   `json:"text"`
	Reason string   `json:"reason,omitempty"`
	Before string   `json:"before,omitempty"` // SHA-256 of what was there; "": nothing
	Made   []string `json:"made,omitempty"`   // directories that were not there
}

// errMemory and its like say no with the arithmetic.
var errMemory = errors.New("more connections than the memory holds")

// NewPlan says what to change for what is wanted, on top of nothing of ours: where an apply stands, its changes count as
// undone. It refuses more connections than the memory holds.
func NewPlan(root string, w Want) (*Plan, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	h, err := ReadHost(root)
	if err != nil {
		return nil, err
	}
	d, err := readDeed(root)
	if err != nil {
		return nil, err
	}
	if d != nil {
		if h.before, err = d.before(); err != nil {
			return nil, err
		}
	}
	s := sizing{uint64(w.Connections), h.Memory}
	if f := memoryFinding(h, s); f.Verdict == Short {
		return nil, fmt.Errorf("%w: %s connections need %s = %s; %s has %s, enough for %s", errMemory,
			count(w.Connections), arithmetic(s), f.Wanted, h.MemoryBound, f.Current, count(f.Holds))
	}
	p := &Plan{Want: w, Host: h}
	descriptors := s.descriptorsWanted()
	for _, k := range knobs {
		if !w.turns(k) {
			continue
		}
		f, err := k.find(h, s)
		if err != nil {
			return nil, err
		}
		switch {
		case f.Verdict == OK || f.Verdict == Absent:
		case f.Verdict == Hidden || f.Scope == ScopeBoot || !h.settable(k.key):
			p.Cannot = append(p.Cannot, *f)
			if now, err := h.read(k.key); err == nil && k.key == "fs.nr_open" {
				descriptors = min(descriptors, now[0]) // systemd does not start what asks for more
			}
		case f.Current != f.Wanted:
			p.Knobs = append(p.Knobs, KnobChange{Key: k.key, Before: f.Current, After: f.Wanted, Reason: k.reason})
		}
	}
	p.Files = h.files(w, p.Knobs, descriptors)
	if p.Conflicts, err = h.conflicts(w, s); err != nil {
		return nil, err
	}
	return p, nil
}

// files are those that somebody on this host reads.
func (h *Host) files(w Want, changes []KnobChange, descriptors uint64) (all []FileChange) {
	const head = "# Written by server tune apply --connections %d; server tune revert restores what was here.\n"
	var text strings.Builder
	fmt.Fprintf(&text, head, w.Connections)
	for _, c := range changes {
		fmt.Fprintf(&text, "\n# %s\n%s = %s\n", c.Reason, c.Key, c.After)
	}
	if len(changes) > 0 {
		all = append(all, FileChange{Path: sysctlFile, Text: text.String(), Reason: "the same settings for every boot"})
	}
	if h.readsLimits() {
		all = append(all, FileChange{Path: limitsFile, Reason: "descriptors of who runs it by hand",
			Text: fmt.Sprintf(head+"tote - nofile %d\nroot - nofile %d\n", w.Connections, descriptors, descriptors)})
	}
	if h.readsUnits() && !w.Generator {
		all = append(all, FileChange{Path: dropInFile, Reason: "descriptors and memory of the service",
			Text: fmt.Sprintf(head+"[Service]\nLimitNOFILE=%d\n# %d %% of %s: beyond it the kernel reclaims, before it would have to kill.\nMemoryHigh=%d\n",
				w.Connections, descriptors, memoryHighPercent, size(h.Memory), h.Memory/100*memoryHighPercent)})
	}
	return all
}

// WriteText prints the plan as a difference, each line with its reason.
func (p *Plan) WriteText(w io.Writer) {
	for _, c := range p.Knobs {
		fmt.Fprintf(w, "- %s = %s\n+ %s = %s\n  %s\n", c.Key, c.Before, c.Key, c.After, c.Reason)
	}
	for _, f := range p.Files {
		fmt.Fprintf(w, "+ /%s: %s\n", f.Path, f.Reason)
		for line := range strings.Lines(f.Text) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				fmt.Fprintf(w, "      %s\n", line)
			}
		}
	}
	for _, f := range p.Cannot {
		fmt.Fprintf(w, "cannot %s = %s: %s\n", f.Knob, f.Wanted, f.Remedy)
	}
	for _, c := range p.Conflicts {
		fmt.Fprintf(w, "file   %s sets %s = %s, which wins at the next boot; wanted %s\n", c.File, c.Key, c.Value, c.Wanted)
	}
}
