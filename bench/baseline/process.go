package baseline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// Process is one of those that nginx passes connections to. What it has in memory is what its connections need; all else is in MariaDB and Redis.
//
//	request ─▶ books.stake ─▶ count ─▶ distribute ─▶ Redis ─▶ channel of each process ─▶ connections
//	               └─▶ receipt
type Process struct {
	site  *Site
	books *books
	cache *cache
	log   *slog.Logger
	ctx   context.Context // of the process: a request is finished though its client has gone

	players peer.Server[session]

	mu       sync.Mutex
	channels map[proto.GameID]*channel
	owners   map[proto.AccountID]*conn // the newest connection of each account
	due      map[proto.PoolID]bool     // a distribution waits for its time
	running  sync.WaitGroup

	summed summed
}

// summed is the money as it was summed up last.
type summed struct {
	mu    sync.Mutex
	money peer.Money
	at    time.Time
	took  time.Duration
}

type conn = peer.Conn[session]

// session is what a process knows of a connection. Owner: its reading goroutine, but for the lane.
type session struct {
	name  string
	owns  proto.AccountID           // whose private messages come to it; 0: nobody's
	games map[proto.GameID]*channel // that it has joined
	lane  lane
}

// Serve runs process i, from 0, of the site in a directory until ctx ends.
func Serve(ctx context.Context, dir string, i int, log *slog.Logger) error {
	site, err := readSite(dir)
	if err != nil {
		return err
	}
	if i < 0 || i >= len(site.Players) {
		return fmt.Errorf("the site has %d processes, and none numbered %d", len(site.Players), i)
	}
	books, err := openBooks(site)
	if err != nil {
		return err
	}
	defer books.db.Close()
	cache := openCache(site)
	defer cache.redis.Close()
	alive, end := context.WithCancel(context.WithoutCancel(ctx))
	p := &Process{
		site: site, books: books, cache: cache, log: log, ctx: alive,
		channels: map[proto.GameID]*channel{}, owners: map[proto.AccountID]*conn{}, due: map[proto.PoolID]bool{},
	}
	p.players.Request, p.players.Gone = p.request, p.gone
	defer p.running.Wait()
	defer end()
	private, err := p.subscribe(channelPrivate)
	if err != nil {
		return err
	}
	p.running.Go(func() { p.listenPrivate(private) }) // ends with alive
	p.running.Go(p.beat)                              // ends with alive

	mux := http.NewServeMux()
	mux.Handle("/ws", &p.players)
	players, err := serve(site.Players[i], mux)
	if err != nil {
		return err
	}
	operators, err := serve(site.Operators[i], p.desk())
	if err != nil {
		return errors.Join(err, players.Close())
	}
	log.Info("serves", "players", site.Players[i], "operators", site.Operators[i])
	<-ctx.Done()
	closing, cancel := context.WithTimeout(alive, 5*time.Second)
	defer cancel()
	err = errors.Join(players.Shutdown(closing), operators.Shutdown(closing))
	p.players.Close()
	return err
}

func serve(address string, handler http.Handler) (*http.Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) // ends with Shutdown
	return server, nil
}

// channel is the process's ear on a game. The first one to join opens it, and others wait for that.
func (p *Process) channel(g *proto.Game) (*channel, error) {
	id := g.Game
	p.mu.Lock()
	ch := p.channels[id]
	first := ch == nil
	if first {
		ch = &channel{game: id, interval: g.Interval, ready: make(chan struct{}), members: map[*conn]*member{}, heard: time.Now()}
		p.channels[id] = ch
	}
	p.mu.Unlock()
	if !first {
		<-ch.ready
		return ch, ch.err
	}
	defer close(ch.ready)
	if ch.redis, ch.err = p.subscribe(keyOf("game", id)); ch.err == nil {
		ch.seq, ch.err = p.cache.redis.Get(p.ctx, keyOf("seq", id)).Uint64()
	}
	if ch.err != nil && !errors.Is(ch.err, redis.Nil) {
		p.close(ch)
		return nil, ch.err
	}
	ch.err = nil
	p.running.Go(func() { ch.listen(p) }) // ends with the process, or before
	return ch, nil
}

// subscribe listens to a channel, from now on and until the process ends.
func (p *Process) subscribe(name string) (*redis.PubSub, error) {
	s := p.cache.redis.Subscribe(p.ctx, name)
	context.AfterFunc(p.ctx, func() { s.Close() }) // wakes whoever waits for a message
	if _, err := s.Receive(p.ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("listen to %s: %w", name, err)
	}
	return s, nil
}

// close has the next one who joins open the channel anew.
func (p *Process) close(ch *channel) {
	if ch.redis != nil {
		ch.redis.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.channels, ch.game)
}

// beat looks for silent games.
func (p *Process) beat() {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-every.C:
		}
		p.mu.Lock()
		channels := make([]*channel, 0, len(p.channels))
		for _, ch := range p.channels {
			channels = append(channels, ch)
		}
		p.mu.Unlock()
		for _, ch := range channels {
			select {
			case <-ch.ready:
				ch.beat()
			default:
			}
		}
	}
}

// listenPrivate brings payouts and refunds, which another process may have made, to those of this one's connections that they are for.
func (p *Process) listenPrivate(private *redis.PubSub) {
	for p.ctx.Err() == nil {
		m, err := private.ReceiveMessage(p.ctx)
		if err == nil {
			p.deliver(m.Payload)
			continue
		}
		private.Close()
		for p.ctx.Err() == nil && err != nil {
			p.log.Error("the private channel was interrupted", "error", err)
			if private, err = p.subscribe(channelPrivate); err != nil {
				time.Sleep(time.Second / 10)
			}
		}
		p.scatter() // also those who have come meanwhile
	}
}

func (p *Process) deliver(payload string) {
	account, n, text, ok := readPrivate(payload)
	if !ok {
		p.log.Error("a private message was lost", "message", payload)
		return
	}
	p.mu.Lock()
	c := p.owners[account]
	p.mu.Unlock()
	if c != nil {
		c.State.lane.say(c, n, text)
	}
}

// scatter sends everybody away: private messages may be lost, and when they come back they are told their balance.
func (p *Process) scatter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.owners {
		c.Close(proto.CloseTryLater)
	}
}

// A private message in the channel is its account, its number, and its text.
func appendPrivate(b []byte, a proto.AccountID, n uint64, m proto.Message) []byte {
	return m.AppendJSON(fmt.Appendf(b, "%d %d ", a, n))
}

func readPrivate(payload string) (a proto.AccountID, n uint64, text []byte, ok bool) {
	parts := strings.SplitN(payload, " ", 3)
	if len(parts) < 3 {
		return 0, 0, nil, false
	}
	read, err := fmt.Sscan(parts[0]+" "+parts[1], &a, &n)
	return a, n, []byte(parts[2]), err == nil && read == 2
}
