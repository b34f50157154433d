package baseline

import (
	"bytes"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// channel is one process's ear on a game's broadcasts: a goroutine listens, and forwards to the connections that have joined.
//
//	Redis ─▶ listen ─▶ forward ─▶ member 0..N-1
type channel struct {
	game     proto.GameID
	interval proto.Time // of its distributions
	redis    *redis.PubSub
	ready    chan struct{} // closed once Redis has confirmed, or err is set
	err      error

	mu      sync.Mutex
	members map[*conn]*member
	deaf    bool      // it has ended
	seq     uint64    // the last broadcast that was heard
	heard   time.Time // … and when, or when the last heartbeat was sent
}

// member is a connection that has joined, or is about to.
type member struct {
	seq     uint64      // the last broadcast that it has
	waiting []broadcast // came while its image was being read; nil once it has that
	joined  bool
}

type broadcast struct {
	seq   uint64
	frame *peer.Frame
}

// listen forwards until the process ends, or something was lost: then another one is to be opened for whoever comes back.
func (ch *channel) listen(p *Process) {
	var wrong error
	for wrong == nil {
		var m *redis.Message
		if m, wrong = ch.redis.ReceiveMessage(p.ctx); wrong == nil {
			wrong = ch.forward([]byte(m.Payload))
		}
	}
	p.close(ch)
	ch.scatter()
	if p.ctx.Err() == nil {
		p.log.Error("a channel was interrupted", "game", ch.game, "error", wrong)
	}
}

// forward reads a number and a text, as publishScript sends them, and sends the text to all members.
func (ch *channel) forward(payload []byte) error {
	number, text, _ := bytes.Cut(payload, []byte(" "))
	seq, err := strconv.ParseUint(string(number), 10, 64)
	if err != nil {
		return fmt.Errorf("read a broadcast: %w", err)
	}
	frame, err := peer.NewFrame(text)
	if err != nil {
		return err
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.seq, ch.heard = seq, time.Now()
	for c, m := range ch.members {
		switch {
		case !m.joined:
			m.waiting = append(m.waiting, broadcast{seq, frame})
		case seq > m.seq:
			m.seq = seq
			c.SendFrame(frame)
		}
	}
	return nil
}

// scatter sends all members away: something was lost, and when they come back they get new images.
func (ch *channel) scatter() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.deaf = true
	for c := range ch.members {
		c.Close(proto.CloseTryLater)
	}
}

// enter keeps what is broadcast for a connection from now on, until admit. It is false where nothing is heard any more.
func (ch *channel) enter(c *conn) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if !ch.deaf {
		ch.members[c] = &member{}
	}
	return !ch.deaf
}

// admit sends the image, and behind it what has come since.
func (ch *channel) admit(c *conn, m *proto.Joined) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	who := ch.members[c]
	who.joined, who.seq = true, m.Seq
	c.Send(m)
	for _, b := range who.waiting {
		if b.seq > who.seq {
			who.seq = b.seq
			c.SendFrame(b.frame)
		}
	}
	who.waiting = nil
}

func (ch *channel) leave(c *conn) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	delete(ch.members, c)
}

// silenceMax is the longest silence in a game.
const silenceMax = 5 * time.Second

// beat ends a silence by a heartbeat. Whose image is newer than what was heard here needs none yet.
func (ch *channel) beat() {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if time.Since(ch.heard) < silenceMax {
		return
	}
	ch.heard = time.Now()
	text := (&proto.Heartbeat{T: peer.Now(), Game: ch.game, Seq: ch.seq, Interval: ch.interval}).AppendJSON(nil)
	for c, m := range ch.members {
		if m.joined && m.seq == ch.seq {
			c.SendText(text)
		}
	}
}

// lane is the private messages of one connection. Receipts come from its own goroutine, payouts through Redis: whichever is too early waits.
type lane struct {
	mu    sync.Mutex
	known bool              // n is: before welcome, everything waits
	n     uint64            // of the last message that was sent
	early map[uint64][]byte // by their numbers
}

// say sends the message of this number, when its time has come.
func (l *lane) say(c *conn, n uint64, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.early == nil {
		l.early = map[uint64][]byte{}
	}
	l.early[n] = text
	l.flush(c)
}

// begin sends welcome, with the balance after message n.
func (l *lane) begin(c *conn, m *proto.Welcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.n = true, m.N
	c.Send(m)
	l.flush(c)
}

func (l *lane) flush(c *conn) {
	if !l.known {
		return
	}
	maps.DeleteFunc(l.early, func(n uint64, _ []byte) bool { return n <= l.n }) // the balance that it knows has it already
	for text := l.early[l.n+1]; text != nil; text = l.early[l.n+1] {
		l.n++
		c.SendText(text)
		delete(l.early, l.n)
	}
	if len(l.early) == 0 {
		l.early = nil
	}
}
