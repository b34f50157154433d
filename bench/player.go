package bench

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// player is one bettor and its connection.
//
//	away ─▶ connecting (─▶ securing) ─▶ upgrading ─▶ greeting ─▶ lobby ─▶ joining ─▶ playing ─▶ auditing
//	  ▲                                hello        games     join       stake      account, predictions
//	  │                                            ▲                      │
//	  └── any, when the connection is lost         └─ leaving ◀───────────┘ the game has ended
//
// It has at most one request under way: a bettor waits for the receipt. Its knowledge of pools is the
// worker's, see game; its money and its receipts are its own.
//
// Owner: the worker.
type player struct {
	number int // over all workers

	fd       int32
	stage    stage
	attempts uint8  // connections that failed since the last welcome
	unsent   []byte // what the kernel did not take
	cut      []byte // the beginning of a frame
	assembly assembly
	tls      *secure // nil: there is none

	due   time.Duration // when to act, if timer is set
	timer int32         // place in worker.timers
	seat  int32         // place in worker.idle
	dice  rand.PCG

	// The request under way.
	asked   proto.RequestType // RequestNone: none
	id      proto.RequestID   // of the last request
	planned time.Duration     // when it should have been sent
	ticket  ticket            // the stake, while asked is RequestStake; after a loss, until it is known what became of it

	game *game  // nil: in none
	seq  uint64 // the last broadcast of game

	account  proto.AccountID
	epoch    uint64 // of the server's process
	token    string // to come back with
	n        uint64 // the last private message
	balance  proto.Amount
	tickets  []ticket // receipts held whose pools are not settled yet
	booked   bool     // tickets has all that the account has open
	audited  bool
	entering bool // see worker.entering

	manner    manner
	class     uint8         // of its venue
	departing bool          // it goes home with its next reply
	came      bool          // it was in a game once
	browsed   bool          // it has thought about which game to join
	deed      bool          // the request under way is one of the plan's deeds other than a stake
	unsure    bool          // a stake was under way when a connection broke: its receipt may still come
	venue     proto.GameID  // to join; 0: the newest
	choice    proto.GameID  // the game that it thinks about joining
	churnAt   time.Duration // when it drops its connection
	awaited   time.Duration // since when it wants to be back in a game; 0: it is not away
	told      time.Duration // when the server told it to come back; 0: it is not away for that
	watched   watched
}

// manner is how a player reads.
type manner uint8

const (
	mannerUsual   manner = iota // what comes, at once
	mannerNever                 // nothing any more, once it has joined
	mannerTrickle               // so many bytes per second
)

// watched is a receipt whose stake the odds do not show yet.
type watched struct {
	pool       proto.PoolID
	prediction proto.Seq
	planned    time.Duration
}

// ticket is a stake and, from its receipt on, the prediction.
type ticket struct {
	prediction proto.Seq
	id         proto.RequestID
	pool       proto.PoolID
	amount     proto.Amount
	outcome    proto.Outcome
}

type stage uint8

const (
	stageAway stage = iota
	stageConnecting
	stageSecuring
	stageUpgrading
	stageGreeting
	stageLobby
	stageJoining
	stagePlaying
	stageLeaving
	stageAuditing
	stageParting
	stageGone // for good
)

func (p *player) init(number int, plan *Plan) {
	p.number = number
	p.fd, p.timer, p.seat = unset, unset, unset
	p.dice.Seed(plan.Seed, uint64(number))
	switch slow := p.fraction(); {
	case slow < plan.Slow.Never:
		p.manner = mannerNever
	case slow < plan.Slow.Never+plan.Slow.Trickle:
		p.manner = mannerTrickle
	}
	if i := pick(plan.Venues, p.fraction(), func(v *Venue) float64 { return v.Weight }); i >= 0 {
		p.venue, p.class = plan.Venues[i].Game, uint8(plan.Venues[i].Class)
	}
}

// fraction draws from 0 to below 1.
func (p *player) fraction() float64 { return float64(p.dice.Uint64()>>11) / (1 << 53) }

