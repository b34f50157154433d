package engine

import (
	"unsafe"

	"github.com/gobwas/ws"
	"github.com/valyala/bytebufferpool"

	"tote/server/engine/identity"
	"tote/server/market"
	"tote/server/proto"
)

// session is a connection and who speaks over it. There may be a million: what only a few need at a time hangs
// on pointers.
//
// Owner of every field: its loop.
//
//	accepted ─▶ securing ─▶ handshaking ─▶ open ─▶ closing ─▶ gone
//	                └──────────┴─ a page, a refusal ─▶┘
type session struct {
	loop       *loop
	tls        *secure // nil: it came by the plain listener
	slot       uint32
	generation uint32
	address    home // as the door counts it; 0: a proxy has not told it yet, or it is the proxy's own

	account proto.AccountID // 0: nobody yet
	hello   proto.RequestID // of a hello that the market has not answered; 0: none
	reach   *identity.Reach // of the token; nil: all
	player  string          // name of the account, which the market keeps anyway

	head    *bytebufferpool.ByteBuffer // of an HTTP request that is not whole; afterwards: see vetting
	parser  *parser                    // of frames that are not whole
	pending *bytebufferpool.ByteBuffer // written at the end of the turn; not nil: the session is in loop.dirty
	unsent  *bytebufferpool.ByteBuffer // what the socket has not taken yet
	games   []membership

	next, previous *session // in a bucket of the wheel
	bucket         int16    // -1: in none
	malformed      int16    // requests
	state          state
	variant        variant // of the messages that it gets; counted in Engine.users
	window         uint8   // bits of what the client can inflate; 0: nothing
	vetting        bool    // the token of a hello is being read: what follows waits in head
	owes           owed    // what the proxy has to say before anything else counts
	guest          bool    // the account was opened by this session
	pinged         bool    // since the last byte heard
	shut           bool    // our side of the socket is shut down
	behind         bool    // in loop.behind
	sent           int32   // of unsent
	descriptor     int32   // see fd
	deadline       uint32  // tick: of hello, of the pong, or of closing
	heard          uint32  // tick of the last byte
	second         uint32  // of requests and frames
	requests       int32   // in second
	frames         int32   // in second, of all kinds
	taken          uint32  // bytes that it had acknowledged when closeStuck saw that it costs much; 0: it did not
}

const _ = uint(192 - unsafe.Sizeof(session{})) // a size of Go's allocator; the next one is 208

// state is where a session is in its life.
type state uint8

const (
	handshaking state = iota
	open
	closing // we have said all; what comes is ignored
	gone
	securing // the TLS handshake; before all others, for those who come by the TLS listener
)

// membership is a session's place among the subscribers of a room.
type membership struct {
	room *room
	at   int
}

// fd is the socket.
func (s *session) fd() int { return int(s.descriptor) }

// name is how the market knows the session.
func (s *session) name() market.Session {
	return market.NewSession(s.loop.index, s.generation, s.slot)
}

// frames reads what came over an open connection.
func (l *loop) frames(s *session, in []byte) {
	p := s.parser
	if p == nil {
		p = &l.parser // nothing is kept between messages
	}
	l.kit.tick = l.tick
	p.kinds, p.deflates = l.kinds[s.variant.codec()], s.variant.deflates()
	for len(in) > 0 && s.state == open && !s.vetting {
		var e event
		var payload []byte
		e, payload, in = p.next(in)
		if l.floods(s) {
			break
		}
		switch e {
		case eventText, eventBinary:
			l.heard(s, e, payload)
		case eventPing:
			l.pong(s, payload)
		case eventPong:
			l.ponged(s, payload, l.owed)
		case eventClose:
			l.goodbye(s, payload)
		case eventWrong:
			l.close(s, p.code)
		}
	}
	l.keep(s, p)
	if s.vetting && len(in) > 0 {
		l.hold(s, in)
	}
}

// floods counts the frames that have begun, and closes where they are too many for one second: an empty
// fragment, a ping and an answer cost us more than the client.
func (l *loop) floods(s *session) bool {
	n := l.kit.frames
	l.kit.frames = 0
	l.counts.FramesIn += uint64(n)
	if second := uint32(l.now / proto.Second); second != s.second {
		s.second, s.requests, s.frames = second, 0, 0
	}
	if s.frames += int32(n); int(s.frames) <= l.engine.limits.Frames {
		return false
	}
	l.counts.Floods++
	l.close(s, proto.ClosePolicy)
	return true
}

