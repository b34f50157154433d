package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"tote/server/proto"
)

// house is a small tote for the tests: a goroutine per connection, one lock, no disk. What it does wrong,
// it does on purpose: see plant.
type house struct {
	plant plant

	mu      sync.Mutex
	guests  []*guest
	seq     uint64
	pools   []*proto.Pool
	records proto.Seq
	stakes  int
	left    int // players who have
	there   int // connections that have said hello
	state   proto.GameState
	changed map[proto.PoolID]bool
	done    bool // the plant has come up
}

// guest is one connection and, as nobody has two at a time here, its account. The last guests' accounts are found by their tokens.
type guest struct {
	conn        net.Conn
	account     proto.AccountID
	n           uint64
	balance     proto.Amount
	joined      bool
	deaf        bool // gets no broadcasts any more
	predictions []proto.Prediction
	plant       plant
}

type plant string

const (
	honest           plant = "honest"
	loseReceipt      plant = "lose a receipt"
	repeatReply      plant = "send a reply twice"
	replyOfOtherType plant = "answer a stake with a list of games"
	skipBroadcast    plant = "skip a broadcast for one player"
	skipTail         plant = "stop the broadcasts to one player"
	differentOdds    plant = "show one player other odds"
	skipPrivate      plant = "skip a private number"
	otherAmount      plant = "a receipt for another amount"
	unitShort        plant = "a balance of one unit less"
	payoutForNobody  plant = "a payout without a receipt"
	losePayout       plant = "lose a payout"
	accountOff       plant = "an account that is one unit off"
	forgetPrediction plant = "forget a prediction"
	doublePrediction plant = "list a prediction twice"
	inventPrediction plant = "list a prediction that was never made"
	oddsOff          plant = "odds that count a stake twice"
	busy             plant = "refuse a stake as busy"
	garbage          plant = "send no message"
	maskedFrame      plant = "mask a frame"
	closeOne         plant = "close a connection"
	cutOne           plant = "cut a connection"
	cutAll           plant = "cut all connections"
	conflate         plant = "conflate for one player"
	refuseHandshake  plant = "refuse handshakes"
	silentHello      plant = "never answer hello"
	noGame           plant = "have no game at first"
	endGame          plant = "end the game"
	stallTime              = 300 * time.Millisecond
	floodPings             = 60_000
	dribble          plant = "send everything in pieces of three bytes"
	fragment         plant = "send everything in fragments, with pings between them"
	beatAhead        plant = "a heartbeat of a broadcast that never came"
	stall            plant = "stall for a moment"
	large            plant = "have a pool with a very long question"
	flood            plant = "send pings and do not read the pongs for a while"
	plantFrom              = 20 // stakes before it comes up
	houseGame              = proto.GameID(7)
	houseCredits           = proto.Amount(100_000)
	houseInterval          = 50 * time.Millisecond
)

// open starts the house; it ends with the test.
func (h *house) open(t *testing.T) (target string) {
	t.Helper()
	address, end, err := h.listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	return "ws://" + address + "/ws"
}

// listen starts the house; end ends it and waits for its goroutines.
func (h *house) listen() (address string, end func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	h.state, h.changed = proto.GameLive, map[proto.PoolID]bool{}
	for range 2 {
		h.addPool()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { h.serve(conn) })
		}
	})
	all.Go(func() { h.tick(ctx) })
	return listener.Addr().String(), func() {
		cancel()
		listener.Close()
		h.cut()
		all.Wait()
	}, nil
}

func (h *house) addPool() *proto.Pool {
	p := &proto.Pool{
		Pool: proto.NewPoolID(houseGame, uint32(len(h.pools)+1)), Question: "Who?", Labels: []string{"A", "B"}, Odds: make([]proto.Odd, 2),
	}
	if h.plant == large {
		p.Question = strings.Repeat("Who? ", 40_000)
	}
	h.pools = append(h.pools, p)
	return p
}

func now() proto.Time { return proto.Time(time.Now().UnixMicro()) }

// comesUp is true once, when the plant's time has come.
func (h *house) comesUp(p plant) bool {
	if h.plant != p || h.done || h.stakes < plantFrom {
		return false
	}
	h.done = true
	return true
}

