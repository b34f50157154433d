package engine

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"tote/server/market"
	"tote/server/proto"
)

// patience bounds every wait of a test. It is a deadline, not a measure: a test that meets it has failed.
const patience = 20 * time.Second

var secret = []byte("0123456789abcdef")

// testMarket is the other side of Market: it answers each command at once with what a market could say, from
// one goroutine at a time, as a shard does.
type testMarket struct {
	mu       sync.Mutex
	engine   *Engine
	accounts proto.AccountID
	seq      map[proto.GameID]uint64 // the last broadcast of each game
	commands []market.Command
	attached map[market.Session]proto.AccountID
	last     map[proto.AccountID]market.Session
	busy     bool // refuse everything but Detach
	mute     bool // keep commands, answer nothing
	filler   string
	said     *sync.Cond // a command has come
}

func newTestMarket() *testMarket {
	m := &testMarket{
		accounts: 100, seq: map[proto.GameID]uint64{},
		attached: map[market.Session]proto.AccountID{}, last: map[proto.AccountID]market.Session{},
	}
	m.said = sync.NewCond(&m.mu)
	return m
}

func (m *testMarket) NextAccount() proto.AccountID {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accounts++
	return m.accounts
}

func (m *testMarket) NextCircle() proto.CircleID { return 5 }

func (m *testMarket) LoopsPassed() {}

func (m *testMarket) Submit(c *market.Command) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy && c.Kind != market.Detach {
		return false
	}
	m.commands = append(m.commands, *c)
	m.said.Broadcast()
	if !m.mute {
		m.answer(c)
	}
	return true
}

func (m *testMarket) answer(c *market.Command) {
	out := market.Out{To: c.From}
	switch c.Kind {
	case market.OpenAccount, market.Attach:
		if c.Account == 13 { // nobody has the thirteenth account
			out.Kind, out.Refused = market.OutRefused, proto.Refused{ID: c.ID, T: 7, Reason: proto.RefusedAccountUnknown}
			break
		}
		m.attached[c.From], m.last[c.Account] = c.Account, c.From
		out.Message = &proto.Welcome{ID: c.ID, T: 7, Epoch: 77, Account: c.Account, Name: "Ada", Balance: 1000, Durability: "always"}
	case market.Detach:
		delete(m.attached, c.From)
		return
	case market.Join:
		if c.Game > 99 {
			out.Kind, out.Refused = market.OutRefused, proto.Refused{ID: c.ID, T: 7, Reason: proto.RefusedGameUnknown}
			break
		}
		out.Message = &proto.Joined{
			ID: c.ID, T: 7, Seq: m.seq[c.Game], Game: proto.Game{Game: c.Game, Name: "A v B" + m.filler, State: proto.GameLive},
		}
	case market.Stake:
		out.Kind, out.Receipt = market.OutReceipt, proto.Receipt{
			ID: c.ID, T: 7, N: 1, Prediction: 5, Pool: c.Pool, Outcome: c.Outcome, Amount: c.Amount, Balance: 900, Arrived: c.Arrived, Durability: "always",
		}
	case market.Quote:
		out.Message = &proto.Quote{ID: c.ID, T: 7, Pool: c.Pool, Outcome: c.Outcome, Amount: c.Amount, Shares: c.Shares}
	case market.ShowPredictions:
		out.Message = &proto.Predictions{ID: c.ID, T: 7, Predictions: make([]proto.Prediction, 100)}
	case market.ShowAccount:
		out.Message = &proto.Account{ID: c.ID, T: 7, Account: c.Account, Name: "Ada" + m.filler}
	case market.ShowPools:
		out.Message = &proto.Pools{ID: c.ID, T: 7, Game: c.Game, Seq: m.seq[c.Game]}
	case market.ShowFriends:
		out.Message = &proto.Friends{ID: c.ID, T: 7, Pool: c.Pool}
	case market.Follow:
		out.Message = &proto.Followed{ID: c.ID, T: 7, Account: c.Other}
	case market.Unfollow:
		out.Message = &proto.Unfollowed{ID: c.ID, T: 7, Account: c.Other}
	default:
		out.Kind, out.Refused = market.OutRefused, proto.Refused{ID: c.ID, T: 7, Reason: proto.RefusedPoolUnsold}
	}
	m.engine.Deliver(&market.Batch{Outs: []market.Out{out}})
}

