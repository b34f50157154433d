// Package handover is how a server makes way for another process, with another binary perhaps, on the same sockets and the same data.
//
//	old                                      new
//	Start ── sockets, lock, one more socket ─▶ reads its flags
//	      ◀────── introduction ────────────── Introduce, and waits
//	parts from its clients,
//	closes the data
//	GiveWay ──────── yours ─────────────────▶ opens the data, recovers
//	      ◀────── serving ─────────────────── Serving
//	tells systemd ── known ─────────────────▶ speaks to systemd
//	ends
//
// Whatever goes wrong before yours leaves the old one as it was; afterwards it may start another successor, its own binary. A process whose
// counterpart has died notices by the end of the socket.
//
// The server runs it between its packages. It knows no more of them than that there are files to be passed, and numbers of formats
// that both must agree on.
package handover

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/tuning/systemd"
)

const (
	// startLimit is how long a successor may take to start and to read its flags and keys, which may be a provider's.
	startLimit = 60 * time.Second

	// recoverLimit is how long it may take to recover the data. The same that units give a start (TimeoutStartSec).
	recoverLimit = 15 * time.Minute

	// knownLimit is how long a successor that serves waits for systemd to be told.
	knownLimit = 10 * time.Second
)

// Self is this process's own binary, also when its file has been replaced or removed.
const Self = "/proc/self/exe"

// Binary is the path by which this process was started, links and all, where it can be known: /proc has another name for a file that was moved aside.
func Binary() string {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, _ = os.Executable() // what is wrong with it says Start
	}
	return path
}

// Estate is what a server has to leave.
type Estate struct {
	Service *systemd.Service
	Files   map[string]*os.File // by the names of package systemd; the estate's to close
	Formats map[string]int      // of the data, by what they are the formats of
	Binary  string              // that this process was started from
}

// Close closes the files.
func (e *Estate) Close() error {
	var errs []error
	for _, f := range e.Files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// message is a line on the socket between the two, as JSON.
type message struct {
	Introduction *introduction `json:"introduction,omitempty"`
	Yours        bool          `json:"yours,omitempty"`
	Serving      bool          `json:"serving,omitempty"`
	Known        bool          `json:"known,omitempty"`
	Failed       string        `json:"failed,omitempty"`
}

type introduction struct {
	Version string         `json:"version"`
	Formats map[string]int `json:"formats"`
}

// line is one end of the socket.
type line struct {
	conn net.Conn
	in   *bufio.Scanner
}

func newLine(f *os.File) (*line, error) {
	c, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("speak with the other process: %w", err)
	}
	return &line{conn: c, in: bufio.NewScanner(c)}, nil
}

func (l *line) say(m message) error {
	b, err := json.Marshal(m)
	if err == nil {
		_, err = l.conn.Write(append(b, '\n'))
	}
	return err
}

// errEnded is all that is heard of a process that has ended.
var errEnded = errors.New("the other process ended without a word")

// hear waits for the next message, until ctx ends.
func (l *line) hear(ctx context.Context) (m message, err error) {
	defer context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Now()) })()
	if !l.in.Scan() {
		if ctx.Err() != nil {
			return m, context.Cause(ctx)
		}
		return m, errEnded
	}
	if err := json.Unmarshal(l.in.Bytes(), &m); err != nil {
		return m, fmt.Errorf("the other process says %.100q: %w", l.in.Bytes(), err)
	}
	if m.Failed != "" {
		return m, errors.New(m.Failed)
	}
	return m, nil
}

// Successor is the process that takes over, as the old one sees it.
type Successor struct {
	PID     int
	Version string

	process *os.Process
	line    *line
	ended   chan error // how it ended
}

// Start starts the binary with this process's arguments, and waits until it has introduced itself and waits to take over. Where it does
// not, it is ended, and the error says why.
func (e *Estate) Start(ctx context.Context, binary string) (*Successor, error) {
	if err := checkBinary(binary); err != nil {
		return nil, err
	}
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	l, err := newLine(ours)
	if err != nil {
		return nil, errors.Join(err, theirs.Close())
	}
	files := maps.Clone(e.Files)
	files[systemd.Handover] = theirs
	process, err := e.launch(binary, files)
	_ = theirs.Close() // so that its end is heard
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the successor: %w", err), l.conn.Close())
	}
	s := &Successor{PID: process.Pid, process: process, line: l, ended: make(chan error, 1)}
	go func() { // ends with the successor, or with us
		state, err := process.Wait()
		if err == nil && !state.Success() {
			err = errors.New(state.String())
		}
		s.ended <- err
	}()
	if err := s.introduced(ctx, e.Formats); err != nil {
		err = s.because(err)
		s.end()
		return nil, fmt.Errorf("the successor is not good: %w", err)
	}
	return s, nil
}

// launch starts the process. Package os would make the descriptors blocking, ours too, and accept(2) would no longer end with its listener.
func (e *Estate) launch(binary string, files map[string]*os.File) (*os.Process, error) {
	names := slices.Sorted(maps.Keys(files))
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	first, environment := e.Service.Pass(names)
	passed := []*os.File{null, os.Stdout, os.Stderr}
	assert(len(passed) == first, "sockets follow the standard error")
	for _, name := range names {
		passed = append(passed, files[name])
	}
	var descriptors []uintptr
	for _, f := range passed {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { descriptors = append(descriptors, fd) })
		}
		if err != nil {
			return nil, err
		}
	}
	name := binary
	if name == Self {
		name = e.Binary
	}
	pid, err := syscall.ForkExec(binary, append([]string{name}, os.Args[1:]...), &syscall.ProcAttr{Env: environment, Files: descriptors})
	runtime.KeepAlive(passed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", binary, err)
	}
	return os.FindProcess(pid)
}

