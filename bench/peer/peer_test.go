package peer_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gobwas/ws/wsutil"
	"github.com/gorilla/websocket"

	"tote/server/bench"
	"tote/server/bench/peer"
	"tote/server/proto"
)

// open starts a server whose games are a list of nothing; joining is answered by a flood, leaving by goodbye. gone is told who has gone.
func open(t *testing.T) (target string, server *peer.Server[string], gone chan string) {
	gone = make(chan string, 10)
	server = &peer.Server[string]{
		Request: func(c *peer.Conn[string], r *proto.Request, arrived proto.Time) {
			switch r.Type {
			case proto.RequestHello:
				c.Account, c.State = 7, r.Guest
				c.Send(&proto.Welcome{ID: r.ID, T: arrived, Account: 7, Name: r.Guest})
			case proto.RequestGames:
				f, err := peer.NewFrame((&proto.Games{ID: r.ID, T: arrived}).AppendJSON(nil))
				if err != nil {
					t.Error(err)
					return
				}
				c.SendFrame(f)
			case proto.RequestJoin:
				// More than sockets take: a client that does not read is then too far behind.
				text := (&proto.Left{T: 1}).AppendJSON(nil)
				text = append(text, strings.Repeat(" ", 64<<10)...)
				for range 2000 {
					c.SendText(text)
				}
			case proto.RequestLeave:
				c.Close(proto.CloseNormal)
			}
		},
		Gone: func(c *peer.Conn[string]) { gone <- c.State },
	}
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(listener.URL, "http"), server, gone
}

func dial(t *testing.T, target string) *bench.Client {
	t.Helper()
	c, err := bench.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Abort() })
	return c
}

// closedWith reads until the server closes, and wants this code.
func closedWith(t *testing.T, c *bench.Client, code proto.CloseCode) {
	t.Helper()
	for {
		_, err := c.Receive()
		var closed wsutil.ClosedError
		switch {
		case errors.As(err, &closed):
			if proto.CloseCode(closed.Code) != code {
				t.Errorf("closed with %d %s, not %d", closed.Code, closed.Reason, code)
			}
			return
		case err != nil:
			t.Fatal(err)
		}
	}
}

func TestConversation(t *testing.T) {
	target, server, gone := open(t)
	c := dial(t, target)
	for _, row := range []struct {
		name   string
		ask    proto.Request
		answer string
		reason proto.Refusal
	}{
		{"before hello", proto.Request{Type: proto.RequestGames}, "refused", proto.RefusedHelloMissing},
		{"the time, which anybody may ask for", proto.Request{Type: proto.RequestTime, Sent: 5}, "time", 0},
		{"hello", proto.Request{Type: proto.RequestHello, Guest: "Ada"}, "welcome", 0},
		{"hello again", proto.Request{Type: proto.RequestHello, Guest: "Bao"}, "refused", proto.RefusedHelloAgain},
		{"a frame", proto.Request{Type: proto.RequestGames}, "games", 0},
	} {
		m, err := c.Ask(row.ask)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		refused, _ := m.(*proto.Refused)
		if m.Type() != row.answer || refused != nil && refused.Reason != row.reason {
			t.Errorf("%s: %+v", row.name, m)
		}
	}
	if err := c.SendText([]byte(`{"type":"games"}`)); err != nil {
		t.Fatal(err)
	}
	if m, err := c.Receive(); err != nil || m.(*proto.Refused).Reason != proto.RefusedMalformed {
		t.Errorf("without an id: %+v, %v", m, err)
	}
	other := dial(t, target)
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if who := <-gone; who != "" {
		t.Errorf("%q has gone", who)
	}
	if _, err := c.Send(proto.Request{Type: proto.RequestLeave}); err != nil {
		t.Fatal(err)
	}
	closedWith(t, c, proto.CloseNormal)
	if who := <-gone; who != "Ada" {
		t.Errorf("%q has gone", who)
	}
	last := dial(t, target)
	if _, err := last.Send(proto.Request{Type: proto.RequestTime, ID: 1}); err != nil { // with its answer, the server knows the connection
		t.Fatal(err)
	}
	if _, err := last.Receive(); err != nil {
		t.Fatal(err)
	}
	go server.Close() // waits for the client's goodbye, which comes from closedWith
	closedWith(t, last, proto.CloseGoingAway)
	<-gone
}

// Who does not read what it is sent is cut, and costs a bounded queue.
func TestSlowClient(t *testing.T) {
	target, _, gone := open(t)
	c := dial(t, target)
	for _, r := range []proto.Request{{Type: proto.RequestHello, Guest: "Ada"}, {Type: proto.RequestJoin}} {
		if _, err := c.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	closedWith(t, c, proto.CloseSlow)
	<-gone
}

func TestBinaryMessage(t *testing.T) {
	target, _, _ := open(t)
	c, _, err := websocket.DefaultDialer.DialContext(t.Context(), target, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WriteMessage(websocket.BinaryMessage, []byte{0x80}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, int(proto.CloseData)) {
		t.Errorf("%v", err)
	}
}