// pick chooses one of many by weight; at is from 0 to below 1. -1: there are none.
func pick[T any](among []T, at float64, weight func(*T) float64) int {
	sum := 0.0
	for i := range among {
		sum += weight(&among[i])
	}
	at *= sum
	for i := range among {
		if at -= weight(&among[i]); at < 0 {
			return i
		}
	}
	return len(among) - 1
}

// below draws from 0 to n-1.
func (p *player) below(n uint64) uint64 {
	high, _ := bits.Mul64(p.dice.Uint64(), n)
	return high
}

// between draws a time.
func (p *player) between(least, most time.Duration) time.Duration {
	return least + time.Duration(p.below(uint64(most-least)+1))
}

// nonce is the handshake's: each connection has its own, and it need not be kept.
func (p *player) nonce() (nonce [16]byte) {
	source := rand.NewPCG(uint64(p.number), uint64(p.attempts)|1<<63)
	for i := range nonce {
		nonce[i] = byte(source.Uint64())
	}
	return nonce
}

// says signs an example for the report.
func (p *player) says(example string) string { return fmt.Sprintf("player %d: %s", p.number, example) }

// Asking.

func (w *worker) ask(p *player, r proto.Request, planned time.Duration) {
	p.id++
	r.ID = p.id
	p.asked, p.planned = r.Type, planned
	w.text = r.AppendJSON(w.text[:0])
	if r.Type != proto.RequestHello {
		for len(w.text) < w.plan.Payload {
			w.text = append(w.text, ' ')
		}
	}
	w.send(p, ws.OpText, w.text)
}

// greet says hello, as soon as the handshake is done.
func (w *worker) greet(p *player) {
	p.stage = stageGreeting
	// An account remembers the ids of its stakes, also those of earlier runs: the clock has not been there yet.
	p.id = max(p.id, proto.RequestID(w.wall))
	hello := proto.Request{Type: proto.RequestHello, Token: p.token}
	switch {
	case hello.Token != "":
	case w.plan.Tokens != nil:
		hello.Token = w.plan.Tokens(p.number)
	default:
		hello.Guest = nameOf(p.number)
	}
	w.ask(p, hello, w.now)
}

// act is what a player does when its timer has run out.
func (w *worker) act(p *player) {
	if w.phase >= phaseQuiet && p.stage != stageAuditing && (w.phase > phaseQuiet || p.awaited == 0) {
		return // whatever is asked for now could be taken for lost; but who is on its way back shall come
	}
	switch p.stage {
	case stageAway:
		p.planned = w.now
		w.connect(p)
	case stageLobby:
		if p.choice != 0 {
			w.join(p, p.choice)
		} else if p.game != nil {
			p.stage = stageLeaving
			w.ask(p, proto.Request{Type: proto.RequestLeave, Game: p.game.game}, w.now)
		} else {
			w.ask(p, proto.Request{Type: proto.RequestGames}, w.now)
		}
	case stagePlaying:
		if p.manner == mannerTrickle {
			w.watch(p, unix.EPOLLIN)
		} else {
			w.perform(p, p.due)
		}
	case stageAuditing:
		w.ask(p, proto.Request{Type: proto.RequestAccount}, w.now)
	}
}

// linger lets the player look at the list of games again after a while. Those who wait for the same thing must not ask in step.
func (w *worker) linger(p *player) {
	p.stage = stageLobby
	w.rest(p)
	p.due = w.now + p.between(w.plan.patience.lobby, 5*w.plan.patience.lobby)
	w.timers.set(p)
}

// ponder lets a playing player stake again: after thinking, or when the rate wants a stake.
func (w *worker) ponder(p *player) {
	switch {
	case p.departing:
		w.goHome(p)
	case p.manner != mannerUsual:
		// It only listens.
	case p.game != nil && p.game.state == proto.GameEnded:
		w.linger(p)
	case len(w.plan.Deeds) == 0:
		// So does it.
	case w.plan.StakeRate > 0:
		if p.seat == unset {
			p.seat = int32(len(w.idle))
			w.idle = append(w.idle, p)
		}
	default:
		p.due = w.now + p.between(w.plan.Think[0], w.plan.Think[1])
		w.timers.set(p)
	}
}

