package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tote/server/market"
	"tote/server/proto"
	"tote/server/proto/control"
)

// echo is a market that answers each command as the test wants, from another goroutine, as shards do.
type echo struct {
	desk   *Desk
	answer func(c *market.Command) *market.Out // nil, or returning nil: says nothing
	busy   bool

	mu       sync.Mutex
	commands []market.Command
	ids      uint64
	shards   sync.WaitGroup
}

func (m *echo) Submit(c *market.Command) bool {
	if m.busy {
		return false
	}
	copied := *c
	m.mu.Lock()
	m.commands = append(m.commands, copied)
	m.mu.Unlock()
	m.shards.Go(func() {
		if out := m.answer(&copied); out != nil {
			out.To = copied.From
			m.desk.Deliver(&market.Batch{Outs: []market.Out{{Kind: market.OutReceipt, To: market.NewSession(0, 1, 1)}, *out}})
		}
	})
	return true
}

func (m *echo) next() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids++
	return m.ids
}

func (m *echo) NextAccount() proto.AccountID { return proto.AccountID(m.next()) }
func (m *echo) NextGame() proto.GameID       { return proto.GameID(m.next()) }

// last is the last command, without the session, of which there is a new one each time.
func (m *echo) last() market.Command {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.commands[len(m.commands)-1]
	c.From = 0
	return c
}

// open opens a desk with an echo behind it.
func open(t *testing.T, c Config, answer func(*market.Command) *market.Out) (*Desk, *echo, *httptest.Server) {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	m := &echo{answer: answer}
	m.desk = New(c, m)
	server := httptest.NewServer(m.desk.Handler())
	t.Cleanup(func() {
		server.Close()
		m.shards.Wait()
		if len(m.desk.waiting) != 0 {
			t.Errorf("%d requests are still waited for", len(m.desk.waiting))
		}
	})
	return m.desk, m, server
}

func answered(a proto.Answer) *market.Out { return &market.Out{Kind: market.OutAnswer, Answer: &a} }

func says(message proto.Message) *market.Out {
	return &market.Out{Kind: market.OutMessage, Message: message}
}

func refused(r proto.Refusal) *market.Out {
	return &market.Out{Kind: market.OutRefused, Refused: proto.Refused{Reason: r}}
}

// send makes a request as it is and returns the answer's status and body.
func send(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return do(t, r)
}

func do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, strings.TrimSuffix(string(b), "\n")
}

