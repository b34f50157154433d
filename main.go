// Command server runs live parimutuel prediction games for WebSocket clients. Try `server serve --demo`.
//
// Here the packages are wired and nothing is decided: market and store meet only here, the engine gets its
// market, and each command its package.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	kongtoml "github.com/alecthomas/kong-toml"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"tote/server/bench"
	benchcommand "tote/server/bench/command"
	"tote/server/engine"
	"tote/server/engine/admin"
	"tote/server/engine/admin/insight"
	"tote/server/engine/certificate"
	"tote/server/engine/ctl"
	"tote/server/engine/feed"
	"tote/server/engine/identity"
	"tote/server/engine/page"
	"tote/server/market"
	"tote/server/market/football"
	"tote/server/proto"
	"tote/server/proto/control"
	"tote/server/store"
	"tote/server/tuning"
	"tote/server/tuning/command"
	"tote/server/tuning/handover"
	"tote/server/tuning/systemd"
)

// cli is the whole command line. Every flag can also come from a TOML file (--config) and from the environment
// (SERVER_ and the flag's name).
type cli struct {
	Config kong.ConfigFlag `help:"Read flags from this TOML file." placeholder:"FILE"`
	Log    slog.Level      `default:"info" help:"Log level: debug, info, warn or error." placeholder:"LEVEL"`

	Serve   serve       `cmd:"" help:"Serve games. With --demo: a match that plays in a loop, and simulated players."`
	Ctl     ctl.Command `cmd:"" help:"Operate a running server."`
	Upgrade ctl.Upgrade `cmd:"" help:"Have another process take over from a running server, with a new binary: its sockets stay open, its clients are told when to come back."`
	Top     ctl.Top     `cmd:"" help:"Watch a running server: rates, latencies, the hottest games, the slowest readers, the kernel."`
	Bench   struct {
		Smoke smoke `cmd:"" help:"Load a server of its own with many players on one game, and audit it."`
		benchcommand.Bench
	} `cmd:"" help:"Measure."`
	Tune  command.Command  `cmd:"" help:"Make the host ready for many connections."`
	Token identity.Command `cmd:"" help:"Sign players' tokens as an identity provider does, for development."`
	Audit audit            `cmd:"" help:"Check a stopped server's data: every checksum, every sum, every stake."`
}

func main() {
	var c cli
	parser := kong.Must(&c, kong.Name("server"), kong.UsageOnError(),
		kong.Description("Live parimutuel prediction games over WebSockets: one binary, one process, one host.\n\n"+
			"Every flag can be set in a TOML file (--config) or in the environment: --listen is SERVER_LISTEN."),
		kong.Configuration(kongtoml.Loader), kong.DefaultEnvars("SERVER"), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	chosen, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)
	level := new(slog.LevelVar)
	level.Set(c.Log)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	chosen.BindTo(ctx, (*context.Context)(nil))
	err = chosen.Run(log, level, c.Ctl.Session(ctx, log))
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // asked to stop, and stopped
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "server: %v\n", err)
		os.Exit(1)
	}
}

