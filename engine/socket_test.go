package engine

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"tote/server/proto"
)

// onLoop runs f on the loop and waits for it: whatever was put into the inbox before has been handled.
func onLoop(e *Engine, i int, f func(l *loop)) {
	done := make(chan struct{})
	l := e.loops[i]
	l.inbox.call(func() { f(l); close(done) })
	<-done
}

// settled waits until the only loop has read n bytes in all.
func settled(t testing.TB, e *Engine, n uint64) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		var got uint64
		onLoop(e, 0, func(l *loop) { got = l.counts.BytesIn })
		if got >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes were read, not %d", got, n)
		}
	}
}

// The handshake may be cut anywhere; the frames behind it are not lost.
func TestHandshakeCut(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1})
	all := append([]byte(upgradeRequest), text(`{"type":"time","id":1}`)...)
	total := uint64(0)
	for cut := 1; cut < len(all); cut++ {
		c := dial(t, e)
		c.write(all[:cut])
		settled(t, e, total+uint64(cut))
		c.write(all[cut:])
		c.readUpgrade()
		c.expect("time", 1)
		c.conn.Close()
		total += uint64(len(all))
	}
	c := dial(t, e)
	for i := range all {
		c.write(all[i : i+1])
		settled(t, e, total+uint64(i+1))
	}
	c.readUpgrade()
	c.expect("time", 1)
}

// What is no opening handshake gets an HTTP answer and the end of the connection.
func TestHandshakeRefused(t *testing.T) {
	e, _ := serve(t, Config{})
	without := func(line string) string {
		if !strings.Contains(upgradeRequest, line) {
			t.Fatalf("no %q to leave out", line)
		}
		return strings.Replace(upgradeRequest, line, "", 1)
	}
	for _, row := range []struct {
		name, request string
		status        int
	}{
		{"no page", "GET / HTTP/1.1\r\nHost: tote\r\n\r\n", 404},
		{"no host", without("Host: tote\r\n"), 400},
		{"no upgrade", without("Upgrade: websocket\r\n"), 400},
		{"no connection", without("Connection: Upgrade\r\n"), 400},
		{"no key", without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400},
		{"short key", strings.Replace(upgradeRequest, "dGhl", "", 1), 400},
		{"no version", without("Sec-WebSocket-Version: 13\r\n"), 400},
		{"version 8", strings.Replace(upgradeRequest, "Version: 13", "Version: 8", 1), 426},
		{"HTTP/1.0", strings.Replace(upgradeRequest, "HTTP/1.1", "HTTP/1.0", 1), 505},
		{"POST to /ws", strings.Replace(upgradeRequest, "GET", "POST", 1), 405},
		{"POST to the page", "POST / HTTP/1.1\r\nHost: tote\r\nContent-Length: 2\r\n\r\nhi", 405},
		{"no request line", "GET /ws\r\n\r\n", 400},
		{"no HTTP", "GET / SPDY/9\r\n\r\n", 400},
		{"TLS", "\x16\x03\x01\x02\x00\x01", 400},
		{"a bomb of headers", "GET /ws HTTP/1.1\r\n" + strings.Repeat("X-Bomb: boom\r\n", 10_000), 431},
		{"one long header", "GET /ws HTTP/1.1\r\nX-Bomb: " + strings.Repeat("a", 1<<20), 431},
	} {
		c := dial(t, e)
		_, _ = c.conn.Write([]byte(row.request)) // the answer may come before all is written
		response, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if response.StatusCode != row.status {
			t.Errorf("%s: answered %d, want %d", row.name, response.StatusCode, row.status)
		}
		_, _ = io.Copy(io.Discard, c.r) // until the end of the connection, or the deadline of dial
		c.conn.Close()
	}
	eventually(t, "failed handshakes are counted", func() bool { return e.Stats().HandshakesFailed == 15 })
}

// Other subprotocols, and none, are served with the default.
func TestSubprotocol(t *testing.T) {
	e, _ := serve(t, Config{})
	for _, row := range []struct{ offered, want string }{
		{"", ""}, {"chat", ""}, {"tote.json", "tote.json"}, {"chat, tote.json", "tote.json"}, {"tote.json, tote.msgpack", "tote.json"},
	} {
		c := dial(t, e)
		offer := ""
		if row.offered != "" {
			offer = "Sec-WebSocket-Protocol: " + row.offered + "\r\n"
		}
		c.write([]byte(strings.Replace(upgradeRequest, "Sec-WebSocket-Protocol: tote.json\r\n", offer, 1)))
		response, err := http.ReadResponse(c.r, nil)
		if err != nil || response.StatusCode != 101 || response.Header.Get("Sec-WebSocket-Protocol") != row.want {
			t.Fatalf("%q offered: %v %v", row.offered, response, err)
		}
		c.sync()
	}
}

// All frames of one read are answered with one write.
func TestOneWritePerTurn(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1})
	c := upgraded(t, e)
	var before, after uint64
	onLoop(e, 0, func(l *loop) { before = l.counts.Writes })
	var all []byte
	for i := range 50 {
		all = append(all, text(fmt.Sprintf(`{"type":"time","id":%d}`, i+1))...)
	}
	c.write(all)
	for i := range 50 {
		c.expect("time", proto.RequestID(i+1))
	}
	onLoop(e, 0, func(l *loop) { after = l.counts.Writes })
	if after-before != 1 {
		t.Errorf("50 replies took %d writes", after-before)
	}
}

// A message over the limit is refused by its header; nobody waits for 10 MB.
func TestTooBig(t *testing.T) {
	e, _ := serve(t, Config{})
	c := upgraded(t, e)
	c.write(masked(ws.NewTextFrame(make([]byte, 10<<20)))[:14])
	c.expectClose(proto.CloseTooBig)
	eventually(t, "the close is counted", func() bool { return e.Stats().Closes[proto.CloseTooBig] == 1 })
}