// What an operator asks with the client, what the market is asked, and what comes back.
func TestDeeds(t *testing.T) {
	opening := proto.GameOpening{Name: "Argentina v France", Teams: [2]string{"Argentina", "France"}, Templates: []proto.Template{{Name: "t"}}}
	goal := proto.Event{Kind: "goal", Minute: 23, Team: 1, Player: "Lionel Messi", Score: [2]uint16{1, 0}}
	pool := proto.NewPoolID(3, 2)
	ruled := proto.PoolOpening{Question: "Who?", Labels: []string{"A", "B"}, LocksAt: 9, Rules: proto.Rules{Payout: proto.PayoutDividend, Unit: 100, Break: 10,
		DividendMin: 105, MinusMax: 1000, NoWinner: proto.NoWinnerCarry, CarryTo: pool + 1, OneSidedRefund: true, AccountMax: 500, LateSpan: 5, LateMax: 50}}
	for _, row := range []struct {
		name    string
		deed    func(context.Context, *control.Client) (any, error)
		command market.Command
		answer  *market.Out
		want    any
	}{
		{"open an account", func(ctx context.Context, c *control.Client) (any, error) {
			return c.OpenAccount(ctx, proto.AccountOpening{Name: "Ada", Deposit: 500})
		}, market.Command{Kind: market.OpenAccount, Account: 1, Args: &proto.AccountOpening{Name: "Ada", Deposit: 500}},
			answered(proto.Answer{Account: 1, Balance: 500, Seq: 4}), &proto.AccountOpened{Account: 1, Token: "token of 1", Balance: 500}},
		{"deposit", func(ctx context.Context, c *control.Client) (any, error) { return c.Deposit(ctx, 7, 25) },
			market.Command{Kind: market.Deposit, Account: 7, Amount: 25},
			answered(proto.Answer{Account: 7, Balance: 525, Seq: 5}), &proto.Answer{Account: 7, Balance: 525, Seq: 5}},
		{"withdraw", func(ctx context.Context, c *control.Client) (any, error) { return c.Withdraw(ctx, 7, 25) },
			market.Command{Kind: market.Withdraw, Account: 7, Amount: 25},
			answered(proto.Answer{Account: 7, Balance: 500, Seq: 6}), &proto.Answer{Account: 7, Balance: 500, Seq: 6}},
		{"show an account", func(ctx context.Context, c *control.Client) (any, error) { return c.Account(ctx, 7) },
			market.Command{Kind: market.ShowAccount, Account: 7},
			says(&proto.Account{Account: 7, Name: "Ada", Balance: 500}), &proto.Account{Account: 7, Name: "Ada", Balance: 500}},
		{"show a statement", func(ctx context.Context, c *control.Client) (any, error) {
			return c.Statement(ctx, 7, proto.Page{Before: 9, After: 3, Limit: 1000})
		}, market.Command{Kind: market.ShowStatement, Account: 7, Args: &proto.Page{Before: 9, After: 3, Limit: proto.PageMax}},
			says(&proto.Statement{Counts: 5, Entries: []proto.Entry{{Entry: 8, Kind: proto.EntryLoss}}, More: true, Next: 8}),
			&proto.Statement{Counts: 5, Entries: []proto.Entry{{Entry: 8, Kind: proto.EntryLoss}}, More: true, Next: 8}},
		{"open a game", func(ctx context.Context, c *control.Client) (any, error) { return c.OpenGame(ctx, opening) },
			market.Command{Kind: market.OpenGame, Game: 1, Args: &opening},
			answered(proto.Answer{Game: 1, Seq: 7}), &proto.Answer{Game: 1, Seq: 7}},
		{"open a pool", func(ctx context.Context, c *control.Client) (any, error) {
			return c.OpenPool(ctx, 3, ruled)
		}, market.Command{Kind: market.OpenPool, Game: 3, Args: &ruled},
			answered(proto.Answer{Pool: pool, Opened: []proto.PoolID{pool}}), &proto.Answer{Pool: pool, Opened: []proto.PoolID{pool}}},
		{"show questions", func(ctx context.Context, c *control.Client) (any, error) { return c.Questions(ctx, 3) },
			market.Command{Kind: market.ShowInquiries, Game: 3},
			says(&proto.Questions{Game: 3, Questions: []proto.Inquiry{{Pool: proto.Pool{Pool: pool, State: proto.PoolProposed}, Reports: 1}}}),
			&proto.Questions{Game: 3, Questions: []proto.Inquiry{{Pool: proto.Pool{Pool: pool, State: proto.PoolProposed}, Reports: 1}}}},
		{"approve a question", func(ctx context.Context, c *control.Client) (any, error) { return c.Approve(ctx, pool) },
			market.Command{Kind: market.ApprovePool, Pool: pool, Args: &struct{}{}},
			answered(proto.Answer{Pool: pool, Seq: 9}), &proto.Answer{Pool: pool, Seq: 9}},
		{"show pools", func(ctx context.Context, c *control.Client) (any, error) { return c.Pools(ctx, 3) },
			market.Command{Kind: market.ShowPools, Game: 3},
			says(&proto.Pools{Game: 3, Pools: []proto.Pool{{Pool: pool, State: proto.PoolLocked}}}), &proto.Pools{Game: 3, Pools: []proto.Pool{{Pool: pool, State: proto.PoolLocked}}}},
		{"set templates", func(ctx context.Context, c *control.Client) (any, error) {
			return c.SetTemplates(ctx, 3, proto.TemplateSet{Templates: opening.Templates})
		}, market.Command{Kind: market.SetTemplates, Game: 3, Args: &proto.TemplateSet{Templates: opening.Templates}},
			&market.Out{Kind: market.OutAnswer, Answer: &proto.Answer{Game: 3, Seq: 7}}, &proto.Answer{Game: 3, Seq: 7}},
		{"post an event", func(ctx context.Context, c *control.Client) (any, error) { return c.PostEvent(ctx, 3, goal) },
			market.Command{Kind: market.PostEvent, Game: 3, Args: &goal},
			answered(proto.Answer{Game: 3, Settled: []proto.PoolID{pool}}), &proto.Answer{Game: 3, Settled: []proto.PoolID{pool}}},
		{"lock", func(ctx context.Context, c *control.Client) (any, error) { return c.Lock(ctx, pool, 8) },
			market.Command{Kind: market.LockPool, Pool: pool, Args: &proto.Locking{At: 8}},
			answered(proto.Answer{Pool: pool}), &proto.Answer{Pool: pool}},
		{"settle", func(ctx context.Context, c *control.Client) (any, error) { return c.Settle(ctx, pool, 1) },
			market.Command{Kind: market.SettlePool, Pool: pool, Args: &proto.Settlement{Winners: []proto.Outcome{1}}},
			answered(proto.Answer{Pool: pool}), &proto.Answer{Pool: pool}},
		{"withdraw an outcome", func(ctx context.Context, c *control.Client) (any, error) { return c.WithdrawOutcome(ctx, pool, 2) },
			market.Command{Kind: market.WithdrawOutcome, Pool: pool, Args: &proto.OutcomeWithdrawal{Outcome: 2}},
			answered(proto.Answer{Pool: pool}), &proto.Answer{Pool: pool}},
		{"void", func(ctx context.Context, c *control.Client) (any, error) { return c.Void(ctx, pool, "fog") },
			market.Command{Kind: market.VoidPool, Pool: pool, Args: &proto.Voiding{Reason: "fog"}},
			answered(proto.Answer{Pool: pool}), &proto.Answer{Pool: pool}},
	} {
		t.Run(row.name, func(t *testing.T) {
			mint := func(a proto.AccountID) string { return fmt.Sprintf("token of %d", a) }
			_, m, server := open(t, Config{Mint: mint}, func(*market.Command) *market.Out { return row.answer })
			got, err := row.deed(t.Context(), &control.Client{Base: server.URL})
			if err != nil || !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, row.want)
			}
			if c := m.last(); !reflect.DeepEqual(c, row.command) {
				t.Errorf("asked the market %+v, want %+v", c, row.command)
			}
		})
	}
}

