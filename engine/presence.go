package engine

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gobwas/ws"

	"tote/server/proto"
)

// attendance is who is in a game, over all loops. Each loop puts down its part of a small room, and tells its own subscribers of the
// whole:
//
//	loop 0: join, leave, pong ─▶ part ─┐
//	                                   ├─▶ people, version ─▶ presence, presence_changed
//	loop 1: join, leave, pong ─▶ part ─┘
//
// What an idle connection costs is its name; the rest is kept only for those in small rooms.
type attendance struct {
	present atomic.Int64  // connections
	sent    atomic.Uint64 // bytes of broadcasts

	mu      sync.Mutex
	parts   [][]proto.Person // by loop; never changed, only replaced
	people  []proto.Person   // of all parts, by account; nil: more than proto.PeopleMax. Never changed
	version uint32           // of people; 0: nobody yet
}

// person is what the loop knows of a session in a small room, or of a sampled one until it answers.
type person struct {
	latency uint32 // µs, smoothed; 0: not measured
	sent    uint32 // lower half of the time of the last ping
	asked   bool   // and it is not answered
	sweeps  uint8  // until the next ping
	sampled bool   // for the histogram alone
}

const (
	// roomSmall is how many connections a room has at most for its loops to look who they are: people with two windows
	// are still told by name.
	roomSmall = 2 * proto.PeopleMax

	// A person is pinged at every pingSweeps-th look: latency is told, not traded on.
	pingSweeps = 5

	// sampleMax is how many sessions of all are pinged at each look, so that the histogram says something of large rooms at a
	// cost that does not grow with them.
	sampleMax = 16

	// Latencies that differ by less are not told again: a message to everybody is dear.
	latencyGrain = 5000 // µs, or a quarter of what was told
)

// set puts down a loop's part.
func (a *attendance) set(loop, loops int, part []proto.Person) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parts == nil {
		a.parts = make([][]proto.Person, loops)
	}
	a.parts[loop] = part
	people := slices.Concat(a.parts...)
	slices.SortFunc(people, func(a, b proto.Person) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(uint64(a.Latency-1), uint64(b.Latency-1))) // 0, not measured, is last
	})
	people = slices.CompactFunc(people, func(a, b proto.Person) bool { return a.Account == b.Account })
	if len(people) > proto.PeopleMax {
		people = nil
	}
	if slices.EqualFunc(a.people, people, sameAsTold) {
		return
	}
	a.people = people
	a.version++
}

// sameAsTold reports whether there is nothing new about a person.
func sameAsTold(told, now proto.Person) bool {
	if told.Account != now.Account || told.Name != now.Name || (told.Latency == 0) != (now.Latency == 0) {
		return false
	}
	differs := max(told.Latency-now.Latency, now.Latency-told.Latency)
	return differs <= max(latencyGrain, told.Latency/4)
}

// now returns who is there; the people are not to be changed.
func (a *attendance) now() (people []proto.Person, version uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.people, a.version
}

// presence answers who is in a game.
func (l *loop) presence(s *session, r *proto.Request) proto.Refusal {
	room := l.rooms[r.Game]
	if room == nil {
		return proto.RefusedGameUnknown
	}
	if s.barred(room) {
		return proto.RefusedGameNotJoined
	}
	people, _ := room.attendance.now()
	l.tell(s, &proto.Presence{ID: r.ID, T: l.now, Game: r.Game, Present: int(room.attendance.present.Load()), People: people})
	return proto.Accepted
}

// muster puts down who is in a room on this loop. In a large room it is nobody.
func (l *loop) muster(r *room) {
	var part []proto.Person
	if r.attendance.present.Load() <= roomSmall {
		for i := range r.subs {
			if s := r.subs[i].session; s != nil && s.player != "" {
				part = append(part, proto.Person{Account: s.account, Name: s.player, Latency: l.latency(s)})
			}
		}
	} else if !r.mustered {
		return
	}
	r.mustered = part != nil
	r.attendance.set(l.index, len(l.engine.loops), part)
}

func (l *loop) latency(s *session) proto.Time {
	if p := l.people[s.slot]; p != nil {
		return proto.Time(p.latency)
	}
	return 0
}

// sweep looks after all small rooms: measures, musters, and tells.
func (l *loop) sweep() {
	l.sample()
	for _, r := range l.catalogue {
		if len(r.subs) == 0 {
			continue
		}
		if r.attendance.present.Load() <= roomSmall {
			l.ping(r)
		}
		l.muster(r)
		l.tellPresence(r)
	}
}

