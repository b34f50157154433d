package tuning

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Conflict is a file that will undo what is wanted, at the next boot.
type Conflict struct {
	Key    string `json:"key"`
	File   string `json:"file"`
	Value  string `json:"value"`
	Wanted string `json:"wanted"`
}

// serviceName is the unit that serves.
const serviceName = "tote.service"

// Where files of one kind may lie; an earlier directory hides files of the same name in a later one (sysctl.d(5), systemd.unit(5)).
var (
	sysctlDirs = []string{"etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d"}
	unitDirs   = []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
)

// layered returns the *.conf files that count, in the order in which they are read: by name.
func (h *Host) layered(dirs []string) ([]string, error) {
	byName := map[string]string{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(h.path(dir))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		for _, e := range entries {
			if _, hidden := byName[e.Name()]; !hidden && strings.HasSuffix(e.Name(), ".conf") && !e.IsDir() {
				byName[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	var files []string
	for _, file := range byName {
		files = append(files, file)
	}
	sort.Slice(files, func(i, j int) bool { return filepath.Base(files[i]) < filepath.Base(files[j]) })
	return files, nil
}

// conflicts finds knobs for which the last word at boot is a file's that is not ours, and says what is not good enough. procps
// reads /etc/sysctl.conf after everything else; systemd reads it only by its link in /etc/sysctl.d. We count it as the last.
func (h *Host) conflicts(w Want, s sizing) ([]Conflict, error) {
	files, err := h.layered(sysctlDirs)
	if err != nil {
		return nil, err
	}
	files = append(slices.DeleteFunc(files, h.isSysctlConf), "etc/sysctl.conf")
	last := map[string]Conflict{}
	for _, file := range files {
		lines, err := h.lines(file)
		if err != nil {
			return nil, fmt.Errorf("look for conflicts: %w", err)
		}
		for _, line := range lines {
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				continue
			}
			key = sysctlKey(strings.TrimPrefix(strings.TrimSpace(key), "-"))
			last[key] = Conflict{Key: key, File: "/" + file, Value: strings.Join(strings.Fields(value), " ")}
		}
	}
	var found []Conflict
	for _, k := range knobs {
		c, ok := last[k.key]
		if !ok || !w.turns(k) || c.File == "/"+sysctlFile {
			continue
		}
		value, err := parseNumbers(c.Value)
		now, unseen := h.read(k.key)
		if err != nil || unseen != nil || len(value) != len(now) {
			continue // the kernel will refuse it, or has no such key
		}
		// Ours speaks before it: after those that ours overrides, nobody is left but ours.
		if filepath.Base(c.File) < filepath.Base(sysctlFile) && c.File != "/etc/sysctl.conf" && formatNumbers(k.wanted(s, now)) != formatNumbers(now) {
			continue
		}
		if c.Wanted = formatNumbers(k.wanted(s, value)); c.Wanted != c.Value {
			found = append(found, c)
		}
	}
	return found, nil
}

// isSysctlConf reports whether a file is a link to /etc/sysctl.conf.
func (h *Host) isSysctlConf(file string) bool {
	to, err := os.Readlink(h.path(file))
	return err == nil && (to == "../sysctl.conf" || to == "/etc/sysctl.conf")
}

// sysctlKey writes a key with dots: sysctl.d allows slashes, and then dots are part of a name.
func sysctlKey(key string) string {
	if at := strings.IndexAny(key, "./"); at >= 0 && key[at] == '/' {
		return strings.NewReplacer("/", ".", ".", "/").Replace(key)
	}
	return key
}

// unitLimit is what LimitNOFILE of the service comes to, over its unit and drop-ins; false where there is no unit.
func (h *Host) unitLimit() (limit uint64, ok bool, err error) {
	var files []string
	for _, dir := range unitDirs {
		if _, err := os.Stat(h.path(filepath.Join(dir, serviceName))); err == nil {
			files = append(files, filepath.Join(dir, serviceName))
			break
		}
	}
	if len(files) == 0 {
		return 0, false, nil
	}
	var dirs []string
	for _, dir := range unitDirs {
		dirs = append(dirs, filepath.Join(dir, serviceName+".d"))
	}
	more, err := h.layered(dirs)
	if err != nil {
		return 0, false, err
	}
	limit = 1024 * 512 // systemd's default of the hard limit
	for _, file := range append(files, more...) {
		lines, err := h.lines(file)
		if err != nil {
			return 0, false, err
		}
		for _, line := range lines {
			of, is := strings.CutPrefix(line, "LimitNOFILE=")
			if !is {
				continue
			}
			if _, hard, two := strings.Cut(of, ":"); two {
				of = hard
			}
			if of == "infinity" {
				limit = connectionsMax
			} else if n, err := strconv.ParseUint(of, 10, 64); err == nil {
				limit = n
			}
		}
	}
	return limit, true, nil
}
