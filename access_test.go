package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"testing"
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
