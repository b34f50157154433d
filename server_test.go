package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"tote/server/bench"
	"tote/server/proto"
	"tote/server/proto/control"
)

// These tests run the real binary: real sockets, real files, real kills.

var binary string // built once by TestMain

// built names the binary to a test that runs in a process of its own.
const built = "SERVER_TEST_BINARY"

func TestMain(m *testing.M) {
	if binary = os.Getenv(built); binary != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "server-test")
	if err == nil {
		binary = filepath.Join(dir, "server")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the server:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// running is a server process.
type running struct {
	t       *testing.T
	process *exec.Cmd
	log     *bytes.Buffer
	data    string
	players string // ws://…/ws
	tls     string // host:port, with --tls-cert
	desk    *control.Client
	exited  chan error // how the process ended; whoever takes it puts it back
}

// start runs `server serve` on a data directory, and waits until it says where it listens.
func start(t *testing.T, data string, flags ...string) *running {
	t.Helper()
	return await(t, data, exec.Command(binary, append([]string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", data}, flags...)...))
}

// await is start with a command that ends up as a server.
func await(t *testing.T, data string, command *exec.Cmd) *running {
	t.Helper()
	s := &running{t: t, data: data, log: &bytes.Buffer{}, process: command}
	addresses := filepath.Join(data, "addresses.json")
	os.Remove(addresses)
	s.process.Stderr = s.log
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	s.exited = exited
	go func() { exited <- s.process.Wait() }()
	t.Cleanup(func() {
		s.process.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.log)
		}
	})
	deadline := time.After(30 * time.Second)
	for {
		var at struct{ Listen, Admin, TLS string }
		if b, err := os.ReadFile(addresses); err == nil && json.Unmarshal(b, &at) == nil {
			s.players, s.tls = "ws://"+at.Listen+"/ws", at.TLS
			s.desk = &control.Client{Base: "http://" + at.Admin}
			return s
		}
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("the server ended: %v\n%s", err, s.log)
		case <-deadline:
			t.Fatalf("the server does not say where it listens\n%s", s.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop asks the server to stop, and waits until it has.
func (s *running) stop() {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.gone()
}

// gone waits until the process has ended: signal 0 finds nobody, since the waiting goroutine has reaped it.
func (s *running) gone() {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if err := s.process.Process.Signal(syscall.Signal(0)); errors.Is(err, os.ErrProcessDone) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the server does not end\n%s", s.log)
		}
	}
}

// audited runs `server audit` on the data of a server that has ended.
func (s *running) audited() (money struct{ Money map[string]int64 }) {
	s.t.Helper()
	out, err := exec.Command(binary, "audit", "--data", s.data).CombinedOutput()
	if err != nil {
		s.t.Fatalf("audit: %v\n%s", err, out)
	}
	if err := json.Unmarshal(out[bytes.IndexByte(out, '{'):], &money); err != nil {
		s.t.Fatalf("audit said %s: %v", out, err)
	}
	return money
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// dial connects and says hello with a new account's token.
func (s *running) dial(name string, credits proto.Amount) (*bench.Client, *proto.AccountOpened) {
	s.t.Helper()
	account := must(s.desk.OpenAccount(s.t.Context(), proto.AccountOpening{Name: name, Deposit: credits}))(s.t)
	return s.hello(account.Token), account
}

func (s *running) hello(token string) *bench.Client {
	s.t.Helper()
	c := must(bench.Dial(s.t.Context(), s.players))(s.t)
	s.t.Cleanup(func() { c.Close() })
	ask[*proto.Welcome](s.t, c, proto.Request{Type: proto.RequestHello, Token: token})
	return c
}

// ask sends a request and wants this kind of reply.
func ask[M proto.Message](t *testing.T, c *bench.Client, r proto.Request) M {
	t.Helper()
	reply := must(c.Ask(r))(t)
	m, ok := reply.(M)
	if !ok {
		t.Fatalf("%s was answered %s", r.AppendJSON(nil), reply.AppendJSON(nil))
	}
	return m
}

// game opens a game with pools of three outcomes.
func (s *running) game(pools int) (proto.GameID, []proto.PoolID) {
	s.t.Helper()
	g := must(s.desk.OpenGame(s.t.Context(), proto.GameOpening{Name: "Argentina v France", Interval: 100 * proto.Millisecond}))(s.t).Game
	var ids []proto.PoolID
	for i := range pools {
		ids = append(ids, must(s.desk.OpenPool(s.t.Context(), g, proto.PoolOpening{
			Question: fmt.Sprint("Question ", i), Labels: []string{"Argentina", "France", "nobody"}, StakeMin: 2, StakeMax: 500}))(s.t).Pool)
	}
	return g, ids
}

// Shares are bought and sold over the wire, and what a quote says is what happens.
func TestSharesOverTheWire(t *testing.T) {
	s := start(t, t.TempDir())
	c, _ := s.dial("Ada", 100_000)
	g, _ := s.game(0)
	p := must(s.desk.OpenPool(t.Context(), g, proto.PoolOpening{Question: "Will it rain?", Labels: []string{"yes", "no"}, Kind: proto.KindDynamic,
		Seeds: []proto.Seed{{Money: 10_000}, {Money: 10_000}}}))(t).Pool
	joined := ask[*proto.Joined](t, c, proto.Request{Type: proto.RequestJoin, Game: g})
	if odds := joined.Pools[0].Odds; joined.Pools[0].Variant != "share_ratio" || odds[0].Price != 1_000_000 || odds[0].Probability != 500_000 {
		t.Errorf("joined %+v", joined.Pools[0])
	}
	quote := ask[*proto.Quote](t, c, proto.Request{Type: proto.RequestQuote, Pool: p, Amount: 5000})
	bought := ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: 90, Pool: p, Amount: 5000, Limit: int64(quote.Shares)})
	if bought.Shares != quote.Shares || bought.Shares == 0 {
		t.Errorf("quoted %+v, bought %+v", quote, bought)
	}
	if refused := ask[*proto.Refused](t, c, proto.Request{Type: proto.RequestStake, ID: 91, Pool: p, Amount: 5000, Limit: int64(quote.Shares)}); refused.Reason != proto.RefusedLimitMissed {
		t.Errorf("the same again, at the same limit: %+v", refused)
	}
	back := ask[*proto.Quote](t, c, proto.Request{Type: proto.RequestQuote, Pool: p, Shares: bought.Shares})
	sell := proto.Request{Type: proto.RequestSell, ID: 92, Pool: p, Shares: bought.Shares, Limit: int64(back.Amount)}
	sold := ask[*proto.Sold](t, c, sell)
	if sold.Amount != back.Amount || sold.Amount > 5000 || sold.Balance != 95_000+sold.Amount {
		t.Errorf("quoted %+v, sold %+v", back, sold)
	}
	if again := ask[*proto.Sold](t, c, sell); again.Sale != sold.Sale || again.Amount != sold.Amount {
		t.Errorf("sold %+v, and again %+v", sold, again)
	}
	s.stop()
	if money := s.audited().Money; money["house"] != -20_000 {
		t.Errorf("the house has %d, and its seeds are 20000: %v", money["house"], money)
	}
}

// Every kind of bad input gets its refusal or close code, and nothing changes.
func TestBadInput(t *testing.T) {
	s := start(t, t.TempDir())
	c, account := s.dial("Ada", 1000)
	_, pools := s.game(2)
	open, locked := pools[0], pools[1]
	must(s.desk.Lock(t.Context(), locked, 0))(t)
	first := ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, ID: 7, Pool: open, Amount: 100})

	for _, row := range []struct {
		name, text, want string
		id               proto.RequestID
	}{
		{"the same request again", fmt.Sprintf(`{"type":"stake","id":7,"pool":%d,"outcome":0,"amount":100}`, open), "", 7},
		{"its id for another stake", fmt.Sprintf(`{"type":"stake","id":7,"pool":%d,"outcome":1,"amount":100}`, open), "request_reused", 7},
		{"an unknown pool", `{"type":"stake","id":8,"pool":12345,"outcome":0,"amount":100}`, "pool_unknown", 8},
		{"a locked pool", fmt.Sprintf(`{"type":"stake","id":9,"pool":%d,"outcome":0,"amount":100}`, locked), "pool_locked", 9},
		{"too little money", fmt.Sprintf(`{"type":"stake","id":10,"pool":%d,"outcome":0,"amount":901}`, open), "funds_short", 10},
		{"a stake of 0", fmt.Sprintf(`{"type":"stake","id":11,"pool":%d,"outcome":0,"amount":0}`, open), "amount_invalid", 11},
		{"a stake of -1", fmt.Sprintf(`{"type":"stake","id":12,"pool":%d,"outcome":0,"amount":-1}`, open), "amount_invalid", 12},
		{"a stake of 2^63", fmt.Sprintf(`{"type":"stake","id":13,"pool":%d,"outcome":0,"amount":9223372036854775808}`, open), "amount_invalid", 13},
		{"a stake of 1.5", fmt.Sprintf(`{"type":"stake","id":14,"pool":%d,"outcome":0,"amount":1.5}`, open), "amount_invalid", 14},
		{"too small a stake", fmt.Sprintf(`{"type":"stake","id":15,"pool":%d,"outcome":0,"amount":1}`, open), "stake_small", 15},
		{"too large a stake", fmt.Sprintf(`{"type":"stake","id":16,"pool":%d,"outcome":0,"amount":501}`, open), "stake_large", 16},
		{"an outcome out of range", fmt.Sprintf(`{"type":"stake","id":17,"pool":%d,"outcome":3,"amount":100}`, open), "outcome_unknown", 17},
		{"an outcome below 0", fmt.Sprintf(`{"type":"stake","id":18,"pool":%d,"outcome":-1,"amount":100}`, open), "outcome_unknown", 18},
		{"no outcome", fmt.Sprintf(`{"type":"stake","id":19,"pool":%d,"amount":100}`, open), "outcome_unknown", 19},
		{"a sale", fmt.Sprintf(`{"type":"sell","id":20,"pool":%d,"outcome":0,"shares":100}`, open), "pool_unsold", 20},
		{"malformed JSON", `{"type":"stake","id":21,`, "malformed", 0},
		{"no JSON at all", `GET / HTTP/1.1`, "malformed", 0},
		{"no id", `{"type":"games"}`, "malformed", 0},
		{"an unknown request", `{"type":"bet","id":22}`, "request_unknown", 22},
		{"hello again", `{"type":"hello","id":23,"guest":"Eve"}`, "hello_again", 23},
		{"an unknown game", `{"type":"join","id":24,"game":99}`, "game_unknown", 24},
		{"leaving a game not joined", `{"type":"leave","id":25,"game":99}`, "game_not_joined", 25},
		{"friends in an unknown pool", `{"type":"friends","id":26,"pool":12345}`, "pool_unknown", 26},
		{"following nobody", `{"type":"follow","id":27,"account":99999}`, "account_unknown", 27},
		{"following oneself", fmt.Sprintf(`{"type":"follow","id":28,"account":%d}`, account.Account), "follow_self", 28},
	} {
		if err := c.SendText([]byte(row.text)); err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		m := must(c.Receive())(t)
		if r, ok := m.(*proto.Receipt); ok && row.want == "" {
			if r.Prediction != first.Prediction || r.ID != row.id {
				t.Errorf("%s: %+v, the first answer was %+v", row.name, r, first)
			}
			continue
		}
		r, ok := m.(*proto.Refused)
		if !ok || r.Reason.Code() != row.want || r.ID != row.id {
			t.Errorf("%s was answered %s, want %s for %d", row.name, m.AppendJSON(nil), row.want, row.id)
		}
	}
	show := ask[*proto.Account](t, c, proto.Request{Type: proto.RequestAccount})
	if show.Balance != 900 || show.Staked != 100 || show.Held != 0 {
		t.Errorf("after all this: %+v", show)
	}
	if p := ask[*proto.Predictions](t, c, proto.Request{Type: proto.RequestPredictions}); len(p.Predictions) != 1 {
		t.Errorf("after all this: %+v", p)
	}

	stranger := must(bench.Dial(t.Context(), s.players))(t)
	defer stranger.Close()
	for _, row := range []struct {
		name string
		r    proto.Request
		want proto.Refusal
	}{
		{"a stake without hello", proto.Request{Type: proto.RequestStake, Pool: open, Amount: 10}, proto.RefusedHelloMissing},
		{"a forged token", proto.Request{Type: proto.RequestHello, Token: account.Token + "x"}, proto.RefusedTokenInvalid},
		{"a guest where none are welcome", proto.Request{Type: proto.RequestHello, Guest: "Eve"}, proto.RefusedGuests},
	} {
		if r := ask[*proto.Refused](t, stranger, row.r); r.Reason != row.want {
			t.Errorf("%s: %s, want %s", row.name, r.Reason.Code(), row.want.Code())
		}
	}
	s.stop()
	s.audited()
}