// Every refusal there is has a fitting status and comes back with its code.
func TestRefusals(t *testing.T) {
	statuses := map[proto.Refusal]int{
		proto.RefusedAmountInvalid: 400, proto.RefusedTextInvalid: 400, proto.RefusedEventInvalid: 400, proto.RefusedWinners: 400,
		proto.RefusedTokenInvalid: 401, proto.RefusedAccountUnknown: 404, proto.RefusedGameUnknown: 404, proto.RefusedPoolUnknown: 404,
		proto.RefusedFundsShort: 409, proto.RefusedPoolLocked: 409, proto.RefusedPoolOpen: 409, proto.RefusedGameEnded: 409, proto.RefusedBusy: 503,
	}
	var reason proto.Refusal
	_, _, server := open(t, Config{}, func(*market.Command) *market.Out { return refused(reason) })
	for _, reason = range proto.Refusals() {
		_, err := (&control.Client{Base: server.URL}).Deposit(t.Context(), 1, 1)
		var e *control.Error
		if !errors.As(err, &e) || e.Code != reason.Code() || e.Reason != reason.Reason() || e.Status < 400 || e.Status == 500 {
			t.Errorf("%s: %v", reason.Code(), err)
		}
		if want, ok := statuses[reason]; ok && e.Status != want {
			t.Errorf("%s: status %d, want %d", reason.Code(), e.Status, want)
		}
	}
}

