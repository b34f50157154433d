package engine

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"tote/server/market"
	"tote/server/proto"
)

// versions of TLS, as a crowd is told.
var versions = map[string]uint16{"TLS1.2": tls.VersionTLS12, "TLS1.3": tls.VersionTLS13}

// overTLS is an address for a crowd that speaks a version of TLS.
type overTLS struct {
	net.Addr
	version string
}

func (a overTLS) String() string { return a.version + "/" + a.Addr.String() }

// shakeHands begins TLS for one of a crowd.
func shakeHands(conn net.Conn, version string) (*tls.Conn, error) {
	v, ok := versions[version]
	if !ok {
		return nil, fmt.Errorf("there is no %q", version)
	}
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: v, MaxVersion: v})
	return c, c.Handshake()
}

// What TLS costs: a handshake, a connection that is quiet, and a broadcast's frame, beside the same without TLS.
func BenchmarkTLS(b *testing.B) {
	n := clients(b) / 2
	e, m := serve(b, Config{Loops: 1, TLS: serving(), Limits: Limits{IdleTime: time.Hour, Heartbeat: time.Hour, HelloTime: time.Minute, AccountRequests: 1 << 30, AccountBytes: 1 << 30}})
	frame := appendMessage(nil, proto.JSON, threeOdds)
	rows := []struct {
		name     string
		address  net.Addr
		overhead int // of a record
		crowd    *crowd
		total    int
		cpu      []float64

		entry, heap, rss float64 // of a connection
	}{
		{name: "plain", address: e.Addr()},
		{name: "TLS1.2", address: overTLS{e.TLSAddr(), "TLS1.2"}, overhead: 29},
		{name: "TLS1.3", address: overTLS{e.TLSAddr(), "TLS1.3"}, overhead: 22},
	}
	for i := range rows {
		r := &rows[i]
		game := 3 + i
		m.announce(proto.GameID(game))
		before, rss, began := heap(), resident(b), cpu(b)
		r.crowd = crowdAt(b, r.address, e.Token(12), n, game, 1)
		r.entry = float64(cpu(b)-began) / float64(n) / 1e3
		m.forget()
		r.heap = float64(heap()-before) / float64(n)
		r.rss = float64(resident(b)-rss) / float64(n)
	}
	for rounds := 0; b.Loop(); rounds++ {
		for i := range rows {
			at := (i + rounds) % len(rows)
			r := &rows[at]
			began := cpu(b)
			e.Deliver(&market.Batch{Outs: []market.Out{{Game: proto.GameID(3 + at), Message: threeOdds}}})
			r.total += len(frame) + r.overhead
			r.crowd.await(r.total)
			r.cpu = append(r.cpu, float64(cpu(b)-began)/float64(n))
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, r := range rows {
		b.ReportMetric(r.entry, r.name+"-µs/entry")
		b.ReportMetric(r.heap, r.name+"-heap-B/conn")
		b.ReportMetric(r.rss, r.name+"-rss-B/conn")
		b.ReportMetric(quantile(r.cpu, 0.5), r.name+"-ns/frame")
	}
}
