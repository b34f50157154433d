package engine

import (
	"cmp"
	"slices"
	"sync"

	"tote/server/market/meter"
	"tote/server/proto"
	"tote/server/proto/control"
)

// Counts are the counts of one loop, or of all.
type Counts struct {
	Connections       int64  // now
	Handshakes        uint64 // upgraded
	HandshakesFailed  uint64 // answered with an HTTP error
	HandshakesLate    uint64 // of these, 408
	HandshakesLong    uint64 // of these, 431
	HandshakesForeign uint64 // of these, 403: Config.Origins
	Aborted           uint64 // connections that ended without a closing handshake
	Cut               uint64 // that had not ended by Limits.CloseTime
	Pages             uint64 // answered by Config.Page
	BytesIn           uint64
	BytesOut          uint64
	Writes            uint64 // to sockets; each about one system call, but for those of broadcasts where there is io_uring
	Enters            uint64 // system calls for sends through io_uring
	FramesIn          uint64
	FramesOut         uint64
	Requests          uint64
	Vetted            uint64 // tokens that were given to vetting
	Restamped         uint64 // reads for whose arrival the kernel was asked
	Inflated          uint64 // compressed messages of clients
	Bombs             uint64 // compressed messages that would have become longer than Limits.MessageBytes
	Deflated          uint64 // private messages that were compressed
	Floods            uint64 // closed for Limits.Frames
	Heavy             uint64 // closed for their bytes, or their account's, or their address's
	Stalled           uint64 // closed for Limits.MessageTime
	TLSConnections    int64  // now
	TLSHandshakes     uint64 // done
	TLSResumed        uint64 // of these, with a ticket of an earlier one
	TLSBytesIn        uint64 // of BytesIn
	TLSBytesOut       uint64 // of BytesOut
	Orphans           uint64 // messages of the market for sessions that have ended
	Broadcasts        uint64 // distributed, per loop
	Delivered         uint64 // broadcasts × subscribers
	Conflated         uint64 // messages that slow consumers were spared
	Reimaged          uint64 // images asked for, for slow consumers
	InboxMax          uint64 // parcels that waited for one turn, at most
	Inbox             uint64 // parcels that waited at the last tick
	SpreadSum         uint64 // µs from a broadcast's first receiver to its last, per loop; divide by Broadcasts
	SpreadMax         uint64 // µs
	Behind            uint64 // sessions that were spared something or whose socket was full, at the last tick, and are not up to date yet
	Latencies         Latencies
	Turns             meter.Histogram // times of turns
	Parcels           meter.Histogram // that a turn found
	Answered          meter.Histogram // times from a stake's arrival to the turn that writes its receipt
	Spreads           meter.Histogram // times from a broadcast's first receiver to its last, per loop
}

// Stats is what the engine has counted. It is a tick old at most.
type Stats struct {
	Counts
	Accepted       uint64
	RefusedFull    uint64 // by Limits.Connections
	RefusedAddress uint64 // by Limits.PerAddress
	RefusedRate    uint64 // by Limits.ConnectRate
	RefusedRush    uint64 // by Limits.Handshakes
	RefusedStarved uint64 // no descriptor was left
	Held           uint64 // times that newcomers had to wait: Limits.Admissions
	Deflating      int64  // connections that have negotiated permessage-deflate
	AcceptErrors   uint64
	Refusals       map[proto.Refusal]uint64
	Closes         map[proto.CloseCode]uint64 // by the code of our close frame
	Insecurities   map[Insecurity]uint64
}

// counts is what a loop counts with, in plain integers.
type counts struct {
	Counts
	refusals [256]uint64 // by Refusal
	closes   [32]uint64  // by closeIndex
	insecure [insecurities]uint64
	ticks    uint64 // handled
}

// published is the copy of counts that others may see.
type published struct {
	mu     sync.Mutex
	counts counts
	loads  []load
	slow   []control.Consumer // the slowest
}

// closeIndex packs 1000 to 1015 and 4000 to 4015.
func closeIndex(code proto.CloseCode) int {
	if code >= 4000 {
		return int(code-4000)%16 + 16
	}
	return int(code-1000) % 16
}

func closeAt(index int) proto.CloseCode {
	if index >= 16 {
		return proto.CloseCode(4000 + index - 16)
	}
	return proto.CloseCode(1000 + index)
}

func (c *counts) closed(code proto.CloseCode) { c.closes[closeIndex(code)]++ }

// publish shows the counts, once in a tick: counting itself needs no atomic instruction.
func (l *loop) publish() {
	l.counts.ticks++
	l.counts.Behind = uint64(len(l.behind))
	l.counts.Inflated, l.counts.Bombs = l.kit.inflater.done, l.kit.inflater.bombs
	l.published.mu.Lock()
	l.published.counts = l.counts
	l.published.slow = l.slowest(l.published.slow[:0])
	l.published.mu.Unlock()
}

