package engine

import (
	"encoding/json"
	"testing"
	"time"

	"tote/server/market"
	"tote/server/proto"
)

// beat reads the next heartbeat; nothing else may come before it.
func (c *client) beat() *proto.Heartbeat {
	c.t.Helper()
	var h struct {
		Type string
		proto.Heartbeat
	}
	if f := c.frame(); json.Unmarshal(f.Payload, &h) != nil || h.Type != "heartbeat" {
		c.t.Fatalf("%s came instead of a heartbeat", f.Payload)
	}
	return &h.Heartbeat
}

// A silent game tells how far it has come; one that was just heard of does not.
func TestHeartbeat(t *testing.T) {
	e, m := serve(t, Config{Limits: Limits{Heartbeat: 200 * time.Millisecond}})
	m.announce(3)
	c := joined(t, e, 1, 3)
	if h := c.beat(); h.Game != 3 || h.Seq != 1 || h.Stale || h.ID != 0 {
		t.Errorf("the first heartbeat is %+v", h)
	}
	m.odds(3, 1)
	c.expect("odds", 0)
	if h := c.beat(); h.Seq != 2 {
		t.Errorf("after odds the heartbeat is %+v", h)
	}
}

// A client may ask for one, and for more of them, of a game that it is in.
func TestHeartbeatOnRequest(t *testing.T) {
	e, m := serve(t, Config{})
	m.announce(3)
	c := joined(t, e, 1, 3)
	c.ask(`{"type":"heartbeat","id":5,"game":4}`)
	c.expect("refused", 5)
	c.ask(`{"type":"heartbeat","id":6,"game":3,"every":1}`)
	if h := c.beat(); h.ID != 6 || h.Seq != 1 {
		t.Errorf("asked for, the heartbeat is %+v", h)
	}
	for range 2 {
		if h := c.beat(); h.ID != 0 || h.Seq != 1 {
			t.Errorf("it goes on with %+v", h)
		}
	}
	c.ask(`{"type":"leave","id":7,"game":3}`)
	c.expect("left", 7)
	c.ask(`{"type":"time","id":8}`)
	c.expect("time", 8)
}

// When the market behind a game is not heard of any more, its subscribers are told, and told again when it is back.
func TestStale(t *testing.T) {
	e, m := serve(t, Config{Limits: Limits{Heartbeat: time.Hour, StaleTime: 300 * time.Millisecond}})
	m.announce(3)
	c := joined(t, e, 1, 3)
	e.Deliver(&market.Batch{Now: e.config.Now()}) // the shard's last sign of life
	if h := c.beat(); !h.Stale {
		t.Errorf("the market has stopped, and the heartbeat says %+v", h)
	}
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			e.Deliver(&market.Batch{Now: e.config.Now()})
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	if h := c.beat(); h.Stale {
		t.Errorf("the market is back, and the heartbeat says %+v", h)
	}
	close(stop)
	<-stopped
}
