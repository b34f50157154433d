package tuning

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree is every file and directory below a root: type, mode, owner, bytes, and of files the time of their last change.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		var of unix.Stat_t
		if err := unix.Lstat(path, &of); err != nil {
			return err
		}
		text := fmt.Sprint(info.Mode(), " ", of.Uid, ":", of.Gid)
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %q", b)
			if !strings.Contains(path, "/proc/sys/") { // a knob is written again
				text += fmt.Sprint(" ", of.Mtim)
			}
		}
		all[strings.TrimPrefix(path, root)] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// same fails where a root is not as it was.
func same(t *testing.T, when, root string, before map[string]string) {
	t.Helper()
	after := tree(t, root)
	for name := range before {
		if before[name] != after[name] {
			t.Errorf("%s: %s is %s, was %s", when, name, after[name], before[name])
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("%s: %s was not there", when, name)
		}
	}
}

// million is what these tests apply: it changes the most.
var million = Want{Connections: 1_000_000}

// settled makes hosts with nothing of ours, with files of our names that are somebody's, and with the directories only.
func settled(t *testing.T) map[string]string {
	t.Helper()
	bare, kept, dirs := host(t, 64, nil), host(t, 64, nil), host(t, 64, nil)
	put(t, kept, map[string]string{sysctlFile: "# mine\nkernel.panic = 1", limitsFile: "", dropInFile: "[Service]\n", "var/lib/x": "x"})
	for file, mode := range map[string]fs.FileMode{sysctlFile: 0o600, dropInFile: 0o640} {
		if err := os.Chmod(filepath.Join(kept, file), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(kept, sysctlFile), 7, 8); err != nil {
		t.Fatal(err)
	}
	put(t, dirs, map[string]string{"etc/sysctl.d/README": "", "etc/security/limits.d/README": "", "etc/systemd/system/a.service": "", "var/lib/x": "x"})
	return map[string]string{"a bare host": bare, "a host with files of our names": kept, "a host with the directories": dirs}
}

func TestApplyAndRevert(t *testing.T) {
	for name, root := range settled(t) {
		before := tree(t, root)
		if changed, err := Revert(root, false); changed || err != nil {
			t.Errorf("%s: revert before apply: %v, %v", name, changed, err)
		}
		if changed, err := Apply(root, million, 0); !changed || err != nil {
			t.Fatalf("%s: apply: %v, %v", name, changed, err)
		}
		r, err := Check(root, million)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range r.Findings {
			if f.Verdict != OK && f.Knob != knobDescriptors && f.Scope != ScopeBoot {
				t.Errorf("%s: after apply %s is %s: %s, wanted %s", name, f.Knob, f.Verdict, f.Current, f.Wanted)
			}
		}
		if len(r.Conflicts) > 0 || r.Left != "" {
			t.Errorf("%s: after apply: %v, %q", name, r.Conflicts, r.Left)
		}
		if p, err := NewPlan(root, million); err != nil || len(p.Knobs) != 9 {
			t.Errorf("%s: the plan counts from what was before, and has %d changes (%v)", name, len(p.Knobs), err)
		}
		applied := tree(t, root)
		if changed, err := Apply(root, million, 0); changed || err != nil {
			t.Errorf("%s: apply again: %v, %v", name, changed, err)
		}
		same(t, name+", applied twice", root, applied)
		if changed, err := Apply(root, Want{Connections: 100_000}, 0); !changed || err != nil {
			t.Errorf("%s: apply for fewer: %v, %v", name, changed, err)
		}
		if b, _ := os.ReadFile(filepath.Join(root, "proc/sys/net/core/somaxconn")); string(b) != "16384" {
			t.Errorf("%s: somaxconn for fewer is %s", name, b)
		}
		if changed, err := Revert(root, false); !changed || err != nil {
			t.Fatalf("%s: revert: %v, %v", name, changed, err)
		}
		same(t, name+", reverted", root, before)
	}
}

// What somebody else has changed since is not lost without being asked for.
func TestForeignChanges(t *testing.T) {
	for _, row := range []struct{ file, says string }{
		{"proc/sys/net/core/somaxconn", "net.core.somaxconn"},
		{sysctlFile, "/" + sysctlFile},
	} {
		root := host(t, 64, nil)
		before := tree(t, root)
		if _, err := Apply(root, million, 0); err != nil {
			t.Fatal(err)
		}
		put(t, root, map[string]string{row.file: "1234\n"})
		theirs := tree(t, root)
		for name, do := range map[string]func() (bool, error){
			"revert":          func() (bool, error) { return Revert(root, false) },
			"apply for fewer": func() (bool, error) { return Apply(root, Want{Connections: 5000}, 0) },
		} {
			if _, err := do(); err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), "--force") {
				t.Errorf("%s: %v, want %s", name, err, row.says)
			}
			same(t, name, root, theirs)
		}
		if _, err := Revert(root, true); err != nil {
			t.Error(err)
		}
		same(t, "revert by force", root, before)
	}
}

