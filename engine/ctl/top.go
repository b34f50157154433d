package ctl

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"tote/server/proto"
	"tote/server/proto/control"
)

// Top is `server top`: what a running server does, seen anew every second. It asks the admin listener as a Prometheus would, and shows
// what has changed since it asked before.
type Top struct {
	Admin      string        `default:"http://127.0.0.1:8081" help:"URL of the admin listener."`
	AdminToken string        `help:"Bearer token of the admin listener, if it wants one."`
	Every      time.Duration `default:"1s" help:"How often to look."`
	Times      int           `help:"Look so often and end; 0: until stopped."`
}

// look is what the server showed at one time.
type look struct {
	at        time.Time
	metrics   map[string]float64 // by name and labels, as they stand in the text
	games     map[proto.GameID]control.Active
	consumers []control.Consumer
}

// Escape sequences of terminals (ECMA-48, and xterm's alternate screen).
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l"
	screenClose = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineEnd     = "\x1b[K\r\n"
	screenEnd   = "\x1b[J"
)

// Run shows looks until the context ends. Where the output is no terminal, they come one below the other.
func (c *Top) Run(s *Session) error {
	if c.Every <= 0 {
		return fmt.Errorf("look every %v: name a time above 0", c.Every)
	}
	client := (&Command{Admin: c.Admin, AdminToken: c.AdminToken}).Session(s.Context, s.Log).Client
	_, _, terminal := sizeOf(s.Out)
	if terminal {
		io.WriteString(s.Out, screenOpen)
		defer io.WriteString(s.Out, screenClose)
	}
	first, err := lookAt(s.Context, client)
	if err != nil {
		return err
	}
	looks := []*look{first} // the last of gamesOver
	ticker := time.NewTicker(c.Every)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-s.Context.Done():
			return nil
		case <-ticker.C:
		}
		now, err := lookAt(s.Context, client)
		if s.Context.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for len(looks) > 1 && now.at.Sub(looks[1].at) >= gamesOver {
			looks = looks[1:]
		}
		lines := compare(looks[len(looks)-1], now).lines(c.Admin, compare(looks[0], now).hottest())
		looks = append(looks, now)
		if terminal {
			columns, rows, _ := sizeOf(s.Out)
			err = paint(s.Out, lines, columns, rows)
		} else {
			_, err = io.WriteString(s.Out, strings.Join(lines, "\n")+"\n\n")
		}
		if err != nil || n == c.Times {
			return err
		}
	}
}

// sizeOf tells the size of a terminal, and whether it is one.
func sizeOf(out io.Writer) (columns, rows int, terminal bool) {
	file, ok := out.(*os.File)
	if !ok {
		return 0, 0, false
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	if size.Col == 0 || size.Row == 0 {
		return 80, 24, true // a terminal that does not say
	}
	return int(size.Col), int(size.Row), true
}

// paint writes over what the screen shows, so that nothing flickers.
func paint(out io.Writer, lines []string, columns, rows int) error {
	var screen strings.Builder
	screen.WriteString(screenHome)
	for i, line := range lines[:min(len(lines), rows-1)] {
		if runes := []rune(line); len(runes) > columns {
			line = string(runes[:columns])
		}
		if i == 0 {
			line = "\x1b[1m" + line + "\x1b[0m"
		}
		screen.WriteString(line + lineEnd)
	}
	screen.WriteString(screenEnd)
	_, err := io.WriteString(out, screen.String())
	return err
}

func lookAt(ctx context.Context, client *control.Client) (*look, error) {
	text, err := client.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	activity, err := client.Activity(ctx)
	if err != nil {
		return nil, err
	}
	consumers, err := client.Consumers(ctx)
	if err != nil {
		return nil, err
	}
	l := &look{at: time.Now(), metrics: map[string]float64{}, games: map[proto.GameID]control.Active{}, consumers: consumers.Consumers}
	for _, g := range activity.Games {
		l.games[g.Game] = g
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if at := strings.LastIndexByte(line, ' '); at > 0 && line[0] != '#' {
			if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
				l.metrics[line[:at]] = v
			}
		}
	}
	return l, nil
}

// comparison is a look, and what has changed since the one before.
type comparison struct {
	*look
	before  *look
	seconds float64
}

func compare(before, now *look) comparison {
	return comparison{now, before, max(now.at.Sub(before.at).Seconds(), 1e-3)}
}

