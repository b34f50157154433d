// Package control is what operators and feeds say to a server: the paths of its admin listener, and a client.
//
// `server ctl` runs it, so does the feed that plays matches; package admin answers. It is for those who run the
// market: players never come here, and it knows nothing of WebSockets.
//
// Bodies are JSON, the types are in proto. What is not a success has a status of 400 or more and a
// proto.Problem as its body: 400 what was sent is wrong, 401 the token is, 404 there is no such thing, 409 it
// cannot be done now, 503 the server is busy or starting, 504 no answer in time: it may have been done or not.
//
//	POST /v1/accounts                    AccountOpening   AccountOpened
//	GET  /v1/accounts/{id}                                Account
//	GET  /v1/accounts/{id}/statement                      Statement (?before=&after=&limit=)
//	POST /v1/accounts/{id}/deposits      Transfer         Answer
//	POST /v1/accounts/{id}/withdrawals   Transfer         Answer
//	GET  /v1/games                                        Games
//	POST /v1/games                       GameOpening      Answer
//	GET  /v1/games/{id}/pools                             Pools
//	POST /v1/games/{id}/pools            PoolOpening      Answer
//	POST /v1/games/{id}/events           Event            Answer
//	PUT  /v1/games/{id}/templates        TemplateSet      Answer
//	GET  /v1/games/{id}/questions                         Questions
//	POST /v1/pools/{id}/approve          {}               Answer
//	POST /v1/games/{id}/stakes           StakeBatch       StakeVerdicts
//	GET  /v1/games/{id}/recording                         a recording, as package market writes it
//	POST /v1/pools/{id}/lock             Locking          Answer
//	POST /v1/pools/{id}/settle           Settlement       Answer
//	POST /v1/pools/{id}/withdraw         OutcomeWithdrawal  Answer
//	POST /v1/pools/{id}/void             Voiding          Answer
//	GET  /v1/backup                                       a copy of the data, as tar (?rate= bytes per second)
//	GET  /healthz                                         "ok" while the process answers at all
//	GET  /readyz                                          "ok", or 503 and why not
//	GET  /metrics                                         Prometheus' text format
//	GET  /v1/activity                                     Activity
//	GET  /v1/consumers                                    Consumers
//	GET  /log                                             Logging
//	PUT  /log                            Logging          Logging
//	GET  /v1/process                                      Process
//	POST /v1/upgrade                     Upgrade          Process: the one that takes over
//
// A server that listens beyond the host's loopback wants its bearer token with everything but /healthz and /readyz:
//
//	curl -H "Authorization: Bearer $TOKEN" -d '{"name":"Ada","deposit":100000}' http://localhost:8081/v1/accounts
//	{"account":12,"token":"eyJ…","balance":100000}
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"tote/server/proto"
)

// The paths; {id} is an account's, a game's or a pool's.
const (
	PathAccounts      = "/v1/accounts"
	PathAccount       = "/v1/accounts/{id}"
	PathStatement     = "/v1/accounts/{id}/statement"
	PathDeposits      = "/v1/accounts/{id}/deposits"
	PathWithdrawals   = "/v1/accounts/{id}/withdrawals"
	PathGames         = "/v1/games"
	PathGamePools     = "/v1/games/{id}/pools"
	PathGameEvents    = "/v1/games/{id}/events"
	PathGameTemplates = "/v1/games/{id}/templates"
	PathQuestions     = "/v1/games/{id}/questions"
	PathPoolApprove   = "/v1/pools/{id}/approve"
	PathGameStakes    = "/v1/games/{id}/stakes"
	PathGameRecording = "/v1/games/{id}/recording"
	PathPoolLock      = "/v1/pools/{id}/lock"
	PathPoolSettle    = "/v1/pools/{id}/settle"
	PathPoolWithdraw  = "/v1/pools/{id}/withdraw"
	PathPoolVoid      = "/v1/pools/{id}/void"
	PathHealth        = "/healthz"
	PathReady         = "/readyz"
	PathMetrics       = "/metrics"
	PathBackup        = "/v1/backup"
	PathActivity      = "/v1/activity"
	PathConsumers     = "/v1/consumers"
	PathLog           = "/log"
	PathProcess       = "/v1/process"
	PathUpgrade       = "/v1/upgrade"
)

// answerMax bounds what the client reads of an answer: a game of proto.PoolsMax pools is below it.
const answerMax = 64 << 20

// Client speaks to one server. It may be used by several goroutines.
type Client struct {
	Base  string       // as in "http://localhost:8081"; without a scheme it is http
	Token string       // empty where the server listens on its loopback
	HTTP  *http.Client // nil: http.DefaultClient
}