// Broadcasts of the test's games.

func (m *testMarket) announce(games ...proto.GameID) {
	for _, g := range games {
		m.changed(g, proto.GameLive)
	}
}

func (m *testMarket) changed(g proto.GameID, s proto.GameState) {
	m.broadcast(g, func(seq uint64) proto.Message {
		return &proto.GameChanged{T: 7, Seq: seq, Game: proto.Game{Game: g, Name: "A v B", State: s, Teams: [2]string{"A", "B"}}}
	})
}

func (m *testMarket) odds(g proto.GameID, n uint32) {
	m.broadcast(g, func(seq uint64) proto.Message {
		return &proto.Odds{T: 7, Game: g, Seq: seq, Pool: proto.NewPoolID(g, n), Odds: []proto.Odd{{Staked: proto.Amount(seq)}, {Backers: n}}}
	})
}

func (m *testMarket) locked(g proto.GameID, n uint32) {
	m.broadcast(g, func(seq uint64) proto.Message {
		return &proto.Locked{T: 7, Game: g, Seq: seq, Pool: proto.NewPoolID(g, n)}
	})
}

func (m *testMarket) broadcast(g proto.GameID, make ...func(seq uint64) proto.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b market.Batch
	for _, f := range make {
		m.seq[g]++
		b.Outs = append(b.Outs, market.Out{Game: g, Seq: m.seq[g], Message: f(m.seq[g])})
	}
	m.engine.Deliver(&b)
}

func (m *testMarket) tell(to market.Session, message proto.Message) {
	m.engine.Deliver(&market.Batch{Outs: []market.Out{{To: to, Message: message}}})
}

// await waits until a command for which is true has come.
func (m *testMarket) await(t *testing.T, what string, is func(c *market.Command) bool) market.Command {
	t.Helper()
	timer := time.AfterFunc(patience, m.said.Broadcast)
	defer timer.Stop()
	end := time.Now().Add(patience)
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		for i := range m.commands {
			if is(&m.commands[i]) {
				return m.commands[i]
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no %s came", what)
		}
		m.said.Wait()
	}
}

// serve runs an engine for the test.
func serve(t testing.TB, c Config) (*Engine, *testMarket) {
	t.Helper()
	m := newTestMarket()
	e, stop := serveWith(t, c, m)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		if n := e.door.inside(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return e, m
}

func serveWith(t testing.TB, c Config, m *testMarket) (e *Engine, stop func() error) {
	t.Helper()
	c.Secret, c.Log = secret, slog.New(slog.DiscardHandler)
	if c.Limits.AccountHellos == 0 {
		c.Limits.AccountHellos = 1 << 30 // crowds are one account
	}
	if c.Listen == "" {
		c.Listen = reachable(t) + ":0"
	}
	if agency != "" {
		c.Limits.PerAddress, c.Limits.ConnectRate = 1<<30, 1<<30 // crowds come from a few, which are not loopback
	}
	c.TLSListen = c.Listen
	if c.Loops == 0 {
		c.Loops = 2
	}
	if c.Limits.Presence == 0 {
		c.Limits.Presence = time.Hour // most tests count the messages
	}
	if c.Limits.CloseTime == 0 {
		c.Limits.CloseTime = time.Second
	}
	e, err := New(c, m)
	if err != nil {
		t.Fatal(err)
	}
	m.engine = e
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	return e, func() error { cancel(); return <-ended }
}

// client speaks WebSocket over a plain socket, so that a test decides about every byte.
type client struct {
	t    testing.TB
	conn *net.TCPConn
	w    io.Writer // conn, or TLS over it
	r    *bufio.Reader
	id   int
}

// dial connects and does nothing.
func dial(t testing.TB, e *Engine) *client {
	t.Helper()
	return dialAddress(t, e.Addr().String())
}

func dialAddress(t testing.TB, address string) *client { return dialWith(t, address, net.Dialer{}) }

func dialWith(t testing.TB, address string, d net.Dialer) *client {
	t.Helper()
	conn, err := d.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn.(*net.TCPConn), w: conn, r: bufio.NewReader(conn)}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return c
}