func (h *house) serve(conn net.Conn) {
	defer conn.Close()
	if h.plant == refuseHandshake {
		conn.Read(make([]byte, 4096))
		fmt.Fprint(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
		return
	}
	upgrader := ws.Upgrader{Protocol: func(p []byte) bool { return string(p) == subprotocol }}
	if h.plant == flood {
		conn.(*net.TCPConn).SetReadBuffer(128 << 10)
	}
	if _, err := upgrader.Upgrade(conn); err != nil {
		return
	}
	g, greeted := &guest{conn: conn, plant: h.plant}, false
	defer func() {
		h.mu.Lock()
		h.there -= int(count(greeted))
		h.mu.Unlock()
	}()
	for {
		text, _, err := wsutil.ReadClientData(conn)
		if err != nil {
			return
		}
		var r proto.Request
		if refusal := r.Parse(text); refusal != proto.Accepted {
			panic(fmt.Sprintf("%s: %s", refusal.Code(), text))
		}
		h.mu.Lock()
		g = h.answer(g, &r)
		if r.Type == proto.RequestHello && !greeted {
			greeted = true
			h.there++
		}
		h.mu.Unlock()
	}
}

func (g *guest) say(m proto.Message) { g.write(m.AppendJSON(nil)) }

func (g *guest) write(text []byte) {
	switch third := len(text) / 3; g.plant {
	default:
		wsutil.WriteServerText(g.conn, text)
	case dribble:
		for piece := range slices.Chunk(ws.MustCompileFrame(ws.NewTextFrame(text)), 3) {
			g.conn.Write(piece)
		}
	case fragment:
		ws.WriteFrame(g.conn, ws.NewFrame(ws.OpText, false, text[:third]))
		ws.WriteFrame(g.conn, ws.NewFrame(ws.OpContinuation, false, text[third:2*third]))
		ws.WriteFrame(g.conn, ws.NewPingFrame([]byte("are you there?")))
		ws.WriteFrame(g.conn, ws.NewFrame(ws.OpContinuation, true, text[2*third:]))
	}
}

// answer does what the request wants; it returns the guest, who may turn out to be an old one.
func (h *house) answer(g *guest, r *proto.Request) *guest {
	switch r.Type {
	case proto.RequestHello:
		if h.plant == silentHello {
			return g
		}
		g = h.welcome(g, r)
	case proto.RequestTime:
		g.say(&proto.Clock{ID: r.ID, T: now(), Sent: r.Sent})
	case proto.RequestGames:
		games := []proto.Game{h.game()}
		if h.plant == noGame && !h.done {
			games, h.done = nil, true
		}
		g.say(&proto.Games{ID: r.ID, T: now(), Games: games})
	case proto.RequestJoin:
		g.joined = true
		g.say(&proto.Joined{ID: r.ID, T: now(), Game: h.game(), Seq: h.seq, Pools: h.image()})
	case proto.RequestLeave:
		g.joined = false
		h.left++
		g.say(&proto.Left{ID: r.ID, T: now(), Game: r.Game})
	case proto.RequestStake:
		h.stake(g, r)
	case proto.RequestAccount:
		staked := proto.Amount(0)
		for _, p := range g.predictions {
			if p.State == proto.PredictionOpen {
				staked += p.Amount
			}
		}
		m := &proto.Account{ID: r.ID, T: now(), N: g.n, Account: g.account, Balance: g.balance, Staked: staked}
		if h.comesUp(accountOff) {
			m.Balance--
		}
		g.say(m)
	case proto.RequestPredictions:
		m := &proto.Predictions{ID: r.ID, T: now(), N: g.n, Predictions: slices.Clone(g.predictions)}
		if len(m.Predictions) > 0 {
			switch last := m.Predictions[len(m.Predictions)-1]; {
			case last.State != proto.PredictionOpen:
			case h.comesUp(forgetPrediction):
				m.Predictions = m.Predictions[:len(m.Predictions)-1]
			case h.comesUp(doublePrediction):
				m.Predictions = append(m.Predictions, last)
			case h.comesUp(inventPrediction):
				last.Prediction, last.ID = 1<<40, 1
				m.Predictions = append(m.Predictions, last)
			}
		}
		g.say(m)
	}
	return g
}

func (h *house) game() proto.Game {
	return proto.Game{Game: houseGame, Name: "A v B", State: h.state, Interval: proto.Time(houseInterval.Microseconds())}
}

func (h *house) image() []proto.Pool {
	var image []proto.Pool
	for _, p := range h.pools {
		image = append(image, *p)
	}
	return image
}

func (h *house) welcome(g *guest, r *proto.Request) *guest {
	for _, old := range h.guests {
		if token(old) == r.Token {
			old.conn, old.joined, old.deaf = g.conn, false, false
			old.say(&proto.Welcome{ID: r.ID, T: now(), Account: old.account, Balance: old.balance, N: old.n})
			return old
		}
	}
	g.account, g.balance, g.n = proto.AccountID(len(h.guests)+1), houseCredits, 1 // the deposit was number 1
	h.guests = append(h.guests, g)
	g.say(&proto.Welcome{ID: r.ID, T: now(), Account: g.account, Name: r.Guest, Balance: g.balance, N: g.n, Token: token(g)})
	return g
}

func token(g *guest) string { return fmt.Sprint("token-", g.account) }

func (h *house) stake(g *guest, r *proto.Request) {
	h.stakes++
	pool := h.pool(r.Pool)
	if pool.State != proto.PoolOpen || h.comesUp(busy) {
		refusal := proto.RefusedPoolLocked
		if pool.State == proto.PoolOpen {
			refusal = proto.RefusedBusy
		}
		g.n++
		g.say(&proto.Refused{ID: r.ID, T: now(), N: g.n, Reason: refusal})
		return
	}
	h.records++
	odd := &pool.Odds[r.Outcome]
	odd.Staked += r.Amount
	if !slices.ContainsFunc(g.predictions, func(p proto.Prediction) bool { return p.Pool == r.Pool && p.Outcome == r.Outcome }) {
		odd.Backers++
	}
	h.changed[pool.Pool] = true
	g.balance -= r.Amount
	g.n++
	g.predictions = append(g.predictions, proto.Prediction{Prediction: h.records, ID: r.ID, Pool: r.Pool, Outcome: r.Outcome, Amount: r.Amount})
	m := &proto.Receipt{ID: r.ID, T: now(), N: g.n, Prediction: h.records, Pool: r.Pool, Outcome: r.Outcome, Amount: r.Amount, Balance: g.balance}
	switch {
	case h.comesUp(loseReceipt):
		return
	case h.comesUp(replyOfOtherType):
		g.n--
		g.say(&proto.Games{ID: r.ID, T: now()})
		return
	case h.comesUp(repeatReply):
		g.say(m)
	case h.comesUp(skipPrivate):
		g.n++
		m.N++
	case h.comesUp(otherAmount):
		m.Amount++
	case h.comesUp(unitShort):
		m.Balance--
	case h.comesUp(oddsOff):
		odd.Staked += r.Amount
	case h.comesUp(payoutForNobody):
		g.say(m)
		g.n++
		g.balance++
		m2 := &proto.Payout{T: now(), N: g.n, Prediction: 1 << 40, Pool: r.Pool, Amount: 1, Payout: 1, Balance: g.balance}
		g.say(m2)
		return
	case h.comesUp(garbage):
		g.write([]byte("odds!"))
	case h.comesUp(stall):
		time.Sleep(stallTime)
	case h.comesUp(flood):
		ping := ws.MustCompileFrame(ws.NewPingFrame(make([]byte, 125)))
		for range floodPings / 100 {
			g.conn.Write(bytes.Repeat(ping, 100))
		}
	case h.comesUp(maskedFrame):
		ws.WriteFrame(g.conn, ws.MaskFrame(ws.NewTextFrame([]byte("{}"))))
	case h.comesUp(closeOne):
		ws.WriteFrame(g.conn, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(proto.CloseTryLater), proto.CloseTryLater.Reason())))
	case h.comesUp(cutOne):
		g.conn.Close()
		return
	case h.comesUp(skipTail):
		g.deaf = true
	case h.comesUp(conflate):
		// Two broadcasts for all others, and word of them for this one.
		g.say(&proto.Conflated{T: now(), Game: houseGame, N: 2})
		g.deaf = true
		h.broadcast(&proto.Happened{Kind: "corner"})
		h.broadcast(&proto.Happened{Kind: "corner"})
		g.deaf = false
	case h.comesUp(cutAll):
		g.say(m)
		for _, g := range h.guests {
			g.conn.Close()
		}
		return
	}
	g.say(m)
}