// After the last allowed malformed request the connection ends, and what was pipelined behind it is ignored.
func TestMalformedPolicy(t *testing.T) {
	e, _ := serve(t, Config{Limits: Limits{Malformed: 3}})
	c := upgraded(t, e)
	c.write(slices.Concat(text("{"), text(`{"type":"time","id":1}`), text("[]"), text(`""`), text(`{"type":"time","id":2}`)))
	c.expectRefused(0, proto.RefusedMalformed)
	c.expect("time", 1)
	c.expectRefused(0, proto.RefusedMalformed)
	c.expectRefused(0, proto.RefusedMalformed)
	f := c.frame()
	if f.Header.OpCode != ws.OpClose || !bytes.HasPrefix(f.Payload, []byte{0x03, 0xf0}) {
		t.Fatalf("frame %v %q, want a close with 1008", f.Header, f.Payload)
	}
	c.expectEnd()
}

// Requests beyond the rate are told to come later; pings are not requests.
func TestRequestRate(t *testing.T) {
	now := proto.Time(5 * proto.Second)
	e, _ := serve(t, Config{Limits: Limits{Requests: 2}, Now: func() proto.Time { return now }})
	c := upgraded(t, e)
	for id := range proto.RequestID(3) {
		c.ask(`{"type":"time","id":%d}`, id+1)
	}
	c.expect("time", 1)
	c.expect("time", 2)
	c.expectRefused(3, proto.RefusedBusy)
}

// Half a handshake is answered and closed when its time is over, and so is whoever does not say hello.
func TestHelloTime(t *testing.T) {
	e, _ := serve(t, Config{Limits: Limits{HelloTime: 200 * time.Millisecond}})
	half, silent, mute, kept := dial(t, e), dial(t, e), upgraded(t, e), greeted(t, e, 12)
	half.write([]byte(upgradeRequest[:40]))
	for _, c := range []*client{half, silent} {
		response, err := http.ReadResponse(c.r, nil)
		if err != nil || response.StatusCode != http.StatusRequestTimeout {
			t.Fatalf("answered %v, %v", response, err)
		}
		c.expectEnd()
	}
	mute.expectClose(proto.CloseHelloMissed)
	kept.sync()
}

// A quiet client is pinged; one that does not answer is closed, one that does stays.
func TestIdleTime(t *testing.T) {
	e, _ := serve(t, Config{Limits: Limits{IdleTime: 600 * time.Millisecond, CloseTime: patience}})
	deaf, awake := greeted(t, e, 12), greeted(t, e, 13+1)
	for range 5 {
		if f := awake.frame(); f.Header.OpCode != ws.OpPing {
			t.Fatalf("frame %v, want a ping", f.Header)
		}
		awake.write(masked(ws.NewPongFrame(nil)))
	}
	if f := deaf.frame(); f.Header.OpCode != ws.OpPing {
		t.Fatalf("frame %v, want a ping", f.Header)
	}
	deaf.expectClose(proto.CloseIdle)
	awake.sync()
}

// A client that never ends its side after the close frame is cut when CloseTime is over.
func TestCloseTime(t *testing.T) {
	e, _ := serve(t, Config{Limits: Limits{CloseTime: 200 * time.Millisecond}})
	c := upgraded(t, e)
	c.write([]byte{0x80, 0x80, 1, 2, 3, 4}) // a continuation of nothing
	c.expectClose(proto.CloseProtocol)
	eventually(t, "the connection is cut though the client stays", func() bool { return e.door.inside() == 0 })
}

// bigPage is larger than all buffers between server and client.
var bigPage = bytes.Repeat([]byte("0123456789abcdef"), 1<<18)

// The page comes whole, also to a slow reader, and what follows the request does no harm.
func TestPage(t *testing.T) {
	page := http.NewServeMux()
	page.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(bigPage) })
	page.HandleFunc("/small", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, r.URL.Query().Get("q"))
	})
	e, _ := serve(t, Config{Page: page})
	for _, row := range []struct {
		name, request string
		status        int
		body          []byte
	}{
		{"big", "GET /big HTTP/1.1\r\nHost: tote\r\n\r\n", 200, bigPage},
		{"big, HTTP/1.0", "GET /big HTTP/1.0\r\n\r\n", 200, bigPage},
		{"big, with more requests and garbage behind", "GET /big HTTP/1.1\r\nHost: tote\r\n\r\nGET /small HTTP/1.1\r\nHost: tote\r\n\r\n" + strings.Repeat("x", 30_000), 200, bigPage},
		{"small", "GET /small?q=tea HTTP/1.1\r\nHost: tote\r\n\r\n", 418, []byte("tea")},
		{"HEAD", "HEAD /big HTTP/1.1\r\nHost: tote\r\n\r\n", 200, nil},
		{"not there", "GET /nowhere HTTP/1.1\r\nHost: tote\r\n\r\n", 404, []byte("404 page not found\n")},
	} {
		c := dial(t, e)
		c.write([]byte(row.request))
		method, _, _ := strings.Cut(row.request, " ")
		response, err := http.ReadResponse(c.r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != row.status || !bytes.Equal(body, row.body) {
			t.Errorf("%s: answered %d with %d bytes, %v; want %d with %d", row.name, response.StatusCode, len(body), err, row.status, len(row.body))
		}
		if method == http.MethodHead && response.ContentLength != int64(len(bigPage)) {
			t.Errorf("HEAD says %d bytes", response.ContentLength)
		}
		c.expectEnd()
	}
}