const upgradeRequest = "GET /ws HTTP/1.1\r\nHost: tote\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tote.json\r\n\r\n"

// upgraded connects and shakes hands.
func upgraded(t testing.TB, e *Engine) *client {
	t.Helper()
	return dial(t, e).upgrade()
}

func (c *client) upgrade() *client {
	c.t.Helper()
	c.write([]byte(upgradeRequest))
	c.readUpgrade()
	return c
}

// greeted has said hello for an account.
func greeted(t testing.TB, e *Engine, a proto.AccountID) *client {
	t.Helper()
	return upgraded(t, e).greet(e, a)
}

func (c *client) greet(e *Engine, a proto.AccountID) *client {
	c.t.Helper()
	c.ask(`{"type":"hello","id":1,"token":%q}`, e.Token(a))
	c.expect("welcome", 1)
	return c
}

// joined is in a game.
func joined(t testing.TB, e *Engine, a proto.AccountID, g proto.GameID) *client {
	t.Helper()
	return greeted(t, e, a).join(g)
}

func (c *client) join(g proto.GameID) *client {
	c.t.Helper()
	c.ask(`{"type":"join","id":2,"game":%d}`, g)
	c.expect("joined", 2)
	return c
}

func (c *client) readUpgrade() {
	c.t.Helper()
	c.readUpgradeTo(proto.JSON.Name())
}

func (c *client) readUpgradeTo(subprotocol string) {
	c.t.Helper()
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("read the handshake: %v", err)
	}
	if response.StatusCode != 101 || response.Header.Get("Sec-WebSocket-Protocol") != subprotocol {
		c.t.Fatalf("the handshake is %v", response)
	}
	if accept := response.Header.Get("Sec-WebSocket-Accept"); accept != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455, section 1.3
		c.t.Fatalf("Sec-WebSocket-Accept is %q", accept)
	}
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.w.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// masked is a client's frame.
func masked(f ws.Frame) []byte {
	f = ws.MaskFrameWith(f, [4]byte{0x37, 0xfa, 0x21, 0x3d})
	return ws.MustCompileFrame(f)
}

func text(s string) []byte { return masked(ws.NewTextFrame([]byte(s))) }

func (c *client) ask(format string, args ...any) {
	c.t.Helper()
	c.write(text(fmt.Sprintf(format, args...)))
}

// frame reads the next frame.
func (c *client) frame() ws.Frame {
	c.t.Helper()
	f, err := readFrame(c.r)
	if err != nil {
		c.t.Fatalf("read a frame: %v", err)
	}
	if err := ws.CheckHeader(f.Header, ws.StateClientSide); err != nil || !f.Header.Fin {
		c.t.Fatalf("the server's frame %+v is wrong: %v", f.Header, err)
	}
	return f
}

