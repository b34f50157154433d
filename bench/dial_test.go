package bench

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"tote/server/proto"
)

func TestDial(t *testing.T) {
	t.Parallel()
	c, err := Dial(t.Context(), (&house{plant: honest}).open(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r proto.Request) proto.Message {
		t.Helper()
		m, err := c.Ask(r)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if w, ok := ask(proto.Request{Type: proto.RequestHello, Guest: "Ada"}).(*proto.Welcome); !ok || w.Name != "Ada" || w.Balance != houseCredits {
		t.Fatalf("%+v", w)
	}
	j, ok := ask(proto.Request{Type: proto.RequestJoin, Game: houseGame}).(*proto.Joined)
	if !ok || len(j.Pools) != 2 {
		t.Fatalf("%+v", j)
	}
	r, ok := ask(proto.Request{Type: proto.RequestStake, ID: 77, Pool: j.Pools[0].Pool, Outcome: 1, Amount: 250}).(*proto.Receipt)
	if !ok || r.ID != 77 || r.Amount != 250 {
		t.Fatalf("%+v", r)
	}
	m, err := c.Receive()
	if odds, ok := m.(*proto.Odds); err != nil || !ok || odds.Odds[1].Staked != 250 {
		t.Fatalf("%+v, %v", m, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// What comes before a reply is not lost.
func TestAskKeepsOtherMessages(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	c, err := Dial(t.Context(), h.open(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	for _, r := range []proto.Request{{Type: proto.RequestHello, Guest: "Ada"}, {Type: proto.RequestJoin, Game: houseGame}} {
		if _, err := c.Ask(r); err != nil {
			t.Fatal(err)
		}
	}
	h.mu.Lock()
	h.broadcast(&proto.Happened{Kind: "corner"})
	h.broadcast(&proto.Happened{Kind: "goal"})
	h.mu.Unlock()
	if m, err := c.Ask(proto.Request{Type: proto.RequestGames}); err != nil || m.Type() != "games" {
		t.Fatalf("%+v, %v", m, err)
	}
	for _, kind := range []string{"corner", "goal"} {
		m, err := c.Receive()
		if e, ok := m.(*proto.Happened); err != nil || !ok || e.Kind != kind {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	c.Patience = time.Millisecond
	if m, err := c.Receive(); err == nil {
		t.Fatalf("%+v came from nowhere", m)
	}
}

func TestClientTellsWhyItWasClosed(t *testing.T) {
	t.Parallel()
	h := &house{plant: honest}
	c, err := Dial(t.Context(), h.open(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Abort()
	if _, err := c.Ask(proto.Request{Type: proto.RequestHello, Guest: "Ada"}); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	ws.WriteFrame(h.guests[0].conn, ws.NewCloseFrame(ws.NewCloseFrameBody(4000, "too slow")))
	h.mu.Unlock()
	var closed wsutil.ClosedError
	if _, err := c.Receive(); !errors.As(err, &closed) || closed.Code != 4000 || closed.Reason != "too slow" {
		t.Fatal(err)
	}
}

func TestDialSaysWhoRefused(t *testing.T) {
	t.Parallel()
	_, err := Dial(t.Context(), (&house{plant: refuseHandshake}).open(t))
	if err == nil || !strings.Contains(err.Error(), "dial ws://127.0.0.1:") || !strings.Contains(err.Error(), "503") {
		t.Fatal(err)
	}
}
