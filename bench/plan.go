package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tote/server/proto"
	"tote/server/proto/control"
)

// Plan is what a run shall do. The zero value of a field is its default.
type Plan struct {
	Target string // ws://host:port/ws, or wss://
	Trust  Trust  // of wss
	// Through are addresses of the server's host to connect to, one for each player in turn. Nil: what Target's name stands for.
	Through     []netip.Addr
	Users       int     // players, a connection each
	ConnectRate float64 // arrivals per second, 0: 1000
	// Arrivals are crowds that come one after the other, each with a rate of its own; whoever is left after them comes at ConnectRate.
	Arrivals []Crowd
	// Sources are the addresses to connect from, one for each player in turn, so that each is used to each of Through. Nil: each
	// player's own in 127.0.0.0/8 where the target is there, or else what the kernel chooses.
	Sources []netip.Addr `json:"-"`

	// Agents play instead of this process: host:port of each, see Agent. Secret is what they want to be shown.
	Agents []string `json:"-"`
	Secret string   `json:"-"`

	// Duration counts from the moment when everyone is in a game, or FromStart: from the first arrival. 0: until During or the
	// context ends.
	Duration  time.Duration
	FromStart bool
	// Depart is how many players per second say goodbye once the duration is over, each after an audit of its own, while the others
	// go on. 0: all at once.
	Depart float64

	// StakeRate is in stakes per second over all players, at random (Poisson) times, beginning when everyone
	// is in a game. 0: every player thinks for itself, from when it has joined.
	StakeRate float64
	// Think bounds the time from a receipt to the same player's next stake, where StakeRate is 0; 0: 1 s to 30 s.
	Think [2]time.Duration
	// Stakes bounds the amounts; 0: 10 to 500 units. A player stakes at most a twentieth of its balance, unless the lower
	// bound is more.
	Stakes [2]proto.Amount
	// Game is the game to join. 0: the newest live one, or else the newest that is scheduled.
	Game proto.GameID
	// Venues are the games to join, where there are several: each player has one of them, by weight. Nil: Game.
	Venues []Venue
	// Aloof players join no game.
	Aloof bool
	// Browse bounds the time from the list of games until one is joined; 0: at once.
	Browse [2]time.Duration
	// Inspect says that a player lists the pools of the game that it has joined.
	Inspect bool
	// Deeds are what players do, by weight. Nil: stakes only.
	Deeds []Deed
	// Payload is how long a request is at least, in bytes: it is filled up with spaces, which JSON allows.
	Payload int
	// Churn is the chance, per second, that a player drops its connection without a word and comes back.
	Churn float64
	// Storms are times at which many do.
	Storms []Storm
	// Slow are those who only listen, and badly.
	Slow Slow
	// Tokens gives player i, from 0, its token to say hello with. Nil: all are guests.
	Tokens func(i int) string `json:"-"`
	// Alone says that nobody else stakes in the games, so that their odds must add up to the receipts.
	Alone bool
	// Reconnect lets players come back after a lost connection, with growing pauses. Otherwise the loss is final.
	Reconnect bool

	// During runs beside the players, from the first planned stake on: a feed, say. The last stake comes when it returns or the
	// duration is over, which ends ctx. Nil: nothing.
	During func(ctx context.Context) error `json:"-"`

	// Ending ends the server while the players are connected, after all has been compared, instead of their saying goodbye. Not with agents.
	Ending func() error `json:"-"`

	Settle   time.Duration   // quiet time before the stakes of a StakeRate, 0: 3 s
	Seed     uint64          // of all randomness; the same seed plans the same stakes
	Workers  int             // event loops, 0: one for every two CPUs; of all agents together, where there are agents
	Server   []int           `json:"-"` // its processes on this host, to measure; nil: none
	Desk     *control.Client `json:"-"` // the server's operators' listener, to read its metrics; nil: none
	Log      *slog.Logger    `json:"-"` // the first of each kind of fault, nil: nowhere
	Progress io.Writer       `json:"-"` // a line every few seconds, nil: none
	Live     bool            `json:"-"` // Progress is a terminal: one line, drawn anew

	deal     deal // the workers that are this process'
	patience patience
}

// deal is a row of a run's workers, and their players, which fall to one process. None: all.
type deal struct {
	First   int `json:"first"`
	Workers int `json:"workers"`
}

// users is how many of a run's players are the share's: worker w of W has w, w+W, w+2W, …
func (d deal) users(all, workers int) (n int) {
	if d.Workers == 0 {
		return all
	}
	for w := d.First; w < d.First+d.Workers; w++ {
		n += (all - w + workers - 1) / workers
	}
	return n
}