// serve is `server serve`.
type serve struct {
	Listen string `default:"127.0.0.1:8080" help:"Address for players: WebSockets at /ws, the page at /." placeholder:"ADDR"`
	Admin  string `default:"127.0.0.1:8081" help:"Address for operators. Off loopback it needs --admin-token." placeholder:"ADDR"`
	Data   string `default:"data" type:"path" help:"Directory of the journal and snapshots." placeholder:"DIR"`
	Demo   bool   `help:"Play the 2022 final in a loop at 60 times its speed, with 200 simulated players and guests welcome."`

	TLSListen string   `name:"tls-listen" default:"127.0.0.1:8443" help:"Address for players over TLS: wss:// at /ws, the page at /. Needs --tls-cert." placeholder:"ADDR"`
	TLSCert   []string `name:"tls-cert" sep:"none" help:"File of a certificate with its chain (PEM), read again when it changes, and at SIGHUP; may be repeated, clients get the one they name." placeholder:"FILE"`
	TLSKey    []string `name:"tls-key" sep:"none" help:"File of its private key (PEM); one for each --tls-cert, in that order." placeholder:"FILE"`

	AdminToken        string         `help:"Bearer token that operators must send." placeholder:"TOKEN"`
	GuestCredits      proto.Amount   `help:"Welcome guests, with so many play credits each; 0: no guests (with --demo: 10000)."`
	Durability        durability     `default:"always" help:"always: nothing is answered before it is on the disk. interval=1s: answers wait for the kernel only; a power failure may take up to a second, and receipts say so." placeholder:"WHEN"`
	Interval          time.Duration  `default:"3s" help:"Default batching interval of a game's odds, 100ms to 1m."`
	StakesPerSecond   int            `default:"10" help:"That one account may send, and twice as many at once; 0: no limit."`
	Broadcast         string         `enum:"auto,uring,write" default:"auto" help:"How distributions reach sockets: through io_uring (uring), one write after the other, or auto: io_uring where the kernel and the sandbox allow it."`
	Record            bool           `help:"Keep a recording of each game, which server ctl record export writes to a file and server ctl replay plays again."`
	Loops             int            `help:"Event loops; 0: one per core."`
	Shards            int            `help:"Market shards; 0: one per core."`
	Connections       int            `help:"Most connections at once, the next is refused; 0: what descriptors, TCP memory and memory carry, the next broadcast included."`
	Idle              time.Duration  `help:"Cut a client after so long without a byte from it; it is pinged at half of it. 0: the default of 90s."`
	LockMemory        bool           `help:"Keep all memory of the process in RAM, and take the heap in large pieces as it grows (mlockall)."`
	Heartbeat         time.Duration  `help:"Longest silence in a game; 0: the default of 5s."`
	MessageMax        int            `help:"Longest message of a client, in bytes; 0: the default of 16 KiB."`
	Keys              string         `help:"Key set of who else signs players' tokens (HS256, RS256, EdDSA): a file, or the https address of an identity provider. It is read again every 5 minutes, and when a key is unknown." placeholder:"FILE|URL"`
	TokenIssuer       string         `help:"That their tokens must name (iss)." placeholder:"NAME"`
	TokenAudience     string         `help:"That their tokens must be for (aud)." placeholder:"NAME"`
	Origin            []string       `help:"Origin of pages that may connect, as in https://tote.example; may be repeated. None: pages from anywhere." placeholder:"ORIGIN"`
	ProxyHeader       []netip.Prefix `help:"Network of proxies that send a PROXY protocol header (version 2), as in 10.1.0.0/24; connections from there without one are refused." placeholder:"NETWORK"`
	ProxyForwarded    []netip.Prefix `help:"Network of proxies whose X-Forwarded-For is believed." placeholder:"NETWORK"`
	Handshakes        int            `help:"Most new connections in all within a second; 0: no limit."`
	PerAccount        uint16         `help:"Most connections of one account; 0: the default of 32."`
	AccountHandshakes int            `help:"Most hellos of an account within a second; 0: the default of 32."`
	AccountRequests   int            `help:"Most requests of an account within a second; 0: the default of 2000."`
	AccountBytes      int            `help:"Most bytes from an account within a second; 0: the default of 2 MiB."`
	AddressRequests   int            `help:"Most requests from one address within a second; 0: the default of 20000, and no limit for loopback."`
	AddressBytes      int            `help:"Most bytes from one address within a second; 0: the default of 8 MiB, and no limit for loopback."`
	AllRequests       int            `help:"Most requests in all within a second; 0: no limit."`
	AllBytes          int            `help:"Most bytes in all within a second; 0: no limit."`
	PerAddress        int            `help:"Most connections from one address; 0: the default of 1024, and no limit for loopback."`
	AddressHandshakes int            `help:"Most new connections from one address within a second; 0: the default of 256, and no limit for loopback."`
	Moderate          bool           `help:"Questions that players ask everybody in a game wait for an operator's approval; those in circles do not."`
	Reports           int            `default:"3" help:"So many players who report a question suspend it until an operator has looked at it."`
	ChallengeFor      time.Duration  `default:"10m" help:"How long players may challenge the winner whom the asker of a question names."`
	SnapshotAt        uint64         `help:"Records between snapshots; 0: the default of about a million."`

	Admissions int           `help:"Let in so many new connections within a second; more wait in the kernel's queue. 0: the default of 2000 for each loop."`
	Drain      time.Duration `help:"When the server stops or makes way for another: tell clients in batches, over this time. 0: as fast as it goes without holding up those who are still served." placeholder:"TIME"`
	Spread     time.Duration `help:"And tell them to come back one after the other, over this time. 0: as long as letting them in takes." placeholder:"TIME"`
	StopLimit  time.Duration `help:"Cut those who are still connected so long after the last was told. 0: the default of 10s." placeholder:"TIME"`

	Statsd        string        `help:"Send metrics to this StatsD, by UDP." placeholder:"HOST:PORT"`
	Graphite      string        `help:"Send metrics to this Graphite, in its plaintext protocol." placeholder:"HOST:PORT"`
	MetricsPrefix string        `help:"What the names that StatsD and Graphite get begin with." placeholder:"NAME."`
	MetricsEvery  time.Duration `default:"10s" help:"How often they get them." placeholder:"TIME"`
	OtlpEndpoint  string        `help:"Send traces of operators' requests, the start, answers about the past, snapshots and the stop to this OpenTelemetry receiver, by OTLP over HTTP; OTEL_EXPORTER_OTLP_ENDPOINT and the like are heeded too." placeholder:"URL"`

	ForgetHistory bool `help:"Start though views.db is gone or does not reach as far as the snapshot: statements and archives of before are lost."`
}

