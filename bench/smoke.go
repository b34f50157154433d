package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tote/server/proto"
	"tote/server/proto/control"
)

// SmokeConfig is a run against a server of its own. The zero value of a field is its default.
type SmokeConfig struct {
	Binary string   // of the server
	Args   []string // more flags for `serve`
	Dir    string   // where the data directory is made and removed; empty: the system's temporary directory

	// Through are addresses of this host for players to connect to, and from: each to each, in turn. Nil: loopback, where each player has an
	// address of its own.
	Through []netip.Addr

	Users       int           // 10,000
	ConnectRate float64       // see Plan
	StakeRate   float64       // 700 per second, of all
	Duration    time.Duration // 5 min
	Interval    time.Duration // of the odds' batches, 3 s
	Pools       int           // open at any time, 3
	// Turnover is how often the oldest pool is locked and settled and a new one opened. 0: never.
	Turnover time.Duration
	Credits  proto.Amount // of each guest, 1,000,000 units
	Seed     uint64
	Workers  int // see Plan

	Log      *slog.Logger
	Progress io.Writer // see Plan

	patience patience
}

func (c SmokeConfig) withDefaults() SmokeConfig {
	if c.Users == 0 {
		c.Users = 10_000
	}
	if c.StakeRate == 0 {
		c.StakeRate = 700
	}
	if c.Duration == 0 {
		c.Duration = 5 * time.Minute
	}
	if c.Interval == 0 {
		c.Interval = 3 * time.Second
	}
	if c.Pools == 0 {
		c.Pools = 3
	}
	if c.Credits == 0 {
		c.Credits = 1_000_000
	}
	return c
}

// Smoke starts a server, opens one game with a few pools and lets the players in. The report is nil where there was
// no run. The error is also non-nil when the report has failed, or has less in it than the configuration
// promises, or the server did not stop in order.
func Smoke(ctx context.Context, c SmokeConfig) (*Report, error) {
	c = c.withDefaults()
	if err := checkDescriptors(c.Users); err != nil { // before a server is started in vain
		return nil, err
	}
	data, err := os.MkdirTemp(c.Dir, "tote-smoke-")
	if err != nil {
		return nil, fmt.Errorf("make a data directory: %w", err)
	}
	defer os.RemoveAll(data)
	if err := checkSources(c.Through); err != nil {
		return nil, err
	}
	server, err := startServer(ctx, c.Binary, []string{"serve"}, slices.Concat(doorsFor(c.Through, c.Users), c.Args), data, c.Credits, c.Users)
	if err != nil {
		return nil, err
	}
	report, err := c.play(ctx, server)
	if report == nil || report.Ending == nil {
		return report, errors.Join(err, server.stop())
	}
	report.note(auditStop, report.Ending.wrong(report.Connections.Recalled))
	return report, errors.Join(err, report.Failed(), c.enough(report))
}

func (c *SmokeConfig) play(ctx context.Context, server *child) (*Report, error) {
	desk := &control.Client{Base: server.addresses.Admin}
	game, err := desk.OpenGame(ctx, proto.GameOpening{
		Name: "Smoke", Teams: [2]string{"Home", "Away"}, Interval: proto.Time(c.Interval.Microseconds()),
	})
	if err != nil {
		return nil, fmt.Errorf("open a game: %w", err)
	}
	if _, err := desk.PostEvent(ctx, game.Game, proto.Event{Kind: "kickoff"}); err != nil {
		return nil, fmt.Errorf("kick off: %w", err)
	}
	croupier := &croupier{desk: desk, game: game.Game, every: c.Turnover}
	for range c.Pools {
		if err := croupier.open(ctx); err != nil {
			return nil, err
		}
	}
	plan := Plan{
		Target: "ws://" + server.addresses.Listen + "/ws", Through: c.Through, Sources: c.Through, Users: c.Users, ConnectRate: c.ConnectRate, Duration: c.Duration,
		StakeRate: c.StakeRate, Game: game.Game, Alone: true, Seed: c.Seed, Workers: c.Workers,
		Server: []int{server.command.Process.Pid}, Log: c.Log, Progress: c.Progress,
		patience: c.patience,
	}
	if c.Users <= auditAll { // of more it would take longer than all the rest, in a guest
		plan.Ending = server.stop
	}
	if c.Turnover > 0 {
		plan.During = croupier.turn
	}
	return Run(ctx, plan)
}

