package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// brief is a run until the match, a second at the most on an idle host, is over.
func brief(target string) Plan {
	return Plan{
		Target: target, Users: 30, ConnectRate: 1000, StakeRate: 600, Settle: 10 * time.Millisecond,
		Alone: true, Workers: 2, Seed: 1,
		patience: patience{
			join: 20 * time.Second, quiet: 20 * time.Second, audit: 20 * time.Second, farewell: 5 * time.Second,
			lobby: 20 * time.Millisecond, tick: 10 * time.Millisecond, tail: 100 * time.Millisecond, desert: 5 * time.Second,
		},
	}
}

// kept fails the test unless every promise was checked and kept.
func kept(t *testing.T, report *Report) {
	t.Helper()
	var text bytes.Buffer
	report.WriteText(&text)
	if err := report.Failed(); err != nil {
		t.Errorf("%v\n%s", err, &text)
	}
	for _, c := range report.Checks {
		if c.Passed == 0 {
			t.Errorf("never checked: %s\n%s", c.Promise, &text)
		}
	}
}

func TestRunFindsNothingWrongWithAnHonestHouse(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	plan := brief(h.open(t))
	plan.During = h.match
	plan.Server = []int{ownPID} // the house is in this process
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	kept(t, report)
	for _, l := range []struct {
		name  string
		times Times
	}{
		{"handshake", report.Latency.Handshake}, {"receipt", report.Latency.Receipt}, {"odds", report.Latency.Odds}, {"lifecycle", report.Latency.Lifecycle},
		{"spread", report.Latency.Spread}, {"send lag", report.Latency.SendLag}, {"receive lag", report.Latency.ReceiveLag},
	} {
		if l.times.Count == 0 || l.times.Max <= 0 || l.times.Max < l.times.P50 {
			t.Errorf("%s: %+v", l.name, l.times)
		}
	}
	if s := report.Stakes; s.Payouts == 0 || s.Refunds == 0 || report.Delivered.Heartbeats == 0 || s.Planned == 0 || s.Sent != s.Receipts+s.Late {
		t.Errorf("stakes: %+v", s)
	}
	if report.Server == nil || report.Server.RSSBefore == 0 || report.Generator.CPU == 0 {
		t.Errorf("uses: %+v, %+v", report.Server, report.Generator)
	}
	if _, err := json.Marshal(report); err != nil {
		t.Error(err)
	}
}

// Whatever the house does wrong once, among hundreds of stakes, the run finds.
func TestRunFindsWhatIsPlanted(t *testing.T) {
	for _, row := range []struct {
		plant plant
		finds string // in the error
	}{
		{loseReceipt, promises[checkReply]},
		{repeatReply, promises[checkReply]},
		{replyOfOtherType, promises[checkReply]},
		{skipBroadcast, promises[checkSeq]},
		{beatAhead, promises[checkSeq]},
		{skipTail, promises[checkTail]},
		{differentOdds, promises[checkSame]},
		{skipPrivate, promises[checkPrivate]},
		{otherAmount, promises[checkEcho]},
		{unitShort, promises[checkBalance]},
		{payoutForNobody, promises[checkPayout]},
		{losePayout, promises[checkTickets]},
		{accountOff, promises[checkAccount]},
		{forgetPrediction, promises[checkTickets]},
		{doublePrediction, promises[checkTickets]},
		{inventPrediction, promises[checkTickets]},
		{oddsOff, promises[checkOdds]},
		{busy, "stake refused: busy"},
		{garbage, "bad message"},
		{maskedFrame, errMasked.Error()},
		{closeOne, "closed by the server: 1013 server is full"},
		{cutOne, "connection"},
		{cutAll, "all connections were lost"},
	} {
		t.Run(string(row.plant)+", "+row.finds, func(t *testing.T) {
			t.Parallel()
			h := &house{plant: row.plant}
			plan := brief(h.open(t))
			plan.During = h.match
			switch row.plant {
			case oddsOff: // its pool must stay
				plan.During = func(ctx context.Context) error { return h.stakesCome(ctx, 4*plantFrom) }
			case loseReceipt, replyOfOtherType: // for which the run waits as long as it may
				plan.patience.quiet = 300 * time.Millisecond
			}
			report, err := Run(t.Context(), plan)
			if err != nil {
				t.Fatal(err)
			}
			if err := report.Failed(); err == nil || !strings.Contains(err.Error(), row.finds) {
				t.Errorf("want %q, got %v", row.finds, err)
			}
		})
	}
}

