package baseline

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/bench"
	"tote/server/bench/peer"
	"tote/server/proto"
	"tote/server/proto/control"
)

// up is a site that is being started, each part when the one before it answers:
//
//	MariaDB ─▶ Redis ─▶ tables, cache ─▶ processes ─▶ nginx ─▶ hello
//
//	DIR/site.json    what runs, for down; and passwords
//	DIR/log/         what each part has said
//	DIR/mariadb/     the data, which stay
//	DIR/redis/, DIR/nginx/, DIR/*.conf
type up struct {
	dir    string
	site   *Site
	binary string // of the processes: this program's
	paths  map[string]string
	daemon *syscall.Credential // of MariaDB and Redis, where we are root; else nil
}

// Up starts a site in a directory, which keeps its data. What could not be started is stopped again.
func Up(ctx context.Context, dir string, c Config, binary string) (*Site, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	u := &up{dir: dir, binary: binary, site: &Site{Config: c, Epoch: uint64(peer.Now()), Password: rand.Text()}}
	if u.paths, err = programs(); err != nil {
		return nil, err
	}
	before, err := readSite(dir)
	if err == nil && before.alive() {
		return nil, fmt.Errorf("%s: a site is up there already: end it with down, or look at its status", dir)
	} else if err != nil && !errors.Is(err, errDown) {
		return nil, err
	}
	if err := u.prepare(); err != nil {
		return nil, err
	}
	if err := u.start(ctx); err != nil {
		return nil, errors.Join(err, Down(dir))
	}
	return u.site, nil
}

// packages are the programs that a site needs, and what Debian calls their packages.
var packages = [...]struct{ program, name string }{
	{"nginx", "nginx"}, {"mariadbd", "mariadb-server"}, {"mariadb-install-db", "mariadb-server"}, {"redis-server", "redis-server"},
}

// programs finds them, also where only root's PATH looks.
func programs() (map[string]string, error) {
	paths := map[string]string{}
	var missing, install []string
	for _, p := range packages {
		path, err := exec.LookPath(p.program)
		if err != nil {
			path, err = exec.LookPath(filepath.Join("/usr/sbin", p.program))
		}
		if err != nil {
			missing, install = append(missing, p.program), append(install, p.name)
		}
		paths[p.program] = path
	}
	if missing != nil {
		return nil, fmt.Errorf("there is no %s here: apt-get install --no-install-recommends %s", strings.Join(missing, ", "), strings.Join(install, " "))
	}
	return paths, nil
}

//go:embed conf
var conf embed.FS

// nginxConnections is for each worker of nginx, of which a player takes two.
const nginxConnections = 65536

// prepare chooses ports and writes what the parts read.
func (u *up) prepare() error {
	if err := u.chooseUser(); err != nil {
		return err
	}
	if err := u.choosePorts(); err != nil {
		return err
	}
	if err := u.makeDirectories(); err != nil {
		return err
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("read the limit of descriptors: %w", err)
	}
	descriptors := min(files.Max, 1<<20)
	if os.Geteuid() == 0 { // who may raise it; where even root may not, nginx says so in its log and takes what there is
		descriptors = max(descriptors, 2*nginxConnections)
	}
	values := struct {
		Dir                                   string
		Site                                  *Site
		Root                                  bool
		Workers, Files, Connections, Sessions int
	}{u.dir, u.site, os.Geteuid() == 0, runtime.NumCPU(), int(descriptors), nginxConnections, sessionsEach*u.site.Processes + 16}
	templates := template.Must(template.ParseFS(conf, "conf/*"))
	for name, path := range map[string]string{"nginx.conf": "nginx.conf", "mariadb.cnf": "mariadb.cnf", "redis.conf": "redis.conf", "init.sql": "init.sql"} {
		var text bytes.Buffer
		if err := templates.ExecuteTemplate(&text, name, values); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		path = filepath.Join(u.dir, path)
		if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
			return err
		}
		if u.daemon != nil && name != "nginx.conf" {
			if err := os.Chown(path, int(u.daemon.Uid), int(u.daemon.Gid)); err != nil {
				return err
			}
		}
	}
	return nil
}

