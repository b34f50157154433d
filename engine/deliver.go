package engine

import (
	"sync"

	"tote/server/market"
	"tote/server/proto"
)

// broadcast is consecutive messages of one game, encoded once for all who get them. It is never changed, and
// left to the garbage collector: loops let go of it at different times, rooms keep the newest odds for slow
// consumers, and one small allocation per distribution is not worth counting references.
type broadcast struct {
	game     proto.GameID
	shard    int
	seq      uint64          // of the last message
	bytes    []byte          // whole frames
	parts    []part          // one for each frame
	changed  *proto.Game     // if it tells of the game itself: the last state
	happened *proto.Happened // if it tells of an event: the last one
}

// part is one frame of a broadcast.
type part struct {
	end  int          // where it ends in bytes
	pool proto.PoolID // of odds, and of what ends a pool's odds
	odds bool         // may be skipped: the next odds of the pool replace it
}

// delivery is a batch on its way to the loops.
type delivery struct {
	shard int
	outs  []market.Out
	casts []*broadcast // in the order of the runs of outs that they stand for
	text  []byte
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
	d.outs, d.casts, d.text = nil, d.casts[:0], d.text[:0]
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
	d.text = d.text[:0]
	for i := range outs {
		m := outs[i].Message
		p := &b.parts[i]
		switch m := m.(type) {
		case *proto.Odds:
			p.pool, p.odds = m.Pool, true
		case *proto.Happened:
			b.happened = m
		case *proto.Locked:
			p.pool = m.Pool
		case *proto.Settled:
			p.pool = m.Pool
		case *proto.Voided:
			p.pool = m.Pool
		case *proto.GameChanged:
			changed := *m // the market's must not change
			changed.Game.Present = int(e.counter(b.game).Load())
			b.changed = &changed.Game
			d.text = appendMessage(d.text, &changed)
			p.end = len(d.text)
			continue
		}
		d.text = appendMessage(d.text, m)
		p.end = len(d.text)
	}
	b.bytes = append(make([]byte, 0, len(d.text)), d.text...)
	return b
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
