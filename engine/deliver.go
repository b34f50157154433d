package engine

import (
	"bytes"
	"sync"

	"tote/server/market"
	"tote/server/proto"
)

// broadcast is consecutive messages of one game, encoded once for all who get them: once for each variant that
// somebody uses, when it is delivered. Whoever gets it had joined before, so his use was counted. It is never changed, and
// left to the garbage collector: loops let go of it at different times, rooms keep the newest odds for slow
// consumers, and one small allocation per distribution is not worth counting references.
type broadcast struct {
	game     proto.GameID
	shard    int
	seq      uint64           // of the last message
	forms    [variants][]byte // whole frames; nil: nobody uses the variant
	parts    []part           // one for each frame
	longest  int              // bytes of a message, before compression
	changed  *proto.Game      // if it tells of the game itself: the last state
	happened *proto.Happened  // if it tells of an event: the last one
}

// part is one frame of a broadcast.
type part struct {
	ends [variants]uint32 // where it ends in each form
	pool proto.PoolID     // of odds, and of what ends a pool's odds
	odds bool             // may be skipped: the next odds of the pool replace it
}

// formFor is the variant in which a session gets the broadcast: all of it uncompressed, where one message is too
// long for the client's window.
func (b *broadcast) formFor(s *session) variant {
	if s.variant.deflates() && !s.inflates(b.longest) {
		return s.variant.uncompressed()
	}
	return s.variant
}

// framesFor is what a session gets.
func (b *broadcast) framesFor(s *session) []byte { return b.forms[b.formFor(s)] }

// frame is the i-th frame in a variant.
func (b *broadcast) frame(i int, v variant) []byte {
	from := uint32(0)
	if i > 0 {
		from = b.parts[i-1].ends[v]
	}
	return b.forms[v][from:b.parts[i].ends[v]]
}

// delivery is a batch on its way to the loops.
type delivery struct {
	shard    int
	outs     []market.Out
	casts    []*broadcast    // in the order of the runs of outs that they stand for
	messages []proto.Message // of a broadcast
	frames   []byte
}

var deliveries = sync.Pool{New: func() any { return new(delivery) }}

// Deliver sends what a batch says. It is called by the shards, each from its own goroutine, with what is
// durable; it copies what it keeps. What is for the operators' desk is not for the engine.
func (e *Engine) Deliver(b *market.Batch) {
	e.clocks.hear(b)
	if len(b.Outs) == 0 {
		return
	}
	d := deliveries.Get().(*delivery)
	d.outs, d.shard = b.Outs, b.Shard
	d.encode(e)
	for i, l := range e.loops {
		l.inbox.put(i, d)
	}
	clear(d.casts)
	clear(d.messages)
	d.outs, d.casts, d.messages, d.frames = nil, d.casts[:0], d.messages[:0], d.frames[:0]
	deliveries.Put(d)
}

// encode makes the broadcasts of the batch.
func (d *delivery) encode(e *Engine) {
	for i := 0; i < len(d.outs); {
		if d.outs[i].To != 0 {
			i++
			continue
		}
		run := d.run(i)
		d.casts = append(d.casts, d.broadcast(e, d.outs[i:i+run]))
		i += run
	}
}

// run is the number of broadcasts of one game from i on.
func (d *delivery) run(i int) int {
	n := 1
	for i+n < len(d.outs) && d.outs[i+n].To == 0 && d.outs[i+n].Game == d.outs[i].Game {
		n++
	}
	return n
}

func (d *delivery) broadcast(e *Engine, outs []market.Out) *broadcast {
	b := &broadcast{game: outs[0].Game, shard: d.shard, seq: outs[len(outs)-1].Seq, parts: make([]part, len(outs))}
	d.messages = d.messages[:0]
	for i := range outs {
		message := outs[i].Message
		switch m := message.(type) {
		case *proto.Odds:
			b.parts[i].pool, b.parts[i].odds = m.Pool, true
		case *proto.Happened:
			b.happened = m
		case *proto.Locked:
			b.parts[i].pool = m.Pool
		case *proto.Settled:
			b.parts[i].pool = m.Pool
		case *proto.Voided:
			b.parts[i].pool = m.Pool
		case *proto.GameChanged:
			changed := *m // the market's must not change
			changed.Game.Present = int(e.attendance(b.game).present.Load())
			b.changed, message = &changed.Game, &changed
		}
		d.messages = append(d.messages, message)
	}
	d.write(b, plain)
	if e.users[packed].Load()+e.users[packedDeflated].Load() > 0 {
		d.write(b, packed)
	}
	for _, v := range [...]variant{deflated, packedDeflated} {
		if e.users[v].Load() > 0 {
			d.deflate(e, b, v)
		}
	}
	return b
}

// write makes an uncompressed form.
func (d *delivery) write(b *broadcast, v variant) {
	d.frames = d.frames[:0]
	for i, m := range d.messages {
		d.frames = appendMessage(d.frames, v.codec(), m)
		b.parts[i].ends[v] = uint32(len(d.frames))
	}
	b.forms[v] = bytes.Clone(d.frames)
}

// deflate makes a compressed form from the uncompressed one.
func (d *delivery) deflate(e *Engine, b *broadcast, v variant) {
	z := e.deflaters.Get().(*deflater)
	d.frames = d.frames[:0]
	for i := range b.parts {
		frame := b.frame(i, v.uncompressed())
		n := len(payloadOf(frame))
		b.longest = max(b.longest, n)
		if n < deflateSharedMin {
			d.frames = append(d.frames, frame...)
		} else {
			d.frames = z.appendFrame(d.frames, frame)
		}
		b.parts[i].ends[v] = uint32(len(d.frames))
	}
	b.forms[v] = bytes.Clone(d.frames)
	e.deflaters.Put(z)
}

// appendFor appends a loop's parcels in the order of the batch: the image of a game must keep its place among
// the game's broadcasts.
func (d *delivery) appendFor(loop int, parcels []parcel) []parcel {
	cast := 0
	for i := 0; i < len(d.outs); {
		out := &d.outs[i]
		if out.To != 0 {
			if out.To.Loop() == loop {
				parcels = append(parcels, parcel{out: *out})
			}
			i++
			continue
		}
		parcels = append(parcels, parcel{broadcast: d.casts[cast]})
		i += len(d.casts[cast].parts)
		cast++
	}
	return parcels
}