// A revert that fails on its way says so to the next command, and can be repeated.
func TestRevertFails(t *testing.T) {
	root := host(t, 64, nil)
	before := tree(t, root)
	if _, err := Apply(root, million, 0); err != nil {
		t.Fatal(err)
	}
	knob := filepath.Join(root, "proc/sys/net/core/somaxconn")
	value, err := os.ReadFile(knob)
	must(t, err)
	must(t, os.Remove(knob))
	if _, err := Revert(root, true); err == nil || !strings.Contains(err.Error(), "net.core.somaxconn") {
		t.Errorf("a knob that is gone: %v", err)
	}
	if says := left(root); !strings.Contains(says, "half done: 0 of 9 knobs set, 0 of 3 files in place") {
		t.Errorf("after it: %q", says)
	}
	must(t, os.WriteFile(knob, value, 0o644))
	if changed, err := Revert(root, false); !changed || err != nil {
		t.Error(changed, err)
	}
	same(t, "reverted at last", root, before)
}

// A process that dies between any two steps leaves what the next one can tell and undo. The steps are walked as far as
// each time one further.
func TestCutOffAnywhere(t *testing.T) {
	plan, err := NewPlan(host(t, 64, nil), million)
	if err != nil {
		t.Fatal(err)
	}
	knobs, files := len(plan.Knobs), len(plan.Files)
	type cut struct{ staged, set, placed, undone int }
	var cuts []cut
	for i := range files + 1 {
		cuts = append(cuts, cut{staged: i})
	}
	for i := range knobs + 1 {
		cuts = append(cuts, cut{staged: files, set: i})
	}
	for i := range files + 1 {
		cuts = append(cuts, cut{staged: files, set: knobs, placed: i})
	}
	for i := range files + 1 { // and once more while that is undone
		cuts = append(cuts, cut{files, knobs, files, i})
	}
	for at, c := range cuts {
		for name, root := range settled(t) {
			name = fmt.Sprintf("%s, cut at %d (%+v)", name, at, c)
			before := tree(t, root)
			p, err := NewPlan(root, million)
			if err != nil {
				t.Fatal(err)
			}
			d, err := newDeed(root, p, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			part := *d
			part.Files = d.Files[:c.staged]
			must(t, part.stageFiles())
			part.Knobs = d.Knobs[:c.set]
			must(t, part.setKnobs())
			part.Files = d.Files[:c.placed]
			must(t, part.placeFiles())
			if c.placed < files && d.Files[c.placed].Before != "" && c.staged == files { // kept, and not yet replaced
				must(t, os.Link(filepath.Join(root, d.Files[c.placed].Path), filepath.Join(root, d.Files[c.placed].kept())))
			}
			if c.undone > 0 {
				must(t, rename(d.path(deedFile), d.path(undoFile)))
				for i := range c.undone {
					must(t, d.restoreFile(&d.Files[files-1-i]))
				}
			}
			says := left(root)
			if want := fmt.Sprintf("half done: %d of %d knobs set, %d of %d files in place", c.set, knobs, c.placed-c.undone, files); !strings.Contains(says, want) {
				t.Errorf("%s: %q, want %q", name, says, want)
			}
			if r, err := Check(root, million); err != nil || r.Ready() {
				t.Errorf("%s: it is ready (%v)", name, err)
			}
			if _, err := Apply(root, million, 0); err == nil || !strings.Contains(err.Error(), "half done") {
				t.Errorf("%s: apply on top: %v", name, err)
			}
			if changed, err := Revert(root, false); !changed || err != nil {
				t.Errorf("%s: %v, %v", name, changed, err)
			}
			same(t, name, root, before)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// isolated runs a test again as a process with a network and mounts of its own, so that whatever it does ends with it. Where
// that is not possible it fails: it needs root, as CI is.
func isolated(t *testing.T, test func(t *testing.T)) {
	const marker = "TUNING_TEST_NAMESPACE"
	here, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	if outside := os.Getenv(marker); outside != "" {
		if outside == here {
			t.Fatal("this is the host's own network")
		}
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		test(t)
		return
	}
	again := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), marker+"="+here)
	again.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	out, err := again.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in namespaces of its own: %v\n%s", err, out)
	}
}

// real makes a root whose network knobs are the kernel's own, of this namespace.
func real(t *testing.T) string {
	t.Helper()
	root := host(t, 64, nil)
	must(t, os.RemoveAll(filepath.Join(root, "proc/sys/net")))
	must(t, os.Symlink("/proc/sys/net", filepath.Join(root, "proc/sys/net")))
	return root
}

// namespaced are the knobs of the plan that a network namespace has, as the kernel has them now.
func namespaced(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, key := range []string{"net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_fin_timeout"} {
		b, err := os.ReadFile((&Host{root: "/"}).sysctlPath(key))
		must(t, err)
		values[key] = string(b)
	}
	return values
}

// The real kernel takes the values, shows them, and gets its own back; what belongs to the host is told, not tried.
func TestRealKernel(t *testing.T) {
	isolated(t, func(t *testing.T) {
		root, kernel := real(t), namespaced(t)
		before := tree(t, root)
		p, err := NewPlan(root, million)
		must(t, err)
		var cannot []string
		for _, f := range p.Cannot {
			cannot = append(cannot, f.Knob)
		}
		for _, key := range []string{"net.ipv4.tcp_mem", "net.core.netdev_max_backlog"} { // hidden
			if !slices.Contains(cannot, key) {
				t.Errorf("%s belongs to the host, and can be set from here", key)
			}
		}
		if changed, err := Apply(root, million, 0); !changed || err != nil {
			t.Fatal(changed, err)
		}
		want := map[string]string{"net.core.somaxconn": "65535\n", "net.ipv4.tcp_max_syn_backlog": "65535\n", "net.ipv4.tcp_rmem": "4096\t16384\t131072\n",
			"net.ipv4.tcp_wmem": "4096\t16384\t131072\n", "net.ipv4.tcp_fin_timeout": "30\n"}
		if now := namespaced(t); !maps.Equal(now, want) {
			t.Errorf("the kernel has %q, want %q", now, want)
		}
		if changed, err := Revert(root, false); !changed || err != nil {
			t.Error(changed, err)
		}
		if now := namespaced(t); !maps.Equal(now, kernel) {
			t.Errorf("the kernel has %q, had %q", now, kernel)
		}
		same(t, "reverted", root, before)
	})
}

// A knob that refuses, and one that takes a value for another, undo all that was done before them.
func TestKnobRefuses(t *testing.T) {
	isolated(t, func(t *testing.T) {
		root, kernel := real(t), namespaced(t)
		before := tree(t, root)
		for name, row := range map[string]struct{ value, says string }{
			"a value that the kernel refuses":  {"-1", "invalid argument"},
			"a value that the kernel takes as": {"0x10", "the kernel made \"16\" of it"},
		} {
			p, err := NewPlan(root, million)
			must(t, err)
			p.Knobs = append(p.Knobs, KnobChange{Key: "net.core.optmem_max", After: row.value}, KnobChange{Key: "net.ipv4.tcp_retries2", After: "7"})
			if row.value == "-1" {
				p.Knobs[len(p.Knobs)-2].Key = "net.core.somaxconn"
				p.Knobs = slices.DeleteFunc(p.Knobs, func(c KnobChange) bool { return c.Key == "net.core.somaxconn" && c.After != "-1" })
			}
			d, err := newDeed(root, p, time.Time{})
			must(t, err)
			err = d.do()
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%s: %v, want %q", name, err, row.says)
			}
			if err := d.takeBack(); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
				t.Errorf("%s: %v", name, err)
			}
			if now := namespaced(t); !maps.Equal(now, kernel) {
				t.Errorf("%s: the kernel has %q, had %q", name, now, kernel)
			}
			same(t, name, root, before)
		}
	})
}

