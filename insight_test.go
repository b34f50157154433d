package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tote/server/proto"
)

// metrics is what the server's /metrics says, by name and labels as they stand there.
func (s *running) metrics() map[string]float64 {
	s.t.Helper()
	text := must(s.desk.Metrics(s.t.Context()))(s.t)
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		if name, number, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			var v float64
			fmt.Sscan(number, &v)
			values[name] = v
		}
	}
	return values
}

// What the metrics say is what the clients did: every stake, refusal and unit.
func TestMetricsHoldWhatClientsDid(t *testing.T) {
	const players, stakes = 3, 40
	s := start(t, t.TempDir(), "--stakes-per-second", "0")
	_, pools := s.game(1)
	for n := range players {
		c, _ := s.dial(fmt.Sprintf("Player %d", n), 10_000)
		for i := range stakes {
			ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: proto.RequestID(100 + i), Pool: pools[0], Amount: 10})
		}
		refused := ask[*proto.Refused](t, c, proto.Request{Type: proto.RequestStake, ID: 900, Pool: 12345, Amount: 10})
		if refused.Reason != proto.RefusedPoolUnknown {
			t.Fatalf("%+v", refused)
		}
	}
	want := map[string]float64{
		"server_connections":                                 players,
		"server_stake_answer_seconds_count":                  players * stakes,
		"server_stake_decide_seconds_count":                  players * (stakes + 1),
		`server_refusals_total{code="pool_unknown"}`:         players,
		`server_money_units{where="pools"}`:                  players * stakes * 10,
		`server_money_units{where="accounts"}`:               players * (10_000 - stakes*10),
		`server_stake_decide_seconds_bucket{le="+Inf"}`:      players * (stakes + 1),
		`server_kernel_tcp_sockets{state="established"}`:     -1, // more of them than players
		"server_journal_commit_records_sum":                  -1,
		`server_kernel_tcp_total{counter="ListenOverflows"}`: -2, // there, whatever it is
		"server_batch_release_seconds_count":                 -1,
		"server_loop_turn_seconds_count":                     -1,
		"server_shard_turn_seconds_count":                    -1,
		"server_disk_free_bytes":                             -1,
	}
	var got map[string]float64
	short := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // loops and shards show their counts now and then
		got, short = s.metrics(), ""
		for name, value := range want {
			switch v, ok := got[name]; {
			case !ok, value == -1 && v == 0, value >= 0 && v != value:
				short += fmt.Sprintf("%s is %v, want %v\n", name, v, value)
			}
		}
		if short == "" {
			break
		}
	}
	if short != "" {
		t.Error(short)
	}
	if got["server_journal_commit_records_sum"] != got["server_journal_appended"] {
		t.Errorf("%v records in transactions, %v appended", got["server_journal_commit_records_sum"], got["server_journal_appended"])
	}
	if mean := got["server_stake_answer_seconds_sum"] / (players * stakes); mean <= 0 || mean < got["server_stake_decide_seconds_sum"]/(players*(stakes+1)) {
		t.Errorf("a stake is answered after %v s, before it is decided", mean)
	}
	s.stop()
	s.audited()
}