func readFrame(r io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(r); err != nil {
		return f, err
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

// said is a message of the server, as a client in any language sees it.
type said struct {
	Type      string
	ID        proto.RequestID
	Game      json.RawMessage
	Seq       uint64
	Pool      json.RawMessage
	Code      string
	Conflated uint64
	Present   int
	Token     string
	Account   proto.AccountID
	T         proto.Time
	raw       string
}

// message reads the next message, answering pings.
func (c *client) message() said {
	c.t.Helper()
	for {
		f := c.frame()
		switch f.Header.OpCode {
		case ws.OpPing:
			c.write(masked(ws.NewPongFrame(f.Payload)))
		case ws.OpText:
			m := said{raw: string(f.Payload)}
			if err := json.Unmarshal(f.Payload, &m); err != nil {
				c.t.Fatalf("%q is no message: %v", f.Payload, err)
			}
			return m
		default:
			c.t.Fatalf("frame %v %q where a message should be", f.Header, f.Payload)
		}
	}
}

// expect reads a message of that type and id.
func (c *client) expect(kind string, id proto.RequestID) said {
	c.t.Helper()
	m := c.message()
	if m.Type != kind || m.ID != id {
		c.t.Fatalf("got %s, want %s %d", m.raw, kind, id)
	}
	return m
}

func (c *client) expectRefused(id proto.RequestID, reason proto.Refusal) {
	c.t.Helper()
	if m := c.expect("refused", id); m.Code != reason.Code() {
		c.t.Fatalf("refused with %s, want %s", m.Code, reason.Code())
	}
}

// sync asks for the time: when the answer is here, everything before it has been read by the server.
func (c *client) sync() {
	c.t.Helper()
	c.id++
	id := proto.RequestID(1_000_000 + c.id)
	c.ask(`{"type":"time","id":%d,"sent":1}`, id)
	for m := c.message(); m.ID != id; m = c.message() {
	}
}

// expectClose reads a close frame with that code, and then the end of the connection.
func (c *client) expectClose(code proto.CloseCode) {
	c.t.Helper()
	f := c.frame()
	for f.Header.OpCode == ws.OpText || f.Header.OpCode == ws.OpPing || f.Header.OpCode == ws.OpPong {
		f = c.frame()
	}
	if f.Header.OpCode != ws.OpClose {
		c.t.Fatalf("frame %v where a close should be", f.Header)
	}
	got := proto.CloseCode(0)
	if len(f.Payload) >= 2 {
		got = proto.CloseCode(binary.BigEndian.Uint16(f.Payload))
	}
	if got != code {
		c.t.Fatalf("closed with %d %q, want %d", got, f.Payload[min(2, len(f.Payload)):], code)
	}
	c.expectEnd()
}

func (c *client) expectEnd() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); err != nil || len(b) > 0 {
		c.t.Fatalf("after the end came %q, %v", b, err)
	}
}

// eventually waits for what has no event of its own. The engine publishes its counts every tick.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// One stake's way, from socket to receipt and to everybody's odds.
func TestConversation(t *testing.T) {
	e, m := serve(t, Config{GuestCredits: 1000})
	m.announce(3)
	ada, ben := upgraded(t, e), joined(t, e, 12, 3)

	ada.ask(`{"type":"hello","id":1,"guest":"Ada"}`)
	welcome := ada.expect("welcome", 1)
	if got, _ := e.tokens.read(welcome.Token); got.account == 0 || got.account != welcome.Account {
		t.Fatalf("the guest's token speaks for %d in %s", got.account, welcome.raw)
	}
	ada.ask(`{"type":"join","id":2,"game":3}`)
	if image := ada.expect("joined", 2); image.Seq != 1 || !strings.Contains(string(image.Game), `"present":2`) {
		t.Fatalf("image %s", image.raw)
	}
	ada.ask(`{"type":"stake","id":3,"pool":196609,"outcome":1,"amount":250}`)
	ada.expect("receipt", 3)
	stake := m.await(t, "stake", func(c *market.Command) bool { return c.Kind == market.Stake })
	if stake.Account != welcome.Account || stake.Pool != 196609 || stake.Outcome != 1 || stake.Amount != 250 || stake.Arrived == 0 {
		t.Fatalf("the market got %+v", stake)
	}
	m.odds(3, 1)
	for _, c := range []*client{ada, ben} {
		if odds := c.expect("odds", 0); odds.Seq != 2 {
			t.Fatalf("odds %s", odds.raw)
		}
	}
}

