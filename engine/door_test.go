package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tote/server/market"
	"tote/server/proto"
)

// refused expects an HTTP status right after connecting.
func refused(t *testing.T, e *Engine, status int) {
	t.Helper()
	c := dial(t, e)
	response, err := http.ReadResponse(c.r, nil)
	if err != nil || response.StatusCode != status {
		t.Fatalf("a newcomer got %v, %v; want %d", response, err, status)
	}
}

func TestPerAddress(t *testing.T) {
	e, _ := serve(t, Config{Listen: "0.0.0.0:0", Limits: Limits{PerAddress: 2}})
	first, second := upgraded(t, e), upgraded(t, e)
	refused(t, e, http.StatusTooManyRequests)
	second.sync()
	first.conn.Close()
	eventually(t, "the first has left", func() bool { return e.door.inside() == 1 })
	upgraded(t, e)
	if s := e.Stats(); s.RefusedAddress != 1 || s.Accepted != 3 {
		t.Errorf("counted %d refused and %d accepted", s.RefusedAddress, s.Accepted)
	}
}

// The limit by address counts houses, and leaves loopback alone unless it was asked for.
func TestDoor(t *testing.T) {
	var d door
	d.open(Limits{Connections: 5000, ConnectRate: 5000})
	for range 2000 {
		if d.enter(homeOf(netip.MustParseAddr("127.0.0.1")), 1) != "" {
			t.Fatal("loopback is limited")
		}
	}
	for i := range 2 * defaults.PerAddress {
		home := homeOf(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)))
		if got, want := d.enter(home, 1) == "", i < defaults.PerAddress; got != want {
			t.Fatalf("let in is %v for number %d of a /64", got, i)
		}
	}
	if homeOf(netip.MustParseAddr("::ffff:192.0.2.1")) != homeOf(netip.MustParseAddr("192.0.2.1")) {
		t.Error("an IPv4 address in IPv6 counts apart")
	}
}

func TestConnectionsFull(t *testing.T) {
	e, _ := serve(t, Config{Limits: Limits{Connections: 3}})
	inside := []*client{upgraded(t, e), upgraded(t, e), upgraded(t, e)}
	refused(t, e, http.StatusServiceUnavailable)
	for _, c := range inside {
		c.sync()
	}
	inside[0].conn.Close()
	eventually(t, "one has left", func() bool { return e.door.inside() == 2 })
	upgraded(t, e)
}

// Everybody is told to come back, what was said before reaches them, and Run ends when the last has gone.
func TestDrain(t *testing.T) {
	m := newTestMarket()
	e, stop := serveWith(t, Config{}, m)
	m.announce(3)
	var all []*client
	for i := range 2*partingMax + 10 {
		all = append(all, joined(t, e, proto.AccountID(100+i), 3))
	}
	half := dial(t, e)
	half.write([]byte("GET /ws"))
	for _, c := range all {
		c.ask(`{"type":"stake","id":9,"pool":196609,"outcome":0,"amount":1}`)
	}
	m.await(t, "last stake", func(c *market.Command) bool {
		return c.Kind == market.Stake && c.Account == proto.AccountID(99+len(all))
	})
	for _, c := range all { // a receipt is here, so whatever comes next is the drain's
		c.expect("receipt", 9)
	}
	ended := make(chan error)
	go func() { ended <- stop() }()
	for _, c := range all {
		c.expectClose(proto.CloseRestart)
		c.conn.Close()
	}
	if response, err := http.ReadResponse(half.r, nil); err != nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("half a handshake got %v, %v", response, err)
	}
	half.conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", e.Addr().String()); err == nil {
		t.Error("a newcomer is accepted after the end")
	}
	if n := len(m.attached); n != 0 {
		t.Errorf("%d sessions are still attached", n)
	}
	if n := e.Stats().Closes[proto.CloseRestart]; n != uint64(len(all)) {
		t.Errorf("%d closes are counted, of %d", n, len(all))
	}
	m.odds(3, 1) // does nothing, and harms nobody
}

// Who does not go is cut when DrainTime is over.
func TestDrainTime(t *testing.T) {
	m := newTestMarket()
	e, stop := serveWith(t, Config{Limits: Limits{DrainTime: 100 * time.Millisecond, CloseTime: patience}}, m)
	c := greeted(t, e, 12)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	c.expectClose(proto.CloseRestart)
	if e.door.inside() != 0 {
		t.Error("somebody is inside after the end")
	}
}

