package admin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"tote/server/market"
	"tote/server/proto"
	"tote/server/proto/control"
)

func (d *Desk) openAccount(w http.ResponseWriter, r *http.Request) {
	var opening proto.AccountOpening
	if !read(w, r, &opening) {
		return
	}
	c := &market.Command{Kind: market.OpenAccount, Account: d.market.NextAccount(), Args: &opening}
	if answer, ok := d.carryOut(w, r, c); ok {
		reply(w, &proto.AccountOpened{Account: answer.Account, Token: d.config.Mint(answer.Account), Balance: answer.Balance})
	}
}

func (d *Desk) transfer(kind market.CommandKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var transfer proto.Transfer
		id, ok := identifier(w, r)
		if !ok || !read(w, r, &transfer) {
			return
		}
		c := &market.Command{Kind: kind, Account: proto.AccountID(id), Amount: transfer.Amount}
		if answer, ok := d.carryOut(w, r, c); ok {
			reply(w, answer)
		}
	}
}

func (d *Desk) openGame(w http.ResponseWriter, r *http.Request) {
	var opening proto.GameOpening
	if !read(w, r, &opening) {
		return
	}
	c := &market.Command{Kind: market.OpenGame, Game: d.market.NextGame(), Args: &opening}
	if answer, ok := d.carryOut(w, r, c); ok {
		reply(w, answer)
	}
}

// inGame makes a command on a game from the body, which is a T.
func inGame[T any](d *Desk, kind market.CommandKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		args := new(T)
		id, ok := identifier(w, r)
		if !ok || !read(w, r, args) {
			return
		}
		c := &market.Command{Kind: kind, Game: proto.GameID(id), Args: args}
		if answer, ok := d.carryOut(w, r, c); ok {
			reply(w, answer)
		}
	}
}

// onPool makes a command on a pool from the body, which is a T.
func onPool[T any](d *Desk, kind market.CommandKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		args := new(T)
		id, ok := identifier(w, r)
		if !ok || !read(w, r, args) {
			return
		}
		c := &market.Command{Kind: kind, Pool: proto.PoolID(id), Args: args}
		if answer, ok := d.carryOut(w, r, c); ok {
			reply(w, answer)
		}
	}
}

func (d *Desk) showAccount(w http.ResponseWriter, r *http.Request) {
	if id, ok := identifier(w, r); ok {
		show[*proto.Account](d, w, r, &market.Command{Kind: market.ShowAccount, Account: proto.AccountID(id)})
	}
}

// showStatement shows a page of a statement; before, after and limit are in the query.
func (d *Desk) showStatement(w http.ResponseWriter, r *http.Request) {
	id, ok := identifier(w, r)
	var in [3]uint64
	for i, name := range []string{"before", "after", "limit"} {
		text := r.FormValue(name)
		if !ok || text == "" {
			continue
		}
		var err error
		if in[i], err = strconv.ParseUint(text, 10, 53); err != nil {
			malformed(w, fmt.Sprintf("%s is %.40q, which is no number below 2^53", name, text))
			ok = false
		}
	}
	if ok {
		show[*proto.Statement](d, w, r, &market.Command{Kind: market.ShowStatement, Account: proto.AccountID(id),
			Args: &proto.Page{Before: in[0], After: in[1], Limit: int(min(in[2], proto.PageMax))}})
	}
}

func (d *Desk) showPools(w http.ResponseWriter, r *http.Request) {
	if id, ok := identifier(w, r); ok {
		show[*proto.Pools](d, w, r, &market.Command{Kind: market.ShowPools, Game: proto.GameID(id)})
	}
}

func (d *Desk) showQuestions(w http.ResponseWriter, r *http.Request) {
	if id, ok := identifier(w, r); ok {
		show[*proto.Questions](d, w, r, &market.Command{Kind: market.ShowInquiries, Game: proto.GameID(id)})
	}
}

// catalogue is all games, with the engine's count of who is present.
func (d *Desk) catalogue() []proto.Game {
	games := []proto.Game{}
	d.mu.Lock()
	for _, g := range d.games {
		games = append(games, *g)
	}
	d.mu.Unlock()
	if d.config.Present != nil {
		for i := range games {
			games[i].Present = d.config.Present(games[i].Game)
		}
	}
	slices.SortFunc(games, func(a, b proto.Game) int { return cmp.Compare(a.Game, b.Game) })
	return games
}