// What breaks the protocol ends the connection with the right close code, whatever the frames.
func TestBadFrames(t *testing.T) {
	s := start(t, t.TempDir())
	masked := func(f ws.Frame) []byte {
		var b bytes.Buffer
		if err := ws.WriteFrame(&b, ws.MaskFrameInPlace(f)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	big := ws.NewTextFrame(bytes.Repeat([]byte("x"), 10<<20))
	for _, row := range []struct {
		name  string
		bytes []byte
		want  ws.StatusCode
	}{
		{"a 10 MB message", masked(big), ws.StatusMessageTooBig},
		{"an unmasked frame", ws.MustCompileFrame(ws.NewTextFrame([]byte("{}"))), ws.StatusProtocolError},
		{"a binary message", masked(ws.NewBinaryFrame([]byte{1})), ws.StatusUnsupportedData},
		{"text that is not UTF-8", masked(ws.NewTextFrame([]byte{0xff})), ws.StatusInvalidFramePayloadData},
		{"a ping of 126 bytes", masked(ws.NewPingFrame(make([]byte, 126))), ws.StatusProtocolError},
		{"a reserved opcode", masked(ws.NewFrame(0x3, true, nil)), ws.StatusProtocolError},
		{"a goodbye", masked(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "bye"))), ws.StatusNormalClosure},
	} {
		conn, buffered, _, err := ws.Dial(t.Context(), s.players)
		if err != nil {
			t.Fatal(err)
		}
		if buffered == nil {
			buffered = bufio.NewReader(conn)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		go conn.Write(row.bytes) // the server may stop reading in the middle
		h, err := ws.ReadHeader(buffered)
		body := make([]byte, min(h.Length, ws.MaxControlFramePayloadSize))
		if err == nil {
			_, err = io.ReadFull(buffered, body)
		}
		if err != nil || h.OpCode != ws.OpClose {
			t.Errorf("%s: got %v, %v instead of a close frame", row.name, h, err)
		} else if code, _ := ws.ParseCloseFrameData(body); code != row.want {
			t.Errorf("%s: close code %d, want %d", row.name, code, row.want)
		}
		conn.Close()
	}
	c, _ := s.dial("Ada", 10)
	ask[*proto.Account](t, c, proto.Request{Type: proto.RequestAccount}) // and the server still serves
}

// Half a handshake holds nobody up and is answered when its time is over; a broken one at once.
func TestBadHandshakes(t *testing.T) {
	s := start(t, t.TempDir())
	address := s.players[len("ws://") : len(s.players)-len("/ws")]
	for _, row := range []struct{ name, text, want string }{
		{"half a handshake", "GET /ws HTTP/1.1\r\nHost: x\r\nUpgr", ""},
		{"no HTTP", "\x16\x03\x01\r\n\r\n", "HTTP/1.1 400"},
		{"no key", "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n", "HTTP/1.1 400"},
		{"an old version", "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n", "HTTP/1.1 426"},
		{"endless headers", "GET /ws HTTP/1.1\r\nX: " + string(bytes.Repeat([]byte("x"), 64<<10)), "HTTP/1.1 431"},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(60 * time.Second))
		if _, err := io.WriteString(conn, row.text); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) || !bytes.HasPrefix(answer, []byte(row.want)) {
			t.Errorf("%s was answered %q, %v; want %s", row.name, answer, err, row.want)
		}
		conn.Close()
	}
}