// What the loop answers by itself, and what it passes on: one row for each request.
func TestRequests(t *testing.T) {
	e, m := serve(t, Config{})
	m.announce(3)
	m.changed(4, proto.GameEnded)
	c := upgraded(t, e)
	for i, row := range []struct {
		name, request string
		want          string
		refused       proto.Refusal
	}{
		{"time before hello", `{"type":"time","id":%d,"sent":5}`, "time", 0},
		{"games before hello", `{"type":"games","id":%d}`, "", proto.RefusedHelloMissing},
		{"stake before hello", `{"type":"stake","id":%d,"pool":196609,"outcome":0,"amount":1}`, "", proto.RefusedHelloMissing},
		{"hello with nothing", `{"type":"hello","id":%d}`, "", proto.RefusedTokenInvalid},
		{"hello with a wrong token", `{"type":"hello","id":%d,"token":"abc"}`, "", proto.RefusedTokenInvalid},
		{"guest where there are none", `{"type":"hello","id":%d,"guest":"Ada"}`, "", proto.RefusedGuests},
		{"hello for nobody", `{"type":"hello","id":%d,"token":"` + e.Token(13) + `"}`, "", proto.RefusedAccountUnknown},
		{"hello after a refused one", `{"type":"hello","id":%d,"token":"` + e.Token(12) + `"}`, "welcome", 0},
		{"hello again", `{"type":"hello","id":%d,"token":"` + e.Token(12) + `"}`, "", proto.RefusedHelloAgain},
		{"games", `{"type":"games","id":%d}`, "games", 0},
		{"join", `{"type":"join","id":%d,"game":3}`, "joined", 0},
		{"join again", `{"type":"join","id":%d,"game":3}`, "joined", 0},
		{"join what is not", `{"type":"join","id":%d,"game":1000}`, "", proto.RefusedGameUnknown},
		{"presence", `{"type":"presence","id":%d,"game":3}`, "presence", 0},
		{"presence of what is not", `{"type":"presence","id":%d,"game":1000}`, "", proto.RefusedGameUnknown},
		{"pools", `{"type":"pools","id":%d,"game":3}`, "pools", 0},
		{"stake", `{"type":"stake","id":%d,"pool":196609,"outcome":0,"amount":1}`, "receipt", 0},
		{"sell", `{"type":"sell","id":%d,"pool":196609,"outcome":0,"shares":1}`, "", proto.RefusedPoolUnsold},
		{"quote", `{"type":"quote","id":%d,"pool":196609,"outcome":0,"amount":1}`, "quote", 0},
		{"account", `{"type":"account","id":%d}`, "account", 0},
		{"predictions", `{"type":"predictions","id":%d}`, "predictions", 0},
		{"friends", `{"type":"friends","id":%d,"pool":196609}`, "friends", 0},
		{"follow", `{"type":"follow","id":%d,"account":5}`, "followed", 0},
		{"unfollow", `{"type":"unfollow","id":%d,"account":5}`, "unfollowed", 0},
		{"leave", `{"type":"leave","id":%d,"game":3}`, "left", 0},
		{"leave again", `{"type":"leave","id":%d,"game":3}`, "", proto.RefusedGameNotJoined},
		{"no such request", `{"type":"dance","id":%d}`, "", proto.RefusedRequestUnknown},
		{"id of no number", `{"type":"time","id":"%d"}`, "", proto.RefusedMalformed},
		{"no JSON", `%d`, "", proto.RefusedMalformed},
		{"nothing is lost after all that", `{"type":"time","id":%d,"sent":5}`, "time", 0},
	} {
		id := proto.RequestID(i + 1)
		c.ask(row.request, id)
		switch {
		case row.refused == proto.RefusedMalformed:
			c.expectRefused(0, row.refused)
		case row.refused != 0:
			c.expectRefused(id, row.refused)
		default:
			if m := c.expect(row.want, id); m.T == 0 {
				t.Errorf("%s: %s has no time", row.name, m.raw)
			}
		}
	}
	m.mu.Lock()
	m.busy = true
	m.mu.Unlock()
	c.ask(`{"type":"account","id":77}`)
	c.expectRefused(77, proto.RefusedBusy)
	eventually(t, "refusals are counted", func() bool { return e.Stats().Refusals[proto.RefusedMalformed] == 2 })
}
