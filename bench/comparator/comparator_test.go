package comparator

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tote/server/bench"
	"tote/server/proto"
	"tote/server/proto/control"
)

// site is a comparator in this process.
type site struct {
	t      *testing.T
	target string
	desk   *control.Client
	end    func() // ends it; its file stays
}

const credits = proto.Amount(1000)

// start serves from a directory; the end of the test ends it and audits what it has left.
func start(t *testing.T, dir string) *site {
	t.Helper()
	os.Remove(filepath.Join(dir, "addresses.json"))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, Config{Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Data: dir, Credits: credits, Interval: 100 * time.Millisecond, Delay: time.Millisecond},
			slog.New(slog.DiscardHandler))
	}()
	s := &site{t: t}
	s.end = func() {
		s.end = func() {}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := Audit(dir, io.Discard); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { s.end() })
	for {
		text, err := os.ReadFile(filepath.Join(dir, "addresses.json"))
		var at struct{ Listen, Admin string }
		if err == nil && json.Unmarshal(text, &at) == nil {
			s.target, s.desk = "ws://"+at.Listen+"/ws", &control.Client{Base: "http://" + at.Admin}
			return s
		}
		select {
		case err := <-ended:
			t.Fatalf("it has ended: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}

// game opens a game with a pool.
func (s *site) game() (proto.GameID, proto.PoolID) {
	s.t.Helper()
	g, err := s.desk.OpenGame(s.t.Context(), proto.GameOpening{Name: "A", Interval: 100 * proto.Millisecond})
	if err != nil {
		s.t.Fatal(err)
	}
	return g.Game, s.pool(g.Game, proto.PoolOpening{Question: "Who?", Labels: []string{"Home", "Draw", "Away"}})
}

func (s *site) pool(g proto.GameID, o proto.PoolOpening) proto.PoolID {
	s.t.Helper()
	p, err := s.desk.OpenPool(s.t.Context(), g, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return p.Pool
}

// hello is a new guest, or one with a token.
func (s *site) hello(name, token string) (*bench.Client, *proto.Welcome) {
	s.t.Helper()
	c, err := bench.Dial(s.t.Context(), s.target)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Abort() })
	return c, ask[*proto.Welcome](s.t, c, proto.Request{Type: proto.RequestHello, Guest: name, Token: token})
}

func ask[M proto.Message](t *testing.T, c *bench.Client, r proto.Request) M {
	t.Helper()
	m, err := c.Ask(r)
	if err != nil {
		t.Fatal(err)
	}
	answer, ok := m.(M)
	if !ok {
		t.Fatalf("%s is answered by %s", r.AppendJSON(nil), m.AppendJSON(nil))
	}
	return answer
}

// next waits for a message of a type.
func next[M proto.Message](t *testing.T, c *bench.Client) M {
	t.Helper()
	for {
		m, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if wanted, ok := m.(M); ok {
			return wanted
		}
	}
}

func stake(p proto.PoolID, o proto.Outcome, amount proto.Amount) proto.Request {
	return proto.Request{Type: proto.RequestStake, Pool: p, Outcome: o, Amount: amount}
}

// One match: two guests stake, see the odds, one wins; what is wrong is refused, and money is where it should be.
func TestMatch(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	g, p := s.game()
	ada, welcome := s.hello("Ada", "")
	bao, _ := s.hello("Bao", "")
	if welcome.Balance != credits || welcome.Token == "" || welcome.Durability != "always" {
		t.Errorf("%+v", welcome)
	}
	if m := ask[*proto.Games](t, ada, proto.Request{Type: proto.RequestGames}); len(m.Games) != 1 || m.Games[0].Game != g {
		t.Errorf("%+v", m)
	}
	joined := ask[*proto.Joined](t, ada, proto.Request{Type: proto.RequestJoin, Game: g})
	if len(joined.Pools) != 1 || len(joined.Pools[0].Odds) != 3 || joined.Seq != 1 || joined.Game.Present != 1 {
		t.Errorf("%+v", joined)
	}
	r := ask[*proto.Receipt](t, ada, stake(p, 0, 300))
	if r.Balance != 700 || r.N != 1 || r.Prediction != 1 || r.Arrived == 0 {
		t.Errorf("%+v", r)
	}
	ask[*proto.Receipt](t, bao, stake(p, 1, 100))
	for odds := next[*proto.Odds](t, ada); ; odds = next[*proto.Odds](t, ada) {
		if odds.Counts == 2 {
			if odds.Odds[0].Staked != 300 || odds.Odds[0].Backers != 1 || odds.Odds[0].Multiplier != 1333 || odds.Odds[1].Multiplier != 4000 {
				t.Errorf("%+v", odds)
			}
			break
		}
	}
	small := s.pool(g, proto.PoolOpening{Question: "How many?", Labels: []string{"few", "many"}, StakeMin: 10, StakeMax: 20})
	for _, row := range []struct {
		name   string
		ask    proto.Request
		reason proto.Refusal
	}{
		{"no such pool", stake(proto.NewPoolID(g, 9), 0, 1), proto.RefusedPoolUnknown},
		{"of no such game", stake(proto.NewPoolID(99, 1), 0, 1), proto.RefusedPoolUnknown},
		{"no such outcome", stake(p, 3, 1), proto.RefusedOutcomeUnknown},
		{"nothing", stake(p, 0, 0), proto.RefusedAmountInvalid},
		{"more than there is", stake(p, 0, 701), proto.RefusedFundsShort},
		{"too little", stake(small, 0, 9), proto.RefusedStakeSmall},
		{"too much", stake(small, 0, 21), proto.RefusedStakeLarge},
		{"another stake with an old number", proto.Request{Type: proto.RequestStake, ID: r.ID, Pool: p, Amount: 1}, proto.RefusedRequestReused},
		{"no such game", proto.Request{Type: proto.RequestJoin, Game: 99}, proto.RefusedGameUnknown},
		{"what it does not know", proto.Request{Type: proto.RequestLeaders}, proto.RefusedRequestUnknown},
	} {
		if m := ask[*proto.Refused](t, ada, row.ask); m.Reason != row.reason {
			t.Errorf("%s: %s", row.name, m.Reason.Code())
		}
	}
	if again := ask[*proto.Receipt](t, ada, proto.Request{Type: proto.RequestStake, ID: r.ID, Pool: p, Amount: 300}); again.Prediction != r.Prediction || again.Balance != 700 {
		t.Errorf("the same stake again: %+v", again)
	}
	if _, err := s.desk.Settle(t.Context(), p, 1); err == nil || !strings.Contains(err.Error(), "pool_open") {
		t.Error(err)
	}
	if _, err := s.desk.Lock(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	if m := ask[*proto.Refused](t, ada, stake(p, 0, 1)); m.Reason != proto.RefusedPoolLocked {
		t.Errorf("%+v", m)
	}
	if _, err := s.desk.Settle(t.Context(), p, 1); err != nil {
		t.Fatal(err)
	}
	if locked := next[*proto.Locked](t, ada); locked.Counts != 2 || locked.Odds[0].Staked != 300 {
		t.Errorf("%+v", locked)
	}
	if m := next[*proto.Settled](t, ada); m.Gross != 400 || m.Paid != 400 || m.Winners[0] != 1 || m.Multiplier != 4000 {
		t.Errorf("%+v", m)
	}
	if m := next[*proto.Payout](t, bao); m.Payout != 400 || m.Balance != 1300 || m.N != 2 {
		t.Errorf("%+v", m)
	}
	// Nobody is on the winner: all is returned. So it is when a pool is voided.
	for _, end := range []func(p proto.PoolID) error{
		func(p proto.PoolID) error {
			if _, err := s.desk.Lock(t.Context(), p, 0); err != nil {
				return err
			}
			_, err := s.desk.Settle(t.Context(), p, 1)
			return err
		},
		func(p proto.PoolID) error { _, err := s.desk.Void(t.Context(), p, "rain"); return err },
	} {
		p := s.pool(g, proto.PoolOpening{Question: "And?", Labels: []string{"yes", "no"}, Takeout: 1000})
		ask[*proto.Receipt](t, ada, stake(p, 0, 50))
		if err := end(p); err != nil {
			t.Fatal(err)
		}
		if m := next[*proto.Refund](t, ada); m.Amount != 50 || m.Balance != 700 || m.Pool != p {
			t.Errorf("%+v", m)
		}
	}
	if m := ask[*proto.Account](t, bao, proto.Request{Type: proto.RequestAccount}); m.Balance != 1300 || m.Held != 0 || m.Staked != 0 {
		t.Errorf("%+v", m)
	}
	if m := ask[*proto.Predictions](t, ada, proto.Request{Type: proto.RequestPredictions}); len(m.Predictions) != 3 || m.Predictions[0].State != proto.PredictionLost {
		t.Errorf("%+v", m)
	}
	if _, err := s.desk.PostEvent(t.Context(), g, proto.Event{Kind: "end"}); err != nil {
		t.Fatal(err)
	}
	if m := next[*proto.GameChanged](t, ada); m.Game.State != proto.GameEnded {
		t.Errorf("%+v", m)
	}
	if _, err := s.desk.OpenPool(t.Context(), g, proto.PoolOpening{Question: "?", Labels: []string{"a", "b"}}); err == nil || !strings.Contains(err.Error(), "game_ended") {
		t.Error(err)
	}
}

// What was told is in the file at that moment, and a server that begins anew goes on from it.
func TestGoesOnFromItsFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	g, p := s.game()
	ada, welcome := s.hello("Ada", "")
	r := ask[*proto.Receipt](t, ada, stake(p, 0, 300))
	text, err := os.ReadFile(filepath.Join(dir, "comparator.db"))
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := os.WriteFile(filepath.Join(copied, "comparator.db"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := Audit(copied, &said); err != nil || !strings.HasPrefix(said.String(), "1 accounts, 1 pools, 1 predictions, 1000 units") {
		t.Errorf("the file at the moment of the receipt: %v, %s", err, &said)
	}
	s.end()

	s = start(t, dir)
	ada, back := s.hello("", welcome.Token)
	if back.Account != welcome.Account || back.Balance != 700 || back.Name != "Ada" || back.Epoch == welcome.Epoch {
		t.Errorf("%+v", back)
	}
	if m := ask[*proto.Predictions](t, ada, proto.Request{Type: proto.RequestPredictions}); len(m.Predictions) != 1 || m.Predictions[0].Prediction != r.Prediction || m.Predictions[0].ID != r.ID {
		t.Errorf("%+v", m)
	}
	if m := ask[*proto.Joined](t, ada, proto.Request{Type: proto.RequestJoin, Game: g}); m.Pools[0].Odds[0].Staked != 300 || m.Pools[0].Odds[0].Backers != 1 {
		t.Errorf("%+v", m)
	}
	if m := ask[*proto.Receipt](t, ada, stake(p, 1, 100)); m.Prediction <= r.Prediction || m.Balance != 600 {
		t.Errorf("%+v", m)
	}
	if _, err := s.desk.Void(t.Context(), p, "rain"); err != nil {
		t.Fatal(err)
	}
	next[*proto.Refund](t, ada)
	if m := next[*proto.Refund](t, ada); m.Balance != credits {
		t.Errorf("%+v", m)
	}
}

// The players of a benchmark find nothing wrong, while pools turn over and they come and go.
func TestPlayers(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "short.toml")
	if err := os.WriteFile(file, []byte("users = 50\nrate = \"200/s\"\nduration = \"1500ms\"\n[[games]]\nname = \"A\"\ncount = 2\npools = 2\ninterval = \"100ms\"\nturnover = \"150ms\"\n"+
		"[players]\nthink = [\"10ms\", \"50ms\"]\ninspect = true\nchurn = 0.2\ndeeds = { stake = 9, predictions = 1, presence = 1, time = 1 }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	scenario, err := bench.ReadScenario(file, "")
	if err != nil {
		t.Fatal(err)
	}
	r, err := scenario.Run(t.Context(), bench.Stage{Target: s.target, Admin: s.desk.Base, Binary: "none", NoLimits: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Failed(); err != nil || r.Stakes.Receipts < 100 || r.Stakes.Payouts == 0 || r.Connections.Returned == 0 {
		var text bytes.Buffer
		r.WriteText(&text)
		t.Errorf("%v\n%s", err, &text)
	}
}

func TestRefusesWhatItDoesNotDo(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir())
	g, p := s.game()
	for name, row := range map[string]struct {
		do   func() error
		want string
	}{
		"a game without a name": {func() error { _, err := s.desk.OpenGame(t.Context(), proto.GameOpening{}); return err }, "text_invalid"},
		"a hasty game": {func() error {
			_, err := s.desk.OpenGame(t.Context(), proto.GameOpening{Name: "A", Interval: 1})
			return err
		}, "interval_short"},
		"a pool of one outcome": {func() error {
			_, err := s.desk.OpenPool(t.Context(), g, proto.PoolOpening{Labels: []string{"a"}})
			return err
		}, "outcomes_count"},
		"a dynamic pool": {func() error {
			_, err := s.desk.OpenPool(t.Context(), g, proto.PoolOpening{Labels: []string{"a", "b"}, Kind: "dpm"})
			return err
		}, "rules_invalid"},
		"a pool of no game": {func() error {
			_, err := s.desk.OpenPool(t.Context(), 99, proto.PoolOpening{Labels: []string{"a", "b"}})
			return err
		}, "game_unknown"},
		"a moment that is over":   {func() error { _, err := s.desk.Lock(t.Context(), p, 1); return err }, "lock_past"},
		"a dead heat":             {func() error { _, err := s.desk.Settle(t.Context(), p, 0, 1); return err }, "winners_invalid"},
		"an event without a kind": {func() error { _, err := s.desk.PostEvent(t.Context(), g, proto.Event{}); return err }, "event_invalid"},
		"the end of no pool":      {func() error { _, err := s.desk.Void(t.Context(), proto.NewPoolID(g, 9), ""); return err }, "pool_unknown"},
	} {
		if err := row.do(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
	if _, err := s.desk.Lock(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.desk.Settle(t.Context(), p, 3); err == nil || !strings.Contains(err.Error(), "winners_invalid") {
		t.Error(err)
	}
	if _, err := s.desk.Settle(t.Context(), p, 2); err != nil { // the wrong winner has changed nothing
		t.Error(err)
	}
	for _, c := range []Config{{}, {Credits: 1}, {Credits: 1, Interval: time.Second, Delay: -1}} {
		if err := Serve(t.Context(), c, slog.Default()); err == nil {
			t.Errorf("it serves with %+v", c)
		}
	}
}

// No money is made or lost, whatever the pool.
func FuzzEndsConserve(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint64(3), uint16(0), uint8(0))
	f.Add(uint64(proto.AmountMax)/3, uint64(7), uint64(proto.AmountMax)/3, uint16(10_000), uint8(1))
	f.Fuzz(func(t *testing.T, a, b, c uint64, basisPoints uint16, winner uint8) {
		p := newPool(proto.Pool{Pool: proto.NewPoolID(1, 1), Labels: []string{"x", "y", "z"}, Takeout: basisPoints % 10_001}, 0, 0)
		holder, gross := &account{id: 1}, proto.Amount(0)
		for i, n := range []uint64{a, b, c, a / 2} {
			amount := proto.Amount(n%uint64(proto.AmountMax/4)) + 1
			gross += amount
			l := proto.Prediction{Prediction: proto.Seq(i + 1), Outcome: proto.Outcome(i % 2), Amount: amount}
			holder.predictions = append(holder.predictions, l)
			p.count(&ticket{account: holder, prediction: l.Prediction, amount: amount, outcome: l.Outcome})
		}
		ended, m := p.ends(proto.Outcome(winner % 3))
		paid := proto.Amount(0)
		for _, e := range ended {
			if paid += e.Payout; e.Payout < 0 || e.State == proto.PredictionOpen || (e.State == proto.PredictionWon) != (e.Outcome == m.Winners[0]) {
				t.Fatalf("%+v", e)
			}
		}
		switch {
		case m.Refunded && (paid != gross || winner%3 != 2):
			t.Fatalf("%d of %d were returned", paid, gross)
		case !m.Refunded && (paid+m.Takeout+m.Breakage != gross || paid != m.Paid || m.Breakage < 0 || m.Breakage > 3):
			t.Fatalf("%d paid + %d taken out + %d left are not %d", paid, m.Takeout, m.Breakage, gross)
		}
	})
}

// One unit that is in the wrong place, one stake that is gone: the audit says so.
func TestAuditFindsOneUnit(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	_, p := s.game()
	ada, welcome := s.hello("Ada", "")
	r := ask[*proto.Receipt](t, ada, stake(p, 0, 300))
	s.end()
	id := key(welcome.Account)
	for _, row := range []struct {
		name, want string
		do         func(tx *bbolt.Tx) error
	}{
		{"a unit more in an account", "account 1 has 701", func(tx *bbolt.Tx) error { return add(tx.Bucket(bucketBalances), id, 1) }},
		{"a unit less of the house", "accounts + pools + house differ from deposits: {Accounts:700 Pools:300 House:-1 Deposits:1000}", func(tx *bbolt.Tx) error { return add(tx.Bucket(bucketSums), sumHouse, -1) }},
		{"a prediction is gone", "account 1 has 700", func(tx *bbolt.Tx) error { return tx.Bucket(bucketPredictions).Delete(key(r.Prediction)) }},
		{"a prediction is over before its pool", "prediction 1 is lost, its pool open", func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketPredictions).Put(key(r.Prediction), entry(welcome.Account, &proto.Prediction{Pool: p, Amount: 300, State: proto.PredictionLost}))
		}},
		{"its pool is gone", "there is no such", func(tx *bbolt.Tx) error { return tx.Bucket(bucketPools).Delete(key(p)) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, "comparator.db"))
			if err != nil {
				t.Fatal(err)
			}
			copied := t.TempDir()
			if err := os.WriteFile(filepath.Join(copied, "comparator.db"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := openBooks(copied, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := k.db.Update(row.do); err != nil {
				t.Fatal(err)
			}
			if err := k.db.Close(); err != nil {
				t.Fatal(err)
			}
			if err := Audit(copied, io.Discard); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
	if err := Audit(filepath.Join(dir, "addresses.json"), io.Discard); err == nil {
		t.Error("a file is no directory")
	}
}
