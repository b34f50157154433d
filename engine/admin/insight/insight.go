// Package insight is what a running server shows of itself: metrics of every stage that a stake goes through and of the
// kernel under them, for Prometheus, StatsD and Graphite; a dashboard and alerts that go with them.
//
// `server serve` runs it beside the operators' desk. It reads what loops, shards and the journal have counted and published anyway, and
// only when somebody asks: nothing on the way of a stake knows of it.
package insight

import (
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"tote/server/engine"
	"tote/server/engine/certificate"
	"tote/server/market"
	"tote/server/market/meter"
	"tote/server/proto"
)

// Sources are what is read. All are set, and may be called by several goroutines.
type Sources struct {
	Players func() engine.Stats
	Market  func() market.Meters
	Depths  func() []int  // commands that wait for each shard
	Overdue func() uint64 // moments that took effect without all that should be heard
	Journal func() Journal
	Commits *Commits
	Money   func() market.Totals

	Certificates func() certificate.Stats

	HalfOpen func() (int, error) // connections of our network namespace: SYN received

	Data string // directory; its disk is looked at
}

// Journal is what the store has counted: its Stats, of which package store, that knows none of ours, says what they are.
type Journal struct {
	Appended, Durable, Synced, Applied, Viewed, Snapshot                          uint64
	Commits, Records, PendingBytes, JournalBytes, FileBytes, ViewPairs, ViewBytes uint64
	CommitLast, CommitMean                                                        time.Duration
	Backup                                                                        uint64
	BackupAt                                                                      int64
}

// Commits are the histograms of the journal's transactions. The committer adds to them, a few hundred times in a second.
type Commits struct {
	mu             sync.Mutex
	times, records meter.Histogram
}

// Add counts a transaction.
func (c *Commits) Add(took time.Duration, records uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times.AddTime(took.Microseconds())
	c.records.Add(records)
}

func (c *Commits) now() (times, records meter.Histogram) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.times, c.records
}

// New gathers from sources.
func New(from Sources) prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector(from.engine), collector(from.market), collector(from.journal), collector(from.money), collector(from.certificates), collector(from.host))
	return registry
}