// sum adds up a metric over its labels.
func (l *look) sum(name string) (sum float64) {
	for full, v := range l.metrics {
		if full == name || strings.HasPrefix(full, name+"{") {
			sum += v
		}
	}
	return sum
}

// rate is the growth per second, over all labels. A server that has started anew has no rate yet.
func (c comparison) rate(name string) float64 {
	return max(0, c.sum(name)-c.before.sum(name)) / c.seconds
}

// quantile is how long the q-th part of what was counted since the look before took at most, in seconds: the upper bound of its bucket. NaN
// where nothing was counted.
func (c comparison) quantile(name string, q float64) float64 {
	type bucket struct{ bound, n float64 }
	var buckets []bucket
	for full, v := range c.metrics {
		if bound, ok := strings.CutPrefix(full, name+`_bucket{le="`); ok {
			if le, err := strconv.ParseFloat(strings.TrimSuffix(bound, `"}`), 64); err == nil {
				buckets = append(buckets, bucket{le, v - c.before.metrics[full]})
			}
		}
	}
	slices.SortFunc(buckets, func(a, b bucket) int { return cmp.Compare(a.bound, b.bound) })
	if len(buckets) == 0 || buckets[len(buckets)-1].n <= 0 {
		return math.NaN()
	}
	all := buckets[len(buckets)-1].n
	for _, b := range buckets {
		if b.n >= q*all {
			return b.bound
		}
	}
	return math.Inf(1)
}

// stages are the histograms that are shown, in the order of a stake.
var stages = []struct{ name, title string }{
	{"server_stake_decide_seconds", "arrival to decision"},
	{"server_batch_release_seconds", "batch to durable"},
	{"server_stake_answer_seconds", "arrival to receipt"},
	{"server_loop_turn_seconds", "turns of loops"},
	{"server_shard_turn_seconds", "turns of shards"},
	{"server_journal_commit_seconds", "transactions"},
	{"server_broadcast_spread_seconds", "broadcast, first to last"},
}

const (
	gamesShown = 8

	// gamesOver is the time over which games are compared: odds come in bursts, one per interval.
	gamesOver = 10 * time.Second
)

// heat is what a game costs the server: its part of all stakes and of all bytes of broadcasts.
type heat struct {
	control.Active
	stakes, bytes float64 // per second
	part          float64 // of both
}

// hottest are the games that have cost the most since the look before; those that nothing has happened in stand by who is there.
func (c comparison) hottest() (games []heat) {
	var stakes, bytes float64
	for id, g := range c.games {
		before := c.before.games[id]
		if before.Stakes > g.Stakes || before.SentBytes > g.SentBytes {
			before = control.Active{} // the server has started anew
		}
		h := heat{Active: g, stakes: float64(g.Stakes-before.Stakes) / c.seconds, bytes: float64(g.SentBytes-before.SentBytes) / c.seconds}
		games, stakes, bytes = append(games, h), stakes+h.stakes, bytes+h.bytes
	}
	for i := range games {
		games[i].part = games[i].stakes/max(stakes, 1e-9) + games[i].bytes/max(bytes, 1e-9)
	}
	slices.SortFunc(games, func(a, b heat) int {
		return cmp.Or(cmp.Compare(b.part, a.part), cmp.Compare(b.Present, a.Present), cmp.Compare(a.Game, b.Game))
	})
	return games[:min(len(games), gamesShown)]
}