// A second server on the same data is told so, a data directory of junk too, and flags that make no sense.
func TestWrongStarts(t *testing.T) {
	s := start(t, t.TempDir())
	for _, row := range []struct {
		name string
		args []string
		want string
	}{
		{"data that is in use", []string{"serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", s.data}, "another server"},
		{"an admin address for everybody without a token", []string{"serve", "--admin", "0.0.0.0:0", "--data", t.TempDir()}, "token"},
		{"an unknown durability", []string{"serve", "--durability", "never"}, "interval=1s"},
		{"an unknown flag", []string{"serve", "--wager"}, "unknown flag"},
		{"an audit of data in use", []string{"audit", "--data", s.data}, "another server"},
		{"ctl without a server", []string{"ctl", "--admin", "http://127.0.0.1:1", "health"}, "refused"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, err := exec.CommandContext(ctx, binary, row.args...).CombinedOutput()
		cancel()
		if err == nil || !bytes.Contains(out, []byte(row.want)) {
			t.Errorf("%s: %v, and it said %q; want something about %q", row.name, err, out, row.want)
		}
	}
}

// Flags come from the environment and from a file as well.
func TestConfiguration(t *testing.T) {
	data := t.TempDir()
	file := filepath.Join(t.TempDir(), "server.toml")
	if err := os.WriteFile(file, []byte("[serve]\nguest-credits = 777\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SERVER_DURABILITY", "interval=1s")
	s := start(t, data, "--config", file)
	c := must(bench.Dial(t.Context(), s.players))(t)
	defer c.Close()
	w := ask[*proto.Welcome](t, c, proto.Request{Type: proto.RequestHello, Guest: "Zoë"})
	if w.Balance != 777 || w.Durability != "interval=1s" {
		t.Errorf("welcome %+v: the file says 777 credits, the environment says interval=1s", w)
	}
}

// claimant is a player who remembers what it was promised.
type claimant struct {
	token   string
	account proto.AccountID
	next    proto.RequestID
	credits proto.Amount
	claims  map[proto.RequestID]proto.Receipt
	asked   map[proto.RequestID]proto.Request // without an answer yet
}

// play stakes as fast as the answers come, until the server dies.
func (k *claimant) play(t *testing.T, players string, pools []proto.PoolID, r *rand.Rand) {
	c, err := bench.Dial(t.Context(), players)
	if err != nil {
		return // killed before
	}
	defer c.Close()
	if _, err := c.Ask(proto.Request{Type: proto.RequestHello, Token: k.token}); err != nil {
		return
	}
	for range 12 { // what was asked before the crash first, under the same id
		request := proto.Request{Type: proto.RequestStake, Pool: pools[r.IntN(len(pools))], Outcome: proto.Outcome(r.IntN(3)), Amount: proto.Amount(2 + r.IntN(9))}
		for id, again := range k.asked {
			request = again
			request.ID = id
		}
		if request.ID == 0 {
			k.next++
			request.ID = k.next
		}
		k.asked[request.ID] = request
		reply, err := c.Ask(request)
		if err != nil {
			return
		}
		receipt, ok := reply.(*proto.Receipt)
		if !ok {
			t.Errorf("account %d: %s was answered %s", k.account, request.AppendJSON(nil), reply.AppendJSON(nil))
			return
		}
		k.claims[request.ID] = *receipt
		delete(k.asked, request.ID)
	}
}

// verify compares the server's word with what the player was promised.
func (k *claimant) verify(s *running) {
	s.t.Helper()
	c := s.hello(k.token)
	defer c.Close()
	listed := map[proto.RequestID]proto.Prediction{}
	var staked proto.Amount
	for _, p := range ask[*proto.Predictions](s.t, c, proto.Request{Type: proto.RequestPredictions}).Predictions {
		if _, twice := listed[p.ID]; twice {
			s.t.Errorf("account %d: request %d is there twice", k.account, p.ID)
		}
		listed[p.ID] = p
		staked += p.Amount
		if _, told := k.claims[p.ID]; !told {
			if _, asked := k.asked[p.ID]; !asked {
				s.t.Errorf("account %d: nobody asked for %+v", k.account, p)
			}
		}
	}
	for id, claim := range k.claims {
		p := listed[id]
		if p.Prediction != claim.Prediction || p.Pool != claim.Pool || p.Outcome != claim.Outcome || p.Amount != claim.Amount {
			s.t.Errorf("account %d: receipt %+v is %+v after the crash", k.account, claim, p)
		}
	}
	show := ask[*proto.Account](s.t, c, proto.Request{Type: proto.RequestAccount})
	if show.Balance != k.credits-staked || show.Staked != staked {
		s.t.Errorf("account %d: %+v, but its stakes sum to %d of %d", k.account, show, staked, k.credits)
	}
}

// kill -9 at a random moment under load, twenty times: every receipt is there, nothing is there twice, and the
// money adds up. With both kinds of durability, since a process that dies takes nothing from the kernel.
func TestKilledTwentyTimes(t *testing.T) {
	for _, durability := range []string{"always", "interval=1s"} {
		t.Run(durability, func(t *testing.T) {
			const players, kills = 24, 20
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))
			data := t.TempDir()
			flags := []string{"--durability", durability, "--snapshot-at", "400"} // so that some kills meet a snapshot
			s := start(t, data, flags...)
			_, pools := s.game(3)
			var crowd []*claimant
			for i := range players {
				opened := must(s.desk.OpenAccount(t.Context(), proto.AccountOpening{Name: fmt.Sprint("player ", i), Deposit: 1_000_000}))(t)
				crowd = append(crowd, &claimant{token: opened.Token, account: opened.Account, credits: 1_000_000,
					claims: map[proto.RequestID]proto.Receipt{}, asked: map[proto.RequestID]proto.Request{}})
			}
			receipts := 0
			for range kills {
				var playing sync.WaitGroup
				for _, k := range crowd {
					own := rand.New(rand.NewPCG(r.Uint64(), 2))
					playing.Go(func() { k.play(t, s.players, pools, own) })
				}
				time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond) // the random moment
				s.process.Process.Kill()
				s.gone()
				playing.Wait()
				s = start(t, data, flags...)
				receipts = 0
				for _, k := range crowd {
					k.verify(s)
					receipts += len(k.claims)
				}
				if t.Failed() {
					return
				}
			}
			s.stop()
			money := s.audited().Money
			if money["deposits"] != players*1_000_000 || money["accounts"]+money["pools"]+money["house"] != money["deposits"] {
				t.Errorf("the money: %v", money)
			}
			t.Logf("%d receipts, all there; %v", receipts, money)
			if receipts < kills {
				t.Errorf("only %d receipts: the load was no load", receipts)
			}
		})
	}
}