// place is player i's place among those of the deal, from 0.
func (d deal) place(i, workers int) int {
	if d.Workers == 0 {
		return i
	}
	return i/workers*d.Workers + i%workers - d.First
}

type (
	// Crowd is a number of players who arrive at a rate, after a pause.
	Crowd struct {
		Users int
		Rate  float64 // per second
		After time.Duration
	}
	// Venue is a game that some players join.
	Venue struct {
		Game   proto.GameID
		Weight float64
		Class  int // venues of one class are measured together; 0 to ClassesMax-1
	}
	// Deed is a kind of request that players make. RequestStake, RequestTime and those that ask for what the player or its game is.
	Deed struct {
		Type   proto.RequestType
		Weight float64
	}
	// Storm drops a share of all connections, so long after play has begun; each player comes back at some time within Back.
	Storm struct {
		At    time.Duration
		Share float64 // 0 to 1
		Back  time.Duration
	}
	// Slow are shares of the players: those who never read once they have joined, and those who read Rate bytes per second.
	Slow struct {
		Never, Trickle float64
		Rate           int
	}
)

// ClassesMax bounds the classes of venues: each costs three histograms per worker.
const ClassesMax = 4

// backMin is the least time until a player who has dropped its connection is back: a stake that was under way is decided by then.
const backMin = 100 * time.Millisecond

// patience bounds the phases of a run that wait for somebody else. Tests have less of it.
type patience struct {
	join     time.Duration // after the last arrival, for those who are in no game yet
	quiet    time.Duration // for the last receipts
	audit    time.Duration
	farewell time.Duration
	lobby    time.Duration // at least, before a player asks for the games again
	tick     time.Duration // between two tallies of a worker
	desert   time.Duration // without any connection, until the run is over
	tail     time.Duration // how old a broadcast must be to be missed by whoever has not got it
	word     time.Duration // between two words of an agent, and of its coordinator
	silence  time.Duration // of an agent until it is dead, and of its coordinator
}

var patient = patience{
	join: 30 * time.Second, quiet: 20 * time.Second, audit: time.Minute, farewell: 5 * time.Second,
	lobby: time.Second, tick: 200 * time.Millisecond, tail: 5 * time.Second, desert: 15 * time.Second,
	word: time.Second, silence: 5 * time.Second,
}

// of is the patience with so many players: what each of them costs is waited for, and counting them all at each
// tick stays below a percent of the time.
func (p patience) of(users int) patience {
	each := time.Duration(users)
	p.join += each * 2 * time.Millisecond
	p.quiet += each * time.Millisecond / 4
	p.audit += each * time.Millisecond
	p.farewell += each * 20 * time.Microsecond
	p.tick = max(p.tick, each*10*time.Microsecond)
	return p
}

