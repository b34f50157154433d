package bench

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"tote/server/bench/limit"
	"tote/server/bench/model"
	"tote/server/proto"
)

// Report is what a run has found. Times in JSON say their unit in their names.
type Report struct {
	Conditions  Conditions    `json:"conditions"`
	Connections Connections   `json:"connections"`
	Stakes      Stakes        `json:"stakes"`
	Deeds       Deeds         `json:"deeds"` // requests other than stakes
	Delivered   Delivered     `json:"delivered"`
	Latency     Latencies     `json:"latency"`
	Ending      *Ending       `json:"ending,omitempty"`    // of the server, where the run ends it under its players
	Takeovers   []Takeover    `json:"takeovers,omitempty"` // of one process of the server from another
	Classes     []Class       `json:"classes,omitempty"`   // of games, where there are several
	Timeline    []Moment      `json:"timeline"`            // a second each
	Server      *Use          `json:"server,omitempty"`    // nil where no process was named
	Generator   Generator     `json:"generator"`
	Agents      []AgentPart   `json:"agents,omitempty"`  // where they have played, and not this process
	Clocks      *Clocks       `json:"clocks,omitempty"`  // where there are agents
	Watched     *Watched      `json:"watched,omitempty"` // nil where there was not the time for it
	Looks       []Look        `json:"looks"`             // a second each
	Meters      *Metered      `json:"meters,omitempty"`
	Limits      *limit.Limits `json:"limits,omitempty"` // of this machine, measured beside the run
	Checks      []Check       `json:"checks"`
	Faults      []Fault       `json:"faults"`
	Warnings    []string      `json:"warnings"`
	// Stopped says that the run was ended before its time; then the books were not compared.
	Stopped bool `json:"stopped"`
	// Unfinished says why a run that was not stopped did not come to its end.
	Unfinished string `json:"unfinished,omitempty"`

	deserted bool
}

