package tuning

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// host makes a root directory with these sysctls.
func host(t *testing.T, knobs map[string]string) string {
	root := t.TempDir()
	for key, value := range knobs {
		file := filepath.Join(root, "proc/sys", strings.ReplaceAll(key, ".", "/"))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCheck(t *testing.T) {
	root := host(t, map[string]string{
		"fs.file-max": "9223372036854775807", "net.core.somaxconn": "4096", "net.ipv4.tcp_max_syn_backlog": "16384",
		"net.ipv4.tcp_mem": "100\t200\t100000",
	})
	for _, row := range []struct {
		connections int
		short       string // knobs that stand too low, but descriptors, which are the test's own
	}{
		{1000, ""},
		{50_000, ""},
		{100_000, "net.core.somaxconn net.ipv4.tcp_mem"},
		{1_000_000, "net.core.somaxconn net.ipv4.tcp_max_syn_backlog net.ipv4.tcp_mem"},
	} {
		findings, err := Check(root, row.connections)
		if err != nil {
			t.Fatal(err)
		}
		var short []string
		for _, f := range findings {
			if !f.OK() && f.Knob != "RLIMIT_NOFILE" {
				short = append(short, f.Knob)
			}
			if f.Reason == "" || f.Remedy == "" {
				t.Errorf("%s says neither why nor what to do", f.Knob)
			}
		}
		if got := strings.Join(short, " "); got != row.short {
			t.Errorf("%d connections: %q stand too low, want %q", row.connections, got, row.short)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	if _, err := Check(t.TempDir(), 0); err == nil {
		t.Error("0 connections are checked")
	}
	if _, err := Check(host(t, map[string]string{"net.core.somaxconn": "many"}), 10); err == nil {
		t.Error("a sysctl that is no number is read")
	}
	if findings, err := Check(t.TempDir(), 10); err != nil || len(findings) != 1 {
		t.Errorf("a host that shows no sysctl: %v, %v", findings, err)
	}
}

// This very host can be checked without root.
func TestCheckHere(t *testing.T) {
	findings, err := Check("/", 10)
	if err != nil || len(findings) < 3 {
		t.Errorf("%v, %v", findings, err)
	}
	if n, err := Connections(); err != nil || n <= 0 {
		t.Errorf("descriptors for %d connections, %v", n, err)
	}
}