func (d *Desk) showGames(w http.ResponseWriter, _ *http.Request) {
	reply(w, &proto.Games{T: proto.Time(time.Now().UnixMicro()), Games: d.catalogue()})
}

// showActivity shows what each game has caused so far.
func (d *Desk) showActivity(w http.ResponseWriter, _ *http.Request) {
	var stakes map[proto.GameID]uint64
	if d.config.Stakes != nil {
		stakes = d.config.Stakes()
	}
	shown := control.Activity{Games: []control.Active{}}
	for _, g := range d.catalogue() {
		active := control.Active{Game: g.Game, Name: g.Name, Present: g.Present, Interval: g.Interval, Stakes: stakes[g.Game]}
		if d.config.Sent != nil {
			active.SentBytes = d.config.Sent(g.Game)
		}
		shown.Games = append(shown.Games, active)
	}
	reply(w, &shown)
}

func (d *Desk) showConsumers(w http.ResponseWriter, _ *http.Request) {
	slowest := control.Consumers{Consumers: []control.Consumer{}}
	if d.config.Slowest != nil {
		slowest.Consumers = append(slowest.Consumers, d.config.Slowest()...)
	}
	reply(w, &slowest)
}

func (d *Desk) showLog(w http.ResponseWriter, _ *http.Request) {
	reply(w, &control.Logging{Level: d.config.Level.Level()})
}

// setLog changes nothing where no level is given.
func (d *Desk) setLog(w http.ResponseWriter, r *http.Request) {
	l := control.Logging{Level: d.config.Level.Level()}
	if !read(w, r, &l) {
		return
	}
	d.config.Level.Set(l.Level)
	d.config.Log.Warn("the log's level was set", "level", l.Level)
	reply(w, &l)
}

// carryOut asks the market and returns its Answer. Anything else it has told the operator.
func (d *Desk) carryOut(w http.ResponseWriter, r *http.Request, c *market.Command) (*proto.Answer, bool) {
	out, ok := d.heard(w, r, c)
	switch {
	case !ok:
	case out.Kind == market.OutAnswer && out.Answer.Refusal != proto.Accepted:
		refuse(w, out.Answer.Refusal, out.Answer.Detail)
	case out.Kind == market.OutAnswer:
		return out.Answer, true
	default:
		d.unfit(w, &out)
	}
	return nil, false
}

// show asks the market for a message and passes it on.
func show[M proto.Message](d *Desk, w http.ResponseWriter, r *http.Request, c *market.Command) {
	out, ok := d.heard(w, r, c)
	if !ok {
		return
	}
	if m, fits := out.Message.(M); fits && out.Kind == market.OutMessage {
		reply(w, m)
		return
	}
	d.unfit(w, &out)
}

// heard asks the market. Where that fails, or is refused, it tells the operator.
func (d *Desk) heard(w http.ResponseWriter, r *http.Request, c *market.Command) (market.Out, bool) {
	out, err := d.ask(r, c)
	switch {
	case errors.Is(err, errBusy):
		refuse(w, proto.RefusedBusy, "")
	case err != nil: // also where the operator is gone and will not read it: the log has it
		fail(w, http.StatusGatewayTimeout, proto.Problem{Code: "timeout", Reason: "the request may still be carried out; look before you send it again", Detail: err.Error()})
	case out.Kind == market.OutRefused:
		refuse(w, out.Refused.Reason, "")
	default:
		return out, true
	}
	return out, false
}

// unfit tells of an answer that does not belong to the request, which is a defect of ours.
func (d *Desk) unfit(w http.ResponseWriter, out *market.Out) {
	d.config.Log.Error("the market's answer does not fit the request", "kind", out.Kind, "message", fmt.Sprintf("%T", out.Message))
	fail(w, http.StatusInternalServerError, proto.Problem{Code: "internal", Reason: "the market's answer does not fit the request; see the server's log"})
}

// identifier reads {id} of the path.
func identifier(w http.ResponseWriter, r *http.Request) (uint64, bool) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 53)
	if err != nil || id == 0 {
		malformed(w, fmt.Sprintf("%.40q in the path is no id, a number from 1 to 2^53-1", r.PathValue("id")))
		return 0, false
	}
	return id, true
}