// Error is the server's answer that a request was not carried out.
type Error struct {
	Status int
	proto.Problem
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Reason)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// OpenAccount opens an account with a first deposit, which may be 0.
func (c *Client) OpenAccount(ctx context.Context, o proto.AccountOpening) (*proto.AccountOpened, error) {
	return post[proto.AccountOpened](ctx, c, PathAccounts, o)
}

// Deposit adds to an account's balance. It is not idempotent: after an unclear failure, look at the account first.
func (c *Client) Deposit(ctx context.Context, a proto.AccountID, amount proto.Amount) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathDeposits, a), proto.Transfer{Amount: amount})
}

// Withdraw takes from an account's balance. It is not idempotent either.
func (c *Client) Withdraw(ctx context.Context, a proto.AccountID, amount proto.Amount) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathWithdrawals, a), proto.Transfer{Amount: amount})
}

// Account shows an account.
func (c *Client) Account(ctx context.Context, a proto.AccountID) (*proto.Account, error) {
	return get[proto.Account](ctx, c, fill(PathAccount, a))
}

// Statement shows a page of an account's statement, from the newest entry backwards.
func (c *Client) Statement(ctx context.Context, a proto.AccountID, page proto.Page) (*proto.Statement, error) {
	query := url.Values{}
	for name, n := range map[string]uint64{"before": page.Before, "after": page.After, "limit": uint64(page.Limit)} {
		if n != 0 {
			query.Set(name, strconv.FormatUint(n, 10))
		}
	}
	return get[proto.Statement](ctx, c, fill(PathStatement, a)+"?"+query.Encode())
}

// OpenGame opens a game; the answer has its id.
func (c *Client) OpenGame(ctx context.Context, o proto.GameOpening) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, PathGames, o)
}

// Games lists the games that are not over for long, by id.
func (c *Client) Games(ctx context.Context) (*proto.Games, error) {
	return get[proto.Games](ctx, c, PathGames)
}

// Pools shows a game's pools.
func (c *Client) Pools(ctx context.Context, g proto.GameID) (*proto.Pools, error) {
	return get[proto.Pools](ctx, c, fill(PathGamePools, g))
}

// OpenPool opens a pool by hand; the answer has its id.
func (c *Client) OpenPool(ctx context.Context, g proto.GameID, o proto.PoolOpening) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathGamePools, g), o)
}

// PostEvent tells what happened in a game; the answer lists the pools that it opened, locked, settled and voided.
func (c *Client) PostEvent(ctx context.Context, g proto.GameID, e proto.Event) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathGameEvents, g), e)
}

// SetTemplates gives a running game new questions.
func (c *Client) SetTemplates(ctx context.Context, g proto.GameID, set proto.TemplateSet) (*proto.Answer, error) {
	return put[proto.Answer](ctx, c, http.MethodPut, fill(PathGameTemplates, g), set)
}

// Stake makes stakes for accounts. A refusal of one of them is in its verdict.
func (c *Client) Stake(ctx context.Context, g proto.GameID, batch proto.StakeBatch) (*proto.StakeVerdicts, error) {
	return post[proto.StakeVerdicts](ctx, c, fill(PathGameStakes, g), batch)
}

// Recording copies a game's recording, up to all that was answered before.
func (c *Client) Recording(ctx context.Context, g proto.GameID, to io.Writer) error {
	path := fill(PathGameRecording, g)
	from, err := c.stream(ctx, path)
	if err != nil {
		return err
	}
	defer from.Close()
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("GET %s: read the answer: %w", path, err)
	}
	return nil
}

// Sums is the last file of a backup: a line for each other, as sha256sum writes and checks them. A backup without it is torn.
const Sums = "SHA256SUMS"

// Backup returns a copy of the server's data, as tar: all that was answered before, while the server goes on. The server sends
// at most rate bytes per second; 0: as many as it thinks right.
func (c *Client) Backup(ctx context.Context, rate uint64) (io.ReadCloser, error) {
	return c.stream(ctx, PathBackup+"?rate="+strconv.FormatUint(rate, 10))
}

// Questions shows the questions that players have asked in a game, those too that nobody else sees.
func (c *Client) Questions(ctx context.Context, g proto.GameID) (*proto.Questions, error) {
	return get[proto.Questions](ctx, c, fill(PathQuestions, g))
}

// Approve opens a question that waits for approval, or lets a suspended one go on. Void rejects it.
func (c *Client) Approve(ctx context.Context, p proto.PoolID) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathPoolApprove, p), struct{}{})
}

// Lock closes a pool to stakes that arrive after at; 0 is now.
func (c *Client) Lock(ctx context.Context, p proto.PoolID, at proto.Time) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathPoolLock, p), proto.Locking{At: at})
}