// engine shows what loops count.
func (from Sources) engine(show sink) {
	s := from.Players()
	show.number("connections", "Open connections.", float64(s.Connections))
	show.number("handshakes_total", "Connections upgraded.", float64(s.Handshakes))
	show.number("handshakes_failed_total", "Handshakes answered with an HTTP error.", float64(s.HandshakesFailed))
	const refused = "Newcomers refused."
	show.number("accepts_refused_total", refused, float64(s.RefusedFull), "reason", "full")
	show.number("accepts_refused_total", refused, float64(s.RefusedAddress), "reason", "address")
	show.number("accepts_refused_total", refused, float64(s.RefusedRate), "reason", "rate")
	show.number("accepts_refused_total", refused, float64(s.RefusedRush), "reason", "rush")
	show.number("accepts_refused_total", refused, float64(s.RefusedStarved), "reason", "descriptors")
	show.number("accepts_held_total", "Times that newcomers had to wait, because more came than are let in at once.", float64(s.Held))
	const attacks = "Connections ended for what they did."
	show.number("attacks_total", attacks, float64(s.HandshakesLate), "kind", "handshake late")
	show.number("attacks_total", attacks, float64(s.Heavy), "kind", "bytes")
	show.number("attacks_total", attacks, float64(s.HandshakesForeign), "kind", "handshake foreign")
	show.number("attacks_total", attacks, float64(s.HandshakesLong), "kind", "handshake long")
	show.number("attacks_total", attacks, float64(s.Floods), "kind", "flood")
	show.number("attacks_total", attacks, float64(s.Stalled), "kind", "message never ends")
	show.number("attacks_total", attacks, float64(s.Bombs), "kind", "compressed bomb")
	show.number("tls_connections", "Open connections over TLS, those whose handshake is not done included.", float64(s.TLSConnections))
	show.number("tls_handshakes_total", "TLS handshakes done.", float64(s.TLSHandshakes))
	show.number("tls_resumed_total", "TLS handshakes done with a ticket of an earlier one.", float64(s.TLSResumed))
	for why, n := range s.Insecurities {
		show.number("tls_failed_total", "Connections to the TLS listener that ended without TLS, or for what was no TLS later.", float64(n), "reason", why.String())
	}
	show.number("tls_received_bytes_total", "Bytes from clients over TLS, encrypted; they are in server_received_bytes_total too.", float64(s.TLSBytesIn))
	show.number("tls_sent_bytes_total", "Bytes to clients over TLS, encrypted; they are in server_sent_bytes_total too.", float64(s.TLSBytesOut))
	show.number("aborted_total", "Connections that ended without a closing handshake.", float64(s.Aborted))
	show.number("cut_total", "Connections that did not end in time.", float64(s.Cut))
	show.number("deflating", "Connections that have negotiated permessage-deflate.", float64(s.Deflating))
	show.number("inflated_total", "Compressed messages of clients.", float64(s.Inflated))
	show.number("received_bytes_total", "Bytes from clients.", float64(s.BytesIn))
	show.number("sent_bytes_total", "Bytes to clients.", float64(s.BytesOut))
	show.number("writes_total", "Writes to sockets.", float64(s.Writes))
	show.number("uring_enters_total", "System calls for sends through io_uring.", float64(s.Enters))
	show.number("received_frames_total", "Frames from clients.", float64(s.FramesIn))
	show.number("sent_frames_total", "Frames to clients.", float64(s.FramesOut))
	show.number("requests_total", "Requests read.", float64(s.Requests))
	show.number("tokens_vetted_total", "Tokens whose signature was checked off the loops.", float64(s.Vetted))
	show.number("restamped_total", "Reads after a loop was away, for whose arrival the kernel was asked.", float64(s.Restamped))
	show.number("broadcasts_total", "Broadcasts distributed, per loop.", float64(s.Broadcasts))
	show.number("broadcasts_delivered_total", "Broadcasts times their subscribers.", float64(s.Delivered))
	show.number("reimaged_total", "Images sent to readers who were spared more than odds.", float64(s.Reimaged))
	show.number("conflated_total", "Broadcasts that slow readers were spared.", float64(s.Conflated))
	show.number("orphans_total", "Messages for sessions that had ended.", float64(s.Orphans))
	show.number("behind", "Connections that were spared something and are not up to date yet.", float64(s.Behind))
	show.number("loop_inbox_depth", "Parcels that wait for all loops.", float64(s.Inbox))
	show.number("spread_max_seconds", "Longest time from a broadcast's first receiver to its last, per loop.", float64(s.SpreadMax)/1e6)
	for refusal, n := range s.Refusals {
		show.number("refusals_total", "Requests refused.", float64(n), "code", refusal.Code())
	}
	for code, n := range s.Closes {
		show.number("closes_total", "Close frames sent.", float64(n), "code", strconv.Itoa(int(code)))
	}
	show.times("loop_turn_seconds", "A loop's turns.", &s.Turns)
	show.sizes("loop_parcels", "Parcels of the market that a loop found in one turn.", &s.Parcels)
	show.times("stake_answer_seconds", "From the arrival of a stake to the turn that writes its receipt.", &s.Answered)
	show.times("broadcast_spread_seconds", "From a broadcast's first receiver to its last, per loop.", &s.Spreads)
	show.latencies(&s.Latencies)
}

// certificates shows how long they are good.
func (from Sources) certificates(show sink) {
	s := from.Certificates()
	for file, until := range s.Until {
		show.number("tls_certificate_until_seconds", "When a certificate is over, in seconds since 1970.", float64(until.Unix()), "file", file)
	}
	show.number("tls_certificates_taken_total", "Changed certificates that are shown since.", float64(s.Taken))
	show.number("tls_certificates_refused_total", "Changed certificates that were broken or over; the old ones stay.", float64(s.Refused))
}

// market shows what shards count.
func (from Sources) market(show sink) {
	for shard, depth := range from.Depths() {
		show.number("inbox_depth", "Commands that wait for a shard.", float64(depth), "shard", strconv.Itoa(shard))
	}
	show.number("hearings_overdue_total", "Events and locks that took effect before it was sure that all earlier stakes were judged.", float64(from.Overdue()))
	m := from.Market()
	show.times("shard_turn_seconds", "A shard's turns.", &m.Turns)
	show.sizes("shard_commands", "Commands that a shard took in one turn.", &m.Commands)
	show.times("stake_decide_seconds", "From the arrival of a stake or sale to its decision.", &m.Decided)
	show.times("batch_release_seconds", "From what a shard says to its delivery: until all that it may tell of is durable.", &m.Released)
}