// read reads the body; an empty one is an object without members.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyMax))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if errors.Is(err, io.EOF) {
		return true
	}
	if err == nil {
		if _, more := d.Token(); more == nil {
			err = errors.New("there is more after the object")
		} else if !errors.Is(more, io.EOF) {
			err = more
		}
	}
	var large *http.MaxBytesError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return true
	case errors.As(err, &large):
		fail(w, http.StatusRequestEntityTooLarge, proto.Problem{Code: "too_large", Reason: fmt.Sprintf("a body has at most %d bytes", large.Limit)})
	case errors.As(err, &kind):
		malformed(w, fmt.Sprintf("member %q cannot be a %s", kind.Field, kind.Value))
	default:
		malformed(w, strings.Replace(strings.TrimPrefix(err.Error(), "json: "), "unknown field", "there is no member", 1))
	}
	return false
}

func reply(w http.ResponseWriter, body any) { write(w, http.StatusOK, body) }

func malformed(w http.ResponseWriter, detail string) {
	fail(w, http.StatusBadRequest, proto.Problem{Code: proto.RefusedMalformed.Code(), Reason: "the request is not what this path takes", Detail: detail})
}

// refuse tells of a refusal.
func refuse(w http.ResponseWriter, r proto.Refusal, detail string) {
	if r == proto.RefusedBusy {
		w.Header().Set("Retry-After", "1")
	}
	fail(w, status(r), proto.Problem{Code: r.Code(), Reason: r.Reason(), Detail: detail})
}

// status sorts refusals: what was sent is wrong, or it cannot be done as things are.
func status(r proto.Refusal) int {
	switch r {
	case proto.RefusedMalformed, proto.RefusedRequestUnknown, proto.RefusedAmountInvalid, proto.RefusedTextInvalid, proto.RefusedOutcomesCount,
		proto.RefusedOutcomeUnknown, proto.RefusedWinners, proto.RefusedIntervalShort, proto.RefusedLockPast, proto.RefusedRules,
		proto.RefusedEventInvalid, proto.RefusedTemplate:
		return http.StatusBadRequest
	case proto.RefusedTokenInvalid:
		return http.StatusUnauthorized
	case proto.RefusedAccountUnknown, proto.RefusedGameUnknown, proto.RefusedPoolUnknown:
		return http.StatusNotFound
	case proto.RefusedBusy:
		return http.StatusServiceUnavailable
	}
	return http.StatusConflict
}

func fail(w http.ResponseWriter, status int, p proto.Problem) {
	if l, ok := w.(*logged); ok {
		l.problem = &p
	}
	write(w, status, &p)
}

func write(w http.ResponseWriter, status int, body any) {
	b, err := json.Marshal(body)
	assert(err == nil, "answers encode")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // an operator who is gone reads nothing
}

// logged notes what was answered.
type logged struct {
	http.ResponseWriter
	status  int
	problem *proto.Problem
}

func (l *logged) WriteHeader(status int) {
	if l.status == 0 {
		l.status = status
	}
	l.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach what lies below: profiles flush.
func (l *logged) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// log writes each request at debug, and each that was not carried out at info.
func (d *Desk) log(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l := &logged{ResponseWriter: w}
		begun := time.Now()
		next.ServeHTTP(l, r)
		request := d.config.Log.With("method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr)
		if l.problem != nil {
			request.Info("admin request not carried out", "status", l.status, "code", l.problem.Code, "reason", l.problem.Reason, "detail", l.problem.Detail)
		}
		request.Debug("admin request", "status", cmp.Or(l.status, http.StatusOK), "took", time.Since(begun))
	})
}

// speak makes a Problem of what the mux itself answers: 404 and 405.
func speak(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		mute := &muted{header: w.Header()}
		handler.ServeHTTP(mute, r)
		p := proto.Problem{Code: "path_unknown", Reason: "there is nothing at this path", Detail: fmt.Sprintf("%s %.200s", r.Method, r.URL.Path)}
		if mute.status == http.StatusMethodNotAllowed {
			p.Code, p.Reason = "method_not_allowed", "this path takes "+w.Header().Get("Allow")
		}
		fail(w, cmp.Or(mute.status, http.StatusNotFound), p)
	})
}

// muted takes the headers and the status of an answer, and not its text.
type muted struct {
	header http.Header
	status int
}

func (m *muted) Header() http.Header         { return m.header }
func (m *muted) Write(b []byte) (int, error) { return len(b), nil }
func (m *muted) WriteHeader(status int)      { m.status = status }

func assert(ok bool, what string) {
	if !ok {
		panic("admin: " + what)
	}
}
