package tuning

import (
	"fmt"
	"io"
)

// Setting is one of the thesis' settings (Listing 7.8) beside ours.
type Setting struct {
	Key    string `json:"key"`
	Thesis string `json:"thesis"`
	Ours   string `json:"ours"`
	Reason string `json:"reason"`
}

// thesisSettings is how many the listing has. Those that are not in thesis are not known to us.
const thesisSettings = 16

const _ = uint(thesisSettings - len(thesis))

// thesis is what is known of Listing 7.8; what is not known of a line is an ellipsis. An empty Ours is taken from the knob.
var thesis = [...]Setting{
	{"fs.file", "…", "fs.file-max, fs.nr_open and LimitNOFILE", "there is no such key: file-max is for the whole host, nr_open caps one process, LimitNOFILE is what it gets"},
	{"vm.overcommit_memory", "1", "", "it was for Redis, which forks to write its snapshots; nothing here forks"},
	{"net.ipv4.tcp_tw_reuse", "1", "2, the kernel's default; 1 on generators", "it does nothing for accepted connections"},
	{"net.ipv4.tcp_tw_recycle", "1", "absent", "gone since Linux 4.12: it dropped clients behind one address translator"},
	{"net.ipv4.ip_local_port_range", "1025 65535", "left alone; 1024 65535 on generators",
		"a server needs no ports of its own; ends of the same parity make the kernel's halves uneven, and the range overlaps the listing's own backends"},
	{"net.ipv4.tcp_mem", "383865 511820 2303190", "", "pages: 1.5, 2.0 and 8.8 GiB, copied from a host of another size; ours follow from connections and memory"},
	{"net.ipv4.tcp_wmem", "… 655360 …", "", "100,000 stuck clients pin 60 GiB at that default; ours bound how stale a slow reader can be"},
	{"net.ipv4.tcp_rmem", "… 873700 …", "", "the same for hostile senders, 80 GiB"},
	{"net.ipv4.tcp_max_orphans", "262144", "left to the kernel, which knows the memory", "each may hold 64 KiB: up to 16 GiB for connections that nobody owns"},
	{"net.ipv4.tcp_synack_retries", "2", "5, the kernel's default", "2 gives up after 7 s, which a phone on a lossy network needs to get in"},
	{"tcp_nodelay", "off", "on, for each socket", "off means Nagle's algorithm is on: a small frame waits for the acknowledgement of the last one"},
}

// Thesis sets the thesis' settings beside those for this host.
func (r *Report) Thesis() []Setting {
	ours := map[string]string{}
	for _, f := range r.Findings {
		ours[f.Knob] = f.Wanted
		if f.Verdict == Hidden {
			ours[f.Knob] = "by the host's memory (hidden here)"
		}
	}
	table := make([]Setting, len(thesis))
	for i, t := range thesis {
		if t.Ours == "" {
			t.Ours = ours[t.Key]
		}
		table[i] = t
	}
	return table
}

// WriteThesis prints the table.
func (r *Report) WriteThesis(w io.Writer) {
	for _, s := range r.Thesis() {
		fmt.Fprintf(w, "%s\n    thesis: %s\n    ours:   %s\n    why:    %s\n", s.Key, s.Thesis, s.Ours, s.Reason)
	}
	fmt.Fprintf(w, "These are %d of the listing's %d settings; the other %d are not known here, and neither is what stands as an ellipsis.\n",
		len(thesis), thesisSettings, thesisSettings-len(thesis))
}