// A client that lost its connection says what it heard last, and gets what it missed; after a restart, it is
// told that this is not possible, and asks for its predictions.
func TestResume(t *testing.T) {
	s := start(t, t.TempDir())
	c, account := s.dial("Ada", 1000)
	_, pools := s.game(1)
	hello := proto.Request{Type: proto.RequestHello, Token: account.Token}
	receipt := ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, Pool: pools[0], Amount: 100})
	epoch := ask[*proto.Welcome](t, must(bench.Dial(t.Context(), s.players))(t), hello).Epoch
	if err := c.Abort(); err != nil {
		t.Fatal(err)
	}
	must(s.desk.Lock(t.Context(), pools[0], 0))(t)
	must(s.desk.Settle(t.Context(), pools[0], 0))(t)
	must(s.desk.Deposit(t.Context(), account.Account, 5))(t)

	again := must(bench.Dial(t.Context(), s.players))(t)
	defer again.Close()
	hello.Epoch, hello.N = epoch, receipt.N
	if w := ask[*proto.Welcome](t, again, hello); !w.Resumed || w.N != receipt.N+2 || w.Balance != 1005 {
		t.Errorf("welcome back: %+v", w)
	}
	if pay, ok := must(again.Receive())(t).(*proto.Payout); !ok || pay.N != receipt.N+1 || pay.Payout != 100 {
		t.Errorf("missed: %+v", pay)
	}
	if change, ok := must(again.Receive())(t).(*proto.Balance); !ok || change.N != receipt.N+2 || change.Change != 5 {
		t.Errorf("missed: %+v", change)
	}
	s.stop()
	s = start(t, s.data)
	late := must(bench.Dial(t.Context(), s.players))(t)
	defer late.Close()
	if w := ask[*proto.Welcome](t, late, hello); w.Resumed || w.Epoch == epoch || w.Balance != 1005 {
		t.Errorf("welcome after a restart: %+v", w)
	}
	p := ask[*proto.Predictions](t, late, proto.Request{Type: proto.RequestPredictions}).Predictions
	if len(p) != 1 || p[0].State != proto.PredictionWon || p[0].Payout != 100 {
		t.Errorf("predictions after a restart: %+v", p)
	}
}

