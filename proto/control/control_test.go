package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"tote/server/proto"
)

// Each deed of an operator: what it sends, and what it makes of the answer.
func TestDeeds(t *testing.T) {
	ctx := t.Context()
	for _, row := range []struct {
		sent, answer string
		deed         func(*Client) (any, error)
		want         any
	}{
		{`POST /v1/accounts {"name":"Ada","deposit":1000}`, `{"account":12,"token":"t","balance":1000}`,
			func(c *Client) (any, error) {
				return c.OpenAccount(ctx, proto.AccountOpening{Name: "Ada", Deposit: 1000})
			},
			&proto.AccountOpened{Account: 12, Token: "t", Balance: 1000}},
		{`POST /v1/accounts/12/deposits {"amount":5}`, `{"account":12,"balance":1005,"seq":7}`,
			func(c *Client) (any, error) { return c.Deposit(ctx, 12, 5) }, &proto.Answer{Account: 12, Balance: 1005, Seq: 7}},
		{`POST /v1/accounts/12/withdrawals {"amount":5}`, `{"account":12,"balance":1000,"seq":8}`,
			func(c *Client) (any, error) { return c.Withdraw(ctx, 12, 5) }, &proto.Answer{Account: 12, Balance: 1000, Seq: 8}},
		{`GET /v1/accounts/12 `, `{"account":12,"name":"Ada","balance":1000}`,
			func(c *Client) (any, error) { return c.Account(ctx, 12) }, &proto.Account{Account: 12, Name: "Ada", Balance: 1000}},
		{`GET /v1/accounts/12/statement?before=9&limit=20 `, `{"counts":5,"entries":[{"entry":8,"kind":"deposit","change":5}],"more":true,"next":8}`,
			func(c *Client) (any, error) { return c.Statement(ctx, 12, proto.Page{Before: 9, Limit: 20}) },
			&proto.Statement{Counts: 5, Entries: []proto.Entry{{Entry: 8, Kind: proto.EntryDeposit, Change: 5}}, More: true, Next: 8}},
		{`POST /v1/games {"name":"Argentina v France","teams":["Argentina","France"],"interval":100000}`, `{"game":3,"seq":9}`,
			func(c *Client) (any, error) {
				return c.OpenGame(ctx, proto.GameOpening{Name: "Argentina v France", Teams: [2]string{"Argentina", "France"}, Interval: 100 * proto.Millisecond})
			},
			&proto.Answer{Game: 3, Seq: 9}},
		{`GET /v1/games `, `{"games":[{"game":3,"state":"live","score":[1,0]}]}`,
			func(c *Client) (any, error) { return c.Games(ctx) },
			&proto.Games{Games: []proto.Game{{Game: 3, State: proto.GameLive, Score: [2]uint16{1, 0}}}}},
		{`GET /v1/games/3/pools `, `{"game":3,"pools":[{"pool":196609,"state":"settled","winners":[1],"odds":[{"staked":10,"backers":1,"x":2.345}]}]}`,
			func(c *Client) (any, error) { return c.Pools(ctx, 3) },
			&proto.Pools{Game: 3, Pools: []proto.Pool{{Pool: 196609, State: proto.PoolSettled, Winners: []proto.Outcome{1},
				Odds: []proto.Odd{{Staked: 10, Backers: 1, Multiplier: 2345}}}}}},
		{`POST /v1/games/3/pools {"question":"Who?","labels":["A","B"]}`, `{"pool":196610,"opened":[196610],"seq":10}`,
			func(c *Client) (any, error) {
				return c.OpenPool(ctx, 3, proto.PoolOpening{Question: "Who?", Labels: []string{"A", "B"}})
			},
			&proto.Answer{Pool: 196610, Opened: []proto.PoolID{196610}, Seq: 10}},
		{`POST /v1/games/3/events {"kind":"goal","minute":23,"team":1,"player":"Lionel Messi","score":[1,0],"penalty":true}`, `{"game":3,"settled":[196609],"seq":11}`,
			func(c *Client) (any, error) {
				return c.PostEvent(ctx, 3, proto.Event{Kind: "goal", Minute: 23, Team: 1, Player: "Lionel Messi", Score: [2]uint16{1, 0}, Penalty: true})
			},
			&proto.Answer{Game: 3, Settled: []proto.PoolID{196609}, Seq: 11}},
		{`PUT /v1/games/3/templates {"templates":[{"name":"rain","question":"Rain?","opens":"true","outcomes":null}]}`, `{"game":3,"seq":12}`,
			func(c *Client) (any, error) {
				return c.SetTemplates(ctx, 3, proto.TemplateSet{Templates: []proto.Template{{Name: "rain", Question: "Rain?", Opens: "true"}}})
			},
			&proto.Answer{Game: 3, Seq: 12}},
		{`GET /v1/games/3/questions `, `{"game":3,"questions":[{"pool":{"pool":196610,"state":"proposed","asked":{"account":12,"name":"Ada","settle":"admin"}},"reports":2,"reason":"fog"}]}`,
			func(c *Client) (any, error) { return c.Questions(ctx, 3) },
			&proto.Questions{Game: 3, Questions: []proto.Inquiry{{Pool: proto.Pool{Pool: 196610, State: proto.PoolProposed,
				Asked: proto.Asked{Account: 12, Name: "Ada", Settle: proto.SettledByAdmin}}, Reports: 2, Reason: "fog"}}}},
		{`POST /v1/pools/196610/approve {}`, `{"pool":196610,"seq":12}`,
			func(c *Client) (any, error) { return c.Approve(ctx, 196610) }, &proto.Answer{Pool: 196610, Seq: 12}},
		{`POST /v1/games/3/stakes {"stakes":[{"account":12,"id":1,"pool":196610,"outcome":0,"amount":50},{"account":13,"id":1,"pool":196610,"outcome":1,"amount":60}]}`,
			`{"verdicts":[{"prediction":13},{"code":"funds_short"}]}`,
			func(c *Client) (any, error) {
				return c.Stake(ctx, 3, proto.StakeBatch{Stakes: []proto.AccountStake{{Account: 12, ID: 1, Pool: 196610, Amount: 50}, {Account: 13, ID: 1, Pool: 196610, Outcome: 1, Amount: 60}}})
			},
			&proto.StakeVerdicts{Verdicts: []proto.StakeVerdict{{Prediction: 13}, {Code: "funds_short"}}}},
		{`GET /v1/games/3/recording `, "toterec\x01…", func(c *Client) (any, error) {
			var b strings.Builder
			err := c.Recording(ctx, 3, &b)
			return b.String(), err
		}, "toterec\x01…"},
		{`POST /v1/pools/196610/lock {}`, `{"pool":196610,"seq":12}`,
			func(c *Client) (any, error) { return c.Lock(ctx, 196610, 0) }, &proto.Answer{Pool: 196610, Seq: 12}},
		{`POST /v1/pools/196610/settle {"winners":[1]}`, `{"pool":196610,"seq":13}`,
			func(c *Client) (any, error) { return c.Settle(ctx, 196610, 1) }, &proto.Answer{Pool: 196610, Seq: 13}},
		{`POST /v1/pools/196610/withdraw {"outcome":2}`, `{"pool":196610,"seq":14}`,
			func(c *Client) (any, error) { return c.WithdrawOutcome(ctx, 196610, 2) }, &proto.Answer{Pool: 196610, Seq: 14}},
		{`POST /v1/pools/196610/void {"reason":"fog"}`, `{"pool":196610,"seq":14}`,
			func(c *Client) (any, error) { return c.Void(ctx, 196610, "fog") }, &proto.Answer{Pool: 196610, Seq: 14}},
		{`GET /healthz `, `ok`, func(c *Client) (any, error) { return nil, c.Health(ctx) }, nil},
		{`GET /readyz `, `ok`, func(c *Client) (any, error) { return nil, c.Ready(ctx) }, nil},
		{`PUT /log {"level":"DEBUG"}`, `{"level":"DEBUG"}`,
			func(c *Client) (any, error) { return c.SetLogging(ctx, Logging{Level: slog.LevelDebug}) }, &Logging{Level: slog.LevelDebug}},
		{`GET /v1/consumers `, `{"consumers":[{"account":3,"name":"Ada","address":"10.0.0.1","backlog":512}]}`,
			func(c *Client) (any, error) { return c.Consumers(ctx) }, &Consumers{Consumers: []Consumer{{Account: 3, Name: "Ada", Address: "10.0.0.1", Backlog: 512}}}},
		{`GET /log `, `{"level":"WARN"}`, func(c *Client) (any, error) { return c.Logging(ctx) }, &Logging{Level: slog.LevelWarn}},
		{`GET /metrics `, "up 1\n", func(c *Client) (any, error) { return c.Metrics(ctx) }, "up 1\n"},
	} {
		t.Run(row.sent, func(t *testing.T) {
			var sent, authorization string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				sent, authorization = r.Method+" "+r.URL.RequestURI()+" "+string(body), r.Header.Get("Authorization")
				io.WriteString(w, row.answer)
			}))
			defer server.Close()
			got, err := row.deed(&Client{Base: server.URL + "/", Token: "secret"})
			if err != nil || !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, row.want)
			}
			if sent != row.sent {
				t.Errorf("sent %s, want %s", sent, row.sent)
			}
			if authorization != "Bearer secret" {
				t.Errorf("sent Authorization: %q", authorization)
			}
		})
	}
}

