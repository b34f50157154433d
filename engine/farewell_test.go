package engine

import (
	"testing"
	"time"

	"github.com/gobwas/ws"

	"tote/server/proto"
)

// Clients are told one after the other, each when to come back, and come in the order in which they were told; whoever is not told yet
// is served.
func TestFarewell(t *testing.T) {
	const away, spread = 2 * time.Second, 8 * time.Second
	e, stop := serveWith(t, Config{Loops: 1}, newTestMarket())
	var all []*client
	for i := range partingMax + 50 {
		all = append(all, greeted(t, e, proto.AccountID(100+i)))
	}
	e.Part(Farewell{Over: time.Minute, Away: away, Spread: spread})
	ended := make(chan error, 1)
	go func() { ended <- stop() }()

	told := all[0].delay()
	if told < span(30*time.Second+away) || told > span(time.Minute+away+spread) {
		t.Errorf("the first one shall come back in %v", time.Duration(told)*time.Microsecond)
	}
	last := all[len(all)-1]
	last.ask(`{"type":"time","id":7,"sent":1}`)
	last.expect("time", 7)
	select {
	case <-e.Parted():
		t.Error("all have been told before their time")
	default:
	}
	for _, c := range all {
		c.conn.Close()
	}
	<-e.Parted() // nobody is left to be told
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// By default all are told at once, and come back over the time in which they can be let in.
func TestFarewellByDefault(t *testing.T) {
	const crowd, perSecond = 2*partingMax + 10, 1000
	e, stop := serveWith(t, Config{Loops: 2, Limits: Limits{Admissions: perSecond}}, newTestMarket())
	var all []*client
	for i := range crowd {
		all = append(all, greeted(t, e, proto.AccountID(100+i)))
	}
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	var within [10]int // tenths of the time
	for _, c := range all {
		tenth := int(c.delay() * 10 * perSecond / (crowd * proto.Second))
		within[min(tenth, 9)]++
		c.conn.Close()
	}
	for i, n := range within {
		if n > crowd/5 {
			t.Errorf("%d of %d come in tenth %d: %v", n, crowd, i, within)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// delay is the time after which the client is told to come back.
func (c *client) delay() proto.Time {
	c.t.Helper()
	f := c.frame()
	if f.Header.OpCode != ws.OpClose || len(f.Payload) < 2 {
		c.t.Fatalf("frame %v %q where a close should be", f.Header, f.Payload)
	}
	after, ok := proto.RestartDelay(string(f.Payload[2:]))
	if !ok {
		c.t.Fatalf("closed with %q", f.Payload)
	}
	return after
}
