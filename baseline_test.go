package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/gobwas/ws/wsutil"
	"github.com/redis/go-redis/v9"

	"tote/server/bench"
	"tote/server/bench/baseline"
	"tote/server/proto"
	"tote/server/proto/control"
)

// site is a baseline that is up, with its real nginx, Redis and MariaDB.
type site struct {
	t         *testing.T
	dir       string
	URL       string
	Admin     string
	PIDs      []int
	Processes []baseline.Running
	Answers   bool

	desk *control.Client
}

// manage runs `server bench baseline` and returns what it says.
func (s *site) manage(arguments ...string) (said string, err error) {
	s.t.Helper()
	ctx, end := context.WithTimeout(context.Background(), 2*time.Minute)
	defer end()
	out, err := exec.CommandContext(ctx, binary, append(append([]string{"bench", "baseline"}, arguments...), "--dir", s.dir)...).CombinedOutput()
	return string(out), err
}

func (s *site) up(flags ...string) {
	s.t.Helper()
	said, err := s.manage(append([]string{"up", "--json", "--guest-credits", "5000"}, flags...)...)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, said)
	}
	s.PIDs, s.Processes = nil, nil
	if err := json.Unmarshal([]byte(said), s); err != nil {
		s.t.Fatalf("%v in %s", err, said)
	}
	s.desk = &control.Client{Base: s.Admin}
}

// down ends the site, and wants nothing of it to be left.
func (s *site) down() {
	s.t.Helper()
	if said, err := s.manage("down"); err != nil {
		s.t.Errorf("%v\n%s", err, said)
	}
	for _, r := range s.Processes {
		if r.Alive() {
			s.t.Errorf("%s is left", r.Name)
		}
	}
}

func newSite(t *testing.T) *site {
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "site")}
	must(0, os.Chmod(filepath.Dir(filepath.Dir(s.dir)), 0o755))(t) // MariaDB's user goes through it
	t.Cleanup(func() { s.manage("down") })
	return s
}

func (s *site) dial() *bench.Client {
	s.t.Helper()
	c, err := bench.Dial(s.t.Context(), s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Abort() })
	return c
}

// guest is a player who has joined a game.
func (s *site) guest(game proto.GameID) (c *bench.Client, token string) {
	s.t.Helper()
	c = s.dial()
	token = ask[*proto.Welcome](s.t, c, proto.Request{Type: proto.RequestHello, Guest: "Ada"}).Token
	ask[*proto.Joined](s.t, c, proto.Request{Type: proto.RequestJoin, Game: game})
	return c, token
}

func (s *site) player(game proto.GameID) *bench.Client {
	c, _ := s.guest(game)
	return c
}

// next waits for a message of one type.
func next[M proto.Message](t *testing.T, c *bench.Client) M {
	t.Helper()
	return heard(t, c, func(M) bool { return true })
}

func (s *site) openPool(game proto.GameID, takeout uint16) proto.PoolID {
	s.t.Helper()
	return must(s.desk.OpenPool(s.t.Context(), game, proto.PoolOpening{Question: "Who scores next?", Labels: []string{"Home", "Away", "None"}, Takeout: takeout}))(s.t).Pool
}