// keep leaves the parser with the session only while it holds a part of something.
func (l *loop) keep(s *session, p *parser) {
	switch {
	case p.idle() || s.state != open:
		p.reset()
		if s.parser != nil {
			s.parser = nil
			l.parsers.Put(p)
		}
	case s.parser == nil:
		s.parser = l.parsers.Get().(*parser)
		*s.parser = *p
		*p = parser{kit: p.kit}
		l.wheel.sooner(s, s.parser.since+ticks(l.engine.limits.MessageTime))
	}
}

func (l *loop) pong(s *session, payload []byte) {
	if b := l.lane(s); b != nil {
		b.B = appendFrame(b.B, ws.OpPong, payload)
	}
}

// requested answers a request, or passes it on to the market.
func (l *loop) requested(s *session, message []byte) {
	r := &l.request
	l.counts.Requests++
	refusal := s.variant.codec().Parse(r, message)
	if refusal == proto.Accepted {
		refusal = l.permitted(s, r)
	}
	if refusal == proto.Accepted {
		refusal = l.carryOut(s, r)
	}
	if refusal == proto.Accepted {
		return
	}
	l.refuseRequest(s, r.ID, refusal)
}

// refuseRequest refuses, and closes who goes on sending what nobody sends by mistake.
func (l *loop) refuseRequest(s *session, id proto.RequestID, refusal proto.Refusal) {
	l.refuse(s, id, refusal)
	if refusal != proto.RefusedMalformed && refusal != proto.RefusedTokenInvalid {
		return
	}
	if s.malformed++; int(s.malformed) >= l.engine.limits.Malformed {
		l.close(s, proto.ClosePolicy)
	}
}

// permitted applies what holds before any request is looked at.
func (l *loop) permitted(s *session, r *proto.Request) proto.Refusal {
	if s.requests++; int(s.requests) > l.engine.limits.Requests {
		return proto.RefusedBusy
	}
	if refusal := l.engine.allowances.request(s, l.now); refusal != proto.Accepted {
		return refusal
	}
	if s.account == 0 && r.Type != proto.RequestHello && r.Type != proto.RequestTime {
		return proto.RefusedHelloMissing
	}
	return s.reach.Permits(r)
}

func (l *loop) carryOut(s *session, r *proto.Request) proto.Refusal {
	switch r.Type {
	case proto.RequestHello:
		return l.greet(s, r)
	case proto.RequestTime:
		l.tell(s, &proto.Clock{ID: r.ID, T: l.now, Sent: r.Sent})
	case proto.RequestGames:
		l.tell(s, l.listGames(r.ID))
	case proto.RequestPresence:
		return l.presence(s, r)
	case proto.RequestHeartbeat:
		return l.askedBeat(s, r)
	case proto.RequestLeave:
		return l.left(s, r)
	case proto.RequestJoin:
		if len(s.games) >= l.engine.limits.Joins && s.in(l.rooms[r.Game]) < 0 {
			return proto.RefusedJoinsMany
		}
		return l.submit(s, r, market.Join)
	case proto.RequestPools:
		return l.submit(s, r, market.ShowPools)
	case proto.RequestStake:
		return l.submit(s, r, market.Stake)
	case proto.RequestSell:
		return l.submit(s, r, market.Sell)
	case proto.RequestQuote:
		return l.submit(s, r, market.Quote)
	case proto.RequestAccount:
		return l.submit(s, r, market.ShowAccount)
	case proto.RequestPredictions:
		return l.submit(s, r, market.ShowPredictions)
	case proto.RequestFriends:
		return l.submit(s, r, market.ShowFriends)
	case proto.RequestFollow:
		return l.submit(s, r, market.Follow)
	case proto.RequestUnfollow:
		return l.submit(s, r, market.Unfollow)
	case proto.RequestStatement:
		return l.submit(s, r, market.ShowStatement)
	case proto.RequestHistory:
		return l.submit(s, r, market.ShowHistory)
	case proto.RequestArchive:
		return l.submit(s, r, market.ShowArchive)
	default:
		return l.social(s, r)
	}
	return proto.Accepted
}

