package insight

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"tote/server/market/meter"
)

func TestPairsOfProc(t *testing.T) {
	got := pairs("Ip: Forwarding\nIp: 1\nTcp: RtoMin MaxConn PassiveOpens\nTcp: 200 -1 17\nTcpExt: ListenDrops Late\nTcpExt: 3 4\n")
	if len(got) != 4 || got["PassiveOpens"] != 17 || got["ListenDrops"] != 3 || got["Late"] != 4 {
		t.Errorf("%v", got)
	}
	if w := words("sockets: used 5\nTCP: inuse 7 orphan 1 tw 2 alloc 9 mem 3\n", "TCP:"); w["alloc"] != 9 || w["tw"] != 2 {
		t.Errorf("%v", w)
	}
	if d, s, ok := softnet("00000010 0000000a 00000001 0\n00000010 00000001 00000002 0\n"); d != 11 || s != 3 || !ok {
		t.Errorf("dropped %d, squeezed %d, %v", d, s, ok)
	}
}

// What this host says is shown: a kernel that writes its files in another way shows here.
func TestHostIsRead(t *testing.T) {
	if _, err := os.Stat("/proc/net/snmp"); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector(Sources{Data: t.TempDir(), HalfOpen: func() (int, error) { return 7, nil }}.host))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			seen[name] = max(m.GetGauge().GetValue(), m.GetCounter().GetValue())
		}
	}
	if _, ok := seen["server_kernel_tcp_total PassiveOpens"]; !ok || seen["server_disk_bytes"] < seen["server_disk_free_bytes"] || seen["server_disk_bytes"] == 0 || seen["server_kernel_tcp_sockets syn_received"] != 7 {
		t.Errorf("%v", seen)
	}
}

// Both kinds of buckets hold what was counted, between the bounds that they name.
func TestHistograms(t *testing.T) {
	var h meter.Histogram
	for _, micros := range []int64{0, 3, 900, 1100, 250_000, 40_000_000} {
		h.AddTime(micros)
	}
	var m dto.Metric
	if err := newHistogram("x_seconds", "X.", &h, meter.TimeShift, octavesOfTimes).Write(&m); err != nil {
		t.Fatal(err)
	}
	got := m.Histogram
	if got.GetSampleCount() != 6 || math.Abs(got.GetSampleSum()-40.252003) > 1e-5 || got.GetZeroCount() != 1 || got.GetSchema() != 2 {
		t.Errorf("%v", got)
	}
	below := func(bound float64) uint64 {
		for _, b := range got.Bucket {
			if b.GetUpperBound() == bound {
				return b.GetCumulativeCount()
			}
		}
		t.Fatalf("no bound %v in %v", bound, got.Bucket)
		return 0
	}
	for bound, want := range map[float64]uint64{math.Ldexp(1, -16): 2, math.Ldexp(1, -10): 3, math.Ldexp(1, -9): 4, .25: 5, 16: 5} {
		if n := below(bound); n != want {
			t.Errorf("%d up to %v s, want %d", n, bound, want)
		}
	}
	// Native: bucket i ends at 2^(i/4). 0.25 s is exactly a bound, -8.
	at, n := int32(0), int64(0)
	found, deltas := map[int32]int64{}, got.PositiveDelta
	for _, span := range got.PositiveSpan {
		at += span.GetOffset()
		for range span.GetLength() {
			n += deltas[0]
			deltas = deltas[1:]
			found[at] = n
			at++
		}
	}
	if found[-8] != 1 || found[22] != 1 { // 40 s is below 2^(22/4) = 45.3
		t.Errorf("%v", found)
	}
}

func TestNumbersHaveKinds(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector(func(show sink) {
		show.number("a_total", "A.", 1, "code", "x")
		show.number("b", "B.", -2)
	}))
	families, err := registry.Gather()
	if err != nil || len(families) != 2 || families[0].GetType() != dto.MetricType_COUNTER || families[1].GetType() != dto.MetricType_GAUGE ||
		!strings.HasPrefix(families[0].GetName(), "server_") {
		t.Errorf("%v, %v", families, err)
	}
}