func lockMemory(wanted bool) error {
	if !wanted {
		return nil
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE); err != nil {
		return fmt.Errorf("lock the memory (LimitMEMLOCK= in a unit, or CAP_IPC_LOCK, allows it): %w", err)
	}
	return nil
}

// durability is when an answer may be given: "always", or "interval=" and a duration.
type durability struct{ interval time.Duration }

func (d *durability) UnmarshalText(text []byte) (err error) {
	if string(text) == "always" {
		*d = durability{}
		return nil
	}
	of, ok := strings.CutPrefix(string(text), "interval=")
	if ok {
		d.interval, err = time.ParseDuration(of)
	}
	if !ok || err != nil || d.interval <= 0 || d.interval > time.Minute {
		return fmt.Errorf("durability %q: say always, or interval=1s with up to a minute", text)
	}
	return nil
}

func (d durability) String() string {
	if d.interval == 0 {
		return "always"
	}
	return "interval=" + d.interval.String()
}

func now() proto.Time { return proto.Time(time.Now().UnixMicro()) }

// check refuses what no flag by itself shows to be wrong, and fills in what follows from another.
func (c *serve) check(log *slog.Logger) error {
	if at := min(c.Drain, c.Spread); at < 0 {
		return fmt.Errorf("drain or spread over %v: name a time of 0 or more", at)
	}
	if c.MetricsEvery <= 0 {
		return fmt.Errorf("metrics every %v: name a time above 0", c.MetricsEvery)
	}
	if c.Demo && c.GuestCredits == 0 {
		c.GuestCredits = demoCredits
	}
	if most, by, err := tuning.Ceiling("/"); err == nil { // where it cannot be read, descriptors bound it
		log.Info("the host allows", "connections", most, "limit", by)
		c.Connections = cmp.Or(c.Connections, max(1, most))
	}
	return admin.Check(c.Admin, c.AdminToken)
}

// market is the market's configuration as far as flags have it.
func (c *serve) market(kept *store.Store) market.Config {
	return market.Config{
		Shards: cores(c.Shards), Epoch: uint64(now()), Durability: c.Durability.String(), Now: now, Journal: kept, Views: kept.Views(),
		Interval: proto.Time(c.Interval.Microseconds()), Moderate: c.Moderate, Reports: c.Reports, ChallengeFor: proto.Time(c.ChallengeFor.Microseconds()),
		StakesPerSecond: c.StakesPerSecond, Connections: int(c.PerAccount),
	}
}

// engine is the engine's configuration as far as flags have it.
func (c *serve) engine(supervisor *systemd.Service, log *slog.Logger) engine.Config {
	return engine.Config{
		Listen: c.Listen, Listener: supervisor.Listener(systemd.Players), TLSListen: c.TLSListen, TLSListener: supervisor.Listener(systemd.Secured),
		Loops: c.Loops, GuestCredits: c.GuestCredits, Page: page.Handler(), Broadcast: c.Broadcast, Log: log, Now: now,
		Origins: c.Origin, Proxies: engine.Proxies{Header: c.ProxyHeader, Forwarded: c.ProxyForwarded},
		Limits: engine.Limits{
			Connections: c.Connections, PerAddress: c.PerAddress, ConnectRate: c.AddressHandshakes, Handshakes: c.Handshakes, Admissions: c.Admissions,
			AccountHellos: c.AccountHandshakes, AccountRequests: c.AccountRequests, AccountBytes: c.AccountBytes,
			AddressRequests: c.AddressRequests, AddressBytes: c.AddressBytes, AllRequests: c.AllRequests, AllBytes: c.AllBytes,
			IdleTime: c.Idle, Heartbeat: c.Heartbeat, MessageBytes: c.MessageMax, DrainTime: c.StopLimit,
		},
	}
}