type (
	// Conditions are what one needs to run it again.
	Conditions struct {
		Scenario    string            `json:"scenario,omitempty"`
		Variant     string            `json:"variant,omitempty"`
		Round       int               `json:"round,omitempty"` // of a contest: runs of one round are compared with each other; 0: of none
		About       string            `json:"about,omitempty"`
		Started     time.Time         `json:"started"`
		Command     string            `json:"command"`
		Target      string            `json:"target"`
		Through     []netip.Addr      `json:"through,omitempty"` // addresses of the target that players connect to, where they were chosen
		Users       int               `json:"users"`
		ConnectRate float64           `json:"connect_rate"`
		StakeRate   float64           `json:"stake_rate"`       // per second, 0: players think
		ThinkMin    float64           `json:"think_min_s"`      // where there is no StakeRate
		ThinkMax    float64           `json:"think_max_s"`      //
		StakeMin    proto.Amount      `json:"stake_min"`        //
		StakeMax    proto.Amount      `json:"stake_max"`        //
		Planned     float64           `json:"planned_s"`        // 0: until stopped
		Played      float64           `json:"played_s"`         // from when all were in a game to the last stake
		PlayedFrom  float64           `json:"played_from_s"`    // since the start
		Seed        uint64            `json:"seed"`             //
		Workers     int               `json:"workers"`          //
		Host        string            `json:"host"`             //
		Kernel      string            `json:"kernel"`           //
		CPUs        int               `json:"cpus"`             //
		Memory      uint64            `json:"memory"`           // bytes
		Revision    string            `json:"revision"`         // of the generator's source, as Go built it
		Go          string            `json:"go"`               //
		Settings    map[string]string `json:"sysctl,omitempty"` // those that limit connections
	}
	// Connections follows the players to their places.
	Connections struct {
		Planned int `json:"planned"`
		connectionCounts
		Joined int `json:"joined"` // in a game when play began
	}
	// Stakes compares the plan with what was achieved. Rates are per second of play.
	Stakes struct {
		stakeCounts
		PlannedRate  float64 `json:"planned_rate"`
		AchievedRate float64 `json:"achieved_rate"` // receipts and late refusals
	}
	// Deeds compares the plan with what was achieved, for requests other than stakes.
	Deeds struct {
		deedCounts
		AchievedRate float64 `json:"achieved_rate"`
	}
	// Class is what the players of a class of games have seen.
	Class struct {
		Name    string `json:"name"`
		Receipt Times  `json:"receipt"`
		Seen    Times  `json:"seen"`
		Odds    Times  `json:"odds"`
	}
	// Moment is how the run stood at one time. Counts and CPU are since the run's start, latencies are those of receipts and other replies
	// since the moment before.
	Moment struct {
		At        float64 `json:"at_s"`
		Open      int     `json:"open"`
		Joined    int     `json:"joined"`
		Planned   uint64  `json:"planned"`  // requests
		Answered  uint64  `json:"answered"` //
		Frames    uint64  `json:"frames"`
		Bytes     uint64  `json:"bytes"`
		Conflated uint64  `json:"conflated"`
		Lost      uint64  `json:"lost"`
		P50       int64   `json:"p50_us"`
		P99       int64   `json:"p99_us"`
		Max       int64   `json:"max_us"`
		ServerCPU float64 `json:"server_cpu_s"`
		OwnCPU    float64 `json:"generator_cpu_s"`
		RSS       uint64  `json:"rss"`
	}
	// Delivered is what the players received.
	Delivered struct {
		Frames     uint64  `json:"frames"` // messages
		Bytes      uint64  `json:"bytes"`  // with frame headers and handshakes
		Broadcasts uint64  `json:"broadcasts"`
		Conflated  uint64  `json:"conflated"`
		Pings      uint64  `json:"pings"`
		Heartbeats uint64  `json:"heartbeats"`
		Stale      uint64  `json:"stale"`   // heartbeats that said that odds may be old
		Asides     uint64  `json:"asides"`  // neither asked for nor numbered, such as who is present
		Unknown    uint64  `json:"unknown"` // messages of a type that this generator does not know
		FrameRate  float64 `json:"frame_rate"`
	}
	// Latencies are all distributions of times.
	Latencies struct {
		Handshake  Times `json:"handshake"`
		Receipt    Times `json:"receipt"`
		Odds       Times `json:"odds"`
		Lifecycle  Times `json:"lifecycle"`
		Seen       Times `json:"seen"`
		Reply      Times `json:"reply"`
		Return     Times `json:"return"`
		Away       Times `json:"away"`
		Spread     Times `json:"spread"`
		SendLag    Times `json:"send_lag"`
		ReceiveLag Times `json:"receive_lag"`
	}
	// Times is one distribution of times, in microseconds.
	Times struct {
		Count  int64   `json:"count"`
		Min    int64   `json:"min_us"`
		Mean   float64 `json:"mean_us"`
		StdDev float64 `json:"stddev_us"`
		P50    int64   `json:"p50_us"`
		P66    int64   `json:"p66_us"`
		P75    int64   `json:"p75_us"`
		P80    int64   `json:"p80_us"`
		P90    int64   `json:"p90_us"`
		P95    int64   `json:"p95_us"`
		P98    int64   `json:"p98_us"`
		P99    int64   `json:"p99_us"`
		P999   int64   `json:"p99_9_us"`
		P9999  int64   `json:"p99_99_us"`
		Max    int64   `json:"max_us"`
	}
	// Use is what the server's processes, all together, used while all played.
	Use struct {
		PIDs        []int   `json:"pids"` // with all that they have started
		CPU         float64 `json:"cpu_s"`
		Cores       float64 `json:"cores"`            // CPU per second of play
		CPUPerFrame float64 `json:"cpu_per_frame_us"` // per delivered message, everything that the server did included
		RSSBefore   uint64  `json:"rss_before"`       // bytes, before the first connection
		RSSJoined   uint64  `json:"rss_joined"`       // with everyone in a game, before the first planned stake
		PSSJoined   uint64  `json:"pss_joined"`
		PSSPerConn  float64 `json:"pss_per_connection"` // pages that several processes share count once
		RSSPerConn  float64 `json:"rss_per_connection"`
		AnonPerConn float64 `json:"anon_per_connection"` // without pages of files
		RSSEarly    uint64  `json:"rss_early"`           // median of a window at the end of the first minute
		RSSLate     uint64  `json:"rss_late"`            // … at the end
		AnonEarly   uint64  `json:"anon_early"`
		AnonLate    uint64  `json:"anon_late"`
		Threads     uint64  `json:"threads"`
		// GrowthPerReceipt is how much more the server holds (anonymous) for each receipt between the two windows: an open prediction
		// has to be remembered.
		GrowthPerReceipt float64 `json:"growth_per_receipt"`
		ContextSwitches  float64 `json:"context_switches_rate"`
	}
	// Generator is what this process used, to know whether it was the bottleneck.
	Generator struct {
		CPU         float64 `json:"cpu_s"`
		Cores       float64 `json:"cores"`
		CPUPerFrame float64 `json:"cpu_per_frame_us"`
		Busy        float64 `json:"busy"`            // share of the time that its loops were at work
		Bottleneck  bool    `json:"bottleneck"`      // it was busy or late: what it measured is its own doing
		TurnMax     int64   `json:"longest_turn_us"` // of a loop
	}
	// AgentPart is an agent's part in a run.
	AgentPart struct {
		Address string  `json:"address"`
		Host    string  `json:"host"`
		Kernel  string  `json:"kernel"`
		CPUs    int     `json:"cpus"`
		Workers int     `json:"workers"`
		Users   int     `json:"users"`
		Share   float64 `json:"share"` // of all users
		Frames  uint64  `json:"frames"`
		// ClockAhead is its clock minus the coordinator's, by the best exchange; ClockError the most that this was wrong by during the run.
		ClockAhead float64 `json:"clock_ahead_us"`
		ClockError float64 `json:"clock_error_us"`
		Cores      float64 `json:"cores"`
		Busy       float64 `json:"busy"`               // as of Generator
		SendLag    int64   `json:"send_lag_p99_us"`    //
		ReceiveLag int64   `json:"receive_lag_p99_us"` //
		Bottleneck bool    `json:"bottleneck"`         //
		Died       string  `json:"died,omitempty"`     // how it was noticed; empty: it did not
		DiedAt     float64 `json:"died_at_s,omitempty"`
	}
	// Clocks say how far times that begin on one host and end on another may be wrong; times are corrected by the offsets.
	Clocks struct {
		ServerAhead float64 `json:"server_ahead_us"` // of the coordinator's
		ServerError float64 `json:"server_error_us"`
		Published   float64 `json:"published_error_us"` // of odds and other broadcasts, from publish time to reading
		Spread      float64 `json:"spread_error_us"`    // of the delivery spread over all agents
	}
	// Check is a promise of the protocol, and how often it was kept.
	Check struct {
		Promise string `json:"promise"`
		Passed  uint64 `json:"passed"`
		Failed  uint64 `json:"failed"`
		Example string `json:"example,omitempty"`
	}
)