// perform does one of the plan's deeds.
func (w *worker) perform(p *player, planned time.Duration) {
	if w.plan.Churn > 0 && w.now >= p.churnAt {
		w.drop(p, churnBack)
		return
	}
	i := 0
	if len(w.plan.Deeds) > 1 {
		i = pick(w.plan.Deeds, p.fraction(), func(d *Deed) float64 { return d.Weight })
	}
	deed := w.plan.Deeds[i].Type
	if deed == proto.RequestStake {
		w.tally.stakes.Planned++
		w.place(p, planned)
		return
	}
	w.rest(p)
	w.tally.deeds.Planned++
	w.tally.record(meterSendLag, w.now-planned)
	r := proto.Request{Type: deed}
	switch deed {
	case proto.RequestPools, proto.RequestPresence:
		r.Game = p.game.game
	case proto.RequestTime:
		r.Sent = w.wall
	}
	w.ask(p, r, planned)
	p.deed = true
}

// rest takes the player from those who can take a planned stake.
func (w *worker) rest(p *player) {
	if p.seat == unset {
		return
	}
	last := len(w.idle) - 1
	w.idle[p.seat] = w.idle[last]
	w.idle[p.seat].seat = p.seat
	w.idle = w.idle[:last]
	p.seat = unset
}

// place stakes on an outcome of an open pool, if there is one and the balance allows it.
func (w *worker) place(p *player, planned time.Duration) {
	assert(p.asked == proto.RequestNone, "a player has one request under way")
	least, most := w.plan.Stakes[0], w.plan.Stakes[1]
	most = max(least, min(most, p.balance/20))
	if len(p.game.open) == 0 || p.balance < least {
		w.tally.stakes.Unplaced++
		w.ponder(p)
		return
	}
	w.rest(p)
	pool := p.game.open[p.below(uint64(len(p.game.open)))]
	p.ticket = ticket{
		pool: pool.id, outcome: proto.Outcome(p.below(uint64(pool.outcomes))),
		amount: least + proto.Amount(p.below(uint64(most-least)+1)),
	}
	w.tally.record(meterSendLag, w.now-planned)
	w.tally.stakes.Sent++
	w.ask(p, proto.Request{Type: proto.RequestStake, Pool: p.ticket.pool, Outcome: p.ticket.outcome, Amount: p.ticket.amount}, planned)
	p.ticket.id = p.id
}

// Hearing.

// message takes in one message of the server.
func (w *worker) message(p *player, text []byte) {
	head, ok := proto.ReadHead(text)
	if !ok {
		w.lose(p, "bad message", quoted(text))
		return
	}
	w.tally.frames++
	switch head.Type {
	case "odds":
		if p.manner == mannerUsual {
			w.tally.measure(p.class, meterOdds, latency(w.wall, head.T))
		}
		w.broadcast(p, &head, text)
	case "event", "opened", "locked", "settled", "voided", "game", "pool":
		if p.manner == mannerUsual {
			w.tally.record(meterLifecycle, latency(w.wall, head.T))
		}
		w.broadcast(p, &head, text)
	case "conflated":
		w.conflated(p, text)
	case "heartbeat":
		w.heartbeat(p, &head, text)
	case "question":
		if head.N != 0 {
			w.numbered(p, head.N)
		}
	case "receipt", "refused":
		if head.N != 0 || head.Type == "receipt" {
			w.numbered(p, head.N)
		}
		w.reply(p, &head, text)
	case "payout", "refund", "balance":
		w.numbered(p, head.N)
		w.private(p, head.Type, text)
	case "":
		w.tally.unknown++ // of a newer protocol: to be ignored
	default:
		switch {
		case head.ID != 0:
			w.reply(p, &head, text)
		case head.Seq != 0:
			w.broadcast(p, &head, text)
		case head.N != 0:
			w.numbered(p, head.N)
		default:
			w.tally.asides++ // who is present, and the like: neither asked for nor numbered
		}
	}
}

