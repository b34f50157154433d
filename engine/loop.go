package engine

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/gobwas/ws"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"

	"tote/server/market"
	"tote/server/proto"
)

// loop is an event loop, a poller of gnet's, and the sessions that live on it. It alternates between reading what its
// sockets have and turns, in which it takes what the others left in its inbox:
//
//	      ┌──────────── epoll ◀───────────┐
//	      ▼                               │ bell, if something is left
//	read: frames ─▶ commands ─▶ market    │
//	turn: inbox ─▶ pending ─┐             │
//	      broadcasts, slice ─┴▶ flush ────┘
//
// Owner of every field but poller, inbox, clients, passed, awaited and published: the goroutine of run.
type loop struct {
	engine *Engine
	index  int
	poller *netpoll.Poller // anybody may add to it and delete
	buffer []byte          // for one read
	inbox  inbox

	now     proto.Time   // of this read or turn
	arrived proto.Time   // when what is being read had reached the host
	doubts  proto.Time   // until then, now may be later than that by much
	began   proto.Time   // the last turn
	passed  atomic.Int64 // all that arrived by then has been submitted; anybody may read it
	awaited atomic.Int64 // the latest that the market wants to have passed; anybody may raise it

	tick uint32 // the last one of the wheel

	places  []place      // by slot
	free    []uint32     // slots
	clients atomic.Int32 // sessions; anybody may read it

	rooms     map[proto.GameID]*room
	catalogue []*room    // by id
	active    []*room    // with broadcasts to distribute; the first is next
	sliced    proto.Time // when the last slice was done, if rooms were active still; else 0
	asked     bool       // somebody has been read or answered since the last slice
	between   proto.Time // what went by from slice to slice, since the last weighing

	parcels   []parcel // of the inbox
	done      int      // parcels handled
	calls     []func()
	ticked    func()              // what a tick calls
	ring      *ring               // nil: broadcasts are written
	posted    []posted            // in the ring, in that order
	dirty     []*session          // with pending bytes
	busy      marks               // slots
	shaking   map[*shake]struct{} // TLS handshakes under way, those for sessions that are gone included
	behind    []*session          // that were spared a broadcast, or whose socket took not all
	looked    uint32              // tick of closeStuck
	listeners []listener          // who asked for heartbeats
	people    map[uint32]*person  // in small rooms, by slot
	sampled   int                 // place of the session that was sampled last
	owed      bool                // the session being read has not answered the ping for its silence
	wheel     wheel

	weighed     proto.Time // when weigh last looked
	idleTicks   uint32
	sweepTicks  uint32
	deflateLeft int                                          // private bytes that may be compressed until the next tick
	kinds       [2]kinds                                     // of messages, by codec
	heard       func(s *session, kind event, message []byte) // takes them: requested; an echo in conformance tests
	upgrader    ws.Upgrader                                  // answers opening handshakes (section 4.2)
	draining    bool
	drained     proto.Time // since when
	parted      int        // slots parted from, while draining
	partDue     int        // slots that it is time to part from
	told        bool       // everybody has been parted from

	// Scratch, so that the hot path allocates nothing.
	parser      parser
	kit         kit         // of all parsers
	negotiation negotiation // of the handshake at hand
	packed      []byte
	clear       []byte // what TLS has decrypted
	lent        []byte // to who is being read, for records
	sealed      []byte // what it has encrypted, and nobody has sent yet
	request     proto.Request
	command     market.Command
	refused     proto.Refused
	conflated   proto.Conflated
	parsers     *sync.Pool

	counts    counts
	published published
}

// place is a slot of the session table. The generation tells apart who had it.
type place struct {
	session    *session
	generation uint32
}

