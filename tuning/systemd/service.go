// Package systemd is how the server and systemd speak: what is said (ready, alive, stopping; sd_notify(3)), what is inherited
// (sockets; sd_listen_fds(3)), and the units that ask for it. Where nobody listens, all of it does nothing. A process that makes way for
// another passes on what it has inherited in the same way (Pass).
//
// It is not a client of systemd's bus, and knows nothing of what the server does.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names of what is passed: the sockets that units open, FileDescriptorName= there, and what only a process passes that makes way for
// another.
const (
	Players   = "players"
	Secured   = "secured" // for players, over TLS
	Operators = "operators"

	Lock     = "lock"     // of the data
	Handover = "handover" // to speak with the one that makes way
)

var (
	socketNames = []string{Players, Secured, Operators}
	fileNames   = []string{Lock, Handover}
)

// firstSocket is the number of the first descriptor passed (SD_LISTEN_FDS_START).
const firstSocket = 3

// watchdogMin is the shortest watchdog that can be fed: what makes progress shows it once a second, and we look three times within
// the watchdog's time.
const watchdogMin = 6 * time.Second

// Service is this process as systemd started it.
type Service struct {
	notify    string // address of the socket to speak to; "": nobody listens
	watchdog  time.Duration
	listeners map[string]net.Listener
	files     map[string]*os.File
}

// Inherit takes what systemd has passed, and takes it out of the environment, so that nobody started by us takes it for theirs.
func Inherit() (*Service, error) {
	s := &Service{notify: os.Getenv("NOTIFY_SOCKET"), listeners: map[string]net.Listener{}, files: map[string]*os.File{}}
	if micros := os.Getenv("WATCHDOG_USEC"); micros != "" && isForUs("WATCHDOG_PID") {
		n, err := strconv.ParseInt(micros, 10, 64)
		s.watchdog = time.Duration(n) * time.Microsecond
		if err != nil || s.watchdog < watchdogMin {
			return nil, fmt.Errorf("a watchdog of %s µs: it takes %s at least", micros, watchdogMin)
		}
	}
	if count := os.Getenv("LISTEN_FDS"); count != "" && isForUs("LISTEN_PID") {
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("LISTEN_FDS is %q", count)
		}
		if err := s.inheritSockets(n, strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, errors.Join(fmt.Errorf("forget %s: %w", name, err), s.Close())
		}
	}
	return s, nil
}

// isForUs reports whether a variable names this process, or is not there.
func isForUs(name string) bool {
	pid := os.Getenv(name)
	return pid == "" || pid == strconv.Itoa(os.Getpid())
}

func (s *Service) inheritSockets(n int, names []string) error {
	for i := range n {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		unix.CloseOnExec(firstSocket + i)
		f := os.NewFile(uintptr(firstSocket+i), name)
		switch {
		case slices.Contains(fileNames, name) && s.files[name] == nil:
			s.files[name] = f
		case slices.Contains(socketNames, name) && s.listeners[name] == nil:
			l, err := net.FileListener(f)
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("inherit the socket of %s: %w", name, err)
			}
			s.listeners[name] = l
		default:
			return fmt.Errorf("inherit socket %d: it is called %q; say FileDescriptorName=%s, once each", i, name, strings.Join(socketNames, " or "))
		}
	}
	return nil
}

// Listener is the inherited socket of that name, or nil. It is the caller's from then on.
func (s *Service) Listener(name string) net.Listener {
	l := s.listeners[name]
	delete(s.listeners, name)
	return l
}

// File is what was inherited under that name besides sockets, or nil. It is the caller's from then on.
func (s *Service) File(name string) *os.File {
	f := s.files[name]
	delete(s.files, name)
	return f
}

// Close closes what nobody took.
func (s *Service) Close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	clear(s.listeners)
	clear(s.files)
	return errors.Join(errs...)
}

// Pass is the environment of a process that is to inherit files of these names, as its descriptors from the first one on, and to speak to systemd as
// this one does, which listens once it was told (Succeeded).
func (s *Service) Pass(names []string) (first int, environment []string) {
	environment = append(os.Environ(), "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	if s.notify != "" {
		environment = append(environment, "NOTIFY_SOCKET="+s.notify)
	}
	if s.watchdog > 0 {
		environment = append(environment, "WATCHDOG_USEC="+strconv.FormatInt(s.watchdog.Microseconds(), 10))
	}
	return firstSocket, environment
}

// Ready says that the service serves.
func (s *Service) Ready() error { return s.say("READY=1\nSTATUS=serving") }

// Stopping says that it has begun to stop, and will end by itself.
func (s *Service) Stopping() error { return s.say("STOPPING=1\nSTATUS=draining") }

// Status says what it does, in a line for people (systemctl status).
func (s *Service) Status(text string) error { return s.say("STATUS=" + text) }

// Succeeded says that another process is the service from now on.
func (s *Service) Succeeded(pid int) error { return s.say("MAINPID=" + strconv.Itoa(pid)) }

// say sends one datagram.
func (s *Service) say(text string) error {
	if s.notify == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.notify, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	_, err = c.Write([]byte(text))
	if err := errors.Join(err, c.Close()); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

// Watch feeds the watchdog until ctx ends, as long as everything makes progress: progress returns counts, by the name of what counts, and
// each must have grown since the watchdog was fed last. One that stands still is logged, and when it does so for the watchdog's time,
// systemd kills and restarts the process.
func (s *Service) Watch(ctx context.Context, log *slog.Logger, progress func() map[string][]uint64) {
	if s.watchdog == 0 {
		return
	}
	ticker := time.NewTicker(s.watchdog / 3)
	defer ticker.Stop()
	fed := progress()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := progress()
		if standing := still(fed, now); standing != "" {
			log.Error("no progress; the watchdog is not fed", "standing", standing)
			continue
		}
		fed = now
		if err := s.say("WATCHDOG=1"); err != nil {
			log.Error("feed the watchdog", "error", err)
		}
	}
}

// Feed feeds the watchdog until ctx ends, for a process that has nothing left to make progress with while its successor recovers the data.
func (s *Service) Feed(ctx context.Context, log *slog.Logger) {
	if s.watchdog == 0 {
		return
	}
	ticker := time.NewTicker(s.watchdog / 3)
	defer ticker.Stop()
	for {
		if err := s.say("WATCHDOG=1"); err != nil {
			log.Error("feed the watchdog", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// still names what has not moved on.
func still(before, now map[string][]uint64) string {
	var standing []string
	for name, counts := range now {
		for i, n := range counts {
			if n == before[name][i] {
				standing = append(standing, fmt.Sprintf("%s %d", name, i))
			}
		}
	}
	slices.Sort(standing)
	return strings.Join(standing, ", ")
}