// The thesis' architecture speaks our protocol: the same generator loads it, and its audits judge it.
func TestBaseline(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.up("--interval", "200ms", "--flush", "2")
	if len(s.Processes) < 6 || len(s.PIDs) != len(s.Processes) {
		t.Errorf("it runs %+v", s.Processes)
	}
	if said, err := s.manage("up"); err == nil || !strings.Contains(said, "up there already") {
		t.Errorf("up again: %v\n%s", err, said)
	}
	ctx := t.Context()
	game := must(s.desk.OpenGame(ctx, proto.GameOpening{Name: "Final", Teams: [2]string{"Home", "Away"}}))(t).Game
	must(s.desk.PostEvent(ctx, game, proto.Event{Kind: "kickoff"}))(t)

	s.trade(game)
	s.refuse(game)
	s.play()

	// What has been staked is there after a restart, and so are the odds, which only Redis had.
	g, token := s.guest(game)
	pool := s.openPool(game, 0)
	first := ask[*proto.Receipt](t, g, proto.Request{Type: proto.RequestStake, Pool: pool, Outcome: 1, Amount: 700})
	if said, err := s.manage("audit"); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
	s.down()
	if said, err := s.manage("status"); err == nil || !strings.Contains(said, "nothing is up there") {
		t.Errorf("down: %v\n%s", err, said)
	}
	s.up()
	back := s.dial()
	if w := ask[*proto.Welcome](t, back, proto.Request{Type: proto.RequestHello, Token: token}); w.Balance != 4300 || w.N != 1 || w.Durability != "always" {
		t.Errorf("%+v", w)
	}
	pools := ask[*proto.Pools](t, back, proto.Request{Type: proto.RequestPools, Game: game}).Pools
	if odds := pools[len(pools)-1].Odds; odds[1].Staked != 700 || odds[1].Backers != 1 || odds[1].Multiplier != 1000 {
		t.Errorf("%+v", odds)
	}
	if list := ask[*proto.Predictions](t, back, proto.Request{Type: proto.RequestPredictions}).Predictions; len(list) != 1 || list[0].Prediction != first.Prediction {
		t.Errorf("%+v", list)
	}
	s.falsify()
	s.deafen(game)

	// One of the processes dies: its players are thrown out, the others and newcomers play on.
	lost := s.Processes[slices.IndexFunc(s.Processes, func(r baseline.Running) bool { return r.Name == "process-1" })]
	must(0, syscall.Kill(lost.PID, syscall.SIGKILL))(t)
	for lost.Alive() {
		time.Sleep(10 * time.Millisecond)
	}
	for range 4 {
		s.guest(game)
	}
	if said, err := s.manage("status"); err != nil || !strings.Contains(said, "is gone") {
		t.Errorf("%v\n%s", err, said)
	}
	s.down()
}

// trade plays pools to their ends, in rows that can be reckoned by hand.
func (s *site) trade(game proto.GameID) {
	t, ctx := s.t, s.t.Context()
	home := [...]*bench.Client{s.player(game), s.player(game), s.player(game)}
	away := s.player(game)
	pool := s.openPool(game, 1500)
	for i, amount := range []proto.Amount{333, 333, 334} {
		m := ask[*proto.Receipt](t, home[i], proto.Request{Type: proto.RequestStake, ID: 9, Pool: pool, Amount: amount})
		if m.N != 1 || m.Balance != 5000-amount || m.Durability != "interval=1s" {
			t.Errorf("%+v", m)
		}
	}
	ask[*proto.Receipt](t, away, proto.Request{Type: proto.RequestStake, Pool: pool, Outcome: 1, Amount: 1001})
	heard(t, away, func(m *proto.Odds) bool { return m.Odds[0].Staked == 1000 && m.Odds[1].Staked == 1001 })
	must(s.desk.Lock(ctx, pool, 0))(t)
	if m := next[*proto.Locked](t, away); m.Odds[0].Backers != 3 || m.Odds[0].Multiplier != 1701 || m.Counts == 0 {
		t.Errorf("%+v", m)
	}
	must(s.desk.Settle(ctx, pool, 0))(t)
	// 2001 less 15 %, which is 300, are 1701; the unit that rounding leaves is the house's.
	if m := next[*proto.Settled](t, away); m.Gross != 2001 || m.Takeout != 300 || m.Paid != 1700 || m.Breakage != 1 || m.Multiplier != 1701 {
		t.Errorf("%+v", m)
	}
	for i, payout := range []proto.Amount{566, 566, 568} {
		if m := next[*proto.Payout](t, home[i]); m.N != 2 || m.Payout != payout || m.Balance != 5000-m.Amount+payout {
			t.Errorf("%+v", m)
		}
	}

	// Nobody has backed the winner: all stakes return. Two of one account come one after the other.
	unlucky := s.openPool(game, 1500)
	for n := range 2 {
		ask[*proto.Receipt](t, away, proto.Request{Type: proto.RequestStake, Pool: unlucky, Outcome: 2, Amount: proto.Amount(100 * (n + 1))})
	}
	must(s.desk.Lock(ctx, unlucky, 0))(t)
	must(s.desk.Settle(ctx, unlucky, 0))(t)
	one, two := next[*proto.Refund](t, away), next[*proto.Refund](t, away)
	if one.Reason != proto.RefundNoWinner || one.N != 4 || one.Balance != 3799 || two.N != 5 || two.Balance != 3999 {
		t.Errorf("%+v, %+v", one, two)
	}
	void := s.openPool(game, 0)
	ask[*proto.Receipt](t, away, proto.Request{Type: proto.RequestStake, Pool: void, Amount: 3999})
	must(s.desk.Void(ctx, void, "rain"))(t)
	if m := next[*proto.Refund](t, away); m.Reason != proto.RefundVoid || m.Balance != 3999 {
		t.Errorf("%+v", m)
	}
	if m := ask[*proto.Account](t, away, proto.Request{Type: proto.RequestAccount}); m.N != 7 || m.Balance != 3999 || m.Staked != 0 {
		t.Errorf("%+v", m)
	}
}