// report makes the report of a run that has ended.
func (r *run) report() *Report {
	res, played := r.results, r.playTo.at-r.playFrom.at
	dead := slices.ContainsFunc(r.remotes, func(a *remote) bool { return a.died != "" })
	res.finish(r.tails, r.parted-r.plan.patience.tail, r.audited, r.plan.Alone, dead)
	report := &Report{
		Conditions: r.conditions(played),
		Connections: Connections{
			Planned: r.plan.Users, Joined: r.joined, connectionCounts: res.connections,
		},
		Stakes: Stakes{
			stakeCounts:  res.stakes,
			PlannedRate:  perSecond(r.playTo.stakes.Planned-r.playFrom.stakes.Planned, played),
			AchievedRate: perSecond(r.playTo.stakes.answered()-r.playFrom.stakes.answered(), played),
		},
		Deeds: Deeds{
			deedCounts:   res.deeds,
			AchievedRate: perSecond(r.playTo.deeds.Answered-r.playFrom.deeds.Answered, played),
		},
		Timeline: r.timeline, Watched: r.watch.sum(r.playFrom.at, r.playTo.at), Looks: r.watch.looks,
		Delivered: Delivered{
			Frames: res.frames, Bytes: res.bytes, Broadcasts: res.broadcasts, Conflated: res.conflated,
			Pings: res.pings, Heartbeats: res.heartbeats, Stale: res.stale, Asides: res.asides, Unknown: res.unknown,
			FrameRate: perSecond(r.playTo.frames-r.playFrom.frames, played),
		},
		Takeovers: res.lives.takeovers(), Ending: r.ending,
		Latency: Latencies{
			Handshake: timesOf(res.times[meterHandshake]), Receipt: timesOf(res.times[meterReceipt]),
			Odds: timesOf(res.times[meterOdds]), Lifecycle: timesOf(res.times[meterLifecycle]), Spread: timesOf(res.times[meterSpread]),
			Seen: timesOf(res.times[meterSeen]), Reply: timesOf(res.times[meterReply]), Return: timesOf(res.times[meterReturn]),
			Away:    timesOf(res.times[meterAway]),
			SendLag: timesOf(res.times[meterSendLag]), ReceiveLag: timesOf(res.times[meterReceiveLag]),
		},
		Generator: Generator{
			CPU:         (r.playTo.own - r.playFrom.own).Seconds(),
			Cores:       share(r.playTo.own-r.playFrom.own, played),
			CPUPerFrame: per(r.playTo.own-r.playFrom.own, r.playTo.frames-r.playFrom.frames),
			Busy:        share(r.playTo.busy-r.playFrom.busy, played*time.Duration(r.plan.Workers)),
			TurnMax:     res.turn.Microseconds(),
		},
		Stopped: r.stopped, Unfinished: r.unfinished(), deserted: r.deserted, Faults: []Fault{}, Warnings: []string{},
	}
	if len(r.plan.Server) > 0 {
		report.Server = r.use(played, report)
	}
	if r.watch.elsewhere {
		report.seeFrom(r.watch.looks, r.joined)
		report.Warnings = append(report.Warnings, "the server's CPU and memory are those that its metrics tell; its host's are unknown, so meters take it for a host like this one")
	}
	if r.remotes != nil {
		report.Agents, report.Clocks = r.parts(), r.clocks()
	}
	for i := range res.classes {
		report.Classes = append(report.Classes, Class{
			Name: strconv.Itoa(i), Receipt: timesOf(res.classes[i][0]), Seen: timesOf(res.classes[i][1]), Odds: timesOf(res.classes[i][2]),
		})
	}
	for c, v := range res.checks {
		report.Checks = append(report.Checks, Check{Promise: promises[c], Passed: v.passed, Failed: v.failed, Example: v.example})
	}
	for _, f := range res.faults {
		report.Faults = append(report.Faults, *f)
	}
	slices.SortFunc(report.Faults, func(a, b Fault) int { return strings.Compare(a.Kind, b.Kind) })
	report.warn()
	return report
}

