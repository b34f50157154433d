package ctl

import (
	"math"
	"strings"
	"testing"
	"time"

	"tote/server/proto"
	"tote/server/proto/control"
)

// Rates and quantiles are of what came since the look before.
func TestComparison(t *testing.T) {
	at := time.Unix(1700000000, 0)
	before := &look{at: at, games: map[proto.GameID]control.Active{2: {Game: 2, Stakes: 300, SentBytes: 1000}, 3: {Game: 3, SentBytes: 5000}, 4: {Game: 4, Stakes: 1 << 40, SentBytes: 1 << 40}},
		metrics: map[string]float64{
			`server_refusals_total{code="busy"}`: 5, "server_stake_decide_seconds_bucket{le=\"0.25\"}": 1000, "server_stake_decide_seconds_bucket{le=\"0.5\"}": 1000,
			"server_stake_decide_seconds_bucket{le=\"+Inf\"}": 1000, "server_requests_total": 900}}
	now := &look{at: at.Add(2 * time.Second), metrics: map[string]float64{
		`server_refusals_total{code="busy"}`: 9, `server_refusals_total{code="pool_locked"}`: 2,
		"server_stake_decide_seconds_bucket{le=\"0.25\"}": 1090, "server_stake_decide_seconds_bucket{le=\"0.5\"}": 1099,
		"server_stake_decide_seconds_bucket{le=\"+Inf\"}": 1100, "server_requests_total": 10},
		games: map[proto.GameID]control.Active{
			1: {Game: 1, Name: "crowded", Present: 700, Interval: 3 * proto.Second},
			2: {Game: 2, Name: "hot\x1b[2J", Present: 3, Stakes: 1300, SentBytes: 5000},
			3: {Game: 3, Name: "told", Present: 400, Stakes: 10, SentBytes: 50_000},
			4: {Game: 4, Name: "was busy once", Present: 4, Stakes: 1 << 40, SentBytes: 1 << 40}},
		consumers: []control.Consumer{{Account: 9, Name: "Slow", Address: "10.0.0.1", Backlog: 123456}}}
	c := compare(before, now)
	if r := c.rate("server_refusals_total"); r != 3 {
		t.Errorf("%v refusals a second, want 3", r)
	}
	if r := c.rate("server_requests_total"); r != 0 {
		t.Errorf("a server that started anew has a rate of %v", r)
	}
	for q, want := range map[float64]float64{.5: .25, .9: .25, .95: .5, .99: .5, 1: math.Inf(1)} {
		if got := c.quantile("server_stake_decide_seconds", q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := c.quantile("server_loop_turn_seconds", .5); !math.IsNaN(got) {
		t.Errorf("the quantile of nothing is %v", got)
	}
	screen := strings.Join(c.lines("here", c.hottest()), "\n")
	from := 0
	for _, want := range []string{"2              500      2000         3", "hot·[2J", "3                5     22.5k       400", "told", "crowded", "was busy once"} {
		i := strings.Index(screen[from:], want)
		if i < 0 {
			t.Fatalf("%q is not in its place, or a name moves the cursor:\n%s", want, screen)
		}
		from += i
	}
	if !strings.Contains(screen, "9             123k  10.0.0.1 Slow") {
		t.Errorf("no slow reader in\n%s", screen)
	}
}