// journal shows what the store counts.
func (from Sources) journal(show sink) {
	j := from.Journal()
	show.number("journal_appended", "Last record appended.", float64(j.Appended))
	show.number("journal_durable", "Last record that is durable.", float64(j.Durable))
	show.number("journal_followed", "Last record that the follower has applied.", float64(j.Applied))
	show.number("journal_viewed", "Record up to which the views of the past are complete.", float64(j.Viewed))
	show.number("journal_snapshot", "Record at which the current snapshot stands.", float64(j.Snapshot))
	show.number("journal_backup", "Last record of the last backup since the start.", float64(j.Backup))
	show.number("backup_time_seconds", "When it was done, in seconds since 1970; 0: there was none.", float64(j.BackupAt)/1e6)
	show.number("views_pairs_total", "Pairs put into the views of the past.", float64(j.ViewPairs))
	show.number("views_bytes", "Size of views.db.", float64(j.ViewBytes))
	show.number("store_bytes", "Size of store.db, free pages included.", float64(j.FileBytes))
	show.number("journal_commits_total", "Transactions.", float64(j.Commits))
	show.number("journal_bytes", "Bytes in the journal, not yet trimmed.", float64(j.JournalBytes))
	show.number("journal_pending_bytes", "Bytes appended that no transaction has taken yet.", float64(j.PendingBytes))
	show.number("journal_commit_seconds_mean", "Mean time of a transaction, sync included.", j.CommitMean.Seconds())
	times, records := from.Commits.now()
	show.times("journal_commit_seconds", "Transactions, sync included.", &times)
	show.sizes("journal_commit_records", "Records in one transaction.", &records)
}

func (from Sources) money(show sink) {
	t := from.Money()
	for name, amount := range map[string]proto.Amount{"accounts": t.Accounts, "pools": t.Pools, "house": t.House,
		"deposits": t.Deposits, "withdrawals": t.Withdrawals} {
		show.number("money_units", "Where the money is: accounts + pools + house = deposits - withdrawals.", float64(amount), "where", name)
	}
}

// collector is a prometheus collector that is one function.
type collector func(sink)

func (collector) Describe(chan<- *prometheus.Desc) {} // unchecked: what there is shows when it is collected

func (f collector) Collect(to chan<- prometheus.Metric) { f(sink(to)) }

// sink takes metrics. All names begin with server_.
type sink chan<- prometheus.Metric

func (to sink) number(name, help string, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if strings.HasSuffix(name, "_total") {
		kind = prometheus.CounterValue
	}
	var names, values []string
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	to <- prometheus.MustNewConstMetric(prometheus.NewDesc("server_"+name, help, names, nil), kind, value, values...)
}

// latencies shows pings, which are counted in round numbers, because clients are shown them too.
func (to sink) latencies(h *engine.Latencies) {
	buckets, n := map[float64]uint64{}, uint64(0)
	for i, bound := range engine.LatencyBounds {
		n += h.Buckets[i]
		buckets[float64(bound)/1e6] = n
	}
	n += h.Buckets[len(engine.LatencyBounds)]
	to <- prometheus.MustNewConstHistogram(prometheus.NewDesc("server_latency_seconds", "From a ping to its pong: players in small rooms, and the quiet.", nil, nil),
		n, float64(h.Sum)/1e6, buckets)
}

// Octaves that are shown to who asks for text, which knows no native histograms: 15 µs to 16 s, and 1 to 65,536.
var (
	octavesOfTimes = [2]int{-16, 4}
	octavesOfSizes = [2]int{0, 16}
)

func (to sink) times(name, help string, h *meter.Histogram) {
	to <- newHistogram(name, help, h, meter.TimeShift, octavesOfTimes)
}

func (to sink) sizes(name, help string, h *meter.Histogram) {
	to <- newHistogram(name, help, h, 0, octavesOfSizes)
}

// histogram is a native one that has buckets of whole octaves as well.
type histogram struct {
	prometheus.Metric
	buckets []*dto.Bucket
}

func (h *histogram) Write(to *dto.Metric) error {
	err := h.Metric.Write(to)
	to.Histogram.Bucket = h.buckets
	return err
}

// newHistogram makes a metric of h, which counts in units of 2^-shift.
func newHistogram(name, help string, h *meter.Histogram, shift int, octaves [2]int) *histogram {
	native := map[int]int64{}
	for i, n := range h.Buckets[1:] {
		if n > 0 {
			native[i-shift<<meter.Schema] = int64(n)
		}
	}
	unit := math.Ldexp(1, -shift)
	made := &histogram{Metric: prometheus.MustNewConstNativeHistogram(prometheus.NewDesc("server_"+name, help, nil, nil),
		h.Count(), float64(h.Sum)*unit, native, nil, h.Buckets[0], meter.Schema, unit/2, time.Time{})}
	at, sum := 0, uint64(0)
	for octave := octaves[0]; octave <= octaves[1]; octave++ {
		for ; at <= 1+(octave+shift)<<meter.Schema; at++ {
			sum += h.Buckets[at]
		}
		made.buckets = append(made.buckets, &dto.Bucket{UpperBound: new(math.Ldexp(1, octave)), CumulativeCount: new(sum)})
	}
	return made
}