func (r *run) conditions(played time.Duration) Conditions {
	c := Conditions{
		Started: r.base, Command: Again(os.Args), Target: r.plan.Target, Through: r.plan.Through, Users: r.plan.Users,
		ConnectRate: r.plan.ConnectRate, StakeRate: r.plan.StakeRate,
		ThinkMin: r.plan.Think[0].Seconds(), ThinkMax: r.plan.Think[1].Seconds(),
		StakeMin: r.plan.Stakes[0], StakeMax: r.plan.Stakes[1],
		Planned: r.plan.Duration.Seconds(), Played: played.Seconds(), PlayedFrom: r.playFrom.at.Seconds(), Seed: r.plan.Seed, Workers: r.plan.Workers,
		CPUs: runtime.NumCPU(), Go: runtime.Version(), Settings: map[string]string{},
	}
	c.Host, _ = os.Hostname()
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		c.Memory = procNumbers(text)["MemTotal"] << 10
	}
	if built, ok := debug.ReadBuildInfo(); ok {
		for _, s := range built.Settings {
			switch {
			case s.Key == "vcs.revision":
				c.Revision = s.Value + c.Revision
			case s.Key == "vcs.modified" && s.Value == "true":
				c.Revision += " with changes"
			}
		}
	}
	c.Kernel = kernelName()
	for _, key := range SettingNames {
		if value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/")); err == nil {
			c.Settings[key] = strings.Join(strings.Fields(string(value)), " ")
		}
	}
	return c
}