// castagnoli is the polynomial that processors compute by themselves: texts are compared by their sums, also over agents, so the sum must be
// the same everywhere.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func latency(now, then proto.Time) time.Duration {
	return time.Duration(now-then) * time.Microsecond
}

// quoted shortens a message for the report.
func quoted(text []byte) string {
	const enough = 200
	if len(text) > enough {
		return string(text[:enough]) + "…"
	}
	return string(text)
}

// decode reads a message of a known type; one that does not fit its type is a fault.
func decode[M any](w *worker, p *player, text []byte) (m M, ok bool) {
	if err := json.Unmarshal(text, &m); err != nil {
		w.lose(p, "bad message", err.Error()+" in "+quoted(text))
		return m, false
	}
	return m, true
}

// broadcast checks that nothing is missing before it, and learns what it tells of the game.
func (w *worker) broadcast(p *player, head *proto.Head, text []byte) {
	if p.game == nil || head.Game != 0 && head.Game != p.game.game {
		w.tally.checks[checkSeq].fail(p.says("of a game not joined: " + quoted(text)))
		return
	}
	w.tally.checks[checkSeq].judge(head.Seq == p.seq+1, func() string {
		return p.says(fmt.Sprintf("broadcast %d of game %d follows %d", head.Seq, p.game.game, p.seq))
	})
	p.seq = head.Seq
	if p.manner == mannerUsual {
		w.tally.deliver(distribution{p.game.course, head.Seq}, w.now, crc32.Checksum(text, castagnoli))
	}
	if head.Seq > p.game.seq {
		if err := p.game.learn(head.Type, head.Seq, text); err != nil {
			w.lose(p, "bad message", err.Error()+" in "+quoted(text))
			return
		}
	}
	if head.Pool != 0 && head.Pool == p.watched.pool {
		w.seen(p, head.Seq)
	}
	switch head.Type {
	case "settled":
		p.bury(p.game.pools[head.Pool])
	case "game":
		if p.game.state == proto.GameEnded && p.stage == stagePlaying && p.asked == proto.RequestNone {
			w.linger(p)
		}
	}
}

// seen measures how long it took until the player sees its own stake in the odds, in this broadcast or one that replaced it.
func (w *worker) seen(p *player, seq uint64) {
	switch pool := p.game.pools[p.watched.pool]; {
	case pool.state != proto.PoolOpen:
		p.watched = watched{} // the lock's odds come by themselves
	case seq >= pool.oddsSeq && pool.counts >= p.watched.prediction:
		w.tally.measure(p.class, meterSeen, w.now-p.watched.planned)
		p.watched = watched{}
	}
}

// conflated is told how many broadcasts the next one skips.
func (w *worker) conflated(p *player, text []byte) {
	m, ok := decode[proto.Conflated](w, p, text)
	if !ok {
		return
	}
	w.tally.conflated += m.N
	if p.game == nil || m.Game != p.game.game {
		w.tally.checks[checkSeq].fail(p.says("of a game not joined: " + quoted(text)))
		return
	}
	p.seq += m.N
}

// heartbeat is told, in a silence, up to which broadcast the game has come: none is missing behind the last one.
func (w *worker) heartbeat(p *player, head *proto.Head, text []byte) {
	m, ok := decode[proto.Heartbeat](w, p, text)
	if !ok {
		return
	}
	w.tally.heartbeats++
	w.tally.stale += count(m.Stale)
	w.tally.checks[checkSeq].judge(p.game != nil && head.Game == p.game.game && head.Seq == p.seq, func() string {
		return p.says(fmt.Sprintf("the last broadcast was %d: %s", p.seq, quoted(text)))
	})
}

// numbered checks that no private message is missing before number n.
func (w *worker) numbered(p *player, n uint64) {
	w.tally.checks[checkPrivate].judge(n == p.n+1, func() string {
		return p.says(fmt.Sprintf("private message %d follows %d", n, p.n))
	})
	p.n = n
}

