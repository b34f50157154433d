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
	money money
	at    time.Time
	took  time.Duration
}

type conn = peer.Conn[session]

// session is what a process knows of a connection. Owner: its reading goroutine, but for the lane.
type session struct {
	name  string
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

// request answers one request of a player; a failure of Redis or MariaDB is a refusal as busy.
func (p *Process) request(c *conn, r *proto.Request, arrived proto.Time) {
	var err error
	switch r.Type {
	case proto.RequestHello:
		err = p.hello(c, r)
	case proto.RequestGames:
		err = p.games(c, r)
	case proto.RequestJoin:
		err = p.join(c, r)
	case proto.RequestLeave:
		err = p.leave(c, r)
	case proto.RequestPools:
		err = p.pools(c, r)
	case proto.RequestPresence:
		err = p.presence(c, r)
	case proto.RequestStake:
		err = p.stake(c, r, arrived)
	case proto.RequestAccount:
		var m *proto.Account
		if m, err = p.books.account(p.ctx, c.Account); err == nil {
			m.ID, m.T = r.ID, peer.Now()
			c.Send(m)
		}
	case proto.RequestPredictions:
		var m *proto.Predictions
		if m, err = p.books.predictions(p.ctx, c.Account); err == nil {
			m.ID, m.T = r.ID, peer.Now()
			c.Send(m)
		}
	default:
		c.Refuse(r.ID, proto.RefusedRequestUnknown)
	}
	if err != nil {
		p.log.Error("a request failed", "type", r.Type, "account", c.Account, "error", err)
		c.Refuse(r.ID, proto.RefusedBusy)
	}
}

// nameMax bounds a guest's name, as our server does.
const nameMax = 64

// hello welcomes a new guest, or the owner of a token.
func (p *Process) hello(c *conn, r *proto.Request) (err error) {
	var who *owner
	switch {
	case r.Token == "" && (r.Guest == "" || len(r.Guest) > nameMax || strings.ToValidUTF8(r.Guest, "") != r.Guest):
		c.Refuse(r.ID, proto.RefusedTextInvalid)
		return nil
	case r.Token == "":
		if who, err = p.books.openAccount(p.ctx, r.Guest, p.site.Credits); err != nil {
			return err
		}
		p.own(c, who.account)
	default:
		if who, err = p.books.owner(p.ctx, r.Token); err != nil {
			return err
		}
		if who == nil {
			c.Refuse(r.ID, proto.RefusedTokenInvalid)
			return nil
		}
		p.own(c, who.account)
		// Once more, now that no message to it goes by.
		if who, err = p.books.owner(p.ctx, r.Token); err != nil {
			return err
		}
	}
	c.Account, c.State.name, c.State.games = who.account, who.name, map[proto.GameID]*channel{}
	c.State.lane.begin(c, &proto.Welcome{ID: r.ID, T: peer.Now(), Epoch: p.site.Epoch, Account: who.account, Name: who.name, Balance: who.balance, N: who.n,
		Token: who.token, Durability: p.site.durability()})
	return nil
}

// own has an account's private messages come to a connection.
func (p *Process) own(c *conn, a proto.AccountID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owners[a] = c
}

// gone forgets a connection.
func (p *Process) gone(c *conn) {
	for id, ch := range c.State.games {
		p.quit(c, id, ch)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owners[c.Account] == c {
		delete(p.owners, c.Account)
	}
}

func (p *Process) games(c *conn, r *proto.Request) error {
	games, err := p.cache.games(p.ctx)
	if err == nil {
		c.Send(&proto.Games{ID: r.ID, T: peer.Now(), Games: games})
	}
	return err
}

func (p *Process) pools(c *conn, r *proto.Request) error {
	m, err := p.cache.image(p.ctx, r.Game)
	switch {
	case err != nil:
		return err
	case m == nil:
		c.Refuse(r.ID, proto.RefusedGameUnknown)
	default:
		c.Send(&proto.Pools{ID: r.ID, T: peer.Now(), Game: r.Game, Seq: m.seq, Pools: m.pools})
	}
	return nil
}

func (p *Process) presence(c *conn, r *proto.Request) error {
	m, err := p.cache.image(p.ctx, r.Game)
	switch {
	case err != nil:
		return err
	case m == nil:
		c.Refuse(r.ID, proto.RefusedGameUnknown)
	default:
		c.Send(&proto.Presence{ID: r.ID, T: peer.Now(), Game: r.Game, Present: m.game.Present})
	}
	return nil
}

// join begins to forward a game's broadcasts, from an image on that nothing is missing behind.
func (p *Process) join(c *conn, r *proto.Request) error {
	m, err := p.cache.image(p.ctx, r.Game)
	if err != nil {
		return err
	}
	if m == nil {
		c.Refuse(r.ID, proto.RefusedGameUnknown)
		return nil
	}
	ch, err := p.channel(&m.game)
	if err != nil {
		return err
	}
	again := c.State.games[r.Game] != nil
	if !ch.enter(c) {
		return errDeaf
	}
	c.State.games[r.Game] = ch
	if !again {
		if err := p.cache.present(p.ctx, r.Game, 1); err != nil {
			return err
		}
	}
	if m, err = p.cache.image(p.ctx, r.Game); err != nil {
		return err
	}
	ch.admit(c, &proto.Joined{ID: r.ID, T: peer.Now(), Game: m.game, Seq: m.seq, Pools: m.pools})
	return nil
}

var errDeaf = errors.New("the game's channel was interrupted")

func (p *Process) leave(c *conn, r *proto.Request) error {
	ch := c.State.games[r.Game]
	if ch == nil {
		c.Refuse(r.ID, proto.RefusedGameNotJoined)
		return nil
	}
	p.quit(c, r.Game, ch)
	c.Send(&proto.Left{ID: r.ID, T: peer.Now(), Game: r.Game})
	return nil
}

func (p *Process) quit(c *conn, id proto.GameID, ch *channel) {
	ch.leave(c)
	delete(c.State.games, id)
	if err := p.cache.present(p.ctx, id, -1); err != nil {
		p.log.Error("somebody who has left is counted", "game", id, "error", err)
	}
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