// Run serves until signals ends, or until another process is to take over. Data flows down this function as it does through the packages.
func (c *serve) Run(signals context.Context, log *slog.Logger, level *slog.LevelVar) (err error) {
	ctx, leave := context.WithCancelCause(signals)
	defer leave(nil)
	if err := lockMemory(c.LockMemory); err != nil {
		return err
	}
	supervisor, err := systemd.Inherit()
	if err != nil {
		return err
	}
	defer supervisor.Close()
	predecessor, err := handover.From(supervisor.File(systemd.Handover))
	if err != nil {
		return err
	}
	defer func() { predecessor.Failed(err) }()
	operators := supervisor.Listener(systemd.Operators)
	if operators != nil {
		defer operators.Close()
		c.Admin = operators.Addr().String()
	}
	if err := c.check(log); err != nil {
		return err
	}
	certificates, endCertificates, err := c.certificates(ctx, log)
	if err != nil {
		return err
	}
	defer endCertificates()
	if err := predecessor.Introduce(ctx, version(), formats); err != nil {
		return err
	}
	if err := supervisor.Status("replaying the journal"); err != nil {
		return err
	}
	traces, err := insight.OpenTraces(ctx, c.OtlpEndpoint, log)
	if err != nil {
		return err
	}
	defer traces.Close()
	starting, start := traces.Start(context.Background(), "start")
	defer start.End()
	began, commits := time.Now(), new(insight.Commits)
	kept, replica, err := c.recover(starting, log, commits, traces, supervisor.File(systemd.Lock))
	if err != nil {
		return err
	}
	away := time.Since(began) // about as long as it will take whoever recovers after us
	secret, err := kept.Secret("player tokens", 32)
	if err != nil {
		return errors.Join(err, kept.Close())
	}
	if operators == nil {
		if operators, err = net.Listen("tcp", c.Admin); err != nil {
			return errors.Join(fmt.Errorf("listen for operators: %w", err), kept.Close())
		}
		defer operators.Close()
	}

	provider, endKeys, err := c.provider(ctx, log)
	if err != nil {
		return errors.Join(err, kept.Close())
	}
	defer endKeys()

	var players *engine.Engine
	var desk *admin.Desk
	rules := c.market(kept)
	rules.Deliver = func(b *market.Batch) {
		players.Deliver(b)
		desk.Deliver(b)
	}
	rules.Passed = func(at proto.Time) bool { return players.Passed(at) }
	rules.Answered = traces.Answered(func(s market.Session) trace.SpanContext { return desk.SpanOf(s) })
	m, err := market.New(rules, replica)
	if err != nil {
		return errors.Join(err, kept.Close())
	}
	doors := c.engine(supervisor, log)
	doors.Secret, doors.Provider, doors.TLS = secret, provider, certificates.TLS()
	players, err = engine.New(doors, m)
	if err != nil {
		return errors.Join(err, kept.Close())
	}
	shown := insight.New(insight.Sources{Players: players.Stats, Market: m.Meters, Depths: m.Depths, Overdue: m.Overdue,
		Journal: func() insight.Journal { return insight.Journal(kept.Stats()) }, Commits: commits, Money: replica.Totals, Certificates: certificates.Stats, HalfOpen: tuning.HalfOpen, Data: c.Data})
	heirs := &succession{binary: handover.Binary(), supervisor: supervisor, log: log, leave: leave, began: now(),
		farewell: engine.Farewell{Over: c.Drain, Away: away, Spread: c.Spread}, players: players, operators: operators, lock: kept.Lock}
	players.Part(heirs.farewell)
	desk = admin.New(admin.Config{Process: heirs.process, Upgrade: heirs.begin, Token: c.AdminToken, Mint: players.Token, Gather: shown, Tracer: traces, Log: log, Level: level,
		Present: players.Present, Sent: players.Sent, Stakes: m.Stakes, Slowest: players.Slowest, Backup: kept.Backup, Record: c.recordings(kept), Ready: func() error { return context.Cause(ctx) }}, m)

	kept.Start(replica, m.Durable, m.Viewed)
	m.Start()
	office := &http.Server{Handler: desk.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := office.Serve(operators); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin listener ended", "error", err)
		}
	}()
	if err := c.announce(log, players, operators.Addr()); err != nil {
		return errors.Join(err, kept.Close())
	}
	start.End()
	emission := insight.Emission{StatsD: c.Statsd, Graphite: c.Graphite, Prefix: c.MetricsPrefix, Every: c.MetricsEvery, Log: log}
	defer background(ctx, func(ctx context.Context) { emission.Emit(ctx, shown) })()
	stopDemo := func() {}
	if c.Demo {
		stopDemo = demo(ctx, log, players.Addr(), operators.Addr(), c.AdminToken)
	}

	if err := predecessor.Serving(); err != nil {
		log.Warn("the server that made way does not answer", "error", err)
	}
	watching := supervise(ctx, log, supervisor, players, m)
	asked := make(chan time.Time, 1) // to stop
	defer context.AfterFunc(ctx, func() { asked <- time.Now() })()
	served := make(chan error, 1)
	go func() { served <- players.Run(ctx) }() // ends when ctx has, and the last client is gone
	select {
	case <-players.Parted():
	case err = <-served: // it could not even begin
		leave(err)
		served <- nil
	}
	stopped, ended := <-asked, time.Now()
	stopping, stop := traces.Start(context.Background(), "stop", trace.WithTimestamp(stopped))
	defer stop.End()
	traces.Record(stopping, "drain", stopped, ended)
	watching.Wait()
	stopDemo()
	closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = errors.Join(err, office.Shutdown(closing))
	ended = time.Now()
	m.Stop()
	err = errors.Join(err, kept.Close())
	traces.Record(stopping, "close the journal", ended, time.Now())
	if live, followed := m.Digest(), replica.Digest(); err == nil && live != followed {
		err = fmt.Errorf("the market and its journal disagree: digest %x, and %x from the records; keep the data and report this", live, followed)
	}
	if err == nil && signals.Err() == nil {
		err = heirs.hand()
	}
	err = errors.Join(err, <-served, heirs.close())
	log.Info("stopped", "record", replica.Seq(), "error", err)
	return err
}