// private takes in what concerns the player's money besides its own receipts.
func (w *worker) private(p *player, kind string, text []byte) {
	var balance proto.Amount
	switch kind {
	case "payout":
		m, ok := decode[proto.Payout](w, p, text)
		if !ok {
			return
		}
		w.tally.stakes.Payouts++
		w.redeem(p, ticket{prediction: m.Prediction, pool: m.Pool, outcome: m.Outcome, amount: m.Amount}, text)
		p.balance += m.Payout
		balance = m.Balance
	case "refund":
		m, ok := decode[proto.Refund](w, p, text)
		if !ok {
			return
		}
		w.tally.stakes.Refunds++
		w.redeem(p, ticket{prediction: m.Prediction, pool: m.Pool, outcome: m.Outcome, amount: m.Amount}, text)
		p.balance += m.Amount
		balance = m.Balance
	case "balance":
		m, ok := decode[proto.Balance](w, p, text)
		if !ok {
			return
		}
		p.balance += m.Change
		balance = m.Balance
	}
	// The balance is what is free to stake: a stake under way may be held already.
	held := proto.Amount(0)
	if p.asked == proto.RequestStake {
		held = p.ticket.amount
	}
	w.tally.checks[checkBalance].judge(balance == p.balance || balance == p.balance-held, func() string {
		return p.says(fmt.Sprintf("expected %d (%d held): %s", p.balance, held, quoted(text)))
	})
}

// redeem takes back the receipt that a payout or refund is for.
func (w *worker) redeem(p *player, paid ticket, text []byte) {
	i := slices.IndexFunc(p.tickets, func(t ticket) bool { return t.prediction == paid.prediction })
	fits := i >= 0
	if fits {
		paid.id = p.tickets[i].id // a payout does not name the request
		fits = p.tickets[i] == paid
		p.tickets = slices.Delete(p.tickets, i, i+1)
	}
	w.tally.checks[checkPayout].judge(fits, func() string {
		return p.says("no such receipt is held: " + quoted(text))
	})
}

// bury drops the receipts that a settled pool has made worthless; its winners are paid on the private lane.
func (p *player) bury(settled pool) {
	p.tickets = slices.DeleteFunc(p.tickets, func(t ticket) bool { return t.pool == settled.id && settled.lost(t) })
}

// reply checks that the message answers the request under way, and goes on from there.
func (w *worker) reply(p *player, head *proto.Head, text []byte) {
	if p.unsure && head.ID == p.ticket.id && head.ID != p.id {
		w.belated(p, head.Type, text)
		return
	}
	asked := p.asked
	fits := asked != proto.RequestNone && head.ID == p.id
	w.tally.checks[checkReply].judge(fits, func() string {
		return p.says("answers nothing that waits: " + quoted(text))
	})
	if !fits {
		return
	}
	p.asked = proto.RequestNone
	if head.Type == "refused" {
		w.refused(p, asked, text)
		return
	}
	if head.Type != replies[asked] {
		w.tally.checks[checkReply].fail(p.says(fmt.Sprintf("answers a request of type %s: %s", asked, quoted(text))))
		return
	}
	if p.deed {
		p.deed = false
		w.tally.record(meterReply, w.now-p.planned)
		w.tally.deeds.Answered++
		w.ponder(p)
		return
	}
	switch asked {
	case proto.RequestHello:
		w.welcomed(p, text)
	case proto.RequestPools:
		w.ponder(p)
	case proto.RequestGames:
		w.choose(p, text)
	case proto.RequestJoin:
		w.joined(p, head.Seq, text)
	case proto.RequestLeave:
		w.quit(p)
		w.ask(p, proto.Request{Type: proto.RequestGames}, w.now)
		p.stage = stageLobby
	case proto.RequestStake:
		w.receipt(p, text)
	case proto.RequestAccount:
		w.auditAccount(p, text)
	case proto.RequestPredictions:
		w.auditPredictions(p, text)
	}
}

// replies are the types of message that answer the requests a player makes.
var replies = map[proto.RequestType]string{
	proto.RequestHello: "welcome", proto.RequestGames: "games", proto.RequestJoin: "joined", proto.RequestLeave: "left",
	proto.RequestStake: "receipt", proto.RequestAccount: "account", proto.RequestPredictions: "predictions",
	proto.RequestPools: "pools", proto.RequestTime: "time", proto.RequestPresence: "presence",
}

