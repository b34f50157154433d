// Package ctl is the operator's shell: each command is one call to the admin listener of a running
// server, and prints its answer as JSON. feed plays a whole match.
//
// It knows nothing that the admin listener does not say; whatever it does, curl can do.
package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"tote/server/engine/feed"
	"tote/server/proto"
	"tote/server/proto/control"
)

// Command is `server ctl`, for the command line parser.
type Command struct {
	Admin      string `default:"http://127.0.0.1:8081" help:"URL of the admin listener."`
	AdminToken string `help:"Bearer token of the admin listener, if it wants one."`

	Account struct {
		Open      accountOpen      `cmd:"" help:"Open an account with a first deposit; prints its player token."`
		Show      accountShow      `cmd:"" help:"Show an account."`
		Statement accountStatement `cmd:"" help:"Show an account's statement, from the newest entry backwards."`
		Deposit   accountDeposit   `cmd:"" help:"Add to an account's balance."`
		Withdraw  accountWithdraw  `cmd:"" help:"Take from an account's balance."`
	} `cmd:"" help:"Accounts and their money."`
	Game struct {
		Open  gameOpen  `cmd:"" help:"Open a game with a sport's templates, or without any."`
		List  gameList  `cmd:"" help:"List games."`
		Event gameEvent `cmd:"" help:"Post an event; the templates say what it locks, settles and opens."`
	} `cmd:"" help:"Games and what happens in them."`
	Pool struct {
		Open     poolOpen     `cmd:"" help:"Open a pool by hand."`
		List     poolList     `cmd:"" help:"List a game's pools."`
		Lock     poolLock     `cmd:"" help:"Lock a pool: stakes that arrive later are refused."`
		Settle   poolSettle   `cmd:"" help:"Settle a locked pool, for one winner or several (a dead heat)."`
		Withdraw poolWithdraw `cmd:"" help:"Take an outcome out of a pool: its stakes are returned."`
		Void     poolVoid     `cmd:"" help:"Void a pool: all stakes are returned."`
	} `cmd:"" help:"Pools."`
	Templates struct {
		Check templatesCheck `cmd:"" help:"Check files of question templates; mistakes are told with file, line and column."`
		Set   templatesSet   `cmd:"" help:"Give a running game new templates; pools that are open keep their rules."`
		Show  templatesShow  `cmd:"" help:"Print the templates of a sport that ships."`
	} `cmd:"" help:"Question templates."`
	DryRun   dryRun `cmd:"" help:"Play a match without a server, and print when each question opens, locks and ends."`
	Question struct {
		List    questionList    `cmd:"" help:"List the questions that players have asked, those that wait for approval too."`
		Approve questionApprove `cmd:"" help:"Open a question that waits for approval, or let a suspended one go on."`
		Reject  questionReject  `cmd:"" help:"End a question that should not be asked; the asker is told the reason, stakes return."`
	} `cmd:"" help:"Questions of players."`
	Record struct {
		Export recordExport `cmd:"" help:"Write a game's recording to a file; the server must run with --record."`
		Show   recordShow   `cmd:"" help:"Print what a recorded game came to."`
	} `cmd:"" help:"Recordings."`
	Backup  backup  `cmd:"" help:"Copy the data of a running server into a new directory, on this host; server audit --data checks it, server serve --data serves it."`
	Replay  replay  `cmd:"" help:"Play a recorded game again, into another game of the server."`
	Feed    play    `cmd:"" help:"Play a real match, event by event, at a chosen speed."`
	Health  health  `cmd:"" help:"Ask whether the server lives and is ready."`
	Metrics metrics `cmd:"" help:"Print the server's metrics."`
	Log     logging `cmd:"" help:"Set or show from which level on the running server logs."`

	Dashboard dashboard `cmd:"" help:"Print a dashboard for Grafana, over a Prometheus that scrapes the server."`
	Alerts    alerts    `cmd:"" help:"Print alerts for Prometheus; README.md says what each means and what to do."`
}