// chooseUser finds who runs MariaDB, which refuses to be root.
func (u *up) chooseUser() error {
	if os.Geteuid() != 0 {
		return nil
	}
	who, err := user.Lookup("mysql")
	if err != nil {
		who, err = user.Lookup("nobody")
	}
	if err != nil {
		return fmt.Errorf("MariaDB does not run as root, and there is no user mysql or nobody: %w", err)
	}
	uid, wrong := strconv.ParseUint(who.Uid, 10, 32)
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	u.daemon = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return errors.Join(wrong, err)
}

func (u *up) choosePorts() error {
	s := u.site
	var taken []net.Listener // until all are chosen, so that none is chosen twice
	defer func() {
		for _, l := range taken {
			l.Close()
		}
	}()
	free := func(address string) (*net.TCPAddr, error) {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("choose a port: %w", err)
		}
		taken = append(taken, l)
		return l.Addr().(*net.TCPAddr), nil
	}
	for _, address := range []*string{&s.Listen, &s.Admin} {
		at, err := free(*address)
		if err != nil {
			return err
		}
		*address = at.String()
		if address == &s.Admin && !at.IP.IsLoopback() {
			return fmt.Errorf("operators at %s: they need no password, so only loopback will do", at)
		}
	}
	for range s.Processes {
		for _, list := range []*[]string{&s.Players, &s.Operators} {
			at, err := free("127.0.0.1:0")
			if err != nil {
				return err
			}
			*list = append(*list, at.String())
		}
	}
	for _, port := range []*int{&s.MariaDB, &s.Redis} {
		at, err := free("127.0.0.1:0")
		if err != nil {
			return err
		}
		*port = at.Port
	}
	return nil
}

func (u *up) makeDirectories() error {
	for _, name := range []string{"", "log", "nginx", "redis"} {
		path := filepath.Join(u.dir, name)
		if err := os.MkdirAll(path, 0o711); err != nil {
			return err
		}
		if u.daemon == nil {
			continue
		}
		var err error
		switch name {
		case "":
			err = os.Chmod(path, 0o711) // so that the user gets through; nobody can list it
		case "redis":
			err = os.Chown(path, int(u.daemon.Uid), int(u.daemon.Gid))
		}
		if err != nil {
			return err
		}
	}
	if u.daemon == nil {
		return nil
	}
	for path := filepath.Dir(u.dir); path != "/"; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err != nil || info.Mode()&fs.FileMode(0o001) == 0 {
			return fmt.Errorf("MariaDB's user cannot get through %s: chmod o+x %s, or name another --dir", path, path)
		}
	}
	return nil
}

func (u *up) start(ctx context.Context) error {
	if err := u.startMariaDB(ctx); err != nil {
		return err
	}
	cache := openCache(u.site)
	defer cache.redis.Close()
	if err := u.run(ctx, "redis", u.daemon, cache.ping, u.paths["redis-server"], filepath.Join(u.dir, "redis.conf")); err != nil {
		return err
	}
	if err := u.fill(ctx, cache); err != nil {
		return err
	}
	for i := range u.site.Players {
		ready := func(ctx context.Context) error {
			return (&control.Client{Base: u.site.Operators[i], HTTP: &http.Client{Timeout: time.Second}}).Ready(ctx)
		}
		if err := u.run(ctx, fmt.Sprint("process-", i+1), nil, ready, u.binary, "bench", "baseline", "serve", "--dir", u.dir, "--process", strconv.Itoa(i)); err != nil {
			return err
		}
	}
	hello := func(ctx context.Context) error { return u.site.hello(ctx) }
	if err := u.run(ctx, "nginx", nil, hello, u.paths["nginx"], "-p", filepath.Join(u.dir, "nginx"), "-c", filepath.Join(u.dir, "nginx.conf"), "-e", "stderr"); err != nil {
		return err
	}
	return u.addWorkers()
}

// startMariaDB makes its system tables, where there are none yet, and starts it.
func (u *up) startMariaDB(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(u.dir, "mariadb")); errors.Is(err, os.ErrNotExist) {
		if err := u.install(ctx); err != nil {
			return fmt.Errorf("make MariaDB's tables: %w", err)
		}
	}
	books, err := openBooks(u.site)
	if err != nil {
		return err
	}
	defer books.db.Close()
	return u.run(ctx, "mariadb", u.daemon, books.db.PingContext, u.paths["mariadbd"], "--defaults-file="+filepath.Join(u.dir, "mariadb.cnf"))
}