// belated takes in what became of a stake that was under way when the player dropped its connection.
func (w *worker) belated(p *player, kind string, text []byte) {
	p.unsure = false
	if kind != "receipt" {
		return // nothing has become of it
	}
	m, ok := decode[proto.Receipt](w, p, text)
	if !ok {
		return
	}
	w.tally.stakes.Receipts++
	w.tally.lives.receipt(p.epoch, w.now)
	p.balance = m.Balance
	p.ticket.prediction = m.Prediction
	if !slices.Contains(p.tickets, p.ticket) {
		p.tickets = append(p.tickets, p.ticket)
	}
}

// refused goes on after a refusal. One of them is the race of a stake with the end of its pool, and normal.
func (w *worker) refused(p *player, asked proto.RequestType, text []byte) {
	m, ok := decode[proto.Refused](w, p, text)
	if !ok {
		return
	}
	switch m.Reason {
	case proto.RefusedPoolLocked, proto.RefusedPoolSettled, proto.RefusedPoolVoided:
		w.tally.stakes.Late++
	case proto.RefusedGameEnded:
		w.tally.stakes.Late += count(asked == proto.RequestStake)
	default:
		w.tally.fault(fmt.Sprintf("%s refused: %s", asked, m.Reason.Code()), p.says(m.Reason.Reason()))
	}
	if p.deed {
		p.deed = false
		w.ponder(p)
		return
	}
	switch asked {
	case proto.RequestHello:
		// The token is of another server, or of one that has lost its memory: begin anew, as whoever.
		p.token, p.tickets, p.account = "", nil, 0
		w.lose(p, "hello was refused", m.Reason.Reason())
	case proto.RequestStake:
		w.tally.measure(p.class, meterReceipt, w.now-p.planned)
		if p.stage == stagePlaying {
			w.ponder(p)
		}
	case proto.RequestAccount, proto.RequestPredictions:
		p.audited = true
		if p.stage == stageLobby {
			w.linger(p)
		}
	default:
		if p.stage < stageAuditing {
			w.quit(p)
			w.linger(p)
		}
	}
}

func count(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}

// welcomed begins, or goes on with, an account.
func (w *worker) welcomed(p *player, text []byte) {
	m, ok := decode[proto.Welcome](w, p, text)
	if !ok {
		return
	}
	p.attempts = 0
	if m.Token != "" && (w.plan.returns() || w.plan.Users <= tokensMax) {
		p.token = m.Token
	}
	first := p.account != m.Account
	if first {
		p.tickets, p.booked = nil, w.plan.Tokens == nil // a new guest has no past
	} else {
		w.tally.connections.Returned++
	}
	p.account, p.epoch, p.n, p.balance = m.Account, m.Epoch, m.N, m.Balance
	p.stage = stageLobby
	if w.plan.Churn > 0 {
		p.churnAt = w.now + time.Duration(-math.Log(1-p.fraction())/w.plan.Churn*float64(time.Second))
	}
	switch {
	case first && p.booked:
		w.enterGame(p)
	default:
		w.ask(p, proto.Request{Type: proto.RequestPredictions}, w.now)
	}
}

// enterGame goes on to a game, or lets those who join none begin.
func (w *worker) enterGame(p *player) {
	if !w.plan.Aloof {
		w.ask(p, proto.Request{Type: proto.RequestGames}, w.now)
		return
	}
	p.stage = stagePlaying
	w.settle(p)
	w.ponder(p)
}

// settle says that the player is where it wanted to be.
func (w *worker) settle(p *player) {
	w.entered(p)
	p.came = true
	if p.awaited > 0 {
		w.tally.record(meterReturn, w.now-p.awaited)
		p.awaited = 0
	}
	if p.told > 0 {
		w.tally.record(meterAway, w.now-p.told)
		p.told = 0
	}
}

