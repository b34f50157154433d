package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/bench/limit"
	"tote/server/proto"
	"tote/server/proto/control"
)

// Stage is where a scenario is played: on a server that runs, or on one of its own.
type Stage struct {
	Target string // ws://host:port/ws, or wss://; empty: a server is started, and stopped and audited afterwards
	Trust  Trust  // see Plan
	Admin  string // http://host:port of its operators, to open the scenario's games; empty: players join what there is
	Token  string // for operators
	Alone  bool   // nobody else plays in the games that the scenario opens there; on an own server nobody does

	Binary string   // of the server to start
	Rival  *Rival   // which of the servers that it has, to be compared with others; nil: ours
	Serve  []string // more flags for it
	Dir    string   // where its data directory is made and removed; empty: the system's temporary directory

	Cores    int          // that the server may use; 0: all
	Server   []int        // its processes, to measure; nil: found by its port where it is on this host
	Through  []netip.Addr // see Plan
	Sources  []netip.Addr // see Plan
	Workers  int          // see Plan
	Agents   []string     // see Plan
	Secret   string       // see Plan
	NoLimits bool         // the machine's limits are not measured
	Cost     float64      // of the server's host, per hour; 0: unknown
	Log      *slog.Logger
	Progress io.Writer
	Live     bool

	data     string // of an own server
	patience patience
}

// limitSockets is how many sockets the limits are measured with at most: with more, the time goes into opening them.
const limitSockets = 2000

// stageCredits are what each guest of an own server gets, where the scenario says nothing: enough for any run.
const stageCredits = proto.Amount(1_000_000)

// Run plays the scenario. The report is nil where there was no run; why a run was not good is for Report.Failed to say.
func (s *Scenario) Run(ctx context.Context, on Stage) (report *Report, err error) {
	if on.Agents != nil && on.Target == "" {
		return nil, errors.New("agents play on a server that they can reach: name it (--target ws://HOST:PORT, and --admin)")
	}
	if on.Target != "" {
		if t, err := resolve(ctx, on.Target, on.Through, on.Trust); on.Server == nil && err == nil && t.here() {
			on.Server = listenerPID(on.Target)
		}
		return s.play(ctx, &on)
	}
	if err := checkDescriptors(s.Users); err != nil { // before a server is started in vain
		return nil, err
	}
	data, err := os.MkdirTemp(on.Dir, "tote-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a data directory: %w", err)
	}
	defer os.RemoveAll(data)
	credits := s.Players.Credits
	if credits == 0 {
		credits = stageCredits
	}
	rival, flags := on.Rival, on.Serve
	if rival == nil {
		rival = &Rivals[0]
	}
	if rival == &Rivals[0] { // a scenario's flags are our server's
		flags = slices.Concat(doorsFor(on.Through, s.Users), s.Serve, on.Serve)
	}
	free := func() {}
	if on.Cores > 0 {
		if free, err = confine(on.Cores); err != nil {
			return nil, err
		}
	}
	server, err := rival.start(ctx, on.Binary, data, credits, flags, s.Users)
	free()
	if err != nil {
		return nil, err
	}
	on.Target, on.Admin, on.Server = server.target, server.admin, server.pids
	on.data = data
	report, err = s.play(ctx, &on)
	if report == nil {
		return nil, errors.Join(err, server.stop())
	}
	audit := func() {
		if rival.Audit != nil {
			report.note(auditJournal, rival.audit(on.Binary, data))
		}
	}
	if rival.Up != nil { // a database is asked while it answers
		audit()
	}
	report.note(auditStop, server.stop())
	if rival.Up == nil {
		audit()
	}
	return report, err
}

// The audits of what the server has kept, beside the players' own.
const (
	auditMoney   = "accounts + pools + house = deposits − withdrawals"
	auditStop    = "the server is there to the end, and stops in order"
	auditJournal = "what it has left has every checksum, sum and stake"
)

// note adds an audit's result to the checks.
func (r *Report) note(promise string, err error) {
	c := Check{Promise: promise, Passed: 1}
	if err != nil {
		c.Passed, c.Failed, c.Example = 0, 1, err.Error()
	}
	r.Checks = append(r.Checks, c)
}