// SettingNames are the sysctls that limit connections, or change what a connection costs.
var SettingNames = []string{"fs.file-max", "fs.nr_open", "net.core.somaxconn", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_max_syn_backlog",
	"net.ipv4.tcp_mem", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_congestion_control", "vm.overcommit_memory"}

func (r *run) unfinished() string {
	switch {
	case r.stopped:
		return ""
	case r.bereft():
		return "all agents died"
	case r.deserted:
		return "all connections were lost"
	case !r.audited:
		return "not everyone's books could be compared in time"
	}
	return ""
}

func (s stakeCounts) answered() uint64 { return s.Receipts + s.Late }

func perSecond(n uint64, span time.Duration) float64 {
	if span <= 0 {
		return 0
	}
	return float64(n) / span.Seconds()
}

func share(part, whole time.Duration) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// per is µs per frame.
func per(cpu time.Duration, frames uint64) float64 {
	if frames == 0 {
		return 0
	}
	return float64(cpu.Microseconds()) / float64(frames)
}

func timesOf(h *hdrhistogram.Histogram) Times {
	if h.TotalCount() == 0 {
		return Times{}
	}
	return Times{
		Count: h.TotalCount(), Min: h.Min(), Mean: h.Mean(), StdDev: h.StdDev(),
		P50: h.ValueAtQuantile(50), P66: h.ValueAtQuantile(66), P75: h.ValueAtQuantile(75), P80: h.ValueAtQuantile(80),
		P90: h.ValueAtQuantile(90), P95: h.ValueAtQuantile(95), P98: h.ValueAtQuantile(98), P99: h.ValueAtQuantile(99),
		P999: h.ValueAtQuantile(99.9), P9999: h.ValueAtQuantile(99.99), Max: h.Max(),
	}
}

// use compares the server's samples, one a second. Garbage collection makes single ones jump, hence medians for the growth.
func (r *run) use(played time.Duration, report *Report) *Use {
	window := min(10*time.Second, max(2*time.Second, played/6))
	early := r.playFrom.at + min(time.Minute, played/2)
	u := &Use{
		PIDs: r.plan.Server, CPU: (r.playTo.server - r.playFrom.server).Seconds(),
		Cores:       share(r.playTo.server-r.playFrom.server, played),
		CPUPerFrame: per(r.playTo.server-r.playFrom.server, r.playTo.frames-r.playFrom.frames),
		RSSBefore:   r.rssBefore.rss, RSSJoined: r.rssJoined.rss, PSSJoined: r.pssJoined,
		RSSEarly: r.server.median(early-window, early, rssOf), RSSLate: r.server.median(r.playTo.at-window, r.playTo.at, rssOf),
		AnonEarly: r.server.median(early-window, early, anonOf), AnonLate: r.server.median(r.playTo.at-window, r.playTo.at, anonOf),
		Threads: r.server.last.threads,
	}
	if receipts := report.Stakes.AchievedRate * (r.playTo.at - early).Seconds(); receipts > 0 {
		u.GrowthPerReceipt = (float64(u.AnonLate) - float64(u.AnonEarly)) / receipts
	}
	if r.joined > 0 {
		u.RSSPerConn = (float64(r.rssJoined.rss) - float64(r.rssBefore.rss)) / float64(r.joined)
		u.PSSPerConn = (float64(r.pssJoined) - float64(r.pssBefore)) / float64(r.joined)
		u.AnonPerConn = (float64(r.rssJoined.anon) - float64(r.rssBefore.anon)) / float64(r.joined)
	}
	u.ContextSwitches = perSecond(r.server.last.switches-r.rssJoined.switches, r.server.last.at-r.rssJoined.at)
	return u
}

// seeFrom fills in what a server on another host says of itself, by the metrics that were read each second.
func (r *Report) seeFrom(looks []Look, joined int) {
	if len(looks) == 0 || r.Watched == nil || looks[0].CPU == 0 {
		return
	}
	near := func(at float64) (l Look) {
		for i := range looks {
			if looks[i].CPU > 0 && looks[i].At <= at+watchEvery.Seconds() {
				l = looks[i]
			}
		}
		return l
	}
	from, to := r.Conditions.PlayedFrom, r.Conditions.PlayedFrom+r.Conditions.Played
	u := &Use{Cores: r.Watched.Cores, CPU: near(to).CPU - near(from).CPU, RSSBefore: looks[0].RSS, RSSJoined: near(from).RSS,
		RSSEarly: near(from + min(60, r.Conditions.Played/2)).RSS, RSSLate: near(to).RSS}
	if frames := r.Delivered.FrameRate * r.Conditions.Played; frames > 0 {
		u.CPUPerFrame = u.CPU * 1e6 / frames
	}
	if joined > 0 {
		u.RSSPerConn = (float64(u.RSSJoined) - float64(u.RSSBefore)) / float64(joined)
	}
	r.Server = u
	for i := range r.Timeline {
		l := near(r.Timeline[i].At)
		r.Timeline[i].ServerCPU, r.Timeline[i].RSS = l.CPU, l.RSS
	}
}

// median of a number over the samples from one time to another.
func (p *process) median(from, to time.Duration, of func(sample) uint64) uint64 {
	var values []uint64
	for _, s := range p.samples {
		if s.at >= from && s.at <= to {
			values = append(values, of(s))
		}
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func rssOf(s sample) uint64  { return s.rss }
func anonOf(s sample) uint64 { return s.anon }

// When the generator is to blame.
const (
	busyMax = 0.85 // of its loops' time
	lagMax  = 5000 // µs in which nobody would look for a cause
	lagPart = 4    // a lag of one part in four of what it distorts matters
)

// late says whether a lag explains a part of what it distorts.
func late(lag int64, distorted ...int64) bool {
	return lag > lagMax && lag*lagPart > slices.Max(distorted)
}

func (r *Report) warn() {
	add := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	// Each agent for itself: one that is late is a bottleneck however many there are beside it.
	for i := range r.Agents {
		a := &r.Agents[i]
		sends, reads := late(a.SendLag, r.Latency.Receipt.P99, r.Latency.Reply.P99), late(a.ReceiveLag, r.Latency.Odds.P99, r.Latency.Reply.P99)
		if a.Busy > busyMax || sends || reads {
			a.Bottleneck, r.Generator.Bottleneck = true, true
			add("agent %s was a bottleneck: its loops were busy %.0f %% of the time, 1 %% of its stakes went out %s ms late or more, 1 %% of its reads came %s ms late or more; "+
				"give it more workers (--workers), or the run more agents", a.Address, 100*a.Busy, milliseconds(a.SendLag), milliseconds(a.ReceiveLag))
		}
	}
	for _, f := range r.Faults {
		if slices.Contains(ownShortages, strings.TrimPrefix(f.Kind, "connect: ")) {
			r.Generator.Bottleneck = true
			add("the generator was the bottleneck: %s times, %s", grouped(f.Count), strings.TrimPrefix(f.Kind, "connect: "))
		}
	}
	if r.Generator.Busy > busyMax {
		r.Generator.Bottleneck = true
		add("the generator was the bottleneck: its loops were busy %.0f %% of the time; give it more workers or hosts", 100*r.Generator.Busy)
	}
	if lag := r.Latency.SendLag.P99; late(lag, r.Latency.Receipt.P99, r.Latency.Reply.P99) {
		r.Generator.Bottleneck = true
		add("the generator sent late: 1 %% of the stakes by %s ms or more, which the latency of receipts includes", milliseconds(lag))
	}
	if lag := r.Latency.ReceiveLag.P99; late(lag, r.Latency.Odds.P99, r.Latency.Reply.P99) {
		r.Generator.Bottleneck = true
		add("the generator read late: 1 %% of its reads came %s ms or more after the kernel had the bytes, which all latencies include", milliseconds(lag))
	}
	if r.Delivered.Stale > 0 {
		add("%s heartbeats said that the market had stopped", grouped(r.Delivered.Stale))
	}
	if r.Stakes.Unplaced > r.Stakes.Planned/100 {
		add("%s of %s planned stakes found no open pool, or a player without money", grouped(r.Stakes.Unplaced), grouped(r.Stakes.Planned))
	}
}

// Failed is nil when every promise was kept, nobody was lost and nothing else went wrong.
func (r *Report) Failed() error {
	var wrong []error
	for _, c := range r.Checks {
		if c.Failed > 0 {
			wrong = append(wrong, fmt.Errorf("%q was broken %d times, first: %s", c.Promise, c.Failed, c.Example))
		}
	}
	for _, f := range r.Faults {
		wrong = append(wrong, fmt.Errorf("%s, %d times, first: %s", f.Kind, f.Count, f.Example))
	}
	for _, a := range r.Agents {
		if a.Died != "" {
			wrong = append(wrong, errors.New(a.obituary()))
		}
	}
	if missing := r.Connections.Planned - r.Connections.Joined; missing > 0 && !r.Stopped {
		wrong = append(wrong, fmt.Errorf("%d of %d players never got into a game", missing, r.Connections.Planned))
	}
	if r.Unfinished != "" {
		wrong = append(wrong, errors.New(r.Unfinished))
	}
	return errors.Join(wrong...)
}

func (a *AgentPart) obituary() string {
	return fmt.Sprintf("agent %s died %.1f s after the start, and with it %s users, %.0f %% of the load: %s", a.Address, a.DiedAt, grouped(a.Users), 100*a.Share, a.Died)
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) {
	c := &r.Conditions
	load := fmt.Sprintf("each staking %g to %g s after its last receipt", c.ThinkMin, c.ThinkMax)
	switch {
	case r.Stakes.Planned+r.Deeds.Planned == 0:
		load = "who only listen"
	case c.StakeRate > 0:
		load = fmt.Sprintf("%g stakes/s", c.StakeRate)
	case r.Stakes.Planned == 0:
		load = fmt.Sprintf("each asking %g to %g s after its last reply", c.ThinkMin, c.ThinkMax)
	}
	if c.Scenario != "" {
		fmt.Fprintf(w, "%s: %s\n", strings.TrimSuffix(c.Scenario+", "+c.Variant, ", "), c.About)
	}
	through := ""
	if c.Through != nil {
		through = fmt.Sprintf(" through %d addresses", len(c.Through))
	}
	fmt.Fprintf(w, "%s players on %s%s for %s, %s\n", grouped(c.Users), c.Target, through, seconds(c.Played), load)
	fmt.Fprintf(w, "%s, %s, %d CPUs, %s, %d workers, seed %d\n\n", c.Host, c.Kernel, c.CPUs, c.Go, c.Workers, c.Seed)

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")+"\t") }
	row("", "planned", "achieved", "")
	row("connections", grouped(r.Connections.Planned), grouped(r.Connections.Made),
		fmt.Sprintf("%s in a game, %s lost, %s came back",
			grouped(r.Connections.Joined), grouped(r.Connections.Lost), grouped(r.Connections.Returned)))
	row("stakes/s", fmt.Sprintf("%.1f", r.Stakes.PlannedRate), fmt.Sprintf("%.1f", r.Stakes.AchievedRate),
		fmt.Sprintf("%s receipts, %s refused after a lock, %s not placed, %s missed, %s payouts, %s refunds",
			grouped(r.Stakes.Receipts), grouped(r.Stakes.Late), grouped(r.Stakes.Unplaced), grouped(r.Stakes.Missed),
			grouped(r.Stakes.Payouts), grouped(r.Stakes.Refunds)))
	if r.Deeds.Planned > 0 {
		row("other requests/s", "", fmt.Sprintf("%.1f", r.Deeds.AchievedRate),
			fmt.Sprintf("%s answered of %s", grouped(r.Deeds.Answered), grouped(r.Deeds.Planned)))
	}
	if e := r.Ending; e != nil {
		row("stop", "", "", fmt.Sprintf("%.1f s with %s connections", e.Took, grouped(e.Connections)))
	}
	for _, t := range r.Takeovers {
		row("takeover", "", "", fmt.Sprintf("%.0f ms without a receipt, after %.1f s", t.Gap*1000, t.At))
	}
	if r.Connections.Recalled > 0 {
		row("told to come back", "", "", grouped(r.Connections.Recalled))
	}
	if r.Connections.Dropped > 0 || r.Connections.Shed > 0 {
		row("left", "", "", fmt.Sprintf("%s by their own will, %s slow readers closed by the server", grouped(r.Connections.Dropped), grouped(r.Connections.Shed)))
	}
	row("frames/s", "", fmt.Sprintf("%.0f", r.Delivered.FrameRate), fmt.Sprintf("%s frames, %s bytes, %s broadcasts, %s conflated",
		grouped(r.Delivered.Frames), grouped(r.Delivered.Bytes), grouped(r.Delivered.Broadcasts), grouped(r.Delivered.Conflated)))
	t.Flush()

	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row = func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")+"\t") }
	row("ms", "count", "min", "mean", "p50", "p75", "p90", "p95", "p99", "p99.9", "max")
	for _, l := range []struct {
		name  string
		times Times
	}{
		{"handshake", r.Latency.Handshake}, {"stake → receipt", r.Latency.Receipt}, {"odds published → read", r.Latency.Odds},
		{"stake → seen in odds", r.Latency.Seen}, {"other broadcasts", r.Latency.Lifecycle}, {"delivery spread", r.Latency.Spread},
		{"other requests", r.Latency.Reply}, {"back after a loss", r.Latency.Return}, {"away for a restart", r.Latency.Away},
		{"sent late by us", r.Latency.SendLag}, {"read late by us", r.Latency.ReceiveLag},
	} {
		m := l.times
		if m.Count == 0 {
			continue
		}
		row(l.name, grouped(m.Count), milliseconds(m.Min), milliseconds(int64(m.Mean)), milliseconds(m.P50), milliseconds(m.P75),
			milliseconds(m.P90), milliseconds(m.P95), milliseconds(m.P99), milliseconds(m.P999), milliseconds(m.Max))
	}
	t.Flush()

	fmt.Fprintln(w)
	if s := r.Server; s != nil {
		fmt.Fprintf(w, "server: %.2f µs CPU per delivered frame (%.2f cores), %.0f bytes of RSS per connection (%.0f anonymous)\n",
			s.CPUPerFrame, s.Cores, s.RSSPerConn, s.AnonPerConn)
		fmt.Fprintf(w, "        RSS %s before, %s with all in a game, %s after a minute or at half-time, %s at the end (anonymous %s → %s, %.0f bytes per receipt)\n",
			mebibytes(s.RSSBefore), mebibytes(s.RSSJoined), mebibytes(s.RSSEarly), mebibytes(s.RSSLate),
			mebibytes(s.AnonEarly), mebibytes(s.AnonLate), s.GrowthPerReceipt)
	}
	if s := r.Watched; s != nil {
		fmt.Fprintf(w, "host:   %.2f cores in use (%.0f %% of that softirq), %s of TCP memory at most, %s descriptors, %.0f switches/s, %s/s sent, %s/s to disk\n",
			s.HostCores, 100*s.Softirq, mebibytes(s.MemoryMax), grouped(s.FilesMax), s.Switches, mebibytes(uint64(s.NetOut)), mebibytes(uint64(s.DiskWrite)))
		var odd []string
		for _, name := range []string{"ListenOverflows", "ListenDrops", "RetransSegs", "TCPTimeouts", "TCPAbortOnMemory", "SyncookiesSent", "AttemptFails"} {
			if s.TCP[name] > 0 {
				odd = append(odd, fmt.Sprintf("%s %d", name, s.TCP[name]))
			}
		}
		if len(odd) > 0 {
			fmt.Fprintf(w, "        TCP: %s\n", strings.Join(odd, ", "))
		}
	}
	if m := r.Meters; m != nil {
		fmt.Fprintf(w, "meters: min/mean/max of windows of %.0f s: CRAM %s, CRUM %s, SPM %s, SLM %s, SCM %s, SEC %s, ESR %.3g, ESS %s\n", m.Window,
			three(m.CRAM), three(m.CRUM), three(m.SPM), three(m.SLM), three(m.SCM), three(m.SEC), m.ESR, three(m.ESS))
	}
	if l := r.Limits; l != nil {
		fmt.Fprintf(w, "limit:  a bare write costs %.2f µs of CPU, an epoll and read %.2f, a synced append %.0f µs of time\n", l.Write.CPU, l.Read.CPU, l.Sync.Wall)
		if s := r.Server; s != nil && s.CPUPerFrame > 0 {
			fmt.Fprintf(w, "        server: %s\n", ofLimit(s.CPUPerFrame, l.Write.CPU, "a delivered frame", "a write"))
		}
		if p := r.Latency.Receipt.P50; p > 0 {
			fmt.Fprintf(w, "        median receipt: %s\n", ofLimit(float64(p), l.Sync.Wall, "", "a synced append"))
		}
		if r.Agents == nil { // or else it was on other machines
			fmt.Fprintf(w, "        generator: %s\n", ofLimit(r.Generator.CPUPerFrame, l.Read.CPU, "a frame", "an epoll and read"))
		}
	}
	for _, a := range r.Agents {
		fmt.Fprintf(w, "agent %s (%s, %s, %d CPUs): %s users on %d workers, %s frames, %.2f cores, busy %.0f %%, clock %s ms ahead of ours, ± %s ms\n",
			a.Address, a.Host, a.Kernel, a.CPUs, grouped(a.Users), a.Workers, grouped(a.Frames), a.Cores, 100*a.Busy,
			signed(a.ClockAhead), milliseconds(int64(a.ClockError)))
	}
	if c := r.Clocks; c != nil {
		fmt.Fprintf(w, "clocks: the server's %s ms ahead of ours, ± %s ms; with the agents' errors, times from publishing to reading are right to ± %s ms, "+
			"the delivery spread over all agents to ± %s ms, and times that one host measures alone have no such error\n",
			signed(c.ServerAhead), milliseconds(int64(c.ServerError)), milliseconds(int64(c.Published)), milliseconds(int64(c.Spread)))
	}
	fmt.Fprintf(w, "generator: %.2f µs CPU per delivered frame (%.2f cores), busy %.0f %%\n\n",
		r.Generator.CPUPerFrame, r.Generator.Cores, 100*r.Generator.Busy)

	for _, c := range r.Checks {
		switch {
		case c.Failed > 0:
			fmt.Fprintf(w, "BROKEN  %s: %s times of %s, first: %s\n", c.Promise, grouped(c.Failed), grouped(c.Failed+c.Passed), c.Example)
		case c.Passed > 0:
			fmt.Fprintf(w, "    ok  %s (%s)\n", c.Promise, grouped(c.Passed))
		default:
			fmt.Fprintf(w, "     –  %s: never seen\n", c.Promise)
		}
	}
	for _, f := range r.Faults {
		fmt.Fprintf(w, " FAULT  %s, %s times, first: %s\n", f.Kind, grouped(f.Count), f.Example)
	}
	for _, a := range r.Agents {
		if a.Died != "" {
			fmt.Fprintf(w, "  DIED  %s\n", a.obituary())
		}
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "  warn  %s\n", warning)
	}
	switch {
	case r.Stopped:
		fmt.Fprintln(w, "stopped before its time; the books were not compared")
	case r.Unfinished != "":
		fmt.Fprintf(w, "UNFINISHED  %s\n", r.Unfinished)
	}
}

func three(s model.Summary) string { return fmt.Sprintf("%.3g/%.3g/%.3g", s.Min, s.Mean, s.Max) }

// WriteClients writes the answers' times as clients report them: connection times, then the share of requests answered within a time.
func (r *Report) WriteClients(w io.Writer) {
	fmt.Fprintf(w, "Server:                 %s\n", r.Conditions.Target)
	fmt.Fprintf(w, "Users:                  %d\n", r.Conditions.Users)
	fmt.Fprintf(w, "Time taken:             %.1f seconds\n", r.Conditions.Played)
	fmt.Fprintf(w, "Connections made:       %d\n", r.Connections.Made)
	fmt.Fprintf(w, "Connections lost:       %d\n", r.Connections.Lost)
	fmt.Fprintf(w, "Requests planned:       %d\n", r.Stakes.Planned+r.Deeds.Planned)
	fmt.Fprintf(w, "Requests answered:      %d\n", r.Stakes.answered()+r.Deeds.Answered)
	fmt.Fprintf(w, "Requests per second:    %.2f [#/s]\n", r.Stakes.AchievedRate+r.Deeds.AchievedRate)
	fmt.Fprintf(w, "Messages received:      %d\n", r.Delivered.Frames)
	fmt.Fprintf(w, "Bytes received:         %d\n", r.Delivered.Bytes)
	fmt.Fprintf(w, "Transfer rate:          %.2f [kB/s]\n\n", float64(r.Delivered.Bytes)/1000/max(r.Conditions.Played, 1e-9))

	of := []struct {
		name  string
		times Times
	}{{"Connect", r.Latency.Handshake}, {"Prediction", r.Latency.Receipt}, {"Request", r.Latency.Reply}, {"Broadcast", r.Latency.Odds}, {"Spread", r.Latency.Spread}}
	ms := func(us float64) string { return fmt.Sprintf("%.1f", us/1000) }
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "Times (ms)\tcount\tmin\tmean\t[+/-sd]\tmedian\tmax\t")
	for _, o := range of {
		if o.times.Count > 0 {
			fmt.Fprintln(t, strings.Join([]string{o.name, grouped(o.times.Count), ms(float64(o.times.Min)), ms(o.times.Mean), ms(o.times.StdDev),
				ms(float64(o.times.P50)), ms(float64(o.times.Max))}, "\t")+"\t")
		}
	}
	t.Flush()
	fmt.Fprintln(w, "\nShare served within a certain time (ms)")
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "\t"
	for _, o := range of {
		if o.times.Count > 0 {
			head += o.name + "\t"
		}
	}
	fmt.Fprintln(t, head)
	for i, q := range Quantiles {
		line := strconv.FormatFloat(q, 'g', -1, 64) + " %\t"
		for _, o := range of {
			if o.times.Count > 0 {
				line += ms(float64(o.times.Points()[i])) + "\t"
			}
		}
		fmt.Fprintln(t, line)
	}
	t.Flush()
}

// Quantiles are those of Times, in percent.
var Quantiles = []float64{50, 66, 75, 80, 90, 95, 98, 99, 99.9, 99.99, 100}

// Points are the times at Quantiles, in µs.
func (t *Times) Points() []int64 {
	return []int64{t.P50, t.P66, t.P75, t.P80, t.P90, t.P95, t.P98, t.P99, t.P999, t.P9999, t.Max}
}

// ofLimit says how many times the limit something costs.
func ofLimit(cost, limit float64, what, than string) string {
	if what != "" {
		what = " for " + what
	}
	return strings.TrimSpace(fmt.Sprintf("%.1f × of the limit%s, which is that of %s", cost/max(limit, 1e-9), what, than))
}

// grouped writes 1234567 as 1,234,567.
func grouped[N int | int64 | uint64](n N) string {
	digits := strconv.FormatInt(int64(n), 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// milliseconds writes microseconds with as many digits as say something.
func milliseconds(us int64) string {
	if us < 100_000 {
		return fmt.Sprintf("%.2f", float64(us)/1000)
	}
	return fmt.Sprintf("%.0f", float64(us)/1000)
}

// signed writes microseconds as milliseconds, with a sign.
func signed(us float64) string { return fmt.Sprintf("%+.2f", us/1000) }

func mebibytes(b uint64) string { return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20)) }

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}