// commandOf is a command with what most requests say.
func (l *loop) commandOf(s *session, r *proto.Request) market.Command {
	return market.Command{
		From: s.name(), ID: r.ID, Account: s.account, Arrived: l.arrived,
		Game: r.Game, Pool: r.Pool, Outcome: r.Outcome, Amount: r.Amount, Shares: r.Shares, Limit: r.Limit, Other: r.Account,
	}
}

// submit gives the market a command with all that the request says. The answer comes in a batch.
func (l *loop) submit(s *session, r *proto.Request, kind market.CommandKind) proto.Refusal {
	l.command = l.commandOf(s, r)
	l.command.Kind = kind
	if kind == market.ShowStatement || kind == market.ShowHistory || kind == market.ShowArchive {
		page := r.Page()
		l.command.Args = &page
	}
	if !l.engine.market.Submit(&l.command) {
		return proto.RefusedBusy
	}
	return proto.Accepted
}

// greet finds out who speaks.
func (l *loop) greet(s *session, r *proto.Request) proto.Refusal {
	if s.account != 0 {
		return proto.RefusedHelloAgain
	}
	switch {
	case r.Token != "":
		g, refusal := l.engine.tokens.read(r.Token)
		if refusal != proto.Accepted && l.engine.tokens.keys != nil {
			return l.vet(s, r)
		}
		if refusal != proto.Accepted {
			return refusal
		}
		return l.attach(s, r, g)
	case r.Guest == "":
		return proto.RefusedTokenInvalid
	case l.engine.config.GuestCredits == 0:
		return proto.RefusedGuests
	}
	return l.attach(s, r, grant{})
}

// attach binds the session to the account that a token is good for, or to a guest's new one. It is bound at once, so that requests
// may follow hello without waiting for welcome: the account's shard gets them in this order.
func (l *loop) attach(s *session, r *proto.Request, g grant) proto.Refusal {
	c := market.Command{Kind: market.Attach, From: s.name(), ID: r.ID, Account: g.account, Arrived: l.arrived, Epoch: r.Epoch, N: r.N, Since: r.Since}
	if g.account == 0 {
		c.Kind, c.Attach, c.Account = market.OpenAccount, true, l.engine.market.NextAccount()
		c.Args = &proto.AccountOpening{Name: r.Guest, Deposit: l.engine.config.GuestCredits}
	}
	if g.account != 0 && !l.engine.allowances.accountHellos.take(uint64(g.account), 1, l.now) {
		return proto.RefusedRequestsFast
	}
	if !l.engine.market.Submit(&c) {
		return proto.RefusedBusy
	}
	s.account, s.hello, s.guest, s.reach = c.Account, r.ID, c.Kind == market.OpenAccount, g.reach
	l.wheel.set(s, s.heard+l.pingAfter(s))
	return proto.Accepted
}

// goodbye answers a close frame with its own body: "it SHOULD echo the status code" (section 5.5.1).
func (l *loop) goodbye(s *session, body []byte) {
	l.counts.closed(proto.CloseNormal)
	l.part(s)
	b := l.out(s)
	b.B = appendFrame(b.B, ws.OpClose, body)
}

// close says why the connection ends.
func (l *loop) close(s *session, code proto.CloseCode) {
	if s.state != open {
		return
	}
	l.closeWith(s, code, code.Reason())
}

func (l *loop) closeWith(s *session, code proto.CloseCode, reason string) {
	l.counts.closed(code)
	l.part(s)
	b := l.out(s)
	b.B = appendClose(b.B, uint16(code), reason)
}

// part is where a session stops: it leaves its games and its account, and has CloseTime to take what is written
// to it.
func (l *loop) part(s *session) {
	l.retire(s)
	s.state = closing
	s.deadline = l.tick + ticks(l.engine.limits.CloseTime)
	l.wheel.set(s, l.tick+1)
}

// retire takes a session out of the game.
func (l *loop) retire(s *session) {
	for len(s.games) > 0 {
		l.unsubscribe(s, len(s.games)-1)
	}
	if s.account != 0 {
		taken := l.engine.market.Submit(&market.Command{Kind: market.Detach, From: s.name(), Account: s.account, Arrived: l.now})
		assert(taken, "a Detach is never refused")
		s.account, s.player = 0, ""
	}
	delete(l.people, s.slot)
}