// Session is what a command runs with.
type Session struct {
	Context context.Context
	Client  *control.Client
	Out     io.Writer
	Log     *slog.Logger
}

// Session makes the session of this command line.
func (c *Command) Session(ctx context.Context, log *slog.Logger) *Session {
	return &Session{Context: ctx, Client: &control.Client{Base: strings.TrimSuffix(c.Admin, "/"), Token: c.AdminToken}, Out: os.Stdout, Log: log}
}

// print shows an answer, or passes the error on.
func print[T any](s *Session, answer *T, err error) error {
	if err != nil {
		return err
	}
	e := json.NewEncoder(s.Out)
	e.SetIndent("", "  ")
	return e.Encode(answer)
}

type accountOpen struct {
	Name    string       `arg:"" help:"Name that others see."`
	Deposit proto.Amount `default:"0" help:"First deposit, in units."`
}

func (c *accountOpen) Run(s *Session) error {
	answer, err := s.Client.OpenAccount(s.Context, proto.AccountOpening{Name: c.Name, Deposit: c.Deposit})
	return print(s, answer, err)
}

type accountShow struct {
	Account proto.AccountID `arg:""`
}

func (c *accountShow) Run(s *Session) error {
	answer, err := s.Client.Account(s.Context, c.Account)
	return print(s, answer, err)
}

type accountStatement struct {
	Account proto.AccountID `arg:""`
	Before  uint64          `help:"Only what is older than this entry: the next of the page before."`
	After   uint64          `help:"Only what is newer than this entry."`
	Limit   int             `help:"Entries of a page; 0: 100, which is the most."`
}

func (c *accountStatement) Run(s *Session) error {
	answer, err := s.Client.Statement(s.Context, c.Account, proto.Page{Before: c.Before, After: c.After, Limit: c.Limit})
	return print(s, answer, err)
}

// transfer names an account and an amount.
type transfer struct {
	Account proto.AccountID `arg:""`
	Amount  proto.Amount    `arg:"" help:"Whole units."`
}

type accountDeposit struct{ transfer }

func (c *accountDeposit) Run(s *Session) error {
	answer, err := s.Client.Deposit(s.Context, c.Account, c.Amount)
	return print(s, answer, err)
}

type accountWithdraw struct{ transfer }

func (c *accountWithdraw) Run(s *Session) error {
	answer, err := s.Client.Withdraw(s.Context, c.Account, c.Amount)
	return print(s, answer, err)
}

type gameOpen struct {
	Name      string        `arg:""`
	Teams     []string      `help:"The two teams." placeholder:"A,B"`
	Shortlist []string      `help:"Players that templates ask about." placeholder:"NAME,…"`
	Interval  time.Duration `help:"Batching interval of the odds; the server's default if not set."`
	Templates string        `default:"football" help:"Question templates: a sport that ships, a file, or none."`
}

func (c *gameOpen) Run(s *Session) error {
	opening := proto.GameOpening{Name: c.Name, Shortlist: c.Shortlist, Interval: proto.Time(c.Interval.Microseconds())}
	if len(c.Teams) > len(opening.Teams) {
		return fmt.Errorf("open a game: %d teams are too many, a game has two", len(c.Teams))
	}
	copy(opening.Teams[:], c.Teams)
	if c.Templates != "none" {
		if len(c.Teams) < len(opening.Teams) {
			return fmt.Errorf("open a game: templates need --teams A,B; or say --templates none")
		}
		var err error
		if opening.Templates, err = shippedOrRead(c.Templates); err != nil {
			return err
		}
	}
	answer, err := s.Client.OpenGame(s.Context, opening)
	return print(s, answer, err)
}

type gameList struct{}

func (*gameList) Run(s *Session) error {
	answer, err := s.Client.Games(s.Context)
	return print(s, answer, err)
}

type gameEvent struct {
	Game    proto.GameID `arg:""`
	Kind    string       `arg:"" help:"kickoff, minute, goal, halftime, …, end."`
	Minute  uint16       `help:"Minute of the match."`
	Team    uint8        `help:"1 or 2; 0: neither."`
	Player  string       `help:"Who scored."`
	Score   string       `default:"0-0" help:"After the event, as in 1-0."`
	Penalty bool         `help:"The goal was a penalty."`
	OwnGoal bool         `help:"The goal was an own goal."`
}

