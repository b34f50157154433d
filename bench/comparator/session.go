package comparator

import (
	"crypto/rand"
	"slices"
	"sync"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// session is what is kept of a connection: who it is, and where. Its reading goroutine's.
type session struct {
	account *account
	games   []*game
}

type conn = peer.Conn[session]

// account is a guest.
type account struct {
	id    proto.AccountID
	name  string
	token string // to come back with

	deposit proto.Amount // the first balance, while the file is read

	mu          sync.Mutex
	balance     proto.Amount // free to stake
	held        proto.Amount // in stakes that are being written
	n           uint64       // the last private message
	conn        *conn        // the newest; nil: none
	predictions []proto.Prediction
}

// closedMax is how many predictions an account keeps that are over.
const closedMax = 32

// request answers a request. It may wait for the disk: so does only this connection.
func (s *Server) request(c *conn, r *proto.Request, arrived proto.Time) {
	switch r.Type {
	case proto.RequestHello:
		s.hello(c, r)
	case proto.RequestGames:
		c.Send(&proto.Games{ID: r.ID, T: peer.Now(), Games: s.list()})
	case proto.RequestJoin:
		s.inGame(c, r, func(g *game) {
			if !slices.Contains(c.State.games, g) {
				c.State.games = append(c.State.games, g)
			}
			g.audience[c] = struct{}{}
			c.Send(&proto.Joined{ID: r.ID, T: peer.Now(), Game: g.shown(), Seq: g.seq, Pools: g.showPools()})
		})
	case proto.RequestLeave:
		s.inGame(c, r, func(g *game) {
			delete(g.audience, c)
			c.State.games = slices.DeleteFunc(c.State.games, func(in *game) bool { return in == g })
			c.Send(&proto.Left{ID: r.ID, T: peer.Now(), Game: g.id})
		})
	case proto.RequestPools:
		s.inGame(c, r, func(g *game) {
			c.Send(&proto.Pools{ID: r.ID, T: peer.Now(), Game: g.id, Seq: g.seq, Pools: g.showPools()})
		})
	case proto.RequestPresence:
		s.inGame(c, r, func(g *game) { c.Send(&proto.Presence{ID: r.ID, T: peer.Now(), Game: g.id, Present: len(g.audience)}) })
	case proto.RequestStake:
		s.stake(c, r, arrived)
	case proto.RequestAccount:
		c.State.account.show(c, r.ID)
	case proto.RequestPredictions:
		c.State.account.list(c, r.ID)
	default:
		c.Refuse(r.ID, proto.RefusedRequestUnknown)
	}
}

// gone forgets a connection.
func (s *Server) gone(c *conn) {
	for _, g := range c.State.games {
		g.mu.Lock()
		delete(g.audience, c)
		g.mu.Unlock()
	}
	if a := c.State.account; a != nil {
		a.mu.Lock()
		if a.conn == c {
			a.conn = nil
		}
		a.mu.Unlock()
	}
}

// hello welcomes a new guest, or one who has come back.
func (s *Server) hello(c *conn, r *proto.Request) {
	m := proto.Welcome{ID: r.ID, Epoch: s.epoch, Durability: "always"}
	var a *account
	switch {
	case r.Token != "":
		s.mu.RLock()
		a = s.tokens[r.Token]
		s.mu.RUnlock()
	case r.Guest != "":
		a = &account{name: r.Guest, token: rand.Text(), balance: s.config.Credits}
		if err := s.books.openAccount(a); err != nil {
			s.fail(err)
			return
		}
		s.mu.Lock()
		s.accounts[a.id], s.tokens[a.token] = a, a
		s.mu.Unlock()
		m.Token = a.token
	}
	if a == nil {
		c.Refuse(r.ID, proto.RefusedTokenInvalid)
		return
	}
	c.Account, c.State.account = a.id, a
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn = c
	m.T, m.Account, m.Name, m.Balance, m.N = peer.Now(), a.id, a.name, a.balance, a.n
	c.Send(&m)
}

// list shows all games, by id.
func (s *Server) list() []proto.Game {
	s.mu.RLock()
	all := make([]*game, 0, len(s.games))
	for _, g := range s.games {
		all = append(all, g)
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b *game) int { return int(a.id) - int(b.id) })
	shown := make([]proto.Game, 0, len(all))
	for _, g := range all {
		g.mu.Lock()
		shown = append(shown, g.shown())
		g.mu.Unlock()
	}
	return shown
}

// game finds a game; nil: there is none.
func (s *Server) game(id proto.GameID) *game {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.games[id]
}