func newLoop(e *Engine, index int) (*loop, error) {
	l := &loop{
		buffer: make([]byte, readBuffer),
		engine: e, index: index, rooms: map[proto.GameID]*room{}, people: map[uint32]*person{}, shaking: map[*shake]struct{}{}, tick: e.ticks(),
		idleTicks:   ticks(e.limits.IdleTime),
		sweepTicks:  max(1, uint32(e.limits.Presence/tick)),
		kit:         kit{max: e.limits.MessageBytes, buffers: &e.buffers},
		kinds:       [...]kinds{proto.JSON: texts, proto.Msgpack: binaries},
		negotiation: negotiation{off: e.config.Deflate < 0},
	}
	l.parser.kit = &l.kit
	l.heard = func(s *session, _ event, message []byte) { l.requested(s, message) }
	l.upgrader = ws.Upgrader{
		Protocol:  func(offered []byte) bool { _, ok := proto.CodecOf(string(offered)); return ok },
		Negotiate: l.negotiation.negotiate,
	}
	if len(e.config.Origins) > 0 {
		l.upgrader.OnHeader = l.originAllowed
	}
	if e.config.TLS != nil {
		l.clear, l.lent = make([]byte, clearMax), make([]byte, lentMax)
	}
	l.deflateLeft = l.deflateTick()
	l.parsers = &sync.Pool{New: func() any { return new(parser) }}
	l.ticked = l.ticks
	return l, l.equip()
}

// equip gets from the kernel what the loop needs.
func (l *loop) equip() (err error) {
	if l.poller, err = netpoll.OpenPoller(); err != nil {
		return fmt.Errorf("open a poller: %w", err)
	}
	for i := range l.inbox.bells {
		bell, err := newBell()
		if err == nil {
			err = l.poll(bell.inside)
		}
		if err != nil {
			return err
		}
		l.inbox.bells[i] = bell
	}
	return l.openRing()
}

// release gives back what the loop has of the kernel, when it has ended.
func (l *loop) release() error {
	return errors.Join(l.inbox.close(), l.closeRing(), l.poller.Close())
}

// open takes a session in.
func (l *loop) open(s *session) {
	if len(l.free) == 0 {
		l.places = append(l.places, place{})
		l.free = append(l.free, uint32(len(l.places)-1))
	}
	last := len(l.free) - 1
	s.slot, l.free = l.free[last], l.free[:last]
	p := &l.places[s.slot]
	p.generation = max(1, (p.generation+1)%market.SessionGenerations) // 0 would name nobody
	p.session = s

	s.generation = p.generation
	s.bucket, s.heard, s.deadline = -1, l.tick, l.tick+ticks(l.engine.limits.HelloTime)
	l.wheel.set(s, s.deadline)
	l.clients.Add(1)
	l.counts.Connections++
	if s.tls != nil {
		s.state = securing
		l.counts.TLSConnections++
	}
}

// gone lets a session go.
func (l *loop) gone(s *session) {
	l.retire(s)
	if s.state != closing {
		l.counts.Aborted++
	}
	if s.tls != nil {
		l.unsecure(s)
	}
	if s.variant != plain {
		l.engine.users[s.variant].Add(-1)
	}
	s.state = gone
	l.wheel.remove(s)
	l.drop(&s.pending)
	l.drop(&s.head)
	if s.parser != nil {
		s.parser.reset() // and not back to the pool: frames may be using it
		s.parser = nil
	}
	l.places[s.slot].session = nil
	l.free = append(l.free, s.slot)
	l.clients.Add(-1)
	l.counts.Connections--
	l.engine.door.leave(s.address)
}

// find returns the open session of that name, or nil where it has ended.
func (l *loop) find(name market.Session) *session {
	if int(name.Slot()) >= len(l.places) {
		return nil
	}
	p := &l.places[name.Slot()]
	if p.session == nil || p.generation != name.Generation() || p.session.state != open {
		return nil
	}
	return p.session
}

// read takes all that a session's socket had.
func (l *loop) read(s *session, in []byte) {
	if len(in) == 0 {
		return
	}
	l.look()
	l.arrived = l.stamp(s)
	l.asked = true
	l.owed = s.pinged
	s.heard, s.pinged = l.tick, false
	l.counts.BytesIn += uint64(len(in))
	if s.state == open {
		if code := l.engine.allowances.bytes(s, len(in), l.now); code != 0 {
			l.counts.Heavy++
			l.close(s, code)
		}
	}
	if s.tls != nil {
		l.counts.TLSBytesIn += uint64(len(in))
		l.decrypt(s, in)
	} else {
		l.take(s, in)
	}
	l.flush()
}