// ping sends pings to those in a room whose turn it is.
func (l *loop) ping(r *room) {
	for i := range r.subs {
		s := r.subs[i].session
		if s == nil || s.state != open {
			continue
		}
		p := l.people[s.slot]
		if p == nil {
			p = new(person)
			l.people[s.slot] = p
		}
		p.sampled = false
		if p.sweeps > 0 {
			p.sweeps--
		} else if l.pingPerson(s, p) {
			p.sweeps = pingSweeps - 1
		}
	}
}

// pingPerson sends a ping, but not behind what is unsent: that would measure the queue.
func (l *loop) pingPerson(s *session, p *person) bool {
	if s.backlog() > 0 {
		return false
	}
	p.asked, p.sent = true, uint32(l.now)
	b := l.out(s)
	b.B = l.appendPing(b.B)
	l.counts.FramesOut++
	return true
}

// sample pings the next few sessions, whatever rooms they are in.
func (l *loop) sample() {
	for range min(sampleMax, len(l.places)) {
		l.sampled = (l.sampled + 1) % len(l.places)
		s := l.places[l.sampled].session
		if s == nil || s.state != open || s.account == 0 || l.people[s.slot] != nil {
			continue
		}
		p := &person{sampled: true}
		if l.pingPerson(s, p) {
			l.people[s.slot] = p
		}
	}
}

// appendPing appends a ping with the lower half of its time, which the pong brings back.
func (l *loop) appendPing(b []byte) []byte {
	var at [4]byte
	binary.LittleEndian.PutUint32(at[:], uint32(l.now))
	return appendFrame(b, ws.OpPing, at[:])
}

// ponged measures the way to a client and back. What counts is the answer to a ping that was sent, once: a client can seem slower
// than it is, and not faster. idle says that the session owed the answer to a ping for its silence.
func (l *loop) ponged(s *session, payload []byte, idle bool) {
	if len(payload) != 4 {
		return
	}
	sent := binary.LittleEndian.Uint32(payload)
	p := l.people[s.slot]
	measured := p != nil && p.asked && p.sent == sent
	took := uint32(l.now) - sent
	if !measured && !idle || proto.Time(took) > span(l.engine.limits.IdleTime) {
		return
	}
	took = max(took, 1)
	l.counts.Latencies.observe(took)
	if !measured {
		return
	}
	p.asked = false
	if p.sampled {
		delete(l.people, s.slot)
		return
	}
	if p.latency == 0 {
		p.latency = took
		return
	}
	p.latency = max(1, p.latency-p.latency/4+took/4)
}

// tellPresence tells the subscribers on this loop who is in a small room, if they have not heard it yet. It goes beside the odds, and
// only to those who have taken all that came before; the others get a newer one at the next look.
func (l *loop) tellPresence(r *room) {
	people, version := r.attendance.now()
	if r.told == version && !r.untold {
		return
	}
	r.told, r.untold = version, false
	if len(r.subs) > roomSmall {
		return // grown too fast for farewells
	}
	m := &proto.PresenceChanged{T: l.now, Game: r.game.Game, Present: int(r.attendance.present.Load()), People: people}
	var forms [variants][]byte
	for i := range r.subs {
		sub := &r.subs[i]
		if sub.session == nil || sub.told == version {
			continue
		}
		if sub.asked || sub.session.backlog() > 0 {
			r.untold = true
			continue
		}
		v := sub.variant.uncompressed()
		if forms[v] == nil {
			forms[v] = appendMessage(nil, v.codec(), m)
		}
		b := l.out(sub.session)
		b.B = append(b.B, forms[v]...)
		l.counts.FramesOut++
		sub.told = version
	}
}

// Latencies counts how long pings took to be answered.
type Latencies struct {
	Buckets [len(LatencyBounds) + 1]uint64 // by LatencyBounds; the last is beyond
	Sum     uint64                         // µs
}

// LatencyBounds are the upper bounds of the buckets, in µs.
var LatencyBounds = [...]uint32{1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000}

func (h *Latencies) observe(took uint32) {
	i, _ := slices.BinarySearch(LatencyBounds[:], took)
	h.Buckets[i]++
	h.Sum += uint64(took)
}

func (h *Latencies) add(o *Latencies) {
	for i, n := range o.Buckets {
		h.Buckets[i] += n
	}
	h.Sum += o.Sum
}