// formats are those of what one process leaves to the next.
var formats = map[string]int{"the journal": store.FormatVersion, "snapshots": market.SnapshotVersion}

// version is what the binary was built from.
func version() string {
	built, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := built.Main.Version
	for _, setting := range built.Settings {
		if setting.Key == "vcs.revision" && !strings.Contains(text, setting.Value[:min(12, len(setting.Value))]) {
			text += " " + setting.Value[:min(12, len(setting.Value))]
		}
	}
	return text + " " + built.GoVersion
}

// errMakesWay is why the server stops when another process takes over.
var errMakesWay = errors.New("another process takes over")

// succession is how this process makes way for another. Operators begin it, Run ends it when all is stopped.
type succession struct {
	supervisor *systemd.Service
	log        *slog.Logger
	leave      context.CancelCauseFunc
	began      proto.Time
	binary     string // that this process was started from: its path, whatever is there now
	farewell   engine.Farewell
	players    *engine.Engine
	operators  net.Listener
	lock       func() (*os.File, error)

	mu     sync.Mutex
	estate *handover.Estate    // what is handed over; nil: nothing yet
	heir   *handover.Successor // who waits for it; nil: nobody
}

func (s *succession) process() control.Process {
	return control.Process{PID: os.Getpid(), Version: version(), Began: s.began}
}

// begin starts a successor, and has this process make way for it when it waits to take over.
func (s *succession) begin(ctx context.Context, order *control.Upgrade) (control.Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heir != nil {
		return control.Process{}, fmt.Errorf("process %d is about to take over already", s.heir.PID)
	}
	binary := cmp.Or(order.Binary, s.binary)
	if s.estate == nil {
		estate, err := s.will()
		if err != nil {
			return control.Process{}, err
		}
		s.estate = estate
	}
	heir, err := s.estate.Start(ctx, binary)
	if err != nil {
		s.log.Error("no other process takes over", "binary", binary, "error", err)
		return control.Process{}, err
	}
	s.log.Info("another process takes over when all clients have been told", "process", heir.PID, "version", heir.Version, "binary", binary)
	how := s.farewell
	how.Over, how.Spread = cmp.Or(time.Duration(order.Drain)*time.Microsecond, how.Over), cmp.Or(time.Duration(order.Spread)*time.Microsecond, how.Spread)
	s.players.Part(how)
	s.heir = heir
	s.leave(errMakesWay)
	return control.Process{PID: heir.PID, Version: heir.Version, Began: now()}, nil
}