func (h *house) pool(id proto.PoolID) *proto.Pool {
	i := slices.IndexFunc(h.pools, func(p *proto.Pool) bool { return p.Pool == id })
	return h.pools[i]
}

// broadcast numbers a message and sends it to all who have joined.
func (h *house) broadcast(m proto.Message) {
	h.seq++
	stamp(m, h.seq)
	text := m.AppendJSON(nil)
	for _, g := range h.guests {
		switch {
		case !g.joined || g.deaf || h.comesUp(skipBroadcast):
			continue
		case h.comesUp(differentOdds):
			g.write(append(m.AppendJSON(nil), ' '))
		default:
			g.write(text)
		}
	}
}

func stamp(m proto.Message, seq uint64) {
	switch m := m.(type) {
	case *proto.Odds:
		m.T, m.Game, m.Seq = now(), houseGame, seq
	case *proto.Happened:
		m.T, m.Game, m.Seq = now(), houseGame, seq
	case *proto.Opened:
		m.T, m.Game, m.Seq = now(), houseGame, seq
	case *proto.Locked:
		m.T, m.Game, m.Seq = now(), houseGame, seq
	case *proto.Settled:
		m.T, m.Game, m.Seq = now(), houseGame, seq
	case *proto.Voided:
		m.T, m.Game, m.Seq = now(), houseGame, seq
	case *proto.GameChanged:
		m.T, m.Seq = now(), seq
	}
}

