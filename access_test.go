package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/proto"
)

// knock sends an opening handshake with more lines, and returns the status of the answer. The connection stays until the test ends.
func (s *running) knock(lines string) int {
	s.t.Helper()
	at := must(url.Parse(s.players))(s.t)
	c := must(net.Dial("tcp", at.Host))(s.t)
	s.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"Sec-WebSocket-Version: 13\r\n%s\r\n", at.Host, lines)
	return must(http.ReadResponse(bufio.NewReader(c), nil))(s.t).StatusCode
}

// Origins, and addresses behind proxies, as the command line says.
func TestDoorFlags(t *testing.T) {
	s := start(t, t.TempDir(), "--origin", "https://tote.example", "--proxy-forwarded", "127.0.0.0/8,10.0.0.0/8", "--per-address", "2")
	for i, row := range []struct {
		lines  string
		status int
	}{
		{"Origin: https://evil.example\r\n", 403},
		{"Origin: https://tote.example\r\nX-Forwarded-For: 198.51.100.9\r\n", 101},
		{"X-Forwarded-For: 192.0.2.1, 198.51.100.9, 10.1.2.3\r\n", 101},
		{"X-Forwarded-For: 198.51.100.9\r\n", 429},
		{"X-Forwarded-For: 198.51.100.8\r\n", 101},
	} {
		if got := s.knock(row.lines); got != row.status {
			t.Errorf("number %d is answered %d, want %d", i, got, row.status)
		}
	}
	s.stop()
}

// said runs the binary, and returns what it prints.
func said(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := exec.Command(binary, arguments...).Output()
	if err != nil {
		t.Fatalf("%v: %v", arguments, err)
	}
	return strings.TrimSpace(string(out))
}

// refused expects the answer to a request.
func refused(t *testing.T, c *bench.Client, r proto.Request, want proto.Refusal) {
	t.Helper()
	if got := ask[*proto.Refused](t, c, r).Reason; got != want {
		t.Errorf("%s is refused as %s, want %s", r.AppendJSON(nil), got.Code(), want.Code())
	}
}

// A token that the command line mints is good with a server that has its key, for what it says.
func TestMintedTokens(t *testing.T) {
	for _, algorithm := range []string{"EdDSA", "RS256"} {
		t.Run(algorithm, func(t *testing.T) {
			dir := t.TempDir()
			private, set := filepath.Join(dir, "dev.pem"), filepath.Join(dir, "keys.json")
			if err := os.WriteFile(set, []byte(said(t, "token", "key", private, "--algorithm", algorithm)), 0o600); err != nil {
				t.Fatal(err)
			}
			s := start(t, t.TempDir(), "--keys", set, "--token-audience", "tote")
			account := must(s.desk.OpenAccount(t.Context(), proto.AccountOpening{Name: "Ada", Deposit: 1000}))(t)
			of := fmt.Sprint(account.Account)
			s.hello(account.Token)
			s.hello(said(t, "token", "mint", of, "--key", private, "--audience", "tote"))
			viewer := s.hello(said(t, "token", "mint", of, "--key", private, "--audience", "tote", "--role", "viewer", "--game", "3"))
			refused(t, viewer, proto.Request{Type: proto.RequestJoin, Game: 4}, proto.RefusedGameBarred)
			refused(t, viewer, proto.Request{Type: proto.RequestStake, Pool: proto.NewPoolID(3, 1), Amount: 1}, proto.RefusedViewer)
			stranger := must(bench.Dial(t.Context(), s.players))(t)
			defer stranger.Close()
			for _, wrong := range [][]string{{}, {"--audience", "tote", "--for=-1h"}, {"--audience", "tote", "--role", "admin"}} {
				token := said(t, append([]string{"token", "mint", of, "--key", private}, wrong...)...)
				refused(t, stranger, proto.Request{Type: proto.RequestHello, Token: token}, proto.RefusedTokenInvalid)
			}
			s.stop()
		})
	}
}

// Requests and bytes over an account's limits, as the command line says.
func TestAllowanceFlags(t *testing.T) {
	s := start(t, t.TempDir(), "--account-requests", "1", "--account-bytes", "5000")
	first, account := s.dial("Ada", 1000)
	second := s.hello(account.Token)
	refusals := 0
	for i := range 6 { // the wall clock goes on, but not by a second for each of them
		c := []*bench.Client{first, second}[i%2]
		if r, ok := must(c.Ask(proto.Request{Type: proto.RequestAccount}))(t).(*proto.Refused); ok && r.Reason == proto.RefusedRequestsFast {
			refusals++
		}
	}
	if refusals == 0 {
		t.Error("nobody was too fast")
	}
	for range 4 {
		if _, err := first.Ask(proto.Request{Type: proto.RequestCircleCreate, Name: strings.Repeat("x", 4000)}); err != nil {
			s.stop()
			return
		}
	}
	t.Error("16,000 bytes were taken")
}

// An account has so many connections, over all loops, and the counter tells of those refused.
func TestConnectionsOfAnAccount(t *testing.T) {
	s := start(t, t.TempDir(), "--per-account", "3", "--loops", "2")
	account := must(s.desk.OpenAccount(t.Context(), proto.AccountOpening{Name: "Ada"}))(t)
	var last *bench.Client
	for range 3 {
		last = s.hello(account.Token)
	}
	c := must(bench.Dial(t.Context(), s.players))(t)
	defer c.Close()
	if r := ask[*proto.Refused](t, c, proto.Request{Type: proto.RequestHello, Token: account.Token}); r.Reason != proto.RefusedConnectionsMany {
		t.Errorf("a fourth connection: %s", r.Reason.Code())
	}
	last.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the server notices when it reads
		reply := must(c.Ask(proto.Request{Type: proto.RequestHello, Token: account.Token}))(t)
		if _, ok := reply.(*proto.Welcome); ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("one has left, and another is answered %s", reply.AppendJSON(nil))
		}
	}
	for deadline := time.Now().Add(20 * time.Second); s.metrics()[`server_refusals_total{code="connections_many"}`] == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody counts it")
		}
	}
	s.stop()
	s.audited()
}
