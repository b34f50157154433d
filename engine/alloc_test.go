//go:build !race

package engine

import (
	"bytes"
	"io"
	"testing"

	"tote/server/market"
	"tote/server/proto"
)

// The race detector makes sync.Pool forget at random, so these guards are for plain builds.

// From socket to command, and from receipt to socket, nothing is allocated.
func TestStakeAllocates(t *testing.T) {
	e, _ := serveReceipts(t)
	c := greeted(t, e, 12)
	c.write(stakeFrame)
	reply := c.frame()
	buffer := make([]byte, len(appendFrame(nil, txt, reply.Payload)))
	if n := testing.AllocsPerRun(2000, func() {
		if _, err := c.conn.Write(stakeFrame); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c.conn, buffer); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a stake and its receipt allocate %v times", n)
	}
}

// What comes compressed and what goes compressed allocates nothing either: coders and buffers are kept.
func TestDeflateAllocates(t *testing.T) {
	var in inflater
	out, message := newDeflater(deflateLevel), []byte(deflate(stakeText))
	frame := appendFrame(nil, txt, bytes.Repeat([]byte(stakeText), 50))
	packed := make([]byte, 0, len(frame))
	if n := testing.AllocsPerRun(500, func() {
		if b, code := in.inflate(message, 1<<14); code != 0 || len(b) != len(stakeText) {
			t.Fatal(code)
		}
		packed = out.appendFrame(packed[:0], frame)
	}); n >= 1 { // a table of codes grows now and then
		t.Errorf("a compressed message each way allocates %v times", n)
	}
}

// A distribution allocates itself, and nothing for each of its subscribers.
func TestBroadcastAllocates(t *testing.T) {
	e, m := serve(t, Config{Loops: 2})
	m.announce(3)
	const subscribers = 200
	var all []*client
	for i := range subscribers {
		all = append(all, joined(t, e, proto.AccountID(100+i), 3))
	}
	odds := &proto.Odds{T: 7, Game: 3, Seq: 2, Pool: 196609, Odds: make([]proto.Odd, 3)}
	batch := market.Batch{Outs: []market.Out{{Game: 3, Message: odds}}}
	buffer := make([]byte, len(appendMessage(nil, proto.JSON, odds)))
	if n := testing.AllocsPerRun(500, func() {
		e.Deliver(&batch)
		for _, c := range all {
			if _, err := io.ReadFull(c.conn, buffer); err != nil {
				t.Fatal(err)
			}
		}
	}); n > 4 { // the broadcast, its bytes, its parts; a page of a list now and then
		t.Errorf("a distribution to %d allocates %v times", subscribers, n)
	}
}