// tick sends odds in batches.
func (h *house) tick(ctx context.Context) {
	every := time.NewTicker(houseInterval)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		h.mu.Lock()
		if len(h.changed) == 0 {
			h.beat()
		}
		for _, p := range h.pools {
			if h.changed[p.Pool] && p.State == proto.PoolOpen {
				h.broadcast(&proto.Odds{Pool: p.Pool, Odds: p.Odds})
			}
		}
		clear(h.changed)
		h.mu.Unlock()
	}
}

// beat ends a silence.
func (h *house) beat() {
	for _, g := range h.guests {
		if g.joined && !g.deaf {
			m := &proto.Heartbeat{T: now(), Game: houseGame, Seq: h.seq}
			if h.comesUp(beatAhead) {
				m.Seq++
			}
			g.say(m)
		}
	}
}

// stakesCome waits for so many stakes; nil once they are there.
func (h *house) stakesCome(ctx context.Context, stakes int) error {
	return h.await(ctx, func() bool { return h.stakes >= stakes })
}

func (h *house) await(ctx context.Context, done func() bool) error {
	for {
		h.mu.Lock()
		is := done()
		h.mu.Unlock()
		if is {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// match is what goes on beside the players of most tests: stakes, so that the plant comes up; a goal; more stakes.
func (h *house) match(ctx context.Context) error {
	if err := h.stakesCome(ctx, 2*plantFrom); err != nil {
		return err
	}
	h.goal()
	return h.stakesCome(ctx, 4*plantFrom)
}

// goal settles the first pool, voids the second, and opens two others.
func (h *house) goal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broadcast(&proto.Opened{Pool: *h.addPool()})
	h.broadcast(&proto.Opened{Pool: *h.addPool()})
	h.broadcast(&proto.Happened{Kind: "goal"})
	h.lock(h.pools[0])
	h.settle(h.pools[0], 0)
	h.void(h.pools[1])
	if h.comesUp(endGame) {
		h.state = proto.GameEnded
		h.broadcast(&proto.GameChanged{Game: h.game()})
	}
}

func (h *house) lock(p *proto.Pool) {
	p.State = proto.PoolLocked
	h.broadcast(&proto.Locked{Pool: p.Pool, Odds: p.Odds})
}

// settle pays twice the stake, whatever the odds.
func (h *house) settle(pool *proto.Pool, winner proto.Outcome) {
	pool.State, pool.Winners = proto.PoolSettled, []proto.Outcome{winner}
	h.broadcast(&proto.Settled{Pool: pool.Pool, Winners: pool.Winners})
	h.each(pool, func(g *guest, p *proto.Prediction) {
		if p.Outcome != winner {
			p.State = proto.PredictionLost
			return
		}
		p.State = proto.PredictionWon
		g.balance += 2 * p.Amount
		g.n++
		if !h.comesUp(losePayout) {
			g.say(&proto.Payout{T: now(), N: g.n, Prediction: p.Prediction, Pool: p.Pool, Outcome: p.Outcome, Amount: p.Amount, Payout: 2 * p.Amount, Balance: g.balance})
		}
	})
}

func (h *house) void(pool *proto.Pool) {
	pool.State = proto.PoolVoided
	h.broadcast(&proto.Voided{Pool: pool.Pool})
	h.each(pool, func(g *guest, p *proto.Prediction) {
		p.State = proto.PredictionRefunded
		g.balance += p.Amount
		g.n++
		g.say(&proto.Refund{T: now(), N: g.n, Prediction: p.Prediction, Pool: p.Pool, Outcome: p.Outcome, Amount: p.Amount, Balance: g.balance})
	})
}

// each goes over the predictions in a pool.
func (h *house) each(pool *proto.Pool, do func(*guest, *proto.Prediction)) {
	for _, g := range h.guests {
		for i := range g.predictions {
			if g.predictions[i].Pool == pool.Pool {
				do(g, &g.predictions[i])
			}
		}
	}
}

func (h *house) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.guests {
		g.conn.Close()
	}
}
