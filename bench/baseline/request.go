package baseline

import (
	"errors"
	"strings"

	"tote/server/bench/peer"
	"tote/server/proto"
)

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
	c.State.owns = a
}

// gone forgets a connection.
func (p *Process) gone(c *conn) {
	for id, ch := range c.State.games {
		p.quit(c, id, ch)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owners[c.State.owns] == c {
		delete(p.owners, c.State.owns)
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
	m, err := p.image(c, r)
	if m != nil {
		c.Send(&proto.Pools{ID: r.ID, T: peer.Now(), Game: r.Game, Seq: m.seq, Pools: m.pools})
	}
	return err
}

func (p *Process) presence(c *conn, r *proto.Request) error {
	m, err := p.image(c, r)
	if m != nil {
		c.Send(&proto.Presence{ID: r.ID, T: peer.Now(), Game: r.Game, Present: m.game.Present})
	}
	return err
}

// image is that of the game which a request names; nil: there is none, as the client has been told, or an error.
func (p *Process) image(c *conn, r *proto.Request) (*image, error) {
	m, err := p.cache.image(p.ctx, r.Game)
	switch {
	case err != nil:
		return nil, err
	case m == nil:
		c.Refuse(r.ID, proto.RefusedGameUnknown)
	}
	return m, nil
}

// join begins to forward a game's broadcasts, from an image on that nothing is missing behind.
func (p *Process) join(c *conn, r *proto.Request) error {
	m, err := p.image(c, r)
	if m == nil {
		return err
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