// will is what there is to be handed over.
func (s *succession) will() (*handover.Estate, error) {
	e := &handover.Estate{Service: s.supervisor, Binary: s.binary, Formats: formats, Files: map[string]*os.File{}}
	players, secured, err := s.players.Sockets()
	if err != nil {
		return nil, err
	}
	e.Files[systemd.Players] = players
	if secured != nil {
		e.Files[systemd.Secured] = secured
	}
	if tcp, ok := s.operators.(*net.TCPListener); ok {
		e.Files[systemd.Operators], err = tcp.File()
	}
	if err == nil {
		e.Files[systemd.Lock], err = s.lock()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pass the sockets and the lock on: %w", err), e.Close())
	}
	return e, nil
}

// hand hands over to the successor, if there is one, when everything is closed. If that one fails, this binary gets a second life.
func (s *succession) hand() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heir == nil {
		return nil
	}
	feeding, fed := context.WithCancel(context.Background())
	defer fed()
	go s.supervisor.Feed(feeding, s.log) // ends with this function
	began := time.Now()
	err := s.heir.GiveWay()
	if err != nil {
		s.log.Error("the successor has failed; this binary takes over again", "error", err)
		if s.heir, err = s.estate.Start(feeding, handover.Self); err == nil {
			err = s.heir.GiveWay()
		}
	}
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	s.log.Info("another process serves", "process", s.heir.PID, "after", time.Since(began))
	err = errors.Join(s.supervisor.Succeeded(s.heir.PID), s.heir.Leave())
	s.heir = nil
	return err
}

// close gives up what is left. A successor that waits in vain ends.
func (s *succession) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.estate == nil {
		return nil
	}
	var err error
	if s.heir != nil {
		err = s.heir.Dismiss()
	}
	return errors.Join(err, s.estate.Close())
}

// provider opens the keys of who else signs tokens, and keeps them fresh until the returned function is called.
func (c *serve) provider(ctx context.Context, log *slog.Logger) (p engine.Provider, end func(), err error) {
	if c.Keys == "" {
		return p, func() {}, nil
	}
	keys, err := identity.Open(ctx, identity.Config{Source: c.Keys, Cache: filepath.Join(c.Data, "keys.json"), Log: log})
	if err != nil {
		return p, nil, err
	}
	return engine.Provider{Keys: keys, Issuer: c.TokenIssuer, Audience: c.TokenAudience}, background(ctx, keys.Run), nil
}

// background has something run until the returned function is called, which waits for its end.
func background(ctx context.Context, run func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	return func() { cancel(); running.Wait() }
}

// certificates reads the certificates of --tls-cert, and keeps them fresh until the returned function is called; nil: there are none.
func (c *serve) certificates(ctx context.Context, log *slog.Logger) (set *certificate.Set, end func(), err error) {
	if len(c.TLSCert) != len(c.TLSKey) {
		return nil, nil, fmt.Errorf("%d --tls-cert and %d --tls-key: each certificate has one key", len(c.TLSCert), len(c.TLSKey))
	}
	if len(c.TLSCert) == 0 {
		return nil, func() {}, nil
	}
	var pairs []certificate.Pair
	for i := range c.TLSCert {
		pairs = append(pairs, certificate.Pair{Cert: c.TLSCert[i], Key: c.TLSKey[i]})
	}
	if set, err = certificate.Open(certificate.Config{Pairs: pairs, Log: log}); err != nil {
		return nil, nil, err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	stop := background(ctx, func(ctx context.Context) { set.Run(ctx, asked) })
	return set, func() { signal.Stop(asked); stop() }, nil
}

// supervise tells systemd that we serve, that we move on, and, when ctx has ended, that we stop.
func supervise(ctx context.Context, log *slog.Logger, supervisor *systemd.Service, players *engine.Engine, m *market.Market) *sync.WaitGroup {
	tell := func(err error) {
		if err != nil {
			log.Error("systemd does not listen", "error", err)
		}
	}
	tell(supervisor.Ready())
	var watching sync.WaitGroup
	watching.Go(func() {
		supervisor.Watch(ctx, log, func() map[string][]uint64 {
			return map[string][]uint64{"loop": players.Progress(), "shard": m.Progress()}
		})
		<-ctx.Done()
		if errors.Is(context.Cause(ctx), errMakesWay) {
			tell(supervisor.Status("another process takes over"))
			return
		}
		tell(supervisor.Stopping())
	})
	return &watching
}

// recover opens the store and rebuilds the market from it.
func (c *serve) recover(ctx context.Context, log *slog.Logger, commits *insight.Commits, traces *insight.Traces, lock *os.File) (*store.Store, *market.Replica, error) {
	_, span := traces.Start(ctx, "recover")
	defer span.End()
	kept, err := store.Open(c.Data, store.Options{Lock: lock, Interval: c.Durability.interval, SnapshotEvery: c.SnapshotAt, ForgetHistory: c.ForgetHistory, Log: log, Committed: commits.Add, Snapshotted: traces.Snapshotted, Fatal: func(err error) {
		log.Error("the journal failed; memory is ahead of the disk, so the server stops here", "error", err)
		os.Exit(2)
	}})
	if err != nil {
		return nil, nil, err
	}
	replica := market.NewReplica()
	replica.Tell(kept.Views())
	replica.Record(c.Record)
	recovery, err := kept.Recover(replica.Load, replica.Apply)
	if err != nil {
		return nil, nil, errors.Join(err, kept.Close())
	}
	span.SetAttributes(attribute.Int64("tote.record", int64(recovery.LastSeq)), attribute.Int64("tote.replayed", int64(recovery.Replayed)))
	log.Info("recovered", "data", c.Data, "did", recovery.String())
	return kept, replica, nil
}

// recordings reads what the follower has kept, once it has kept all that is durable now.
func (c *serve) recordings(kept *store.Store) admin.Record {
	if !c.Record {
		return nil
	}
	return func(ctx context.Context, g proto.GameID, to io.Writer) error {
		for durable := kept.Durable(); kept.Views().Reached() < durable; {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(5 * time.Millisecond):
			}
		}
		return market.WriteRecording(to, kept.Views(), g)
	}
}