// Whatever step finds the disk full, nothing is left of it; with room for all, all is there.
func TestFullDisk(t *testing.T) {
	isolated(t, func(t *testing.T) {
		succeeded := 0
		for inodes := 8; succeeded < 2; inodes++ {
			if inodes > 64 {
				t.Fatal("apply never has enough room")
			}
			for _, files := range []map[string]string{nil, {sysctlFile: "x", dropInFile: "y", limitsFile: "z"}} {
				root := host(t, 64, nil)
				// Everything that is written is on one small disk: etc and var are links into it.
				disk := filepath.Join(root, "disk")
				must(t, os.RemoveAll(filepath.Join(root, "etc")))
				must(t, os.Mkdir(disk, 0o755))
				must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("nr_inodes=%d,size=64k", inodes+2*len(files))))
				for _, dir := range []string{"etc", "var"} {
					must(t, os.Mkdir(filepath.Join(disk, dir), 0o755))
					must(t, os.Symlink("disk/"+dir, filepath.Join(root, dir)))
				}
				if files != nil {
					put(t, root, files)
				}
				before := tree(t, root)
				if _, err := Apply(root, million, 0); err == nil {
					succeeded++
					if _, err := Revert(root, false); err != nil {
						t.Error(err)
					}
				} else if !strings.Contains(err.Error(), "no space left") {
					t.Errorf("%d inodes: %v", inodes, err)
				}
				same(t, fmt.Sprintf("%d inodes", inodes), root, before)
				must(t, unix.Unmount(disk, 0))
			}
		}
	})
}