// statement reads a whole statement from the desk, some entries at a time, from the oldest.
func (s *running) statement(a proto.AccountID) (all []proto.Entry) {
	s.t.Helper()
	for page, more := (proto.Page{Limit: 7}), true; more; {
		m := must(s.desk.Statement(s.t.Context(), a, page))(s.t)
		all, more, page.Before = append(all, m.Entries...), m.More, m.Next
	}
	slices.Reverse(all)
	return all
}

// Statements sum up to the balance, and a kill changes nothing in them; what is sealed can be checked afterwards, a
// receipt too.
func TestThePastSurvivesAKill(t *testing.T) {
	s := start(t, t.TempDir(), "--snapshot-at", "30", "--stakes-per-second", "0")
	c, account := s.dial("Ada", 1000)
	game, pools := s.game(6)
	ask[*proto.Joined](t, c, proto.Request{Type: proto.RequestJoin, Game: game})
	var seals []proto.Sealed
	var receipt proto.Receipt
	for i, p := range pools {
		for k := range 5 {
			receipt = *ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, Pool: p, Outcome: proto.Outcome(k % 2), Amount: proto.Amount(5 + i)})
		}
		must(s.desk.Lock(t.Context(), p, 0))(t)
		must(s.desk.Settle(t.Context(), p, 0))(t)
		for len(seals) == i {
			if m, ok := must(c.Receive())(t).(*proto.Sealed); ok {
				seals = append(seals, *m)
			}
		}
	}
	before := s.statement(account.Account)
	var sum proto.Amount
	for _, e := range before {
		if sum += e.Change; sum != e.Balance {
			t.Errorf("%+v, but the changes so far sum up to %d", e, sum)
		}
	}
	if show := must(s.desk.Account(t.Context(), account.Account))(t); show.Balance != sum || len(before) != 1+6*10 {
		t.Errorf("the statement sums up to %d in %d entries, the balance is %d", sum, len(before), show.Balance)
	}
	leaders := ask[*proto.Leaders](t, c, proto.Request{Type: proto.RequestLeaders, Game: game})
	s.process.Process.Kill()
	s.gone()
	s = start(t, s.data, "--snapshot-at", "30", "--stakes-per-second", "0")
	if after := s.statement(account.Account); !reflect.DeepEqual(after, before) {
		t.Errorf("before the kill\n%+v\nand after it\n%+v", before, after)
	}
	c = s.hello(account.Token)
	again := ask[*proto.Leaders](t, c, proto.Request{Type: proto.RequestLeaders, Game: game})
	if !reflect.DeepEqual(again.Leaders, leaders.Leaders) || again.Own.Predictions != 30 || again.Own.Name != "Ada" {
		t.Errorf("leaders before the kill %+v, after it %+v", leaders, again)
	}
	if m := ask[*proto.History](t, c, proto.Request{Type: proto.RequestHistory, Limit: 4}); len(m.Entries) != 4 || !m.More || m.Entries[0].Prediction.Pool != pools[5] {
		t.Errorf("ended predictions: %+v", m)
	}
	if m := ask[*proto.Archive](t, c, proto.Request{Type: proto.RequestArchive, Game: game}); len(m.Pools) != 6 || m.Pools[5].Head != seals[0].Head {
		t.Errorf("ended pools: %+v", m)
	}
	s.stop()
	var computed []bool
	for _, seal := range seals {
		out, err := exec.Command(binary, "audit", "--data", s.data, "--seal", fmt.Sprint(seal.Record, ":", seal.Head), "--prediction", fmt.Sprint(receipt.Prediction)).Output()
		var said struct {
			Head string
			Seal struct {
				Pool     proto.PoolID
				Computed bool `json:"computed_again"`
			}
			Prediction struct {
				Account proto.AccountID
				Entry   proto.Entry
			}
		}
		if err == nil {
			err = json.Unmarshal(out, &said)
		}
		if err != nil || said.Seal.Pool != seal.Pool || said.Prediction.Account != account.Account || said.Prediction.Entry.Prediction.ID != receipt.ID ||
			said.Prediction.Entry.Prediction.Amount != receipt.Amount {
			t.Errorf("audit: %v %s", err, out)
		}
		computed = append(computed, said.Seal.Computed)
	}
	t.Logf("heads computed again: %v", computed)
	for _, row := range [][]string{
		{"--seal", fmt.Sprint(seals[0].Record, ":", seals[1].Head), "not the one that was sealed"},
		{"--seal", fmt.Sprint(seals[0].Record-1, ":", seals[0].Head), "did not end a pool"},
		{"--prediction", fmt.Sprint(seals[0].Record), "is not a prediction"},
		{"--seal", "x", "64 digits"},
	} {
		if out, err := exec.Command(binary, append([]string{"audit", "--data", s.data}, row[:2]...)...).CombinedOutput(); err == nil || !bytes.Contains(out, []byte(row[2])) {
			t.Errorf("audit %v: %v, %s", row[:2], err, out)
		}
	}
}