// announce tells where the server listens, in the log and in a file for scripts.
func (c *serve) announce(log *slog.Logger, players *engine.Engine, operators net.Addr) error {
	at := map[string]string{"listen": players.Addr().String(), "admin": operators.String()}
	log.Info("serving", "players", "http://"+at["listen"]+"/", "operators", "http://"+at["admin"]+"/", "durability", c.Durability.String())
	if secured := players.TLSAddr(); secured != nil {
		at["tls"] = secured.String()
		log.Info("serving over TLS", "players", "https://"+at["tls"]+"/")
	}
	addresses, err := json.Marshal(at)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.Data, "addresses.json.new"), append(addresses, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the addresses: %w", err)
	}
	return os.Rename(filepath.Join(c.Data, "addresses.json.new"), filepath.Join(c.Data, "addresses.json"))
}

func cores(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// What the demo is made of.
const (
	demoPlayers = 200
	demoCredits = 10_000
	demoSpeed   = 60
	demoLead    = 10 * time.Second
)

// demo plays the 2022 final in a loop, and has simulated players stake through real connections, until ctx ends
// or the returned function is called, which waits for them.
func demo(ctx context.Context, log *slog.Logger, players, operators net.Addr, token string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var playing sync.WaitGroup
	playing.Go(func() {
		tournament := football.WorldCup2022()
		final, err := feed.Of(tournament, "Final")
		f := feed.Feed{Client: &control.Client{Base: "http://" + operators.String(), Token: token}, Speed: demoSpeed, Lead: demoLead, Log: log}
		if err == nil {
			err = f.Abandon(ctx) // what an earlier run left
		}
		for err == nil {
			_, err = f.Play(ctx, final[0])
		}
		if ctx.Err() == nil {
			log.Error("the demo's match ended", "error", err)
		}
	})
	playing.Go(func() {
		_, err := bench.Run(ctx, bench.Plan{Target: "ws://" + players.String() + "/ws", Users: demoPlayers, ConnectRate: demoPlayers / 5,
			Think: [2]time.Duration{2 * time.Second, 20 * time.Second}, Reconnect: true, Seed: uint64(now()), Workers: 1})
		if err != nil && ctx.Err() == nil {
			log.Error("the demo's players ended", "error", err)
		}
	})
	return func() {
		cancel()
		playing.Wait()
	}
}

// smoke is `server bench smoke`.
type smoke struct {
	Users       int           `default:"10000" help:"Connections on the one game."`
	Stakes      float64       `default:"700" help:"Stakes per second, over all players."`
	Duration    time.Duration `default:"5m" help:"How long."`
	Interval    time.Duration `default:"3s" help:"Between two distributions of the odds."`
	Pools       int           `default:"3" help:"Pools open at any time."`
	Turnover    time.Duration `default:"30s" help:"How often the oldest pool is settled and a new one opened; 0: never."`
	Through     []string      `help:"Addresses of this host to connect to and from, each to each, instead of loopback: single ones, FIRST-LAST, networks." placeholder:"ADDR"`
	ConnectRate float64       `default:"1000" help:"New players per second at first; fewer when a thousand are at the door."`
	LockMemory  bool          `help:"As of serve, for the generator."`
	Serve       []string      `help:"One more flag for the server; may be repeated: --serve=--idle=1h." placeholder:"FLAG"`
	JSON        string        `help:"Write the report to this file." placeholder:"FILE"`
}

func (c *smoke) Run(ctx context.Context, log *slog.Logger) error {
	if err := lockMemory(c.LockMemory); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the server's own binary: %w", err)
	}
	through, err := bench.ReadAddresses(c.Through)
	if err != nil {
		return err
	}
	report, err := bench.Smoke(ctx, bench.SmokeConfig{Binary: self, Args: c.Serve, Through: through, Users: c.Users, ConnectRate: c.ConnectRate,
		StakeRate: c.Stakes, Duration: c.Duration, Interval: c.Interval, Pools: c.Pools, Turnover: c.Turnover, Log: log, Progress: os.Stderr})
	if report == nil {
		return err
	}
	report.WriteText(os.Stdout)
	if c.JSON != "" {
		b, failed := json.MarshalIndent(report, "", "  ")
		if failed == nil {
			failed = os.WriteFile(c.JSON, append(b, '\n'), 0o644)
		}
		err = errors.Join(err, failed)
	}
	return err
}