// A container's /proc/sys, mounted read-only, is told as the reason, and nothing is tried.
func TestReadOnlyKnobs(t *testing.T) {
	isolated(t, func(t *testing.T) {
		root := host(t, 64, nil)
		knobs := filepath.Join(root, "proc/sys")
		must(t, unix.Mount(knobs, knobs, "", unix.MS_BIND, ""))
		t.Cleanup(func() { must(t, unix.Unmount(knobs, 0)) })
		must(t, unix.Mount("", knobs, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		p, err := NewPlan(root, million)
		must(t, err)
		if !strings.Contains(p.Host.Contained, "read-only") || len(p.Knobs) != 0 || len(p.Cannot) < 9 {
			t.Errorf("contained %q, %d to change, %d that cannot be", p.Host.Contained, len(p.Knobs), len(p.Cannot))
		}
		for _, f := range p.Files {
			if f.Path == dropInFile && !strings.Contains(f.Text, "LimitNOFILE=1048576\n") {
				t.Errorf("more than fs.nr_open would keep the service from starting: %s", f.Text)
			}
		}
		if changed, err := Apply(root, million, 0); !changed || err != nil {
			t.Error(changed, err)
		}
		if changed, err := Revert(root, false); !changed || err != nil {
			t.Error(changed, err)
		}
	})
}