// A token speaks for its account, and only with our signature.
func TestToken(t *testing.T) {
	tokens := newTokens(secret, Provider{})
	good := tokens.sign(12)
	if got, refusal := tokens.read(good); got.account != 12 || got.reach != nil || refusal != proto.Accepted {
		t.Fatalf("our own token speaks for %v, %v", got, refusal)
	}
	claims := jwt.RegisteredClaims{Subject: "12"}
	sign := func(method jwt.SigningMethod, key any, claims jwt.Claims) string {
		signed, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	for _, row := range []struct{ name, token string }{
		{"empty", ""},
		{"garbage", "a.b.c"},
		{"no signature", sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims)},
		{"HS512 with our key", sign(jwt.SigningMethodHS512, secret, claims)},
		{"another key", sign(jwt.SigningMethodHS256, []byte("another key, quite long"), claims)},
		{"signature cut", good[:len(good)-2]},
		{"payload changed", strings.Replace(good, ".", ".e", 1)},
		{"expired", sign(jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Subject: "12", ExpiresAt: jwt.NewNumericDate(time.Unix(1, 0))})},
		{"no subject", sign(jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{})},
		{"account 0", sign(jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Subject: "0"})},
		{"account -1", sign(jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Subject: "-1"})},
		{"account 2^53", sign(jwt.SigningMethodHS256, secret, jwt.RegisteredClaims{Subject: "9007199254740992"})},
	} {
		if got, refusal := tokens.read(row.token); got.account != 0 || refusal != proto.RefusedTokenInvalid {
			t.Errorf("%s: the token speaks for %v, %v", row.name, got, refusal)
		}
	}
}

// What New refuses.
func TestConfig(t *testing.T) {
	for _, row := range []struct {
		name string
		c    Config
	}{
		{"no secret", Config{Listen: "127.0.0.1:0"}},
		{"no address", Config{Listen: "nowhere", Secret: secret}},
		{"a limit below 0", Config{Listen: "127.0.0.1:0", Secret: secret, Limits: Limits{Joins: -1}}},
		{"a time below 0", Config{Listen: "127.0.0.1:0", Secret: secret, Limits: Limits{IdleTime: -1}}},
	} {
		if _, err := New(row.c, newTestMarket()); err == nil {
			t.Errorf("%s: taken", row.name)
		}
	}
}

// starved is the environment variable that makes the test binary a server with few descriptors.
const starved = "TOTE_ENGINE_STARVED"

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(starved) != "":
		err = serveStarved()
	case os.Getenv(crowdEnv) != "":
		err = beCrowd(os.Getenv(crowdEnv))
	case os.Getenv(proberEnv) != "":
		err = beProber(os.Getenv(proberEnv))
	case os.Getenv(askerEnv) != "":
		err = beAsker(os.Getenv(askerEnv))
	case os.Getenv(agencyEnv) != "": // after the helpers, which have its environment
		err = beAgency(os.Getenv(agencyEnv))
	default:
		if order := os.Getenv(sandboxEnv); order != "" {
			if err = enterSandbox(order); err != nil {
				break
			}
		}
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveStarved says its address, serves until its input ends, and says what it counted.
func serveStarved() error {
	limit := syscall.Rlimit{Cur: 64, Max: 64}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	m := newTestMarket()
	e, err := New(Config{Listen: "127.0.0.1:0", Loops: 2, Secret: secret, Limits: Limits{Connections: 1 << 20}}, m)
	if err != nil {
		return err
	}
	m.engine = e
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	fmt.Println(e.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	cancel()
	err = errors.Join(err, <-ended)
	s := e.Stats()
	fmt.Println(s.RefusedStarved > 0, s.Connections)
	return err
}

// Running out of descriptors refuses newcomers and harms nobody who is in; when there is room again, newcomers get in.
func TestDescriptorsGone(t *testing.T) {
	server, err := spawn(starved, "1")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(server.out)
	lines.Scan()
	address, err := net.ResolveTCPAddr("tcp", lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{tokens: newTokens(secret, Provider{})}
	knock := func() *client { return dialAddress(t, address.String()) }
	var inside, crowd []*client
	for range 10 {
		c := knock()
		c.write([]byte(upgradeRequest))
		c.readUpgrade()
		c.ask(`{"type":"hello","id":1,"token":%q}`, e.Token(12))
		c.expect("welcome", 1)
		inside = append(inside, c)
	}
	turnedAway := 0
	for range 100 {
		c := knock()
		crowd = append(crowd, c)
		_, _ = c.conn.Write([]byte(upgradeRequest))
		response, err := http.ReadResponse(c.r, nil)
		if err != nil || response.StatusCode == http.StatusServiceUnavailable {
			turnedAway++
		}
		for _, c := range inside {
			c.sync()
		}
	}
	if turnedAway < 50 {
		t.Errorf("%d of 100 were turned away with 64 descriptors", turnedAway)
	}
	for _, c := range crowd {
		c.conn.Close()
	}
	eventually(t, "a newcomer gets in again", func() bool {
		c := knock()
		defer c.conn.Close()
		_, _ = c.conn.Write([]byte(upgradeRequest))
		response, err := http.ReadResponse(c.r, nil)
		return err == nil && response.StatusCode == http.StatusSwitchingProtocols
	})
	for _, c := range inside {
		c.sync()
		c.conn.Close()
	}
	if err := server.in.Close(); err != nil {
		t.Fatal(err)
	}
	lines.Scan()
	if got := lines.Text(); got != "true 0" {
		t.Errorf("the server says %q; want that it was starved, and nobody left", got)
	}
	if err := server.wait(); err != nil {
		t.Error(err)
	}
}