func TestProblemsComeBack(t *testing.T) {
	for _, row := range []struct {
		name   string
		status int
		body   string
		want   Error
		text   string
	}{
		{"refusal", 409, `{"code":"pool_open","reason":"the pool is still open; lock it first"}`,
			Error{409, proto.Problem{Code: "pool_open", Reason: "the pool is still open; lock it first"}},
			"POST /v1/pools/7/settle: 409 pool_open: the pool is still open; lock it first"},
		{"with the place", 400, `{"code":"malformed","reason":"r","detail":"d"}`,
			Error{400, proto.Problem{Code: "malformed", Reason: "r", Detail: "d"}}, "POST /v1/pools/7/settle: 400 malformed: r: d"},
		{"a proxy", 502, `<html>`, Error{502, proto.Problem{Code: "http", Reason: "Bad Gateway", Detail: "<html>"}}, "POST /v1/pools/7/settle: 502 http: Bad Gateway: <html>"},
		{"JSON of another kind", 500, `{"error":1}`, Error{500, proto.Problem{Code: "http", Reason: "Internal Server Error", Detail: `{"error":1}`}},
			`POST /v1/pools/7/settle: 500 http: Internal Server Error: {"error":1}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(row.status)
				io.WriteString(w, row.body)
			}))
			defer server.Close()
			_, err := (&Client{Base: strings.TrimPrefix(server.URL, "http://")}).Settle(t.Context(), 7, 0)
			var e *Error
			if !errors.As(err, &e) || *e != row.want || err.Error() != row.text {
				t.Errorf("got %v\nwant %s", err, row.text)
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	defer server.Close()
	_, err := (&Client{Base: server.URL}).Games(t.Context())
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) || !strings.HasPrefix(err.Error(), "GET /v1/games: read the answer: ") {
		t.Errorf("not JSON: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&Client{Base: server.URL}).Health(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that was given up: %v", err)
	}
	if err := (&Client{Base: "http://[::1"}).Health(t.Context()); err == nil {
		t.Error("a base that is no address")
	}
}