// inGame does something under the lock of the request's game. What is sent there is in step with its broadcasts.
func (s *Server) inGame(c *conn, r *proto.Request, do func(*game)) {
	g := s.game(r.Game)
	if g == nil {
		c.Refuse(r.ID, proto.RefusedGameUnknown)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	do(g)
}

// stake holds the amount, has the pool accept it, writes it, counts it and answers, in this order.
func (s *Server) stake(c *conn, r *proto.Request, arrived proto.Time) {
	a := c.State.account
	if !a.hold(c, r, arrived) {
		return
	}
	g, p, refusal := s.game(r.Pool.Game()), (*pool)(nil), proto.RefusedPoolUnknown
	if g != nil {
		p, refusal = g.enter(r.Pool, r.Outcome, r.Amount)
	}
	if refusal != proto.Accepted {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.balance, a.held = a.balance+r.Amount, a.held-r.Amount
		a.refuse(c, r, refusal, arrived)
		return
	}
	made := proto.Prediction{ID: r.ID, Pool: r.Pool, Outcome: r.Outcome, Amount: r.Amount}
	err := s.books.stake(a, &made, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		p.count(&ticket{account: a, prediction: made.Prediction, outcome: made.Outcome, amount: made.Amount})
	})
	if err != nil {
		s.fail(err)
		return
	}
	a.keep(c, &made, arrived)
	g.leave(p) // only now may it be locked and paid: a payout comes behind its receipt
}

// hold takes the amount from the balance until the stake is decided; false: the request is answered.
func (a *account) hold(c *conn, r *proto.Request, arrived proto.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	again := slices.IndexFunc(a.predictions, func(p proto.Prediction) bool { return p.ID == r.ID })
	switch {
	case again >= 0 && a.predictions[again].Pool == r.Pool && a.predictions[again].Outcome == r.Outcome && a.predictions[again].Amount == r.Amount:
		a.receipt(c, &a.predictions[again], arrived)
		return false
	case again >= 0:
		a.refuse(c, r, proto.RefusedRequestReused, arrived)
		return false
	case !r.Amount.Valid():
		a.refuse(c, r, proto.RefusedAmountInvalid, arrived)
		return false
	case r.Amount > a.balance:
		a.refuse(c, r, proto.RefusedFundsShort, arrived)
		return false
	}
	a.balance, a.held = a.balance-r.Amount, a.held+r.Amount
	return true
}

// keep makes a prediction of what was held.
func (a *account) keep(c *conn, p *proto.Prediction, arrived proto.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held -= p.Amount
	a.predictions = append(a.predictions, *p)
	a.receipt(c, p, arrived)
}

// receipt tells of a prediction, whoever asked for it: a connection that has been replaced hears nothing private any more.
func (a *account) receipt(c *conn, p *proto.Prediction, arrived proto.Time) {
	a.n++
	if a.conn == c {
		c.Send(&proto.Receipt{ID: p.ID, T: peer.Now(), N: a.n, Prediction: p.Prediction, Pool: p.Pool, Outcome: p.Outcome, Amount: p.Amount,
			Balance: a.balance, Arrived: arrived, Durability: "always"})
	}
}

func (a *account) refuse(c *conn, r *proto.Request, reason proto.Refusal, arrived proto.Time) {
	a.n++
	if a.conn == c {
		c.Send(&proto.Refused{ID: r.ID, T: peer.Now(), N: a.n, Reason: reason, Arrived: arrived})
	}
}

func (a *account) show(c *conn, id proto.RequestID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := proto.Account{ID: id, T: peer.Now(), N: a.n, Account: a.id, Name: a.name, Balance: a.balance, Held: a.held}
	for i := range a.predictions {
		if a.predictions[i].State == proto.PredictionOpen {
			m.Staked += a.predictions[i].Amount
		}
	}
	c.Send(&m)
}

func (a *account) list(c *conn, id proto.RequestID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.Send(&proto.Predictions{ID: id, T: peer.Now(), N: a.n, Predictions: a.predictions})
}

// end tells the account of a prediction that is over, where there is something to tell.
func (a *account) end(e *proto.Prediction, reason proto.RefundReason) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.predictions {
		if a.predictions[i].Prediction == e.Prediction {
			a.predictions[i] = *e
		}
	}
	a.forget()
	if e.State == proto.PredictionLost {
		return
	}
	a.balance += e.Payout
	a.n++
	switch {
	case a.conn == nil:
	case e.State == proto.PredictionRefunded:
		a.conn.Send(&proto.Refund{T: peer.Now(), N: a.n, Prediction: e.Prediction, Pool: e.Pool, Outcome: e.Outcome, Amount: e.Amount, Balance: a.balance, Reason: reason})
	default:
		a.conn.Send(&proto.Payout{T: peer.Now(), N: a.n, Prediction: e.Prediction, Pool: e.Pool, Outcome: e.Outcome, Amount: e.Amount, Payout: e.Payout, Balance: a.balance})
	}
}

// forget drops the oldest predictions that are over.
func (a *account) forget() {
	over := 0
	for i := range a.predictions {
		if a.predictions[i].State != proto.PredictionOpen {
			over++
		}
	}
	a.predictions = slices.DeleteFunc(a.predictions, func(p proto.Prediction) bool {
		if p.State == proto.PredictionOpen || over <= closedMax {
			return false
		}
		over--
		return true
	})
}
