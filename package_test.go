package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// static builds the server as it is packaged: without a C library.
var static = sync.OnceValues(func() (string, error) {
	file := filepath.Join(filepath.Dir(binary), "static", "server")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// The package installs into a root of its own, keeps the operator's configuration over an upgrade, reverts what was tuned when it is
// removed, and leaves nothing when it is purged. The same source makes the same package.
func TestDebianPackage(t *testing.T) {
	server := must(static())(t)
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	var packages [3]string
	for i, version := range []string{"0.1", "0.1", "0.2"} {
		dir := t.TempDir()
		run(t, "tuning/deb/build.sh", server, version, dir)
		packages[i] = must(filepath.Glob(filepath.Join(dir, "tote_"+version+"_*.deb")))(t)[0]
	}
	if !bytes.Equal(must(os.ReadFile(packages[0]))(t), must(os.ReadFile(packages[1]))(t)) {
		t.Error("two builds of one source differ")
	}
	root := image(t)
	for _, dir := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log", "etc/systemd/system/multi-user.target.wants"} {
		must(0, os.MkdirAll(filepath.Join(root, dir), 0o755))(t)
	}
	must(0, os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644))(t)
	before := contents(t, root)
	dpkg := func(args ...string) {
		t.Helper()
		run(t, "dpkg", append([]string{"--root=" + root, "--force-script-chrootless", "--force-confold", "--log=/dev/null"}, args...)...)
	}
	dpkg("--install", packages[0])
	installed := filepath.Join(root, "usr/bin/tote-server")
	if help := run(t, installed, "serve", "--help"); !strings.Contains(help, "--durability") {
		t.Errorf("the installed server says %q", help)
	}
	unit := string(must(os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/tote.service")))(t))
	if !strings.Contains(unit, "\nExecStart=/usr/bin/tote-server serve --data /var/lib/tote --config /etc/tote/server.toml\n") {
		t.Errorf("the unit is\n%s", unit)
	}

	config := filepath.Join(root, "etc/tote/server.toml")
	must(0, os.WriteFile(config, append(must(os.ReadFile(config))(t), "guest-credits = 7\n"...), 0o644))(t)
	if out := run(t, installed, "--config", config, "audit", "--help"); !strings.Contains(out, "Usage") {
		t.Errorf("the configuration cannot be read: %s", out)
	}
	run(t, installed, "tune", "apply", "--connections", "1000000", "--root", root)
	if out := run(t, installed, "tune", "check", "--connections", "100000", "--json", "--root", root); !strings.Contains(out, `"current": "2097152"`) {
		t.Errorf("the service's unit and its drop-in are not seen: %s", out)
	}
	dpkg("--install", packages[2])
	if !bytes.Contains(must(os.ReadFile(config))(t), []byte("guest-credits = 7")) {
		t.Error("an upgrade has lost the operator's configuration")
	}
	// Ranges of addresses too, those for the next boots among them. In a network of its own.
	remove := exec.Command("sh", "-ec", fmt.Sprintf(`ip link set lo up
%[1]s tune vip add 10.77.0.0/29 --device lo --lasting --root %[2]s
%[1]s tune vip add 10.78.0.1 --device lo --root %[2]s
ip addr show lo | grep -q 10.77.0.6
grep 'vip add 10.77.0.1-10.77.0.6' %[2]s/etc/systemd/system/tote-vip.service
dpkg --root=%[2]s --force-script-chrootless --force-confold --log=/dev/null --remove tote
! ip addr show lo | grep -E '10\.7[78]\.'`, installed, root))
	remove.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := remove.CombinedOutput(); err != nil {
		t.Errorf("remove the package: %v\n%s", err, out)
	}
	if _, err := os.Stat(config); err != nil {
		t.Errorf("a removal has lost the operator's configuration: %v", err)
	}
	dpkg("--purge", "tote")
	after := contents(t, root)
	for name := range after {
		if _, was := before[name]; !was || strings.Contains(name, "/var/lib/dpkg/") {
			delete(after, name)
			if !was && !strings.Contains(name, "/var/lib/dpkg/") {
				t.Errorf("%s stays", name)
			}
		}
	}
	for name := range before {
		if strings.Contains(name, "/var/lib/dpkg/") {
			delete(before, name)
		}
	}
	if !maps.Equal(after, before) {
		t.Errorf("purged, it is %v, was %v", after, before)
	}
}

// make container builds an image of nothing else; what is in it serves, as its user, and its health check finds it.
func TestContainer(t *testing.T) {
	buildah := []string{"buildah", "--storage-driver", "vfs", "--root", t.TempDir(), "--runroot", t.TempDir()}
	run(t, "make", "container", "CONTAINER="+strings.Join(buildah, " "))
	do := func(args ...string) string {
		return strings.TrimSpace(run(t, buildah[0], slices.Concat(buildah[1:], args)...))
	}
	var image struct {
		Docker struct {
			Config struct {
				User            string
				Entrypoint, Cmd []string
				Healthcheck     struct{ Test []string }
			}
		}
	}
	must(0, json.Unmarshal([]byte(do("inspect", "--type", "image", "localhost/tote")), &image))(t)
	said := image.Docker.Config
	container := do("from", "--pull-never", "localhost/tote")
	defer do("rm", container)
	root := do("mount", container)
	if files := must(os.ReadDir(root))(t); len(files) != 2 || len(said.Healthcheck.Test) < 2 || said.User == "" {
		t.Fatalf("the image has %v, and says %+v", files, said)
	}
	var log bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// A network of its own, where the loopback is to be set up first, and where the ports are free.
	args := strings.Join(append(said.Entrypoint, said.Cmd...), " ")
	health := strings.Join(said.Healthcheck.Test[1:], " ") // after "CMD"
	serve := exec.CommandContext(ctx, "sh", "-c", fmt.Sprintf(`ip link set lo up || exit 1
chroot --userspec %[2]s %[1]s %[3]s & server=$!
for try in $(seq 300); do chroot --userspec %[2]s %[1]s %[4]s && break; sleep 0.1; done
kill -TERM $server; wait $server`, root, said.User, args, health))
	serve.Stdout, serve.Stderr = &log, &log
	serve.WaitDelay = 10 * time.Second // a server that outlives the shell holds the log open
	serve.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := serve.Run(); err != nil || !strings.Contains(log.String(), "msg=stopped") || !strings.Contains(log.String(), "live and ready") {
		t.Errorf("%v\n%s", err, &log)
	}
}