func (s *Successor) introduced(ctx context.Context, formats map[string]int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("it did not introduce itself within %s; is it a server?", startLimit))
	defer cancel()
	m, err := s.line.hear(ctx)
	switch {
	case err != nil:
		return err
	case m.Introduction == nil:
		return errors.New("its first word is no introduction")
	}
	s.Version = m.Introduction.Version
	for _, of := range slices.Sorted(maps.Keys(formats)) {
		if reads := m.Introduction.Formats[of]; reads != formats[of] {
			return fmt.Errorf("it reads %s of format %d, and the data has format %d", of, reads, formats[of])
		}
	}
	return nil
}

// because adds how the process ended to an error that only says that it did.
func (s *Successor) because(err error) error {
	if !errors.Is(err, errEnded) {
		return err
	}
	select {
	case ended := <-s.ended:
		if ended == nil {
			return errors.New("it ended without a word")
		}
		return fmt.Errorf("it ended without a word: %w; its reason is on the standard error", ended)
	case <-time.After(knownLimit): // it has closed the socket and goes on: whatever it is, it is no server
		return err
	}
}

// GiveWay lets it take over, and returns when it serves. If it returns an error the successor is dead, and the data is nobody's.
func (s *Successor) GiveWay() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), recoverLimit, fmt.Errorf("it did not serve within %s", recoverLimit))
	defer cancel()
	err := s.line.say(message{Yours: true})
	if err == nil {
		var m message
		if m, err = s.line.hear(ctx); err == nil && !m.Serving {
			err = errors.New("it says something else than that it serves")
		}
	}
	if err == nil {
		return nil
	}
	err = s.because(err)
	s.end()
	return fmt.Errorf("process %d did not take over: %w", s.PID, err)
}

// end ends the process, if it has not ended yet.
func (s *Successor) end() {
	_ = s.line.conn.Close()
	_ = s.process.Kill()
}

// Leave tells the successor that systemd knows it. This process should end.
func (s *Successor) Leave() error {
	return errors.Join(s.line.say(message{Known: true}), s.line.conn.Close())
}

// Dismiss ends a successor that shall not take over after all.
func (s *Successor) Dismiss() error { return s.line.conn.Close() }

// Predecessor is the process that makes way, as the new one sees it. Nil is none, and takes nothing from anybody.
type Predecessor struct{ line *line }

// From makes a Predecessor of what was inherited under systemd.Handover; nil: there is none.
func From(f *os.File) (*Predecessor, error) {
	if f == nil {
		return nil, nil
	}
	l, err := newLine(f)
	if err != nil {
		return nil, err
	}
	return &Predecessor{l}, nil
}

// Introduce says what this process is, and returns when the predecessor has closed the data. The error says that it will not.
func (p *Predecessor) Introduce(ctx context.Context, version string, formats map[string]int) error {
	if p == nil {
		return nil
	}
	if err := p.line.say(message{Introduction: &introduction{Version: version, Formats: formats}}); err != nil {
		return fmt.Errorf("introduce ourselves: %w", err)
	}
	m, err := p.line.hear(ctx)
	if err == nil && !m.Yours {
		err = errors.New("it says something else than that the data is ours")
	}
	if err != nil {
		return fmt.Errorf("the server that was to make way does not: %w", err)
	}
	return nil
}

// Failed says why this process does not take over; nil says nothing.
func (p *Predecessor) Failed(err error) {
	if p == nil || err == nil {
		return
	}
	_ = p.line.say(message{Failed: err.Error()}) // it may be gone, which is why we fail
}

// Serving says that this process serves, and returns when systemd knows, or the predecessor is gone.
func (p *Predecessor) Serving() error {
	if p == nil {
		return nil
	}
	if err := p.line.say(message{Serving: true}); err != nil {
		return fmt.Errorf("tell the predecessor that we serve: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), knownLimit)
	defer cancel()
	_, err := p.line.hear(ctx)
	return errors.Join(err, p.line.conn.Close())
}

// pair is a socket with two ends.
func pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "successor"), os.NewFile(uintptr(fds[1]), "predecessor"), nil
}

// checkBinary refuses what others than root and ourselves could have put there: whoever may ask for an upgrade may run the market, but shall not run
// programs as the server's user.
func checkBinary(path string) error {
	if path == Self {
		return nil
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("the binary %q: say its path from /", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("the binary: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	var wrong []string
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		wrong = append(wrong, "it is no program")
	}
	if info.Mode().Perm()&0o022 != 0 {
		wrong = append(wrong, "others may write it")
	}
	if !ok || owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		wrong = append(wrong, "it belongs neither to root nor to the server's user")
	}
	if len(wrong) > 0 {
		return fmt.Errorf("the binary %s: %s", path, strings.Join(wrong, ", "))
	}
	return nil
}

func assert(ok bool, text string) {
	if !ok {
		panic(text)
	}
}