// A refusal with its place comes as an answer.
func TestTemplateErrorsPointAtThePlace(t *testing.T) {
	_, _, server := open(t, Config{}, func(*market.Command) *market.Out {
		return answered(proto.Answer{Refusal: proto.RefusedTemplate, Detail: `template "next team": opens 1:1: …`})
	})
	status, body := send(t, "POST", server.URL+"/v1/games", `{"name":"x"}`)
	if want := `{"code":"template_invalid","reason":"a question template does not compile","detail":"template \"next team\": opens 1:1: …"}`; status != 400 || body != want {
		t.Errorf("%d %s, want %s", status, body, want)
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	_, m, server := open(t, Config{}, func(*market.Command) *market.Out { return answered(proto.Answer{}) })
	for _, row := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"not JSON", "POST", "/v1/accounts", `name=Ada`, 400, `"code":"malformed"`},
		{"unknown member", "POST", "/v1/accounts", `{"name":"Ada","depositt":5}`, 400, `there is no member \"depositt\"`},
		{"unknown member, deep", "POST", "/v1/games", `{"name":"G","templates":[{"opnes":"true"}]}`, 400, `there is no member \"opnes\"`},
		{"text for a number", "POST", "/v1/accounts/1/deposits", `{"amount":"5"}`, 400, `member \"amount\" cannot be a string`},
		{"too large a number", "POST", "/v1/accounts/1/deposits", `{"amount":9223372036854775808}`, 400, `member \"amount\" cannot be a number 9223372036854775808`},
		{"half a unit", "POST", "/v1/accounts/1/deposits", `{"amount":0.5}`, 400, `member \"amount\" cannot be a number 0.5`},
		{"no such outcome", "POST", "/v1/pools/1/settle", `{"winners":[256]}`, 400, `member \"winners\" cannot be a number 256`},
		{"half a body", "POST", "/v1/accounts", `{"name":"Ada"`, 400, `unexpected EOF`},
		{"two bodies", "POST", "/v1/accounts", `{"name":"Ada"}{}`, 400, `there is more after the object`},
		{"rubbish behind", "POST", "/v1/accounts", `{"name":"Ada"}]`, 400, `"code":"malformed"`},
		{"a mebibyte", "POST", "/v1/accounts", `{"name":"` + strings.Repeat("a", 1<<20) + `"}`, 413, `"code":"too_large","reason":"a body has at most 1048576 bytes"`},
		{"an id of letters", "GET", "/v1/accounts/ada", ``, 400, `\"ada\" in the path is no id`},
		{"id 0", "GET", "/v1/games/0/pools", ``, 400, `is no id`},
		{"id 2^53", "POST", "/v1/pools/9007199254740992/lock", ``, 400, `is no id`},
		{"a page of letters", "GET", "/v1/accounts/1/statement?before=x", ``, 400, `before is \"x\", which is no number`},
		{"unknown path", "GET", "/v1/users", ``, 404, `{"code":"path_unknown","reason":"there is nothing at this path","detail":"GET /v1/users"}`},
		{"wrong method", "DELETE", "/v1/games", ``, 405, `{"code":"method_not_allowed","reason":"this path takes GET, HEAD, POST","detail":"DELETE /v1/games"}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			status, body := send(t, row.method, server.URL+row.path, row.body)
			if status != row.status || !strings.Contains(body, row.want) {
				t.Errorf("%d %s, want %d … %s", status, body, row.status, row.want)
			}
		})
	}
	if len(m.commands) != 0 {
		t.Errorf("the market was asked %+v", m.commands)
	}
	// An empty body is an object without members.
	if status, body := send(t, "POST", server.URL+"/v1/pools/9007199254740991/lock", ""); status != 200 || m.last().Pool != 1<<53-1 {
		t.Errorf("lock without a body: %d %s", status, body)
	}
}

// Nobody waits longer than the timeout, and what the market then says is dropped.
func TestSilentMarket(t *testing.T) {
	desk, m, server := open(t, Config{Timeout: time.Millisecond}, func(*market.Command) *market.Out { return nil })
	var e *control.Error
	if _, err := (&control.Client{Base: server.URL}).Deposit(t.Context(), 1, 1); !errors.As(err, &e) || e.Status != 504 || e.Code != "timeout" || !strings.Contains(e.Reason, "may still be carried out") {
		t.Errorf("a silent market: %v", err)
	}
	desk.Deliver(&market.Batch{Outs: []market.Out{{Kind: market.OutAnswer, To: m.commands[0].From, Answer: &proto.Answer{Seq: 99}}}})
}

func TestBusyMarket(t *testing.T) {
	_, m, server := open(t, Config{}, nil)
	m.busy = true
	var e *control.Error
	if _, err := (&control.Client{Base: server.URL}).Deposit(t.Context(), 1, 1); !errors.As(err, &e) || e.Status != 503 || e.Code != "busy" {
		t.Errorf("a busy market: %v", err)
	}
}

// An answer to another question is a defect of ours, and is told as one.
func TestAnswersThatDoNotFit(t *testing.T) {
	_, _, server := open(t, Config{}, func(*market.Command) *market.Out { return says(&proto.Games{}) })
	client := &control.Client{Base: server.URL}
	for name, deed := range map[string]func() error{
		"a message for an answer": func() error { _, err := client.Deposit(t.Context(), 1, 1); return err },
		"games for pools":         func() error { _, err := client.Pools(t.Context(), 1); return err },
	} {
		var e *control.Error
		if err := deed(); !errors.As(err, &e) || e.Status != 500 || e.Code != "internal" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An operator who hangs up leaves nothing behind, and the late answer harms nobody.
func TestOperatorHangsUp(t *testing.T) {
	asked, hungUp := make(chan struct{}), make(chan struct{})
	desk, m, server := open(t, Config{Timeout: time.Hour}, func(*market.Command) *market.Out {
		close(asked)
		<-hungUp
		return answered(proto.Answer{})
	})
	ctx, hangUp := context.WithCancel(t.Context())
	go func() {
		<-asked
		hangUp()
	}()
	if _, err := (&control.Client{Base: server.URL}).Deposit(ctx, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("hung up: %v", err)
	}
	server.Close() // waits for the handler: it has noticed
	if len(desk.waiting) != 0 {
		t.Errorf("%d requests are still waited for", len(desk.waiting))
	}
	close(hungUp)
	m.shards.Wait()
}

// Everybody gets his own answer.
func TestManyOperators(t *testing.T) {
	_, _, server := open(t, Config{}, func(c *market.Command) *market.Out {
		return answered(proto.Answer{Account: c.Account, Balance: c.Amount})
	})
	var operators sync.WaitGroup
	for n := range 32 {
		operators.Go(func() {
			for i := range 20 {
				account, amount := proto.AccountID(1+n), proto.Amount(1+n*100+i)
				a, err := (&control.Client{Base: server.URL}).Deposit(t.Context(), account, amount)
				if err != nil || a.Account != account || a.Balance != amount {
					t.Errorf("deposit %d to %d: %+v, %v", amount, account, a, err)
				}
			}
		})
	}
	operators.Wait()
}

func TestWhoMayComeIn(t *testing.T) {
	for _, row := range []struct {
		name, token, path string
		header            [2]string
		host              string
		status            int
	}{
		{name: "loopback without token", status: 200},
		{name: "localhost", host: "LOCALHOST:8081", status: 200},
		{name: "IPv6 loopback", host: "[::1]:8081", status: 200},
		{name: "IPv6 loopback without port", host: "[::1]", status: 200},
		{name: "a name that was made to point here", host: "evil.example:8081", status: 403},
		{name: "a page of another origin", header: [2]string{"Origin", "http://evil.example"}, status: 403},
		{name: "a page of another site", header: [2]string{"Sec-Fetch-Site", "cross-site"}, status: 403},
		{name: "right token", token: "s3cret", header: [2]string{"Authorization", "Bearer s3cret"}, host: "tote.example", status: 200},
		{name: "scheme in lower case", token: "s3cret", header: [2]string{"Authorization", "bearer s3cret"}, status: 200},
		{name: "no token", token: "s3cret", status: 401},
		{name: "wrong token", token: "s3cret", header: [2]string{"Authorization", "Bearer s3creT"}, status: 401},
		{name: "shorter token", token: "s3cret", header: [2]string{"Authorization", "Bearer s3cre"}, status: 401},
		{name: "empty token", token: "s3cret", header: [2]string{"Authorization", "Bearer "}, status: 401},
		{name: "other scheme", token: "s3cret", header: [2]string{"Authorization", "Basic s3cret"}, status: 401},
		{name: "metrics without token", token: "s3cret", path: "/metrics", status: 401},
		{name: "profiles without token", token: "s3cret", path: "/debug/pprof/", status: 401},
		{name: "unknown path without token", token: "s3cret", path: "/v2", status: 401},
		{name: "health without token", token: "s3cret", path: "/healthz", status: 200},
		{name: "readiness without token", token: "s3cret", path: "/readyz", status: 200},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, m, server := open(t, Config{Token: row.token, Gather: prometheus.NewRegistry()}, func(*market.Command) *market.Out { return answered(proto.Answer{}) })
			method, path := "GET", row.path
			if path == "" {
				method, path = "POST", "/v1/accounts/1/deposits"
			}
			r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if row.header[0] != "" {
				r.Header.Set(row.header[0], row.header[1])
			}
			if row.host != "" {
				r.Host = row.host
			}
			if status, body := do(t, r); status != row.status {
				t.Errorf("%d %s, want %d", status, body, row.status)
			}
			if row.status >= 400 && len(m.commands) != 0 {
				t.Errorf("the market was asked %+v", m.commands)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for _, row := range []struct{ listen, token, want string }{
		{"127.0.0.1:8081", "", ""},
		{"127.1.2.3:8081", "", ""},
		{"localhost:8081", "", ""},
		{"[::1]:8081", "", ""},
		{":8081", "s3cret", ""},
		{":8081", "", "set an admin token, or listen on the loopback"},
		{"0.0.0.0:8081", "", "set an admin token"},
		{"[::]:8081", "", "set an admin token"},
		{"192.0.2.1:8081", "", `check the admin address "192.0.2.1:8081": it can be reached from other hosts, and no token is set`},
		{"localhost.evil.example:8081", "", "set an admin token"},
		{"127.0.0.1", "s3cret", "missing port in address; give host:port"},
	} {
		err := Check(row.listen, row.token)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s with token %q: %v, want %q", row.listen, row.token, err, row.want)
		}
	}
}

// The catalogue is what the market has broadcast.
func TestGames(t *testing.T) {
	desk, _, server := open(t, Config{}, nil)
	client := &control.Client{Base: server.URL}
	if _, body := send(t, "GET", server.URL+"/v1/games", ""); !strings.Contains(body, `"games":[]`) {
		t.Errorf("no games: %s", body)
	}
	tell := func(m proto.Message, g proto.GameID) {
		desk.Deliver(&market.Batch{Outs: []market.Out{{Kind: market.OutMessage, Game: g, Message: m}}})
	}
	final := proto.Game{Game: 3, Name: "Argentina v France", State: proto.GameLive}
	tell(&proto.GameChanged{Game: final}, 3)
	tell(&proto.GameChanged{Game: proto.Game{Game: 2, Name: "Croatia v Morocco"}}, 2)
	tell(&proto.Happened{Game: 3, Minute: 23, Score: [2]uint16{1, 0}}, 3)
	tell(&proto.Happened{Game: 9, Minute: 23}, 9) // nobody has heard of this game
	final.Minute, final.Score = 23, [2]uint16{1, 0}
	want := []proto.Game{{Game: 2, Name: "Croatia v Morocco"}, final}
	if got, err := client.Games(t.Context()); err != nil || !reflect.DeepEqual(got.Games, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}

	// Of ended games only the last are kept; each counts once.
	for range 2 {
		tell(&proto.GameChanged{Game: proto.Game{Game: 3, State: proto.GameEnded}}, 3)
	}
	for g := range proto.GameID(endedMax) {
		tell(&proto.GameChanged{Game: proto.Game{Game: 10 + g, State: proto.GameEnded}}, 10+g)
	}
	got, err := client.Games(t.Context())
	if err != nil || len(got.Games) != 1+endedMax || got.Games[0].Game != 2 || got.Games[1].Game != 10 {
		t.Errorf("%d games, %v, want game 2 and %d ended ones from 10", len(got.Games), err, endedMax)
	}
}

func TestHealth(t *testing.T) {
	var notReady error
	meters := prometheus.NewRegistry()
	stakes := prometheus.NewCounter(prometheus.CounterOpts{Name: "tote_stakes_total"})
	meters.MustRegister(stakes)
	stakes.Add(3)
	_, _, server := open(t, Config{Ready: func() error { return notReady }, Gather: meters}, nil)
	client := &control.Client{Base: server.URL}
	if err := errors.Join(client.Health(t.Context()), client.Ready(t.Context())); err != nil {
		t.Error(err)
	}
	notReady = errors.New("replaying the journal: 40 %")
	if err := client.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "503 not_ready: the server takes no stakes yet, or no more: replaying the journal: 40 %") {
		t.Errorf("not ready: %v", err)
	}
	if text, err := client.Metrics(t.Context()); err != nil || !strings.Contains(text, "tote_stakes_total 3\n") {
		t.Errorf("metrics: %q, %v", text, err)
	}
	if status, body := send(t, "GET", server.URL+"/debug/pprof/goroutine?debug=1", ""); status != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("profile: %d %.80s", status, body)
	}
}

// The level of the log changes while the server runs, and what is no level changes nothing.
func TestLogLevel(t *testing.T) {
	var text bytes.Buffer
	level := new(slog.LevelVar)
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: level}))
	_, _, server := open(t, Config{Log: log, Level: level}, nil)
	for _, row := range []struct {
		method, body string
		status       int
		want         string
	}{
		{"GET", "", 200, `{"level":"INFO"}`},
		{"PUT", `{"level":"debug"}`, 200, `{"level":"DEBUG"}`},
		{"PUT", `{"level":"loud"}`, 400, `"code":"malformed"`},
		{"PUT", `{}`, 200, `{"level":"DEBUG"}`},
	} {
		if status, body := send(t, row.method, server.URL+"/log", row.body); status != row.status || !strings.Contains(body, row.want) {
			t.Errorf("%s %s: %d %s, want %d %s", row.method, row.body, status, body, row.status, row.want)
		}
	}
	server.Close()
	if !strings.Contains(text.String(), "level=DEBUG msg=\"admin request\"") || strings.Count(text.String(), "method=GET path=/log") != 0 {
		t.Errorf("the log says\n%s", &text)
	}
}

// The log has every request at debug and each failure at info, and never a token.
func TestLog(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	_, _, server := open(t, Config{Log: log, Token: "s3cret", Mint: func(proto.AccountID) string { return "m1nted" }}, func(c *market.Command) *market.Out {
		if c.Kind == market.Withdraw {
			return refused(proto.RefusedFundsShort)
		}
		return answered(proto.Answer{Account: 1})
	})
	client := &control.Client{Base: server.URL, Token: "s3cret"}
	if _, err := client.OpenAccount(t.Context(), proto.AccountOpening{Name: "Ada"}); err != nil {
		t.Error(err)
	}
	if _, err := client.Withdraw(t.Context(), 1, 5); err == nil {
		t.Error("the withdrawal was not refused")
	}
	server.Close()
	for _, want := range []string{
		`level=DEBUG msg="admin request" method=POST path=/v1/accounts `,
		`level=INFO msg="admin request not carried out" method=POST path=/v1/accounts/1/withdrawals `, `status=409 code=funds_short`,
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, &text)
		}
	}
	for _, secret := range []string{"s3cret", "m1nted"} {
		if strings.Contains(text.String(), secret) {
			t.Errorf("the log tells %q:\n%s", secret, &text)
		}
	}
}

// No two requests that can wait at a time have one session.
func TestSessionsDiffer(t *testing.T) {
	d := New(Config{}, nil)
	seen := map[market.Session]bool{}
	for _, d.asked = range []uint64{0, 1, market.SessionSlots - 2, market.SessionSlots - 1, market.SessionSlots, 2*market.SessionSlots - 1} {
		s := d.wait(waiter{})
		if seen[s] || s.Loop() != market.DeskLoop || s.Generation() == 0 {
			t.Errorf("session %x: loop %d, generation %d, slot %d", uint64(s), s.Loop(), s.Generation(), s.Slot())
		}
		seen[s] = true
	}
}
