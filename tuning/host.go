package tuning

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what a machine, or the container that it shows us, is and allows. It is read through root: "/", but for tests and
// images that are prepared, where a directory stands for the host.
type Host struct {
	Cores       int    `json:"cores"`
	Memory      uint64 `json:"memory"`      // bytes that the server may use
	MemoryBound string `json:"memoryBound"` // what says so: the machine or a control group
	Contained   string `json:"contained"`   // why some knobs cannot be seen or set; "": the whole host is ours

	root     string
	before   map[string][]uint64 // knobs that an apply has changed, as they were
	counters map[string]uint64   // of the kernel's network, since boot: "ListenDrops", "TcpRetransSegs"
}

// ReadHost looks at the host behind root.
func ReadHost(root string) (*Host, error) {
	h := &Host{root: root, Cores: runtime.NumCPU()}
	if err := h.readMemory(); err != nil {
		return nil, fmt.Errorf("look at the host: %w", err)
	}
	h.Contained = h.container()
	h.readCounters()
	return h, nil
}

func (h *Host) path(name string) string { return filepath.Join(h.root, name) }

// readMemory takes the least of the machine's memory and of what the control groups on the way to ours allow.
func (h *Host) readMemory() error {
	lines, err := os.ReadFile(h.path("proc/meminfo"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(lines)) {
		if of, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kilobytes, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(of), "kB")), 10, 64)
			if err != nil {
				return fmt.Errorf("read MemTotal: %w", err)
			}
			h.Memory, h.MemoryBound = kilobytes<<10, "the machine"
		}
	}
	if h.Memory == 0 {
		return errors.New("/proc/meminfo has no MemTotal")
	}
	groups, err := os.ReadFile(h.path("proc/self/cgroup"))
	if err != nil {
		return nil // no control groups: nothing binds
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number:controllers:path
		if len(parts) < 3 {
			continue
		}
		switch {
		case parts[1] == "":
			h.bound("sys/fs/cgroup", parts[2], "memory.max")
			h.bound("sys/fs/cgroup", parts[2], "memory.high")
		case slices.Contains(strings.Split(parts[1], ","), "memory"):
			h.bound("sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes")
		}
	}
	return nil
}

// bound lowers Memory to the limits of a control group and of those above it.
func (h *Host) bound(mount, group, file string) {
	for at := filepath.Clean("/" + group); ; at = filepath.Dir(at) {
		b, err := os.ReadFile(h.path(filepath.Join(mount, at, file)))
		if err == nil {
			if limit, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && limit < h.Memory {
				h.Memory, h.MemoryBound = limit, filepath.Join("/", mount, at, file)
			}
		}
		if at == "/" {
			return
		}
	}
}

// container says what keeps knobs from us, as far as it can be seen without trying.
func (h *Host) container() string {
	var why []string
	if !h.has("net.ipv4.tcp_mem") && h.has("net.ipv4.tcp_rmem") {
		why = append(why, "a network namespace of its own, which does not show the host's network knobs")
	}
	if b, err := os.ReadFile(h.path("proc/self/uid_map")); err == nil {
		if fields := strings.Fields(string(b)); len(fields) >= 3 && (fields[0] != "0" || fields[1] != "0" || fields[2] != "4294967295") {
			why = append(why, "a user namespace, whose root is not the host's")
		}
	}
	if isReadOnly(h.path("proc/sys")) {
		why = append(why, "/proc/sys is mounted read-only")
	}
	return strings.Join(why, "; ")
}

func isReadOnly(path string) bool {
	var mount unix.Statfs_t
	return unix.Statfs(path, &mount) == nil && mount.Flags&unix.ST_RDONLY != 0
}

// readsLimits reports whether logins get what limits.d says: it is PAM that reads it.
func (h *Host) readsLimits() bool { return h.hasAny("etc/pam.d", "etc/security") }

// readsUnits reports whether the host's services are systemd's, whether or not it runs now.
func (h *Host) readsUnits() bool { return h.hasAny("etc/systemd", "usr/lib/systemd", "lib/systemd") }

func (h *Host) hasAny(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { _, err := os.Stat(h.path(name)); return err == nil })
}

// sysctlPath is where the kernel shows a key, as in net.core.somaxconn.
func (h *Host) sysctlPath(key string) string {
	return h.path("proc/sys/" + strings.ReplaceAll(key, ".", "/"))
}

func (h *Host) has(key string) bool {
	_, err := os.Stat(h.sysctlPath(key))
	return err == nil
}

// read returns a key's numbers; fs.ErrNotExist where this kernel or namespace does not show it. The kernel writes what a
// namespace shares with the host below 0.
func (h *Host) read(key string) ([]uint64, error) {
	if numbers, ok := h.before[key]; ok {
		return numbers, nil
	}
	b, err := os.ReadFile(h.sysctlPath(key))
	if err == nil && bytes.HasPrefix(b, []byte("-")) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	numbers, err := parseNumbers(string(b))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return numbers, nil
}

func parseNumbers(text string) (numbers []uint64, err error) {
	for _, field := range strings.Fields(text) {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	if len(numbers) == 0 {
		return nil, errors.New("it has no number")
	}
	return numbers, nil
}

func formatNumbers(numbers []uint64) string {
	var text []string
	for _, n := range numbers {
		text = append(text, strconv.FormatUint(n, 10))
	}
	return strings.Join(text, " ")
}

// settable reports whether root, here, may change a key. Permission bits tell: the kernel shows what belongs to another
// namespace as read-only, or as somebody else's.
func (h *Host) settable(key string) bool {
	var file unix.Stat_t
	path := h.sysctlPath(key)
	if unix.Stat(path, &file) != nil {
		return false
	}
	ours := file.Uid == 0 || int(file.Uid) == os.Geteuid()
	return ours && file.Mode&unix.S_IWUSR != 0 && !isReadOnly(path)
}

// readCounters reads /proc/net/snmp and /proc/net/netstat, where a line of names is followed by one of values.
func (h *Host) readCounters() {
	h.counters = map[string]uint64{}
	for _, file := range []string{"proc/net/snmp", "proc/net/netstat"} {
		b, err := os.ReadFile(h.path(file))
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(bytes.NewReader(b))
		for lines.Scan() {
			names := strings.Fields(lines.Text())
			if !lines.Scan() {
				break
			}
			values := strings.Fields(lines.Text())
			for i := 1; i < min(len(names), len(values)); i++ {
				if n, err := strconv.ParseUint(values[i], 10, 64); err == nil {
					h.counters[names[i]] = n
				}
			}
		}
	}
}

// descriptors is RLIMIT_NOFILE of this process: what a server that is started from the same shell gets, since Go raises
// the soft limit to the hard one.
func descriptors() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read RLIMIT_NOFILE: %w", err)
	}
	return limit.Max, nil
}

// lines returns the lines of a file that say something, or none where there is no file.
func (h *Host) lines(name string) ([]string, error) {
	b, err := os.ReadFile(h.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != ';' {
			lines = append(lines, line)
		}
	}
	return lines, nil
}