// audit is `server audit`.
type audit struct {
	Data       string    `default:"data" type:"existingdir" help:"Directory of a server that does not run." placeholder:"DIR"`
	Prediction proto.Seq `help:"Show what is known of this prediction, to compare a receipt with." placeholder:"NUMBER"`
	Seal       seal      `help:"Check a sealed head: the record's number, a colon, and the head. Of a record that the journal still has, it is computed again; of an older one, it is compared with what was kept." placeholder:"NUMBER:HEAD"`
}

// seal is what a client heard sealed.
type seal struct {
	record proto.Seq
	head   string
}

func (s *seal) UnmarshalText(text []byte) error {
	number, head, ok := strings.Cut(string(text), ":")
	record, err := strconv.ParseUint(number, 10, 53)
	if !ok || err != nil || len(head) != 64 {
		return fmt.Errorf("seal %q: say the record's number, a colon, and 64 digits of the head", text)
	}
	*s = seal{proto.Seq(record), strings.ToLower(head)}
	return nil
}

func (c *audit) Run(log *slog.Logger) error {
	report, err := store.Check(c.Data, func(uint64, []byte) error { return nil })
	if err != nil {
		return err
	}
	kept, err := store.Open(c.Data, store.Options{Log: log})
	if err != nil {
		return err
	}
	replica := market.NewReplica()
	replica.Tell(kept.Views())
	found, err := c.examine(kept, replica)
	if err = errors.Join(err, kept.Close()); err != nil {
		return err
	}
	found["store"], found["money"], found["head"], found["digest"] = report, replica.Totals(), replica.Head(), fmt.Sprintf("%016x", replica.Digest())
	return json.NewEncoder(os.Stdout).Encode(found)
}

// examine recovers the market and looks for what was asked.
func (c *audit) examine(kept *store.Store, replica *market.Replica) (found map[string]any, err error) {
	computed := "" // the head at the seal's record
	look := func() {
		if replica.Seq() == c.Seal.record {
			computed = replica.Head()
		}
	}
	load := func(r io.Reader) error {
		err := replica.Load(r)
		look()
		return err
	}
	apply := func(seq uint64, record []byte) error {
		err := replica.Apply(seq, record)
		look()
		return err
	}
	if _, err := kept.Recover(load, apply); err != nil {
		return nil, err
	}
	if err := errors.Join(replica.Check(), replica.CheckPast()); err != nil {
		return nil, err
	}
	found = map[string]any{}
	if c.Prediction != 0 {
		account, entry, err := replica.FindPrediction(c.Prediction)
		if err != nil {
			return nil, err
		}
		found["prediction"] = map[string]any{"account": account, "entry": entry}
	}
	if c.Seal.record == 0 {
		return found, nil
	}
	pool, head, err := replica.SealedAt(c.Seal.record)
	if err != nil {
		return nil, err
	}
	if head != c.Seal.head || computed != "" && computed != head {
		return nil, fmt.Errorf("the head at record %d is %s, sealed was %s: the journal is not the one that was sealed", c.Seal.record, cmp.Or(computed, head), c.Seal.head)
	}
	found["seal"] = map[string]any{"pool": pool, "record": c.Seal.record, "computed_again": computed != ""}
	return found, nil
}