func (c *gameEvent) Run(s *Session) error {
	score, err := parseScore(c.Score)
	if err != nil {
		return err
	}
	answer, err := s.Client.PostEvent(s.Context, c.Game, proto.Event{Kind: c.Kind, Minute: c.Minute, Team: c.Team, Player: c.Player,
		Score: score, Penalty: c.Penalty, OwnGoal: c.OwnGoal})
	return print(s, answer, err)
}

func parseScore(text string) (score [2]uint16, err error) {
	left, right, ok := strings.Cut(text, "-")
	for i, part := range []string{left, right} {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil || !ok {
			return score, fmt.Errorf("read the score %q: write it as in 1-0", text)
		}
		score[i] = uint16(n)
	}
	return score, nil
}

type poolOpen struct {
	Game     proto.GameID  `arg:""`
	Question string        `arg:""`
	Labels   []string      `arg:"" help:"The outcomes, 2 to 64."`
	LocksIn  time.Duration `help:"Lock by itself after this time."`
	Takeout  uint16        `help:"Basis points of the gross pool for the house."`
	StakeMin proto.Amount  `help:"Smallest stake."`
	StakeMax proto.Amount  `help:"Largest stake."`
	Seeds    []string      `help:"Makes it a dynamic pool: what the house puts on each outcome, units or units/shares." placeholder:"10000/500,…"`
	Variant  string        `help:"Of a dynamic pool: share_ratio (if none), money_ratio, losers_payoff or losers_money."`

	Payout         proto.PayoutRule   `default:"exact" help:"exact: all of the net pool, to the last unit; dividend: per betting unit, rounded down."`
	Unit           proto.Amount       `help:"Betting unit of dividends."`
	Break          proto.Amount       `help:"Break point: dividends are multiples of it."`
	DividendMin    proto.Amount       `help:"Least dividend per unit; the house adds what is missing."`
	MinusMax       proto.Amount       `help:"Most that the house adds; 0: whatever is missing."`
	NoWinner       proto.NoWinnerRule `default:"refund" help:"Where nobody backed the winner: refund, or carry the net pool to a later pool."`
	CarryTo        proto.PoolID       `help:"The pool to carry to; 0: the next one opened by hand."`
	OneSidedRefund bool               `help:"Return all stakes where only one outcome was backed."`
	AccountMax     proto.Amount       `help:"Most that one account may have in the pool."`
	LateSpan       time.Duration      `help:"So long before it locks …"`
	LateMax        proto.Amount       `help:"… nobody may come to more than this in the pool."`
}

func (c *poolOpen) Run(s *Session) error {
	opening := proto.PoolOpening{Question: c.Question, Labels: c.Labels, Takeout: c.Takeout, StakeMin: c.StakeMin, StakeMax: c.StakeMax, Rules: proto.Rules{
		Payout: c.Payout, Unit: c.Unit, Break: c.Break, DividendMin: c.DividendMin, MinusMax: c.MinusMax, NoWinner: c.NoWinner, CarryTo: c.CarryTo,
		OneSidedRefund: c.OneSidedRefund, AccountMax: c.AccountMax, LateSpan: proto.Time(c.LateSpan.Microseconds()), LateMax: c.LateMax}}
	for _, text := range c.Seeds {
		seed, err := parseSeed(text)
		if err != nil {
			return err
		}
		opening.Kind, opening.Variant, opening.Seeds = proto.KindDynamic, c.Variant, append(opening.Seeds, seed)
	}
	if c.LocksIn > 0 {
		opening.LocksAt = proto.Time(time.Now().Add(c.LocksIn).UnixMicro())
	}
	answer, err := s.Client.OpenPool(s.Context, c.Game, opening)
	return print(s, answer, err)
}