// install makes a data directory, whole or not at all.
func (u *up) install(ctx context.Context) error {
	const unfinished = "mariadb-"
	left, err := filepath.Glob(filepath.Join(u.dir, unfinished+"*")) // of an up that was killed
	if err != nil {
		return err
	}
	for _, path := range left {
		os.RemoveAll(path) // while what it has started still writes there, it stays until the next time
	}
	data, err := os.MkdirTemp(u.dir, unfinished)
	if err != nil {
		return err
	}
	defer os.RemoveAll(data) // where it is not whole
	if u.daemon != nil {
		if err := os.Chown(data, int(u.daemon.Uid), int(u.daemon.Gid)); err != nil {
			return err
		}
	}
	command := exec.CommandContext(ctx, u.paths["mariadb-install-db"], "--no-defaults", "--datadir="+data, "--skip-test-db", "--skip-name-resolve")
	command.Dir = data
	command.SysProcAttr = &syscall.SysProcAttr{Credential: u.daemon, Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) } // it is a script, and starts a server
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Rename(data, filepath.Join(u.dir, "mariadb"))
}

// fill makes our own tables, and the cache from what is in them.
func (u *up) fill(ctx context.Context, c *cache) error {
	books, err := openBooks(u.site)
	if err != nil {
		return err
	}
	defer books.db.Close()
	schema, err := conf.ReadFile("conf/schema.sql")
	if err != nil {
		return err
	}
	for statement := range strings.SplitSeq(string(schema), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := books.db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("make the tables: %w", err)
		}
	}
	return c.fillFrom(ctx, books)
}

// hello asks through nginx what reaches both a process and MariaDB, and changes nothing.
func (s *Site) hello(ctx context.Context) error {
	c, err := bench.Dial(ctx, s.URL())
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := c.Ask(proto.Request{Type: proto.RequestHello, Token: strings.Repeat("0", tokenSize)})
	if err != nil {
		return err
	}
	if no, ok := m.(*proto.Refused); !ok || no.Reason != proto.RefusedTokenInvalid {
		return fmt.Errorf("hello was answered with %s", m.AppendJSON(nil))
	}
	return nil
}

// Patience with one part that starts or stops. MariaDB recovers before it starts, and writes before it ends.
const (
	startPatience = 60 * time.Second
	stopPatience  = 60 * time.Second
	lookEvery     = 20 * time.Millisecond
)

// run starts one part, which outlives us, and waits until it is ready.
func (u *up) run(ctx context.Context, name string, as *syscall.Credential, ready func(context.Context) error, program string, args ...string) error {
	path := filepath.Join(u.dir, "log", name+".log")
	log, err := os.Create(path)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(program, args...)
	command.Dir = "/"
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: as} // signals of our terminal are not for it
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- command.Wait() }() // ends with the part, or with us
	if err := u.note(name, command.Process.Pid); err != nil {
		return errors.Join(err, command.Process.Kill())
	}
	over := time.Now().Add(startPatience)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case err := <-exited:
			said, _ := os.ReadFile(path)
			return fmt.Errorf("%s ended: %v\n%s", name, err, lastOf(said))
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
		}
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(over) {
			said, _ := os.ReadFile(path)
			return fmt.Errorf("%s is not ready after %s: %w\n%s", name, startPatience, err, lastOf(said))
		}
	}
}

// lastOf is the end of a log.
func lastOf(said []byte) []byte { return bytes.TrimSpace(said[max(0, len(said)-2000):]) }

// note writes down that a process runs, so that down finds it whatever happens next.
func (u *up) note(name string, pid int) error {
	start, err := started(pid)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	u.site.Running = append(u.site.Running, Running{Name: name, PID: pid, Start: start})
	return u.site.write(u.dir)
}

const workerName = "nginx worker"

// addWorkers notes what nginx has started: it is to be measured as well.
func (u *up) addWorkers() error {
	master := u.site.Running[len(u.site.Running)-1].PID
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range processes {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if f := statFields(pid); len(f) > statParent && f[statParent] == strconv.Itoa(master) {
			if err := u.note(workerName, pid); err != nil {
				return err
			}
		}
	}
	return nil
}