// WithdrawOutcome takes an outcome out of a pool that is not over, and returns its stakes.
func (c *Client) WithdrawOutcome(ctx context.Context, p proto.PoolID, o proto.Outcome) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathPoolWithdraw, p), proto.OutcomeWithdrawal{Outcome: o})
}

// Settle names the winner of a locked pool, or several: a dead heat.
func (c *Client) Settle(ctx context.Context, p proto.PoolID, winners ...proto.Outcome) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathPoolSettle, p), proto.Settlement{Winners: winners})
}

// Void ends a pool and returns all stakes; players are told the reason.
func (c *Client) Void(ctx context.Context, p proto.PoolID, reason string) (*proto.Answer, error) {
	return post[proto.Answer](ctx, c, fill(PathPoolVoid, p), proto.Voiding{Reason: reason})
}

// Health is nil while the server answers.
func (c *Client) Health(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodGet, PathHealth, nil)
	return err
}

// Ready is nil once the server takes stakes.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodGet, PathReady, nil)
	return err
}

// Metrics is the server's meters in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	body, err := c.do(ctx, http.MethodGet, PathMetrics, nil)
	return string(body), err
}

// Activity is what each game has caused since the server started, by id.
type Activity struct {
	Games []Active `json:"games"`
}

// Active is a game that is not over for long.
type Active struct {
	Game      proto.GameID `json:"game"`
	Name      string       `json:"name"`
	Present   int          `json:"present"`    // connections
	Interval  proto.Time   `json:"interval"`   // between two distributions of odds, µs
	Stakes    uint64       `json:"stakes"`     // and sales, as of the last distribution
	SentBytes uint64       `json:"sent_bytes"` // of broadcasts
}

// Activity shows what games have caused.
func (c *Client) Activity(ctx context.Context) (*Activity, error) {
	return get[Activity](ctx, c, PathActivity)
}

// Consumers are the connections that have left the most unread, the worst first; at most 8.
type Consumers struct {
	Consumers []Consumer `json:"consumers"`
}

// Consumer is a connection that reads more slowly than it is told.
type Consumer struct {
	Account proto.AccountID `json:"account"` // 0: nobody has said hello
	Name    string          `json:"name"`
	Address string          `json:"address"`
	Backlog int             `json:"backlog"` // bytes that its socket has not taken
}

// Consumers shows the slowest consumers.
func (c *Client) Consumers(ctx context.Context) (*Consumers, error) {
	return get[Consumers](ctx, c, PathConsumers)
}

// Logging says from which level on the server logs: debug, info, warn or error.
type Logging struct {
	Level slog.Level `json:"level"`
}

// Logging shows from which level on the server logs.
func (c *Client) Logging(ctx context.Context) (*Logging, error) {
	return get[Logging](ctx, c, PathLog)
}

// SetLogging has the server log from another level on, until it ends.
func (c *Client) SetLogging(ctx context.Context, l Logging) (*Logging, error) {
	return put[Logging](ctx, c, http.MethodPut, PathLog, l)
}

func fill[T ~uint64](path string, id T) string {
	return strings.Replace(path, "{id}", strconv.FormatUint(uint64(id), 10), 1)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (*T, error) {
	return put[T](ctx, c, http.MethodPost, path, body)
}

func put[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return read[T](ctx, c, method, path, b)
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	return read[T](ctx, c, http.MethodGet, path, nil)
}

func read[T any](ctx context.Context, c *Client, method, path string, body []byte) (*T, error) {
	b, err := c.do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	answer := new(T)
	if err := json.Unmarshal(b, answer); err != nil {
		return nil, fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	return answer, nil
}

// do makes one request and returns the body of a success.
func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	response, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, answerMax))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	if response.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %w", method, path, problem(response.StatusCode, b))
	}
	return b, nil
}

// stream makes one request for what may be long.
func (c *Client) stream(ctx context.Context, path string) (io.ReadCloser, error) {
	response, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < 300 {
		return response.Body, nil
	}
	defer response.Body.Close()
	b, err := io.ReadAll(io.LimitReader(response.Body, answerMax))
	return nil, fmt.Errorf("GET %s: %w", path, errors.Join(problem(response.StatusCode, b), err))
}

// send makes one request.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	base := strings.TrimSuffix(c.Base, "/")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	r, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	return client.Do(r) // its error says method and address already
}

// problem reads why a request failed. A proxy in between speaks its own language, which is kept as it is.
func problem(status int, body []byte) *Error {
	e := &Error{Status: status}
	if err := json.Unmarshal(body, &e.Problem); err != nil || e.Code == "" {
		e.Problem = proto.Problem{Code: "http", Reason: http.StatusText(status), Detail: strings.ToValidUTF8(string(body[:min(len(body), 200)]), "")}
	}
	return e
}