// lines is the screen.
func (c comparison) lines(server string, games []heat) []string {
	value := func(name string) float64 { return c.sum(name) }
	sockets := func(state string) string { return short(value(`server_kernel_tcp_sockets{state="` + state + `"}`)) }
	kernel := func(counter string) string {
		return short(c.rate(`server_kernel_tcp_total{counter="` + counter + `"}`))
	}
	lines := []string{
		fmt.Sprintf("%s  %s  the last %.1f s", server, c.at.Format(time.TimeOnly), c.seconds),
		"",
		fmt.Sprintf("connections %9s   new/s %7s   aborted/s %7s   behind %6s   refused/s %6s", short(value("server_connections")), short(c.rate("server_handshakes_total")),
			short(c.rate("server_aborted_total")), short(value("server_behind")), short(c.rate("server_accepts_refused_total"))),
		fmt.Sprintf("requests/s  %9s   stakes/s %4s   refusals/s %6s   conflated/s %s", short(c.rate("server_requests_total")),
			short(c.rate("server_stake_answer_seconds_count")), short(c.rate("server_refusals_total")), short(c.rate("server_conflated_total"))),
		fmt.Sprintf("frames/s in %9s   out %9s   bytes/s in %6s   out %9s   cores %.2f", short(c.rate("server_received_frames_total")), short(c.rate("server_sent_frames_total")),
			short(c.rate("server_received_bytes_total")), short(c.rate("server_sent_bytes_total")), c.rate("process_cpu_seconds_total")),
		fmt.Sprintf("records/s   %9s   waiting: disk %s, follower %s, shards %s   memory %s   disk free %s", short(c.rate("server_journal_appended")),
			short(value("server_journal_appended")-value("server_journal_durable")), short(value("server_journal_durable")-value("server_journal_followed")),
			short(value("server_inbox_depth")), short(value("process_resident_memory_bytes")), short(value("server_disk_free_bytes"))),
		fmt.Sprintf("sockets     %9s   half-open %s   time-wait %s   orphaned %s   closed %s   memory %s", sockets("established"), sockets("syn_received"),
			sockets("time_wait"), sockets("orphaned"), sockets("closed"), short(value("server_kernel_tcp_memory_bytes"))),
		fmt.Sprintf("opened/s    %9s   failed %s   segments %s   retransmits %s   timeouts %s", kernel("PassiveOpens"), kernel("AttemptFails"), kernel("OutSegs"),
			kernel("RetransSegs"), kernel("TCPTimeouts")),
		fmt.Sprintf("dropped/s   %9s   overflows %s   cookies %s/%s/%s   aborted on memory %s   backlog %s", kernel("ListenDrops"), kernel("ListenOverflows"),
			kernel("SyncookiesSent"), kernel("SyncookiesRecv"), kernel("SyncookiesFailed"), kernel("TCPAbortOnMemory"), short(c.rate("server_kernel_backlog_dropped_total"))),
		"",
		fmt.Sprintf("%-26s %9s %9s %9s %9s", "at most", "p50", "p90", "p99", "per s"),
	}
	for _, s := range stages {
		lines = append(lines, fmt.Sprintf("%-26s %9s %9s %9s %9s", s.title, span(c.quantile(s.name, .5)), span(c.quantile(s.name, .9)),
			span(c.quantile(s.name, .99)), short(c.rate(s.name+"_count"))))
	}
	lines = append(lines, "", fmt.Sprintf("%-8s %9s %9s %9s %9s  %s", "game", "stakes/s", "bytes/s", "present", "odds", "hottest games"))
	for _, g := range games {
		lines = append(lines, fmt.Sprintf("%-8d %9s %9s %9d %9s  %s", g.Game, short(g.stakes), short(g.bytes), g.Present, span(float64(g.Interval)/1e6), printable(g.Name)))
	}
	lines = append(lines, "", fmt.Sprintf("%-8s %9s  %s", "account", "unread", "slowest readers"))
	for _, s := range c.consumers {
		lines = append(lines, fmt.Sprintf("%-8d %9s  %s %s", s.Account, short(float64(s.Backlog)), s.Address, printable(s.Name)))
	}
	return lines
}

// printable keeps names, which players choose, from moving the cursor.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, name)
}

// short is a number in at most six letters.
func short(v float64) string {
	unit := ""
	for _, next := range []string{"k", "M", "G", "T"} {
		if math.Abs(v) < 10_000 {
			break
		}
		v, unit = v/1000, next
	}
	if v != math.Trunc(v) && math.Abs(v) < 100 {
		return strconv.FormatFloat(v, 'f', 1, 64) + unit
	}
	return strconv.FormatFloat(v, 'f', 0, 64) + unit
}

// span is a time in its own unit.
func span(seconds float64) string {
	switch {
	case math.IsNaN(seconds):
		return "-"
	case math.IsInf(seconds, 1):
		return "long"
	case seconds < 1e-3:
		return strconv.FormatFloat(seconds*1e6, 'f', 0, 64) + " µs"
	case seconds < 1:
		return strconv.FormatFloat(seconds*1e3, 'f', 1, 64) + " ms"
	}
	return strconv.FormatFloat(seconds, 'f', 1, 64) + " s"
}