func (s *Scenario) play(ctx context.Context, on *Stage) (*Report, error) {
	if err := on.look(ctx, s); err != nil {
		return nil, err
	}
	var games fixtures
	desk := &control.Client{Base: on.Admin, Token: on.Token}
	if on.Admin != "" {
		opened, err := openFixtures(ctx, desk, s)
		games = *opened
		if err != nil {
			return nil, errors.Join(err, games.close(ctx))
		}
	}
	plan, err := s.plan(games.venues)
	if err != nil {
		return nil, err
	}
	plan.Target, plan.Trust = on.Target, on.Trust
	plan.Through, plan.Sources, plan.Workers, plan.Server = on.Through, on.Sources, on.Workers, on.Server
	plan.Agents, plan.Secret = on.Agents, on.Secret
	plan.Alone = (on.Alone || on.Binary != "" || on.Agents != nil) && on.Admin != "" // a server that many hosts load is there for them alone
	plan.Log, plan.Progress, plan.Live, plan.patience = on.Log, on.Progress, on.Live, on.patience
	if on.Admin != "" && on.Rival == nil {
		plan.Desk = desk // who is compared must not pay for being asked how he is: one server says more than the other
	}
	var limits *limit.Limits
	if !on.NoLimits && (on.Agents == nil || on.Server != nil) { // of a machine that has a part in the run
		if limits, err = limit.Measure(ctx, limit.Config{Sockets: min(s.Users, limitSockets), Dir: on.data}); err != nil {
			return nil, errors.Join(fmt.Errorf("measure the limits: %w", err), games.close(ctx))
		}
	}
	if len(games.croupiers) > 0 {
		plan.During = games.turn
	}
	if len(s.Upgrades) > 0 {
		if on.Admin == "" {
			return nil, errors.New("the scenario has another process take over: name the operators' listener of the server that shall (--admin http://127.0.0.1:8081)")
		}
		plan.During = beside(plan.During, func(ctx context.Context) error { return s.upgrades(ctx, desk) })
	}
	report, err := Run(ctx, plan)
	if report == nil {
		after, end := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer end()
		return nil, errors.Join(err, games.close(after))
	}
	report.Limits = limits
	if failed := report.meter(on.Cost); failed != nil {
		report.Warnings = append(report.Warnings, "no meters: "+failed.Error())
	}
	report.Conditions.Scenario, report.Conditions.Variant, report.Conditions.About = s.Name, s.Variant, s.About
	for i := range report.Classes {
		report.Classes[i].Name = s.Games[i].Name
	}
	if on.Admin != "" {
		after, end := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer end()
		if !report.deserted {
			err = games.close(after)
		}
		if !report.deserted || desk.Health(after) == nil {
			report.note(auditMoney, auditMoneyOf(after, desk))
		}
	}
	return report, err
}

// look finds out before a run what would make it one of faults only: nobody there, no guests welcome, no game.
func (on *Stage) look(ctx context.Context, s *Scenario) error {
	t, err := resolve(ctx, on.Target, on.Through, on.Trust)
	if err != nil {
		return err
	}
	c, err := t.call(ctx, t.urls()[0])
	if err != nil {
		return err
	}
	defer c.Close()
	if on.Agents == nil { // who look at their own hosts
		if err := (&Plan{Users: s.Users, Through: on.Through, Sources: on.Sources}).checkPorts(t); err != nil {
			return err
		}
		if err := checkDescriptors(s.Users); err != nil {
			return err
		}
		if err := checkSources(on.Sources); err != nil {
			return err
		}
	}
	hello, err := c.Ask(proto.Request{Type: proto.RequestHello, Guest: "Bench"})
	if err != nil {
		return fmt.Errorf("say hello to %s: %w", on.Target, err)
	}
	if refused, ok := hello.(*proto.Refused); ok {
		return fmt.Errorf("%s welcomes no guests (%s): start it with --guest-credits %d", on.Target, refused.Reason.Reason(), stageCredits)
	}
	if on.Admin != "" {
		if err := (&control.Client{Base: on.Admin, Token: on.Token}).Health(ctx); err != nil {
			return fmt.Errorf("no operators' listener answers at %s: name the right --admin, as in the server's log (%w)", on.Admin, err)
		}
		return nil
	}
	games, err := c.Ask(proto.Request{Type: proto.RequestGames})
	if err != nil {
		return fmt.Errorf("ask %s for its games: %w", on.Target, err)
	}
	if m, ok := games.(*proto.Games); ok && !s.Players.Aloof {
		for _, g := range m.Games {
			if g.State != proto.GameEnded {
				return nil
			}
		}
		return fmt.Errorf("%s has no game to join: name its operators' listener (--admin http://127.0.0.1:8081) and the scenario opens its own", on.Target)
	}
	return nil
}

