package main

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/proto"
)

// metric is the value of one of the server's metrics, with its labels.
func (s *running) metric(name string) float64 {
	s.t.Helper()
	for line := range strings.Lines(must(s.desk.Metrics(s.t.Context()))(s.t)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return must(strconv.ParseFloat(strings.TrimSpace(value), 64))(s.t)
		}
	}
	s.t.Fatalf("there is no metric %s", name)
	return 0
}

// When many come at once, no more are let in than the server wants; nobody is refused, and whoever is in is answered.
func TestStormIsLetInBitByBit(t *testing.T) {
	const perSecond, crowd = 100, 150
	s := start(t, t.TempDir(), "--admissions", strconv.Itoa(perSecond), "--stakes-per-second", "0")
	ada, _ := s.dial("Ada", 1e6)
	_, pools := s.game(1)

	began := time.Now()
	var storm sync.WaitGroup
	var in atomic.Int64
	for range crowd {
		storm.Go(func() {
			c, err := bench.Dial(t.Context(), s.players)
			if err != nil {
				t.Error(err)
				return
			}
			in.Add(1)
			t.Cleanup(func() { c.Abort() })
		})
	}
	for receipts := 0; in.Load() < crowd && !t.Failed(); receipts++ {
		ask[*proto.Receipt](t, ada, proto.Request{Type: proto.RequestStake, Pool: pools[0], Amount: 10})
		inside := s.metric("server_connections") // a tick old at most
		if most := 5 + perSecond*time.Since(began).Seconds(); inside > most {
			t.Errorf("%v are inside, at most %v should be; %d receipts so far", inside, most, receipts)
		}
	}
	storm.Wait()
	if held := s.metric("server_accepts_held_total"); held == 0 {
		t.Error("nobody had to wait")
	}
	for _, reason := range []string{"full", "address", "rate", "rush", "descriptors"} {
		if n := s.metric(`server_accepts_refused_total{reason="` + reason + `"}`); n != 0 {
			t.Errorf("%v were refused: %s", n, reason)
		}
	}
}
