package insight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Emission is where metrics are sent, for those whose monitoring waits to be told: StatsD's datagrams, Graphite's lines, or both.
type Emission struct {
	StatsD   string        // host:port of UDP; empty: not sent
	Graphite string        // host:port of TCP, the plaintext protocol; empty: not sent
	Prefix   string        // of all names
	Every    time.Duration // above 0
	Log      *slog.Logger
}

// datagramMax keeps a datagram below what an Ethernet carries in one piece; StatsD's own advice.
const datagramMax = 1432

// sendTime is how long a receiver may keep us waiting.
const sendTime = 5 * time.Second

// sample is one number under its dotted name.
type sample struct {
	name  string
	value float64
	grows bool // a counter
}

// Emit sends what is gathered every now and then, until ctx ends. A receiver that is not there is told of in the log, once until it is back.
func (e Emission) Emit(ctx context.Context, from prometheus.Gatherer) {
	if e.StatsD == "" && e.Graphite == "" {
		return
	}
	ticker := time.NewTicker(e.Every)
	defer ticker.Stop()
	before, failing := map[string]float64{}, false
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-ticker.C:
			err := e.send(from, before, at)
			if err != nil && !failing {
				e.Log.Warn("metrics are not received", "error", err)
			}
			failing = err != nil
		}
	}
}

// send sends all metrics once. before has the counters that StatsD was told of.
func (e Emission) send(from prometheus.Gatherer, before map[string]float64, at time.Time) error {
	families, err := from.Gather()
	if err != nil {
		return fmt.Errorf("gather metrics: %w", err)
	}
	samples := e.samples(families)
	if e.StatsD != "" {
		err = e.statsD(samples, before)
	}
	if e.Graphite != "" {
		err = errors.Join(err, e.graphite(samples, at))
	}
	return err
}

// samples names each metric by its family and its labels' values. Of a histogram there are the count and the sum, whose quotient of
// growths is the mean of the time between.
func (e Emission) samples(families []*dto.MetricFamily) (all []sample) {
	for _, f := range families {
		for _, m := range f.Metric {
			name := e.Prefix + plain(f.GetName())
			for _, l := range m.Label {
				name += "." + plain(l.GetValue())
			}
			switch {
			case m.Counter != nil:
				all = append(all, sample{name, m.Counter.GetValue(), true})
			case m.Gauge != nil:
				all = append(all, sample{name, m.Gauge.GetValue(), false})
			case m.Histogram != nil:
				all = append(all, sample{name + ".count", float64(m.Histogram.GetSampleCount()), true},
					sample{name + ".sum", m.Histogram.GetSampleSum(), true})
			}
		}
	}
	return all
}

// plain leaves what all receivers take in a part of a name.
func plain(part string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, part)
}

// statsD sends the growth of counters and the values of the rest. A gauge with a sign is a change to StatsD, so one below 0 is
// set to 0 first, in the same datagram.
func (e Emission) statsD(samples []sample, before map[string]float64) error {
	conn, err := net.DialTimeout("udp", e.StatsD, sendTime)
	if err != nil {
		return fmt.Errorf("reach StatsD: %w", err)
	}
	defer conn.Close()
	var datagram []byte
	flush := func() error {
		if len(datagram) == 0 {
			return nil
		}
		_, err := conn.Write(datagram[:len(datagram)-1]) // lines are separated, not ended
		datagram = datagram[:0]
		return err
	}
	told := map[string]float64{}
	for _, s := range samples {
		line := ""
		switch number := strconv.FormatFloat(s.value, 'f', -1, 64); {
		case s.grows:
			growth := s.value - before[s.name]
			told[s.name] = s.value
			if growth <= 0 {
				continue
			}
			line = s.name + ":" + strconv.FormatFloat(growth, 'f', -1, 64) + "|c\n"
		case s.value < 0:
			line = s.name + ":0|g\n" + s.name + ":" + number + "|g\n"
		default:
			line = s.name + ":" + number + "|g\n"
		}
		if len(datagram)+len(line) > datagramMax {
			if err := flush(); err != nil {
				return fmt.Errorf("tell StatsD: %w", err)
			}
		}
		datagram = append(datagram, line...)
	}
	if err := flush(); err != nil {
		return fmt.Errorf("tell StatsD: %w", err)
	}
	for name, value := range told { // not before all was sent: what was lost is told with the next
		before[name] = value
	}
	return nil
}

// graphite sends lines of a name, a number and the second.
func (e Emission) graphite(samples []sample, at time.Time) error {
	conn, err := net.DialTimeout("tcp", e.Graphite, sendTime)
	if err != nil {
		return fmt.Errorf("reach Graphite: %w", err)
	}
	defer conn.Close()
	var lines bytes.Buffer
	for _, s := range samples {
		fmt.Fprintf(&lines, "%s %s %d\n", s.name, strconv.FormatFloat(s.value, 'f', -1, 64), at.Unix())
	}
	if err := conn.SetDeadline(time.Now().Add(sendTime)); err != nil {
		return fmt.Errorf("tell Graphite: %w", err)
	}
	if _, err := conn.Write(lines.Bytes()); err != nil {
		return fmt.Errorf("tell Graphite: %w", err)
	}
	return nil
}