// A client that was away for longer than the ring of private messages lasts, or over a restart, is told what it missed.
func TestMissedMessagesAreTold(t *testing.T) {
	s := start(t, t.TempDir())
	account := must(s.desk.OpenAccount(t.Context(), proto.AccountOpening{Name: "Ada", Deposit: 1000}))(t)
	hello := proto.Request{Type: proto.RequestHello, Token: account.Token}
	c := must(bench.Dial(t.Context(), s.players))(t)
	welcome := ask[*proto.Welcome](t, c, hello)
	if welcome.Since == 0 || welcome.Missed {
		t.Errorf("at first: %+v", welcome)
	}
	hello.Epoch, hello.N, hello.Since = welcome.Epoch, welcome.N, welcome.Since
	if err := c.Abort(); err != nil {
		t.Fatal(err)
	}
	const deposits = 150 // two pages
	for i := range deposits {
		must(s.desk.Deposit(t.Context(), account.Account, proto.Amount(i+1)))(t)
	}
	for _, restart := range []bool{false, true} {
		if restart {
			s.process.Process.Kill()
			s.gone()
			s = start(t, s.data)
		}
		again := must(bench.Dial(t.Context(), s.players))(t)
		if w := ask[*proto.Welcome](t, again, hello); w.Resumed || !w.Missed || w.Since != 0 {
			t.Errorf("welcome back: %+v", w)
		}
		var missed []proto.Entry
		for last := false; !last; {
			m, ok := must(again.Receive())(t).(*proto.Missed)
			if !ok || m.More || len(m.Entries) == 0 || len(m.Entries) > proto.PageMax || (m.Since != 0) != m.Last {
				t.Fatalf("after welcome came %+v", m)
			}
			missed, last = append(missed, m.Entries...), m.Last
		}
		for i, e := range missed {
			if e.Kind != proto.EntryDeposit || e.Change != proto.Amount(i+1) {
				t.Fatalf("missed as %d: %+v", i, e)
			}
		}
		if len(missed) != deposits {
			t.Errorf("%d deposits were missed, told were %d", deposits, len(missed))
		}
		again.Close()
	}
}