// parseSeed reads units of money and, behind a slash, whole shares.
func parseSeed(text string) (seed proto.Seed, err error) {
	money, shares, both := strings.Cut(text, "/")
	units, err := strconv.ParseInt(money, 10, 64)
	if err != nil {
		return seed, fmt.Errorf("read the seed %q: write units, or units/shares", text)
	}
	seed.Money = proto.Amount(units)
	if !both {
		return seed, nil
	}
	whole, err := strconv.ParseInt(shares, 10, 64)
	if err != nil || whole < 1 || whole > int64(proto.SharesMax)/1_000_000 {
		return seed, fmt.Errorf("read the seed %q: %q are no whole shares", text, shares)
	}
	seed.Shares = proto.Shares(whole * 1_000_000)
	return seed, nil
}

type poolList struct {
	Game proto.GameID `arg:""`
}

func (c *poolList) Run(s *Session) error {
	answer, err := s.Client.Pools(s.Context, c.Game)
	return print(s, answer, err)
}

type poolLock struct {
	Pool proto.PoolID `arg:""`
}

func (c *poolLock) Run(s *Session) error {
	answer, err := s.Client.Lock(s.Context, c.Pool, 0)
	return print(s, answer, err)
}

type poolSettle struct {
	Pool    proto.PoolID    `arg:""`
	Winners []proto.Outcome `arg:"" help:"Indexes of the winning outcomes, from 0."`
}

func (c *poolSettle) Run(s *Session) error {
	answer, err := s.Client.Settle(s.Context, c.Pool, c.Winners...)
	return print(s, answer, err)
}

type poolWithdraw struct {
	Pool    proto.PoolID  `arg:""`
	Outcome proto.Outcome `arg:"" help:"Index of the outcome, from 0."`
}

func (c *poolWithdraw) Run(s *Session) error {
	answer, err := s.Client.WithdrawOutcome(s.Context, c.Pool, c.Outcome)
	return print(s, answer, err)
}

type poolVoid struct {
	Pool   proto.PoolID `arg:""`
	Reason string       `arg:""`
}

func (c *poolVoid) Run(s *Session) error {
	answer, err := s.Client.Void(s.Context, c.Pool, c.Reason)
	return print(s, answer, err)
}

type play struct {
	Match     string        `type:"existingfile" help:"Tournament in openfootball's JSON, or a script; the 2022 World Cup is built in."`
	Find      string        `default:"Final" help:"Which match of it: a number, Argentina-France, or a round that has one match."`
	Speed     float64       `default:"60" help:"Minutes of the match per minute."`
	Interval  time.Duration `help:"Batching interval of the odds; the server's default if not set."`
	Lead      time.Duration `default:"5s" help:"From the opening of the game to its kick-off."`
	Templates string        `type:"existingfile" help:"File of templates instead of the match's own; when it changes, the game gets the new ones." placeholder:"FILE"`
	Loop      bool          `help:"Play it again, as a new game, until stopped."`
}

func (c *play) Run(s *Session) error {
	if c.Speed <= 0 {
		return fmt.Errorf("play a match at speed %v: name a positive one", c.Speed)
	}
	matches, err := readMatches(c.Match, c.Find)
	if err != nil {
		return err
	}
	f := &feed.Feed{Client: s.Client, Speed: c.Speed, Log: s.Log, Interval: proto.Time(c.Interval.Microseconds()), Lead: c.Lead, Templates: c.Templates}
	for {
		game, err := f.Play(s.Context, matches[0])
		if err != nil {
			return err
		}
		if err := print(s, &proto.Answer{Game: game}, nil); err != nil || !c.Loop {
			return err
		}
	}
}

type health struct{}

func (*health) Run(s *Session) error {
	if err := s.Client.Health(s.Context); err != nil {
		return err
	}
	if err := s.Client.Ready(s.Context); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.Out, "live and ready")
	return err
}

type metrics struct{}

func (*metrics) Run(s *Session) error {
	text, err := s.Client.Metrics(s.Context)
	if err != nil {
		return err
	}
	_, err = io.WriteString(s.Out, text)
	return err
}