// A stall is charged for every stake that was planned while it lasted: of 30 players who wait for
// their receipts, only 30 stakes would tell of it.
func TestLatencyCountsFromThePlannedTime(t *testing.T) {
	t.Parallel()
	h := &house{plant: stall}
	plan := brief(h.open(t))
	plan.During = func(ctx context.Context) error { return h.stakesCome(ctx, 300) }
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Failed(); err != nil {
		t.Error(err)
	}
	third := (stallTime / 3).Microseconds()
	if got := report.Latency.Receipt; got.Count < 100 || got.P66 < third {
		t.Errorf("of %d stakes a third waited for %d µs or more, want %d", got.Count, got.P66, third)
	}
}

func TestConflationIsCountedAndNoFault(t *testing.T) {
	t.Parallel()
	h := &house{plant: conflate}
	plan := brief(h.open(t))
	plan.During = func(ctx context.Context) error { return h.stakesCome(ctx, 300) }
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Failed(); err != nil || report.Delivered.Conflated != 2 {
		t.Errorf("%d conflated, %v", report.Delivered.Conflated, err)
	}
}

// However the house sends, the players hear the same.
func TestPlayersReadWhatComesInAnyShape(t *testing.T) {
	t.Parallel()
	for _, p := range []plant{dribble, fragment, large, flood} {
		t.Run(string(p), func(t *testing.T) {
			t.Parallel()
			h := &house{plant: p}
			plan := brief(h.open(t))
			plan.During = h.match
			report, err := Run(t.Context(), plan)
			if err != nil {
				t.Fatal(err)
			}
			if err := report.Failed(); err != nil {
				t.Error(err)
			}
			if pings := report.Delivered.Pings; p == fragment && pings == 0 || p == flood && pings != floodPings {
				t.Errorf("%d pings", pings)
			}
		})
	}
}

// Thinking players wait for a game, stake at their own pace, and go back to the list when the game is over.
func TestPlayersThinkAndChangeGames(t *testing.T) {
	t.Parallel()
	for _, p := range []plant{noGame, endGame} {
		h := &house{plant: p}
		plan := brief(h.open(t))
		plan.StakeRate, plan.Think = 0, [2]time.Duration{time.Millisecond, 20 * time.Millisecond}
		plan.During = h.match
		if p == endGame {
			plan.During = func(ctx context.Context) error {
				if err := h.stakesCome(ctx, plantFrom); err != nil {
					return err
				}
				h.goal()
				return h.await(ctx, func() bool { return h.left == plan.Users })
			}
		}
		report, err := Run(t.Context(), plan)
		if err != nil {
			t.Fatal(err)
		}
		if err := report.Failed(); err != nil || report.Stakes.Receipts < plantFrom {
			t.Errorf("%s: %d receipts, %v", p, report.Stakes.Receipts, err)
		}
	}
}

// The demo's players come back, find their receipts, and go on.
func TestPlayersComeBack(t *testing.T) {
	t.Parallel()
	h := &house{plant: cutAll}
	plan := brief(h.open(t))
	plan.Reconnect = true
	ctx, end := context.WithCancel(t.Context())
	plan.During = func(ctx context.Context) error {
		defer end() // as the demo ends
		return h.stakesCome(ctx, 40*plantFrom)
	}
	report, err := Run(ctx, plan)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Stopped || report.Connections.Returned == 0 {
		t.Errorf("%+v", report.Connections)
	}
	for _, c := range report.Checks {
		if c.Failed > 0 {
			t.Errorf("%s: %s", c.Promise, c.Example)
		}
	}
}

func TestRunSaysInOneLineWhyThereIsNone(t *testing.T) {
	t.Parallel()
	nobody := "ws://127.0.0.1:1/ws"
	refusing := (&house{plant: refuseHandshake}).open(t)
	for _, row := range []struct {
		name string
		plan Plan
		want string
	}{
		{"nobody listens", Plan{Target: nobody, Users: 1}, "nothing listens at 127.0.0.1:1: start the server"},
		{"no WebSocket there", Plan{Target: refusing, Users: 1}, "503"},
		{"no URL", Plan{Target: "http://127.0.0.1/", Users: 1}, "want ws://host:port/ws"},
		{"nobody plays", Plan{Target: nobody}, "0 users"},
		{"too many", Plan{Target: nobody, Users: 15_000_000}, "ulimit -n 15000064"},
		{"thinks backwards", Plan{Target: nobody, Users: 1, Think: [2]time.Duration{2, 1}}, "think times"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := Run(t.Context(), row.plan)
			if err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("want %q, got %v", row.want, err)
			}
		})
	}
}

// A server that does not answer hello does not keep the run for ever.
func TestRunEndsWithoutAnyAnswer(t *testing.T) {
	t.Parallel()
	h := &house{plant: silentHello}
	plan := brief(h.open(t))
	plan.patience.join, plan.patience.quiet = 200*time.Millisecond, 200*time.Millisecond
	plan.Duration = 100 * time.Millisecond
	report, err := Run(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Failed(); err == nil || !strings.Contains(err.Error(), "30 of 30 players never got into a game") {
		t.Error(err)
	}
}