func (p Plan) withDefaults() Plan {
	if p.ConnectRate == 0 {
		p.ConnectRate = 1000
	}
	if p.Think == ([2]time.Duration{}) {
		p.Think = [2]time.Duration{time.Second, 30 * time.Second}
	}
	if p.Stakes == ([2]proto.Amount{}) {
		p.Stakes = [2]proto.Amount{10, 500}
	}
	if p.Deeds == nil && !p.Aloof {
		p.Deeds = []Deed{{Type: proto.RequestStake, Weight: 1}}
	}
	if p.Settle == 0 {
		p.Settle = 3 * time.Second
	}
	if p.Workers == 0 && p.Agents == nil {
		// The other half is for the server, which usually runs on the same host.
		p.Workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if p.Agents == nil && p.deal.Workers == 0 {
		p.Workers = min(p.Workers, max(1, p.Users))
	}
	if p.patience == (patience{}) {
		p.patience = patient.of(p.Users)
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	return p
}

func (p *Plan) check() error {
	switch {
	case p.Users < 1 || p.Users > usersMax:
		return fmt.Errorf("%d users; from 1 to %d", p.Users, usersMax)
	case p.ConnectRate < 0 || p.StakeRate < 0:
		return errors.New("a rate is below zero")
	case p.Duration < 0 || p.Settle < 0:
		return errors.New("a duration is below zero")
	case p.Think[0] < 0 || p.Think[1] < p.Think[0]:
		return fmt.Errorf("think times from %s to %s", p.Think[0], p.Think[1])
	case !p.Stakes[0].Valid() || !p.Stakes[1].Valid() || p.Stakes[1] < p.Stakes[0]:
		return fmt.Errorf("stakes from %d to %d", p.Stakes[0], p.Stakes[1])
	case !ofOneFamily(p.Through, p.Sources):
		return errors.New("some addresses to connect from or to are IPv4, others IPv6")
	case p.Workers < 0:
		return fmt.Errorf("%d workers", p.Workers)
	case p.Agents != nil && (p.Tokens != nil || p.Reconnect || p.Sources != nil):
		return errors.New("players of agents are guests, and connect from what each agent was given: name no tokens and no addresses")
	case p.Depart < 0 || p.Churn < 0:
		return errors.New("a rate is below zero")
	case p.Browse[0] < 0 || p.Browse[1] < p.Browse[0]:
		return fmt.Errorf("browsing from %s to %s", p.Browse[0], p.Browse[1])
	case p.Payload < 0 || p.Payload > messageMax:
		return fmt.Errorf("a payload of %d bytes; up to %d", p.Payload, messageMax)
	case p.Slow.Never < 0 || p.Slow.Trickle < 0 || p.Slow.Never+p.Slow.Trickle > 1:
		return fmt.Errorf("slow readers: %g and %g of all", p.Slow.Never, p.Slow.Trickle)
	case p.Slow.Trickle > 0 && p.Slow.Rate < 1:
		return errors.New("slow readers read nothing at all; say how many bytes per second")
	}
	for _, c := range p.Arrivals {
		if c.Users < 0 || c.Rate <= 0 || c.After < 0 {
			return fmt.Errorf("a crowd of %d at %g/s after %s", c.Users, c.Rate, c.After)
		}
	}
	for _, v := range p.Venues {
		if v.Weight < 0 || v.Class < 0 || v.Class >= ClassesMax {
			return fmt.Errorf("game %d has weight %g and class %d", v.Game, v.Weight, v.Class)
		}
	}
	for _, s := range p.Storms {
		if s.At < 0 || s.Share < 0 || s.Share > 1 || s.Back < 0 {
			return fmt.Errorf("a storm at %s of %g of all, back within %s", s.At, s.Share, s.Back)
		}
	}
	for _, d := range p.Deeds {
		switch {
		case d.Weight < 0:
			return fmt.Errorf("%s has weight %g", d.Type, d.Weight)
		case !d.possible():
			return fmt.Errorf("players cannot %q at random", d.Type)
		case p.Aloof && d.ofGame():
			return fmt.Errorf("players who join no game cannot %q", d.Type)
		}
	}
	return nil
}

func ofOneFamily(some, others []netip.Addr) bool {
	all := slices.Concat(some, others)
	return !slices.ContainsFunc(all, func(a netip.Addr) bool { return a.Is4() != all[0].Is4() })
}

func (d *Deed) possible() bool {
	switch d.Type {
	case proto.RequestStake, proto.RequestTime, proto.RequestGames, proto.RequestPools, proto.RequestAccount, proto.RequestPredictions, proto.RequestPresence:
		return true
	}
	return false
}

func (d *Deed) ofGame() bool {
	return d.Type == proto.RequestStake || d.Type == proto.RequestPools || d.Type == proto.RequestPresence
}

// arrival is when player i, from 0, is planned to arrive, since the run's start.
func (p *Plan) arrival(i int) time.Duration {
	at := time.Duration(0)
	for _, c := range p.Arrivals {
		at += c.After
		if i < c.Users {
			return at + time.Duration(float64(i)/c.Rate*float64(time.Second))
		}
		i -= c.Users
		at += time.Duration(float64(c.Users) / c.Rate * float64(time.Second))
	}
	return at + time.Duration(float64(i)/p.ConnectRate*float64(time.Second))
}

// returns says whether players come back after their connection has ended.
func (p *Plan) returns() bool { return p.Reconnect || p.Churn > 0 || len(p.Storms) > 0 }

// back is how long a player who has dropped its connection may be away.
func (p *Plan) back() (longest time.Duration) {
	if p.Churn > 0 {
		longest = churnBack
	}
	for _, s := range p.Storms {
		longest = max(longest, s.Back)
	}
	return longest
}

// churnBack bounds the absence of a player who drops its connection by chance.
const churnBack = time.Second

// classes is how many classes of venues there are.
func (p *Plan) classes() int {
	n := 0
	for _, v := range p.Venues {
		n = max(n, v.Class+1)
	}
	return n
}

// usersMax keeps every player's own source address, from 127.1.0.1 on, inside 127.0.0.0/8.
const usersMax = 16_000_000

const _ = uint(1<<24 - 1<<16 - 2 - usersMax)

// target is the server as a worker connects to it.
type target struct {
	raw        string
	tls        *tls.Config // nil: ws
	host, path string      // as the handshake names them
	through    bool        // the addresses are the plan's
	addresses  []netip.Addr
	port       int
	loopback   bool // IPv4 loopback: every player gets a source address of its own
}

func resolve(ctx context.Context, raw string, through []netip.Addr, trust Trust) (*target, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the target: %w", err)
	case u.Scheme != "ws" && u.Scheme != "wss":
		return nil, fmt.Errorf("read the target %q: want ws://host:port/ws, or wss://", raw)
	}
	secured := u.Scheme == "wss"
	port := u.Port()
	switch {
	case port == "" && secured:
		port = "443"
	case port == "":
		port = "80"
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, fmt.Errorf("read the target %q: %w", raw, err)
	}
	t := &target{raw: raw, host: u.Host, path: u.RequestURI(), through: through != nil, addresses: through, port: number}
	if secured {
		if t.tls, err = trust.config(u.Hostname()); err != nil {
			return nil, err
		}
	}
	if through == nil {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
		if err != nil {
			return nil, fmt.Errorf("find the target: %w", err)
		}
		ip := found[0].Unmap()
		for _, other := range found { // IPv4 first: its loopback has a whole /8 to connect from
			if other.Unmap().Is4() {
				ip = other.Unmap()
				break
			}
		}
		t.addresses = []netip.Addr{ip}
	}
	t.loopback = !slices.ContainsFunc(t.addresses, func(a netip.Addr) bool { return !a.Is4() || !a.IsLoopback() })
	return t, nil
}

// doors are the target's addresses for connect, which writes to them: each worker has its own.
func (t *target) doors() (doors []unix.Sockaddr) {
	for _, a := range t.addresses {
		if a.Is4() {
			doors = append(doors, &unix.SockaddrInet4{Port: t.port, Addr: a.As4()})
		} else {
			doors = append(doors, &unix.SockaddrInet6{Port: t.port, Addr: a.As16()})
		}
	}
	return doors
}

// urls are the target by its name, or each of the addresses that were chosen for it.
func (t *target) urls() (urls []string) {
	if !t.through {
		return []string{t.raw}
	}
	for _, a := range t.addresses {
		scheme, _, _ := strings.Cut(t.raw, "://")
		urls = append(urls, scheme+"://"+netip.AddrPortFrom(a, uint16(t.port)).String()+t.path)
	}
	return urls
}

// source is player i's own address: 127.1.0.1, 127.1.0.2, … A port is then never short, and a limit per
// address counts each player alone, as it would on the internet.
func source(i int) [4]byte {
	host := 1<<16 + 1 + i
	return [4]byte{127, byte(host >> 16), byte(host >> 8), byte(host)}
}

// here says whether all addresses are this host's own.
func (t *target) here() bool { return checkSources(t.addresses) == nil }

// checkPorts refuses a run that would end without a free local port: each source has all of them to each address of the target. Where the
// kernel chooses the source there is only one.
func (p *Plan) checkPorts(t *target) error {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil || t.loopback && p.Sources == nil {
		return nil // not ours to know, or a range for every player
	}
	var low, high int
	if n, _ := fmt.Sscan(string(text), &low, &high); n != 2 {
		return nil
	}
	return enoughPorts(p.deal.users(p.Users, p.Workers), max(1, len(p.Sources)), len(t.addresses), high-low+1)
}

func enoughPorts(users, sources, doors, ports int) error {
	if users <= sources*doors*ports {
		return nil
	}
	return fmt.Errorf("%d users need as many local ports and %d source addresses have %d: widen the range (sysctl net.ipv4.ip_local_port_range=\"1024 65535\"), "+
		"or connect from %d addresses (--from FIRST-LAST; server tune vip adds addresses)", users, sources, sources*doors*ports, (users+doors*ports-1)/(doors*ports))
}

// descriptorsOwn is room for what is no connection: epoll, timers, logs, /proc, the runtime.
const descriptorsOwn = 64

// checkDescriptors refuses a run that would end in "too many open files".
func checkDescriptors(users int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of descriptors: %w", err)
	}
	return enoughDescriptors(uint64(users), limit.Cur)
}

func enoughDescriptors(users, limit uint64) error {
	if need := users + descriptorsOwn; need > limit {
		return fmt.Errorf("%d users need %d descriptors and this process may hold %d: "+
			"raise the limit (ulimit -n %d, or LimitNOFILE= in a unit) or play with at most %d users",
			users, need, limit, need, max(limit, descriptorsOwn)-descriptorsOwn)
	}
	return nil
}
