package insight

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// statsd is what a StatsD does with what it hears: counters grow, gauges are set, or changed by what has a sign.
type statsd struct{ counters, gauges map[string]float64 }

func (d *statsd) hear(t *testing.T, datagram string) {
	for line := range strings.SplitSeq(datagram, "\n") {
		name, rest, ok := strings.Cut(line, ":")
		text, kind, ok2 := strings.Cut(rest, "|")
		v, err := strconv.ParseFloat(text, 64)
		if !ok || !ok2 || err != nil || name == "" {
			t.Errorf("%q is no line of StatsD's", line)
			continue
		}
		switch {
		case kind == "c":
			d.counters[name] += v
		case kind == "g" && (text[0] == '-' || text[0] == '+'):
			d.gauges[name] += v
		case kind == "g":
			d.gauges[name] = v
		default:
			t.Errorf("%q is of no kind", line)
		}
	}
}

// A StatsD that listens comes to the same numbers, whatever their signs, and a Graphite gets them as they are.
func TestEmission(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	lines := make(chan string, 2)
	go func() { // ends with the listener
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			all, _ := io.ReadAll(c)
			c.Close()
			lines <- string(all)
		}
	}()

	round := 0.0
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector(func(show sink) {
		show.number("stakes_total", "S.", 10*round, "code", "a b.c")
		show.number("house", "H.", -5-round)
		for i := range 200 { // more than a datagram
			show.number("depth", "D.", float64(i), "shard", fmt.Sprint(i))
		}
	}))
	e := Emission{StatsD: udp.LocalAddr().String(), Graphite: tcp.Addr().String(), Prefix: "tote.", Every: time.Second, Log: slog.New(slog.DiscardHandler)}
	before, heard := map[string]float64{}, statsd{map[string]float64{}, map[string]float64{}}
	for round = 1; round <= 2; round++ {
		if err := e.send(registry, before, time.Unix(1700000000, 0)); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("tote.server_stakes_total.a_b_c %v 1700000000\n", 10*round)
		if all := <-lines; !strings.Contains(all, want) || strings.Count(all, "\n") != 202 {
			t.Errorf("Graphite got %q, want %q", all, want)
		}
		heard.gauges["tote.server_depth.199"] = -1
		datagram := make([]byte, 1<<16)
		for heard.gauges["tote.server_depth.199"] != 199 || heard.gauges["tote.server_house"] != -5-round || heard.counters["tote.server_stakes_total.a_b_c"] != 10*round {
			if err := udp.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			n, _, err := udp.ReadFrom(datagram)
			if err != nil {
				t.Fatalf("StatsD has %v and %v: %v", heard.counters, heard.gauges["tote.server_house"], err)
			}
			if n > datagramMax {
				t.Errorf("a datagram of %d bytes", n)
			}
			heard.hear(t, string(datagram[:n]))
		}
	}
	if len(heard.gauges) != 201 || len(heard.counters) != 1 {
		t.Errorf("%d gauges and %d counters", len(heard.gauges), len(heard.counters))
	}
}

// Who is not there is told of once, and emission ends with its context.
func TestNobodyListens(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := tcp.Addr().String()
	tcp.Close()
	ctx, end := context.WithCancel(t.Context())
	gathered := 0
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector(func(show sink) {
		if gathered++; gathered == 3 {
			end()
		}
		show.number("x", "X.", 1)
	}))
	var log strings.Builder
	Emission{Graphite: address, Every: time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))}.Emit(ctx, registry)
	if n := strings.Count(log.String(), "metrics are not received"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &log)
	}
}