// auditMoneyOf reads where the money is from the server's metrics.
func auditMoneyOf(ctx context.Context, desk *control.Client) error {
	text, err := desk.Metrics(ctx)
	if err != nil {
		return fmt.Errorf("read the metrics: %w", err)
	}
	money := map[string]float64{}
	for name, value := range metrics(text) {
		if where, ok := strings.CutPrefix(name, `server_money_units{where="`); ok {
			money[strings.TrimSuffix(where, `"}`)] = value
		}
	}
	if len(money) == 0 {
		return errors.New("the metrics say nothing of money")
	}
	if has, due := money["accounts"]+money["pools"]+money["house"], money["deposits"]-money["withdrawals"]; has != due {
		return fmt.Errorf("%.0f units are there, %.0f are due: %v", has, due, money)
	}
	return nil
}

// metrics reads Prometheus' text: names with their labels, and values.
func metrics(text string) map[string]float64 {
	values := map[string]float64{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), "} ")
		if ok {
			name += "}"
		} else if name, value, ok = strings.Cut(lines.Text(), " "); !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if number, err := strconv.ParseFloat(value, 64); err == nil && !strings.HasPrefix(name, "#") {
			values[name] = number
		}
	}
	return values
}

// Again is the command that runs the scenario once more, with what was chosen for it, but for secrets.
func Again(arguments []string) string {
	var words []string
	for i, word := range arguments {
		if flag, _, ok := strings.Cut(word, "="); ok && slices.Contains(secretFlags, flag) {
			word = flag + "=…"
		} else if i > 0 && slices.Contains(secretFlags, arguments[i-1]) {
			word = "…"
		}
		if strings.ContainsAny(word, " \t'\"$*?") || word == "" {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// secretFlags are followed by what a report must not tell.
var secretFlags = []string{"--token", "--agent-token"}

// ReadAddresses reads addresses to connect from: single ones, ranges as in 10.0.0.10-10.0.0.250, and networks as in 10.0.1.0/24.
func ReadAddresses(text []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for _, part := range text {
		first, last, isRange := strings.Cut(part, "-")
		if network, err := netip.ParsePrefix(part); err == nil {
			for a := network.Masked().Addr(); network.Contains(a) && len(all) <= addressesMax; a = a.Next() {
				all = append(all, a)
			}
			continue
		}
		if !isRange {
			last = first
		}
		from, err := netip.ParseAddr(first)
		to, wrong := netip.ParseAddr(last)
		if err != nil || wrong != nil || to.Less(from) || from.Is4() != to.Is4() {
			return nil, fmt.Errorf("connect from %q: write an address, a range FIRST-LAST, or a network as in 10.0.1.0/24", part)
		}
		for a := from; !to.Less(a) && len(all) <= addressesMax; a = a.Next() {
			all = append(all, a)
		}
	}
	if len(all) > addressesMax {
		return nil, fmt.Errorf("connect from more than %d addresses: fewer are enough for any run", addressesMax)
	}
	return all, nil
}

// addressesMax is a whole /16: with 28,000 ports each, 1.8 billion connections.
const addressesMax = 1 << 16

// checkSources refuses addresses that are not this host's.
func checkSources(all []netip.Addr) error {
	for _, a := range all {
		family, at := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: a.As16()})
		if a.Is4() {
			family, at = unix.AF_INET, &unix.SockaddrInet4{Addr: a.As4()}
		}
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Bind(fd, at), unix.Close(fd))
		}
		if err != nil {
			return fmt.Errorf("connect from %s: %w: this host has no such address; add it (server tune vip), or name another --from", a, err)
		}
	}
	return nil
}

// listenerPID is the process of this host that listens on the target's port; nil: none that we may see.
func listenerPID(target string) []int {
	u, err := url.Parse(target)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return nil
	}
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(file)
		for line := range strings.Lines(string(text)) {
			// proc(5): the local address is field 2, the state field 4 (0A: listening), the inode field 10.
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	processes, _ := os.ReadDir("/proc")
	for _, process := range processes {
		pid, err := strconv.Atoi(process.Name())
		if err != nil {
			continue
		}
		descriptors, _ := os.ReadDir("/proc/" + process.Name() + "/fd")
		for _, d := range descriptors[:min(len(descriptors), 64)] { // listeners are opened before connections
			if to, _ := os.Readlink("/proc/" + process.Name() + "/fd/" + d.Name()); inodes[to] {
				return []int{pid}
			}
		}
	}
	return nil
}
