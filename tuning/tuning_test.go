package tuning

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// put writes files below a root.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What Debian 12 shows on a host with 16 GB.
var debian = map[string]string{
	"fs.nr_open": "1048576", "fs.file-max": "9223372036854775807", "fs.epoll.max_user_watches": "3600000",
	"net.core.somaxconn": "4096", "net.ipv4.tcp_max_syn_backlog": "1024", "net.ipv4.tcp_syncookies": "1",
	"net.ipv4.tcp_mem": "187000\t249000\t374000", "net.ipv4.tcp_rmem": "4096\t131072\t6291456", "net.ipv4.tcp_wmem": "4096\t16384\t4194304",
	"net.ipv4.tcp_fin_timeout": "60", "net.ipv4.tcp_slow_start_after_idle": "1", "net.ipv4.tcp_tw_reuse": "2",
	"net.ipv4.ip_local_port_range": "32768\t60999", "net.core.netdev_max_backlog": "1000", "net.netfilter.nf_conntrack_max": "262144",
	"vm.overcommit_memory": "0", "net.ipv4.tcp_ehash_entries": "131072",
}

// host makes a root that stands for a host of so much memory, with Debian's knobs but for these.
func host(t *testing.T, gigabytes int, knobs map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{"etc/pam.d/login": "", "etc/systemd/system.conf": "", "proc/meminfo": fmt.Sprintf("MemTotal: %d kB\nMemFree: 1 kB\n", gigabytes<<20), "etc/hostname": "host\n"}
	for _, all := range []map[string]string{debian, knobs} {
		for key, value := range all {
			files["proc/sys/"+strings.ReplaceAll(key, ".", "/")] = value + "\n"
		}
	}
	put(t, root, files)
	for key, value := range knobs {
		if value == "" {
			if err := os.Remove(filepath.Join(root, "proc/sys", strings.ReplaceAll(key, ".", "/"))); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// The sizing table of the README.
func TestPlan(t *testing.T) {
	for _, row := range []struct {
		name      string
		gigabytes int
		want      Want
		sysctls   string
		limit     int
	}{
		{"1,000 on a small host", 2, Want{Connections: 1000}, `
			net.ipv4.tcp_max_syn_backlog = 4096
			net.ipv4.tcp_rmem = 4096 32768 262144
			net.ipv4.tcp_wmem = 4096 16384 262144
			net.core.netdev_max_backlog = 5000`, 2048},
		{"100,000 with 16 GB", 16, Want{Connections: 100_000}, `
			net.core.somaxconn = 16384
			net.ipv4.tcp_max_syn_backlog = 16384
			net.ipv4.tcp_rmem = 4096 32768 262144
			net.ipv4.tcp_wmem = 4096 16384 262144
			net.core.netdev_max_backlog = 5000`, 262144},
		{"1,000,000 with 64 GB", 64, Want{Connections: 1_000_000}, `
			fs.nr_open = 2097152
			net.core.somaxconn = 65535
			net.ipv4.tcp_max_syn_backlog = 65535
			net.ipv4.tcp_mem = 2097152 2621440 3145728
			net.ipv4.tcp_rmem = 4096 16384 131072
			net.ipv4.tcp_wmem = 4096 16384 131072
			net.ipv4.tcp_fin_timeout = 30
			net.core.netdev_max_backlog = 10000
			net.netfilter.nf_conntrack_max = 2000000`, 2097152},
		{"1,000,000 with 16 GB: a quarter of it for the kernel's queues", 16, Want{Connections: 1_000_000}, `
			fs.nr_open = 2097152
			net.core.somaxconn = 65535
			net.ipv4.tcp_max_syn_backlog = 65535
			net.ipv4.tcp_mem = 699050 873810 1048576
			net.ipv4.tcp_rmem = 4096 16384 131072
			net.ipv4.tcp_wmem = 4096 16384 131072
			net.ipv4.tcp_fin_timeout = 30
			net.core.netdev_max_backlog = 10000
			net.netfilter.nf_conntrack_max = 2000000`, 2097152},
		{"100,000 players", 16, Want{Connections: 100_000, Generator: true}, `
			net.ipv4.tcp_rmem = 4096 32768 262144
			net.ipv4.tcp_wmem = 4096 16384 262144
			net.ipv4.tcp_tw_reuse = 1
			net.ipv4.ip_local_port_range = 1024 65535
			net.core.netdev_max_backlog = 5000`, 262144},
	} {
		p, err := NewPlan(host(t, row.gigabytes, nil), row.want)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		var sysctls strings.Builder
		for _, c := range p.Knobs {
			fmt.Fprintf(&sysctls, "\n\t\t\t%s = %s", c.Key, c.After)
			if c.Reason == "" {
				t.Errorf("%s: %s has no reason", row.name, c.Key)
			}
		}
		if sysctls.String() != row.sysctls {
			t.Errorf("%s:%s\nwant:%s", row.name, sysctls.String(), row.sysctls)
		}
		for _, f := range p.Files {
			if f.Path == limitsFile && !strings.Contains(f.Text, fmt.Sprintf("nofile %d\n", row.limit)) {
				t.Errorf("%s: /%s is %q, want %d descriptors", row.name, f.Path, f.Text, row.limit)
			}
			if f.Path == dropInFile && row.want.Generator {
				t.Errorf("%s: /%s is a server's file", row.name, f.Path)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	for _, row := range []struct {
		name        string
		connections int
		gigabytes   int // 16
		knobs       map[string]string
		files       map[string]string
		short       string // knobs below what is needed, but descriptors, which are the test's own
		absent      string // knobs that the kernel has not got
	}{
		{name: "a thousand", connections: 1000},
		{name: "a hundred thousand", connections: 100_000},
		{name: "a million", connections: 1_000_000, gigabytes: 11, short: "memory net.ipv4.tcp_mem net.netfilter.nf_conntrack_max"},
		{name: "few pages", connections: 100_000, knobs: map[string]string{"net.ipv4.tcp_mem": "10 20 99999"}, short: "net.ipv4.tcp_mem"},
		{name: "few descriptors", connections: 100_000, knobs: map[string]string{"fs.file-max": "100255"}, short: "fs.file-max"},
		{name: "just enough", connections: 100_000, knobs: map[string]string{"fs.file-max": "100256"}},
		{name: "few watches", connections: 100_000, knobs: map[string]string{"fs.epoll.max_user_watches": "50000"}, short: "fs.epoll.max_user_watches"},
		{name: "a control group with 1 GiB", connections: 100_000, short: "memory", files: map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1073741824\n"}},
		{name: "an old control group with 1 GiB", connections: 100_000, short: "memory", files: map[string]string{
			"proc/self/cgroup": "4:cpu,memory:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1073741824\n"}},
		{name: "a service with too few descriptors", connections: 100_000, short: knobUnit, files: map[string]string{
			"usr/lib/systemd/system/tote.service": "[Service]\nLimitNOFILE=1000000\n", "etc/systemd/system/tote.service.d/50-less.conf": "[Service]\nLimitNOFILE=1024\n"}},
		{name: "a service with enough", connections: 100_000, files: map[string]string{
			"usr/lib/systemd/system/tote.service": "[Service]\nLimitNOFILE=1024\n", "etc/systemd/system/tote.service.d/50-more.conf": "[Service]\nLimitNOFILE=1024:262144\n"}},
		{name: "no such module", connections: 100_000, knobs: map[string]string{"net.netfilter.nf_conntrack_max": ""}, absent: "net.netfilter.nf_conntrack_max"},
	} {
		root := host(t, cmp.Or(row.gigabytes, 16), row.knobs)
		put(t, root, row.files)
		r, err := Check(root, Want{Connections: row.connections})
		if err != nil {
			t.Fatal(err)
		}
		var short, absent []string
		for _, f := range r.Findings {
			if f.Verdict == Absent {
				absent = append(absent, f.Knob)
			}
			if f.Verdict == Short && f.Knob != knobDescriptors {
				short = append(short, f.Knob)
			}
			if f.Reason == "" || f.Verdict != OK && f.Remedy == "" {
				t.Errorf("%s: %s says neither why nor what to do", row.name, f.Knob)
			}
		}
		if got := strings.Join(short, " "); got != row.short {
			t.Errorf("%s: %q are short, want %q", row.name, got, row.short)
		}
		if got := strings.Join(absent, " "); got != row.absent {
			t.Errorf("%s: %q are absent, want %q", row.name, got, row.absent)
		}
		if row.short != "" && (r.Ready() || r.Holds >= row.connections) {
			t.Errorf("%s: ready %v, holds %d (%s)", row.name, r.Ready(), r.Holds, r.HeldBy)
		}
	}
}

// Nothing is written for readers that a host has not got, and who starts the server there is told what to do instead.
func TestReaders(t *testing.T) {
	for _, row := range []struct {
		name  string
		with  []string // what the host has
		files []string
		says  string // of descriptors
	}{
		{"both", []string{"etc/pam.d", "usr/lib/systemd"}, []string{sysctlFile, limitsFile, dropInFile}, "server tune apply, and a new login; or ulimit -n 1073741824"},
		{"no systemd", []string{"etc/security"}, []string{sysctlFile, limitsFile}, "server tune apply, and a new login; or ulimit -n 1073741824"},
		{"no PAM", []string{"lib/systemd"}, []string{sysctlFile, dropInFile}, "where the server is started: no login of this host"},
		{"neither", nil, []string{sysctlFile}, "where the server is started: no login of this host"},
	} {
		root := host(t, 1<<20, nil)
		for _, dir := range []string{"etc/pam.d", "etc/systemd"} {
			must(t, os.RemoveAll(filepath.Join(root, dir)))
		}
		for _, dir := range row.with {
			must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
		}
		w := Want{Connections: connectionsMax} // more than any process has
		p, err := NewPlan(root, w)
		must(t, err)
		var files []string
		for _, f := range p.Files {
			files = append(files, f.Path)
		}
		if !slices.Equal(files, row.files) {
			t.Errorf("%s: %q, want %q", row.name, files, row.files)
		}
		r, err := Check(root, w)
		must(t, err)
		at := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Knob == knobDescriptors })
		if got := r.Findings[at].Remedy; !strings.Contains(got, row.says) {
			t.Errorf("%s: %s", row.name, got)
		}
		if row.name == "neither" {
			if err := AddVIP(root, "lo", span(t, "10.77.0.1"), true, "x"); err == nil || !strings.Contains(err.Error(), "this host has no systemd, which would do it") {
				t.Errorf("%s: %v", row.name, err)
			}
		}
	}
}

// What is nonsense is refused, with the arithmetic.
func TestRefusals(t *testing.T) {
	small := host(t, 1, nil)
	for _, row := range []struct {
		name        string
		connections int
		says        string
	}{
		{"nobody", 0, "0 connections: name a number from 1 to 536,870,912"},
		{"fewer than nobody", -1, "-1 connections"},
		{"more than Linux", 1 << 30, "1073741824 connections"},
		{"more than the memory", 1_000_000, "256.0 MiB + 1,000,000 × (8.0 KiB idle + 4.0 KiB in flight during a broadcast) = 11.7 GiB; the machine has 1.0 GiB, enough for 65,536"},
	} {
		_, err := NewPlan(small, Want{Connections: row.connections})
		if err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, want %q", row.name, err, row.says)
		}
	}
	if _, err := NewPlan(small, Want{Connections: 1_000_000}); !errors.Is(err, errMemory) {
		t.Error(err)
	}
	for name, root := range map[string]string{
		"a knob that is no number": host(t, 1, map[string]string{"net.core.somaxconn": "many"}),
		"a knob with one number":   host(t, 1, map[string]string{"net.ipv4.tcp_mem": "17"}),
		"no meminfo":               t.TempDir(),
	} {
		if _, err := Check(root, Want{Connections: 10}); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// A file that has the last word at boot is named, and no other.
func TestConflicts(t *testing.T) {
	for _, row := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"none", nil, ""},
		{"an earlier file, which ours overrides", map[string]string{"etc/sysctl.d/10-net.conf": "net.core.somaxconn=128\n"}, ""},
		{"a later one", map[string]string{"etc/sysctl.d/99-zz.conf": "# x\nnet.core.somaxconn = 128\n"}, "/etc/sysctl.d/99-zz.conf net.core.somaxconn=128"},
		{"a later one that is good enough", map[string]string{"etc/sysctl.d/99-zz.conf": "net.core.somaxconn = 70000\n"}, ""},
		{"a hidden one", map[string]string{"usr/lib/sysctl.d/99-zz.conf": "net.core.somaxconn=1\n", "etc/sysctl.d/99-zz.conf": "\n"}, ""},
		{"with slashes and a minus", map[string]string{"run/sysctl.d/99-zz.conf": "-net/ipv4/tcp_mem = 1\t2 3\n"}, "/run/sysctl.d/99-zz.conf net.ipv4.tcp_mem=1 2 3"},
		{"sysctl.conf, which procps reads last", map[string]string{"etc/sysctl.conf": "net.core.somaxconn=128\n"}, "/etc/sysctl.conf net.core.somaxconn=128"},
		{"an earlier one, of what is good now and would not be", map[string]string{"etc/sysctl.d/10-net.conf": "fs.file-max=1024\n"}, "/etc/sysctl.d/10-net.conf fs.file-max=1024"},
		{"what is none of ours", map[string]string{"etc/sysctl.d/99-zz.conf": "kernel.panic=1\nnonsense\n"}, ""},
	} {
		root := host(t, 64, nil)
		put(t, root, row.files)
		p, err := NewPlan(root, Want{Connections: 1_000_000})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range p.Conflicts {
			got = append(got, fmt.Sprintf("%s %s=%s", c.File, c.Key, c.Value))
		}
		if strings.Join(got, "; ") != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

func TestThesis(t *testing.T) {
	r, err := Check(host(t, 64, nil), Want{Connections: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Thesis() {
		if s.Thesis == "" || s.Ours == "" || s.Reason == "" {
			t.Errorf("%+v is not whole", s)
		}
		if s.Key == "net.ipv4.tcp_mem" && s.Ours != "2097152 2621440 3145728" {
			t.Errorf("ours is %s", s.Ours)
		}
	}
	var told strings.Builder
	r.WriteThesis(&told)
	if want := "These are 11 of the listing's 16 settings; the other 5 are not known here"; !strings.Contains(told.String(), want) || strings.Count(told.String(), "thesis:") != 11 {
		t.Errorf("%s\nwant %q", &told, want)
	}
}

func TestHardware(t *testing.T) {
	for _, row := range []struct {
		name   string
		cores  int
		queues int
		rps    string
		want   string
	}{
		{"one core", 1, 1, "0", ""},
		{"one queue", 40, 1, "0", "echo ff,ffffffff > /sys/class/net/eth0/queues/rx-0/rps_cpus"},
		{"one queue that is spread", 8, 1, "fe", ""},
		{"two queues", 8, 2, "00", "ethtool -L eth0 combined 8"},
		{"a queue for each", 2, 2, "0", "smp_affinity_list"},
	} {
		root := t.TempDir()
		put(t, root, map[string]string{"sys/class/net/eth0/device/vendor": "x", "sys/class/net/lo/queues/rx-0/rps_cpus": "0"})
		for i := range row.queues {
			put(t, root, map[string]string{fmt.Sprintf("sys/class/net/eth0/queues/rx-%d/rps_cpus", i): row.rps + "\n"})
		}
		h := &Host{root: root, Cores: row.cores}
		got := strings.Join(h.hardware(Want{Connections: 1}), "\n")
		if (got == "") != (row.want == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}

// This very host can be looked at without root.
func TestCheckHere(t *testing.T) {
	r, err := Check("/", Want{Connections: 10})
	if err != nil || len(r.Findings) < 5 {
		t.Errorf("%+v, %v", r, err)
	}
	if n, by, err := Ceiling("/"); err != nil || n <= 0 || by == "" {
		t.Errorf("%d connections by %q, %v", n, by, err)
	}
}