// choose joins the game of the plan, or else the newest live one, or else the newest that is scheduled.
func (w *worker) choose(p *player, text []byte) {
	m, ok := decode[proto.Games](w, p, text)
	if !ok {
		return
	}
	var best *proto.Game
	for i := range m.Games {
		g := &m.Games[i]
		switch {
		case g.State == proto.GameEnded || w.plan.Game != 0 && g.Game != w.plan.Game || p.venue != 0 && g.Game != p.venue:
		case best == nil, g.State > best.State, g.State == best.State && g.Game > best.Game:
			best = g
		}
	}
	if best == nil {
		w.linger(p)
		return
	}
	if w.plan.Browse[1] > 0 && !p.browsed {
		p.browsed, p.stage, p.choice = true, stageLobby, best.Game
		w.entered(p) // it is no longer the server that it waits for
		p.due = w.now + p.between(w.plan.Browse[0], w.plan.Browse[1])
		w.timers.set(p)
		return
	}
	w.join(p, best.Game)
}

func (w *worker) join(p *player, id proto.GameID) {
	p.stage, p.seq, p.choice = stageJoining, 0, 0
	p.game = w.games[id]
	if p.game == nil || p.game.epoch != p.epoch { // those who are still in the old one keep it
		p.game = &game{course: course{epoch: p.epoch, game: id}}
		w.games[id] = p.game
	}
	p.game.present++
	w.ask(p, proto.Request{Type: proto.RequestJoin, Game: id}, w.now)
}

const _ = uint(proto.GameLive - proto.GameScheduled - 1) // choose relies on live being the greater state

// joined begins to play from the image of the game.
func (w *worker) joined(p *player, seq uint64, text []byte) {
	p.seq, p.stage = seq, stagePlaying
	w.settle(p)
	if seq > p.game.seq || !p.game.known {
		m, ok := decode[proto.Joined](w, p, text)
		if !ok {
			return
		}
		p.game.image(&m)
	}
	// What was settled while it was away, or between two requests on its way back, was told to others only.
	p.tickets = slices.DeleteFunc(p.tickets, func(t ticket) bool {
		pool, ok := p.game.pools[t.pool]
		return t.pool.Game() == p.game.game && (!ok || pool.lost(t))
	})
	switch {
	case p.manner == mannerNever:
		w.watch(p, 0)
	case w.plan.Inspect && p.manner == mannerUsual:
		w.ask(p, proto.Request{Type: proto.RequestPools, Game: p.game.game}, w.now)
	default:
		w.ponder(p)
	}
}

// quit forgets the game that the player was in.
func (w *worker) quit(p *player) {
	if p.game == nil {
		return
	}
	p.game.present--
	if p.game.present == 0 && w.games[p.game.game] == p.game {
		delete(w.games, p.game.game)
	}
	p.game = nil
}

// receipt keeps the receipt.
func (w *worker) receipt(p *player, text []byte) {
	m, ok := decode[proto.Receipt](w, p, text)
	if !ok {
		return
	}
	w.tally.measure(p.class, meterReceipt, w.now-p.planned)
	w.tally.stakes.Receipts++
	w.tally.lives.receipt(p.epoch, w.now)
	p.ticket.prediction = m.Prediction
	if p.watched.prediction == 0 && p.game != nil {
		p.watched = watched{pool: m.Pool, prediction: m.Prediction, planned: p.planned}
		w.seen(p, p.seq) // the two lanes are not in step: the odds may have come first
	}
	echo := ticket{prediction: m.Prediction, id: m.ID, pool: m.Pool, outcome: m.Outcome, amount: m.Amount}
	w.tally.checks[checkEcho].judge(echo == p.ticket && m.Prediction != 0, func() string {
		return p.says(fmt.Sprintf("staked %d on %d of %d: %s", p.ticket.amount, p.ticket.outcome, p.ticket.pool, quoted(text)))
	})
	p.balance -= m.Amount
	w.tally.checks[checkBalance].judge(m.Balance == p.balance, func() string {
		return p.says(fmt.Sprintf("expected %d: %s", p.balance, quoted(text)))
	})
	p.tickets = append(p.tickets, p.ticket)
	if p.game != nil {
		p.bury(p.game.pools[m.Pool]) // the two lanes are not in step: the pool may be settled already
	}
	if p.stage == stagePlaying {
		w.ponder(p)
	}
}