// A pool by all rules, from the shell's client to the players' private lanes, over a kill: a withdrawn outcome, a dead heat with
// dividends, and what nobody has won in the pool before.
func TestRulesOverTheWire(t *testing.T) {
	s := start(t, t.TempDir())
	c, account := s.dial("Ada", 10_000)
	game, _ := s.game(0)
	labels := []string{"A", "B", "C", "D"}
	open := func(o proto.PoolOpening) proto.PoolID {
		o.Question, o.Labels = "Who?", labels
		return must(s.desk.OpenPool(t.Context(), game, o))(t).Pool
	}
	first := open(proto.PoolOpening{Takeout: 1000, Rules: proto.Rules{NoWinner: proto.NoWinnerCarry}})
	second := open(proto.PoolOpening{Rules: proto.Rules{Payout: proto.PayoutDividend, Unit: 100, Break: 10, AccountMax: 1500}})
	stake := func(p proto.PoolID, o proto.Outcome, amount proto.Amount) {
		t.Helper()
		ask[*proto.Receipt](t, c, proto.Request{Type: proto.RequestStake, Pool: p, Outcome: o, Amount: amount})
	}
	refused := func(p proto.PoolID, o proto.Outcome, amount proto.Amount, want proto.Refusal) {
		t.Helper()
		if m := ask[*proto.Refused](t, c, proto.Request{Type: proto.RequestStake, Pool: p, Outcome: o, Amount: amount}); m.Reason != want {
			t.Errorf("refused %+v, want %s", m, want.Code())
		}
	}
	stake(first, 0, 1000)
	must(s.desk.Lock(t.Context(), first, 0))(t)
	must(s.desk.Settle(t.Context(), first, 1))(t) // 900 go on
	refused(second, 0, 150, proto.RefusedStakeUnits)
	stake(second, 0, 600)
	stake(second, 1, 300)
	stake(second, 3, 500)
	refused(second, 3, 200, proto.RefusedAccountFull)
	must(s.desk.WithdrawOutcome(t.Context(), second, 3))(t)
	if m, ok := must(c.Receive())(t).(*proto.Refund); !ok || m.Reason != proto.RefundWithdrawn || m.Amount != 500 {
		t.Errorf("refund %+v", m)
	}
	refused(second, 3, 100, proto.RefusedOutcomeWithdrawn)
	stake(second, 2, 600)
	c.Close()
	s.process.Process.Kill()
	s.gone()
	s = start(t, s.data)
	c = s.hello(account.Token)
	defer c.Close()
	pools := must(s.desk.Pools(t.Context(), game))(t).Pools
	if p := pools[1]; p.Carried != 900 || len(p.Withdrawn) != 1 || p.Unit != 100 || pools[0].CarriedTo != second {
		t.Errorf("pools after the kill: %+v", pools)
	}
	must(s.desk.Lock(t.Context(), second, 0))(t)
	must(s.desk.Settle(t.Context(), second, 0, 1))(t)
	// net 1500 + 900, profit 1500, 750 each: 1350 on 600 is 225, so 220 a unit; 1050 on 300 is 350.
	want := map[proto.Outcome]proto.Amount{0: 1320, 1: 1050}
	for range want {
		if m, ok := must(c.Receive())(t).(*proto.Payout); !ok || m.Payout != want[m.Outcome] {
			t.Errorf("payout %+v", m)
		}
	}
	if m := ask[*proto.Account](t, c, proto.Request{Type: proto.RequestAccount}); m.Balance != 10_000-1000-1500+1320+1050 {
		t.Errorf("account %+v", m)
	}
	s.stop()
	if money := s.audited().Money; money["house"] != 130 || money["pools"] != 0 { // takeout 100, breakage 30
		t.Errorf("the money: %v", money)
	}
}

// A demo that was stopped in the middle of its match starts a new one, and nobody is left in the old one.
func TestDemoStartsAfresh(t *testing.T) {
	data := t.TempDir()
	games := func(s *running) (live, ended int) {
		for _, g := range must(s.desk.Games(t.Context()))(t).Games {
			if g.State == proto.GameEnded {
				ended++
			} else {
				live++
			}
		}
		return live, ended
	}
	s := start(t, data, "--demo")
	eventually(t, "a match with all its players", func() bool {
		shown := must(s.desk.Games(t.Context()))(t).Games
		return len(shown) == 1 && shown[0].Present == demoPlayers
	})
	s.stop()
	s = start(t, data, "--demo")
	eventually(t, "a new match and no old one", func() bool { live, ended := games(s); return live == 1 && ended == 1 })
	s.stop()
	s.audited()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}