// take takes what a session says.
func (l *loop) take(s *session, in []byte) {
	switch {
	case s.state == handshaking:
		l.handshake(s, in)
	case s.state == open && s.vetting:
		l.hold(s, in)
	case s.state == open:
		l.frames(s, in)
	}
}

// turn handles what the inbox has, up to parcelsMax, one slice of broadcasts, and what is due.
func (l *loop) turn() {
	l.look()
	began := l.now
	l.pass()
	more := l.done < len(l.parcels)
	if !more {
		clear(l.parcels)
		l.done = 0
		if cap(l.parcels) > parcelsKept {
			l.parcels = nil
		}
	}
	l.parcels, l.calls = l.inbox.take(l.parcels, more, l.calls)
	l.counts.Inbox = uint64(len(l.parcels) - l.done)
	l.counts.InboxMax = max(l.counts.InboxMax, l.counts.Inbox)
	if l.counts.Inbox > 0 {
		l.counts.Parcels.Add(l.counts.Inbox)
	}
	for _, call := range l.calls {
		call()
	}
	clear(l.calls)
	l.handle()
	l.distribute()
	if l.draining {
		l.drain()
	}
	l.flush()
	l.look()
	l.counts.Turns.AddTime(int64(l.now - began))
	if l.done < len(l.parcels) || len(l.active) > 0 || l.draining && l.parted < l.partDue || l.hurries() {
		l.inbox.ring()
		runtime.Gosched() // with more to do the loop never blocks, and whoever decides about a stake would wait out the scheduler's 10 ms
	}
}

// handle handles parcels.
func (l *loop) handle() {
	end := min(len(l.parcels), l.done+parcelsMax)
	for ; l.done < end; l.done++ {
		p := &l.parcels[l.done]
		if p.broadcast != nil {
			l.cast(p.broadcast)
			continue
		}
		s := l.find(p.out.To)
		if s == nil {
			l.counts.Orphans++
			continue
		}
		l.asked = true
		l.answer(s, &p.out)
	}
}

// answer passes on what the market says to a session.
func (l *loop) answer(s *session, out *market.Out) {
	switch out.Kind {
	case market.OutReceipt:
		if !out.Again {
			l.counts.Answered.AddTime(int64(l.now - out.Receipt.Arrived))
		}
		l.tell(s, &out.Receipt)
	case market.OutRefused:
		l.answerRefused(s, &out.Refused)
	case market.OutEvicted:
		l.evict(s, out.Circle)
	case market.OutMessage:
		switch m := out.Message.(type) {
		case *proto.Welcome:
			l.welcome(s, m)
		case *proto.Joined:
			l.joined(s, m)
		default:
			l.tell(s, m)
		}
	}
}

func (l *loop) answerRefused(s *session, m *proto.Refused) {
	if m.ID == 0 {
		return // of an image that reimage asked for: the game is over
	}
	if m.ID == s.hello {
		s.account, s.hello, s.reach = 0, 0, nil // another hello may follow, in the time for it
		l.wheel.sooner(s, max(s.deadline, l.tick+1))
	}
	l.tellRefused(s, m)
}

// welcome ends hello. A guest gets his token, which the market does not know.
func (l *loop) welcome(s *session, m *proto.Welcome) {
	s.hello, s.account, s.player = 0, m.Account, m.Name
	if s.guest {
		own := *m // the market's must not change
		own.Token = l.engine.Token(m.Account)
		m = &own
	}
	l.tell(s, m)
	for _, in := range s.games { // a join may overtake hello
		l.muster(in.room)
	}
}

// ticks is what happens at each tick.
func (l *loop) ticks() {
	l.advance(l.engine.ticks())
	l.deflateLeft = l.deflateTick()
	l.catchUpAll()
	if l.tick-l.looked >= stuckTicks {
		l.closeStuck()
	}
	l.beat()
	l.weigh()
	if (l.tick+uint32(l.index))%l.sweepTicks == 0 {
		l.sweep()
	}
	if l.tick%forgetTicks == 0 {
		l.forget()
	}
	l.publish()
}