// play has the generator load it, and the generator's own audits judge it.
func (s *site) play() {
	t := s.t
	report, said, err := benched(t, "run", scenario(t, shortGame+"[players]\nbrowse = [\"1ms\", \"50ms\"]\ninspect = true\nthink = [\"20ms\", \"400ms\"]\namounts = [1, 5]\n"),
		"--target", s.URL, "--admin", s.Admin, "--alone", "--pid", strings.Trim(strings.ReplaceAll(fmt.Sprint(s.PIDs), " ", ","), "[]"), "--no-limit", "--json", "-")
	if err != nil || report == nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if report.Stakes.Receipts < 100 || report.Delivered.Broadcasts < 10 || report.Stakes.Payouts == 0 || report.Server == nil {
		t.Errorf("%+v, %+v", report.Stakes, report.Delivered)
	}
	for _, c := range report.Checks {
		if c.Passed == 0 {
			t.Errorf("never seen: %s", c.Promise)
		}
	}
}

// refuse asks for what cannot be had.
func (s *site) refuse(game proto.GameID) {
	t, ctx := s.t, s.t.Context()
	g := s.player(game)
	open, locked := s.openPool(game, 0), s.openPool(game, 0)
	must(s.desk.Lock(ctx, locked, 0))(t)
	ask[*proto.Receipt](t, g, proto.Request{Type: proto.RequestStake, ID: 5, Pool: open, Amount: 10})
	if m := ask[*proto.Receipt](t, g, proto.Request{Type: proto.RequestStake, ID: 5, Pool: open, Amount: 10}); m.Balance != 4990 || m.N != 2 {
		t.Errorf("the same stake again: %+v", m)
	}
	for name, row := range map[string]struct {
		stake  proto.Request
		reason proto.Refusal
	}{
		"another stake under its id": {proto.Request{ID: 5, Pool: open, Amount: 11}, proto.RefusedRequestReused},
		"more than there is":         {proto.Request{Pool: open, Amount: 4991}, proto.RefusedFundsShort},
		"nothing":                    {proto.Request{Pool: open}, proto.RefusedAmountInvalid},
		"an outcome too many":        {proto.Request{Pool: open, Outcome: 3, Amount: 1}, proto.RefusedOutcomeUnknown},
		"a pool that is locked":      {proto.Request{Pool: locked, Amount: 1}, proto.RefusedPoolLocked},
		"a pool that is not":         {proto.Request{Pool: locked + 100, Amount: 1}, proto.RefusedPoolUnknown},
		"another game's pool":        {proto.Request{Pool: proto.NewPoolID(game+100, 1), Amount: 1}, proto.RefusedGameNotJoined},
	} {
		row.stake.Type = proto.RequestStake
		if m := ask[*proto.Refused](t, g, row.stake); m.Reason != row.reason {
			t.Errorf("%s: %s", name, m.Reason.Code())
		}
	}
	if m := ask[*proto.Refused](t, g, proto.Request{Type: proto.RequestCircles}); m.Reason != proto.RefusedRequestUnknown {
		t.Errorf("circles: %s", m.Reason.Code())
	}
	for name, err := range map[string]error{
		"pool_open":     second(s.desk.Settle(ctx, open, 0)),
		"pool_unknown":  second(s.desk.Lock(ctx, locked+100, 0)),
		"pool_locked":   second(s.desk.Lock(ctx, locked, 0)),
		"rules_invalid": second(s.desk.OpenPool(ctx, game, proto.PoolOpening{Question: "?", Labels: []string{"a", "b"}, LocksAt: 1})),
		"game_unknown":  second(s.desk.PostEvent(ctx, game+100, proto.Event{Kind: "goal"})),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("not %s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// falsify makes the audit find a unit too many in MariaDB.
func (s *site) falsify() {
	t := s.t
	secrets := s.secrets()
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName, c.Net, c.Addr = "baseline", secrets.Password, "baseline", "tcp", fmt.Sprint("127.0.0.1:", secrets.MariaDB)
	db := sql.OpenDB(must(mysql.NewConnector(c))(t))
	defer db.Close()
	for what, statements := range map[string][2]string{
		"accounts + pools + house": {"UPDATE accounts SET balance = balance + 1 LIMIT 1", "UPDATE accounts SET balance = balance - 1 LIMIT 1"},
		"the cache has":            {"UPDATE predictions SET outcome = 2 WHERE state = 0 ORDER BY id DESC LIMIT 1", "UPDATE predictions SET outcome = 1 WHERE state = 0 ORDER BY id DESC LIMIT 1"},
	} {
		must(db.Exec(statements[0]))(t)
		if said, err := s.manage("audit"); err == nil || !strings.Contains(said, what) {
			t.Errorf("the audit says %v\n%s", err, said)
		}
		must(db.Exec(statements[1]))(t)
	}
	if said, err := s.manage("audit"); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// deafen interrupts all channels: whoever may have missed something is sent away, and finds everything in order when he is back.
func (s *site) deafen(game proto.GameID) {
	t, ctx := s.t, s.t.Context()
	inGame, token := s.guest(game)
	outside := s.dial()
	ask[*proto.Welcome](t, outside, proto.Request{Type: proto.RequestHello, Guest: "Bao"})
	secrets := s.secrets()
	r := redis.NewClient(&redis.Options{Addr: fmt.Sprint("127.0.0.1:", secrets.Redis), Password: secrets.Password})
	defer r.Close()
	must(r.Do(ctx, "CLIENT", "KILL", "TYPE", "pubsub").Result())(t)
	for _, c := range []*bench.Client{inGame, outside} {
		var err error
		for c.Patience = time.Minute; err == nil; _, err = c.Receive() {
		}
		var closed wsutil.ClosedError
		if !errors.As(err, &closed) || proto.CloseCode(closed.Code) != proto.CloseTryLater {
			t.Errorf("%v", err)
		}
	}
	for range 2 { // one for each process, which nginx asks in turn
		back := s.dial()
		ask[*proto.Welcome](t, back, proto.Request{Type: proto.RequestHello, Token: token})
		ask[*proto.Joined](t, back, proto.Request{Type: proto.RequestJoin, Game: game})
		pool := s.openPool(game, 0)
		heard(t, back, func(m *proto.Opened) bool { return m.Pool.Pool == pool })
		ask[*proto.Receipt](t, back, proto.Request{Type: proto.RequestStake, Pool: pool, Amount: 1})
		must(s.desk.Void(ctx, pool, "rain"))(t)
		next[*proto.Refund](t, back)
	}
}

// secrets are in the site's file.
func (s *site) secrets() (f struct {
	MariaDB, Redis int
	Password       string
}) {
	s.t.Helper()
	must(0, json.Unmarshal(must(os.ReadFile(filepath.Join(s.dir, "site.json")))(s.t), &f))(s.t)
	return f
}

// What is not installed is one line, with its remedy.
func TestBaselineSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	up := exec.Command(binary, "bench", "baseline", "up", "--dir", t.TempDir())
	up.Env = []string{"PATH=/nowhere"}
	var said bytes.Buffer
	up.Stderr = &said
	if err := up.Run(); err == nil || !strings.Contains(said.String(), "apt-get install") || !strings.Contains(said.String(), "redis-server") || strings.Count(said.String(), "\n") != 1 {
		t.Errorf("%v: %s", err, &said)
	}
}