const (
	slowMax    = 8   // consumers that are named, of a loop and of all
	weighedMax = 256 // that are looked at in a tick
)

// slowest names those who have left the most unread.
func (l *loop) slowest(into []control.Consumer) []control.Consumer {
	for _, s := range l.behind[:min(len(l.behind), weighedMax)] {
		if s.state != open {
			continue
		}
		if n := s.backlog(); n > 0 {
			into = append(into, control.Consumer{Account: s.account, Name: s.player, Address: s.address.String(), Backlog: n})
		}
	}
	return theSlowest(into)
}

func theSlowest(of []control.Consumer) []control.Consumer {
	slices.SortFunc(of, func(a, b control.Consumer) int { return cmp.Compare(b.Backlog, a.Backlog) })
	return of[:min(len(of), slowMax)]
}

// Slowest names the connections that have left the most unread, of those that are behind. It is a tick old at most.
func (e *Engine) Slowest() (all []control.Consumer) {
	for _, l := range e.loops {
		l.published.mu.Lock()
		all = append(all, l.published.slow...)
		l.published.mu.Unlock()
	}
	return theSlowest(all)
}

// Progress counts the ticks that each loop has handled: ten per second as long as it turns.
func (e *Engine) Progress() []uint64 {
	counts := make([]uint64, len(e.loops))
	for i, l := range e.loops {
		l.published.mu.Lock()
		counts[i] = l.published.counts.ticks
		l.published.mu.Unlock()
	}
	return counts
}

// Stats sums up the loops.
func (e *Engine) Stats() Stats {
	s := Stats{
		Accepted: e.door.accepted.Load(), RefusedFull: e.door.full.Load(), RefusedAddress: e.door.crowded.Load(),
		RefusedRate: e.door.hasty.Load(), RefusedRush: e.door.rushed.Load(), Deflating: e.users[deflated].Load(),
		RefusedStarved: e.door.starved.Load(), Held: e.door.held.Load(), AcceptErrors: e.door.acceptFail.Load(),
		Refusals: map[proto.Refusal]uint64{}, Closes: map[proto.CloseCode]uint64{}, Insecurities: map[Insecurity]uint64{},
	}
	for _, l := range e.loops {
		l.published.mu.Lock()
		c := l.published.counts
		l.published.mu.Unlock()
		s.add(&c.Counts)
		for i, n := range c.refusals {
			if n > 0 {
				s.Refusals[proto.Refusal(i)] += n
			}
		}
		for i, n := range c.insecure {
			s.Insecurities[Insecurity(i)] += n
		}
		for i, n := range c.closes {
			if n > 0 {
				s.Closes[closeAt(i)] += n
			}
		}
	}
	return s
}

func (c *Counts) add(o *Counts) {
	c.Connections += o.Connections
	c.Handshakes += o.Handshakes
	c.HandshakesFailed += o.HandshakesFailed
	c.Pages += o.Pages
	c.BytesIn += o.BytesIn
	c.BytesOut += o.BytesOut
	c.Writes += o.Writes
	c.Enters += o.Enters
	c.FramesIn += o.FramesIn
	c.FramesOut += o.FramesOut
	c.Requests += o.Requests
	c.Vetted += o.Vetted
	c.Restamped += o.Restamped
	c.HandshakesLate += o.HandshakesLate
	c.HandshakesLong += o.HandshakesLong
	c.HandshakesForeign += o.HandshakesForeign
	c.Aborted += o.Aborted
	c.Cut += o.Cut
	c.Inflated += o.Inflated
	c.Bombs += o.Bombs
	c.Deflated += o.Deflated
	c.Floods += o.Floods
	c.Heavy += o.Heavy
	c.Stalled += o.Stalled
	c.TLSConnections += o.TLSConnections
	c.TLSHandshakes += o.TLSHandshakes
	c.TLSResumed += o.TLSResumed
	c.TLSBytesIn += o.TLSBytesIn
	c.TLSBytesOut += o.TLSBytesOut
	c.Orphans += o.Orphans
	c.Broadcasts += o.Broadcasts
	c.Delivered += o.Delivered
	c.Conflated += o.Conflated
	c.Reimaged += o.Reimaged
	c.InboxMax = max(c.InboxMax, o.InboxMax)
	c.Inbox += o.Inbox
	c.SpreadSum += o.SpreadSum
	c.SpreadMax = max(c.SpreadMax, o.SpreadMax)
	c.Latencies.add(&o.Latencies)
	c.Behind += o.Behind
	c.Turns.Merge(&o.Turns)
	c.Parcels.Merge(&o.Parcels)
	c.Answered.Merge(&o.Answered)
	c.Spreads.Merge(&o.Spreads)
}