// enough holds the run against what it was to show: one in which nothing happens breaks no promise either.
func (c *SmokeConfig) enough(r *Report) error {
	if r.Stopped {
		return errors.New("the run was stopped before its time")
	}
	var wrong []error
	if answered := r.Stakes.answered(); float64(answered) < 0.95*float64(r.Stakes.Planned) || r.Stakes.Receipts == 0 {
		wrong = append(wrong, fmt.Errorf("%d stakes were answered, %d were planned", answered, r.Stakes.Planned))
	}
	// Each pool changes in each interval while there are many more stakes than that. Half of the batches leave room for
	// chance and for the interval that the end cuts.
	batches := float64(c.Pools) * r.Conditions.Played / c.Interval.Seconds()
	if busy := c.StakeRate*c.Interval.Seconds() > 10*float64(c.Pools); busy && float64(r.Delivered.Broadcasts) < batches/2 {
		wrong = append(wrong, fmt.Errorf("%d broadcasts came, about %.0f were due", r.Delivered.Broadcasts, batches))
	}
	return errors.Join(wrong...)
}

// doorsFor are flags of a server for players who come through these addresses, so many from each: on all of the host's, and without limits by address.
func doorsFor(through []netip.Addr, users int) []string {
	if through == nil {
		return nil
	}
	return []string{"--listen", ":0", "--per-address", fmt.Sprint(users), "--address-handshakes", fmt.Sprint(users)}
}

// child is a server that was started for a run.
type child struct {
	command   *exec.Cmd
	exited    chan struct{} // closed after err is set
	err       error
	log       *lastLines
	patience  time.Duration // with its end
	addresses struct{ Listen, Admin string }
}

// Patience with a server that starts or stops.
const (
	startPatience = 30 * time.Second
	stopPatience  = 20 * time.Second
	stopEach      = 2 * time.Millisecond // for each player whom it may have to part from, in the slowest of guests
)

// startServer runs `serve`, or another command like it, and waits until it has written where it listens. What flags say counts last.
func startServer(ctx context.Context, binary string, serve, flags []string, data string, credits proto.Amount, users int) (*child, error) {
	args := slices.Concat(serve, []string{"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data, "--guest-credits", fmt.Sprint(credits)}, flags)
	s := &child{command: exec.Command(binary, args...), exited: make(chan struct{}), log: &lastLines{},
		patience: stopPatience + time.Duration(users)*stopEach}
	s.command.Stdout, s.command.Stderr = s.log, s.log
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	go func() { // ends with the server
		s.err = s.command.Wait()
		close(s.exited)
	}()
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-s.exited:
			return nil, fmt.Errorf("the server did not start: %v\n%s", s.err, s.log)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), s.stop())
		case <-patience.C:
			return nil, errors.Join(fmt.Errorf("the server wrote no addresses within %s\n%s", startPatience, s.log), s.stop())
		case <-look.C:
			text, err := os.ReadFile(filepath.Join(data, "addresses.json"))
			if err == nil && json.Unmarshal(text, &s.addresses) == nil && s.addresses.Listen != "" {
				return s, nil
			}
		}
	}
}

// last is the process that serves: the one that was started, or one that has taken over from it. That one holds our end of its log, so exited is
// closed when it has ended too.
func (s *child) last() *os.Process {
	ctx, end := context.WithTimeout(context.Background(), time.Second)
	defer end()
	now, err := (&control.Client{Base: "http://" + s.addresses.Admin}).Process(ctx)
	if err != nil || now.PID == s.command.Process.Pid {
		return s.command.Process
	}
	if heir, err := os.FindProcess(now.PID); err == nil {
		return heir
	}
	return s.command.Process
}

// stop asks the server to end, and makes it if it does not. A server that has ended before, or ends with a failure,
// is an error with its last words.
func (s *child) stop() error {
	select {
	case <-s.exited:
		return fmt.Errorf("the server ended by itself: %v\n%s", s.err, s.log)
	default:
	}
	s.last().Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
		if s.err != nil {
			return fmt.Errorf("the server stopped with a failure: %w\n%s", s.err, s.log)
		}
		return nil
	case <-time.After(s.patience):
		s.last().Kill()
		<-s.exited
		return fmt.Errorf("the server did not stop within %s and was killed\n%s", s.patience, s.log)
	}
}

// lastLines keeps the end of a log. The process's pipe writes while others read, hence the mutex.
type lastLines struct {
	mu   sync.Mutex
	text []byte
}

const lastLinesMax = 4 << 10

func (l *lastLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	if over := len(l.text) - lastLinesMax; over > 0 {
		l.text = append(l.text[:0], l.text[over:]...)
	}
	return len(b), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.text
	if len(text) == lastLinesMax { // the first line is cut
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return strings.TrimSpace(string(text))
}
