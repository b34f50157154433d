package baseline

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/bench/peer"
	"tote/server/proto"
)

// spoken runs a deed on a real connection, and returns what its client has heard, as type and number, up to a message of the time.
func spoken(t *testing.T, deed func(*conn)) (heard []string) {
	t.Helper()
	players := &peer.Server[session]{
		Request: func(c *conn, r *proto.Request, _ proto.Time) {
			deed(c)
			c.Send(&proto.Clock{ID: r.ID})
		},
		Gone: func(*conn) {},
	}
	server := httptest.NewServer(players)
	defer server.Close()
	defer players.Close()
	c, err := bench.Dial(t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	if _, err := c.Send(proto.Request{Type: proto.RequestHello, Guest: "Ada"}); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := c.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *proto.Clock:
			return heard
		case *proto.Welcome:
			heard = append(heard, fmt.Sprint("welcome ", m.N))
		case *proto.Balance:
			heard = append(heard, fmt.Sprint("n ", m.N))
		case *proto.Joined:
			heard = append(heard, fmt.Sprint("joined ", m.Seq))
		case *proto.Odds:
			heard = append(heard, fmt.Sprint("seq ", m.Seq))
		case *proto.Heartbeat:
			heard = append(heard, fmt.Sprint("heartbeat ", m.Seq))
		}
	}
}

func expect(t *testing.T, heard []string, want ...string) {
	t.Helper()
	if fmt.Sprint(heard) != fmt.Sprint(want) {
		t.Errorf("heard %q, not %q", heard, want)
	}
}

// Receipts and payouts come on two ways, and reach the player in order.
func TestLane(t *testing.T) {
	expect(t, spoken(t, func(c *conn) {
		say := func(n uint64) { c.State.lane.say(c, n, (&proto.Balance{N: n}).AppendJSON(nil)) }
		say(5) // before welcome, which knows of 4 already
		say(4)
		c.State.lane.begin(c, &proto.Welcome{N: 4})
		say(7)
		say(8)
		say(6)
		say(6)
		if c.State.lane.early != nil {
			t.Errorf("%d messages are kept", len(c.State.lane.early))
		}
	}), "welcome 4", "n 5", "n 6", "n 7", "n 8")
}

// From the image on, nothing is missing and nothing comes twice, whichever is quicker.
func TestChannel(t *testing.T) {
	expect(t, spoken(t, func(c *conn) {
		ch := &channel{game: 3, interval: 1, members: map[*conn]*member{}, heard: time.Now()}
		hear := func(seq uint64) {
			text := (&proto.Odds{Game: 3, Seq: seq}).AppendJSON(nil)
			if err := ch.forward(fmt.Appendf(nil, "%d %s", seq, text)); err != nil {
				t.Error(err)
			}
		}
		silent := func() {
			ch.heard = ch.heard.Add(-silenceMax)
			ch.beat()
		}
		hear(4)
		ch.enter(c)
		hear(5)
		hear(6)
		silent() // is not for who waits for the image
		ch.admit(c, &proto.Joined{Seq: 5})
		hear(7)
		ch.beat() // there was no silence
		silent()
		ch.enter(c)
		ch.admit(c, &proto.Joined{Seq: 9}) // the image is newer than what was heard here
		silent()                           // would name an older one
		hear(8)
		hear(9)
		hear(10)
		ch.leave(c)
		hear(11)
		ch.scatter()
		if ch.enter(c) {
			t.Error("somebody has joined what hears nothing")
		}
		if err := ch.forward([]byte("no number")); err == nil {
			t.Error("a broadcast without a number")
		}
	}), "joined 5", "seq 6", "seq 7", "heartbeat 7", "joined 9", "seq 10")
}

func TestPrivateMessage(t *testing.T) {
	m := &proto.Payout{T: 1, N: 9, Pool: 4, Payout: 12, Balance: 13}
	account, n, text, ok := readPrivate(string(appendPrivate(nil, 7, 9, m)))
	if !ok || account != 7 || n != 9 || string(text) != string(m.AppendJSON(nil)) {
		t.Errorf("%d, %d, %s, %v", account, n, text, ok)
	}
	for _, wrong := range []string{"", "7 9", "a 9 {}", "7 -1 {}"} {
		if _, _, _, ok := readPrivate(wrong); ok {
			t.Errorf("%q was read", wrong)
		}
	}
}

func TestConfig(t *testing.T) {
	right := Config{Processes: 2, Flush: 1, Interval: 3 * time.Second, Credits: 1}
	if err := right.check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"processes": func(c *Config) { c.Processes = 0 }, "flush": func(c *Config) { c.Flush = 3 },
		"interval": func(c *Config) { c.Interval = time.Millisecond }, "credits": func(c *Config) { c.Credits = 0 },
	} {
		wrong := right
		if change(&wrong); wrong.check() == nil {
			t.Errorf("%s: %+v is right", name, wrong)
		}
	}
}
