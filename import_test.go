package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// The import rules of DESIGN.md: a package, with its sub-packages, may import these of ours, and no others.
var mayImport = map[string][]string{
	"proto":  {},
	"market": {"proto"},
	"engine": {"proto", "market"},
	"store":  {},
	"tuning": {},
	"bench":  {"proto", "tuning"},
}

// What a package must never touch, beyond our own.
var never = map[string][]string{
	"proto":  {"github.com/panjf2000/gnet/v2", "go.etcd.io/bbolt"},
	"market": {"github.com/panjf2000/gnet/v2", "go.etcd.io/bbolt", "os", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand"},
	"engine": {"go.etcd.io/bbolt"},
	"store":  {"github.com/panjf2000/gnet/v2", "net/http"},
	"tuning": {"github.com/panjf2000/gnet/v2", "go.etcd.io/bbolt"},
	"bench":  {"go.etcd.io/bbolt"},
}

// But for a package that stands for somebody else's server: it keeps its own file.
var exempt = map[string]string{"tote/server/bench/comparator": "go.etcd.io/bbolt"}

type listed struct {
	ImportPath string
	Imports    []string
}

func listPackages(t *testing.T) (packages []listed) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportRules(t *testing.T) {
	const module = "tote/server"
	seen := map[string]bool{}
	for _, p := range listPackages(t) {
		if p.ImportPath == module {
			continue
		}
		top, _, _ := strings.Cut(strings.TrimPrefix(p.ImportPath, module+"/"), "/")
		allowed, ok := mayImport[top]
		if !ok {
			t.Errorf("%s: nothing stands beside main.go but %v", p.ImportPath, mayImport)
			continue
		}
		seen[top] = true
		for _, i := range p.Imports {
			if ours, ok := strings.CutPrefix(i, module+"/"); ok {
				from, _, _ := strings.Cut(ours, "/")
				if from != top && !slices.Contains(allowed, from) {
					t.Errorf("%s imports %s; %s may import %v", p.ImportPath, i, top, allowed)
				}
			}
			if i == module || slices.Contains(never[top], i) && exempt[p.ImportPath] != i {
				t.Errorf("%s imports %s, which %s never does", p.ImportPath, i, top)
			}
		}
	}
	if len(seen) != len(mayImport) {
		t.Errorf("packages %v are there, the table has %v", seen, mayImport)
	}
}

// The market reads no clock: time enters as a field of commands. Only the loop that waits for the next turn
// may name package time, and it only waits.
func TestMarketReadsNoClock(t *testing.T) {
	out, err := exec.Command("git", "grep", "-nE", `time\.(Now|Since|Until)`, "--", "market/*.go", ":!market/*_test.go").Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("git grep: %v", err)
	}
	if len(out) > 0 {
		t.Errorf("the market reads a clock:\n%s", out)
	}
}

// The top level is what DESIGN.md says.
func TestTopLevel(t *testing.T) {
	out, err := exec.Command("git", "ls-tree", "--name-only", "HEAD").Output()
	if err != nil {
		t.Fatalf("git ls-tree: %v", err)
	}
	known := []string{"main.go", "engine", "proto", "market", "store", "tuning", "bench", "go.mod", "go.sum", "README.md", "Makefile",
		"DESIGN.md", "CHANGELOG.md", "LICENSE"}
	for _, name := range strings.Fields(string(out)) {
		if ok, _ := path.Match("*_test.go", name); !ok && !strings.HasPrefix(name, ".") && !slices.Contains(known, name) {
			t.Errorf("%s does not belong at the top level", name)
		}
	}
}
