package engine

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"tote/server/market"
	"tote/server/proto"
)

// own is a certificate for 127.0.0.1 that nobody has signed but itself.
var own = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

// serving is the TLS of a server.
func serving() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{own()}, NextProtos: []string{"http/1.1"}}
}

// trusting is the TLS of a client that speaks one version only; 0: any.
func trusting(version uint16) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(own().Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}, MinVersion: version, MaxVersion: version}
}

// wire is a client's side of a socket. It counts what is written, and may write it in pieces, or change it.
type wire struct {
	*net.TCPConn
	mu     sync.Mutex
	wrote  uint64
	piece  int                 // bytes in one write; 0: all
	change func([]byte) []byte // nil: as it is
	each   func(n int)         // after each piece
	read   *bytes.Buffer       // what came; nil: nobody asks
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.TCPConn.Read(p)
	if w.read != nil {
		w.read.Write(p[:n])
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	all := len(p)
	if w.change != nil {
		p = w.change(p)
	}
	for len(p) > 0 {
		n := len(p)
		if w.piece > 0 {
			n = min(n, w.piece)
		}
		if _, err := w.TCPConn.Write(p[:n]); err != nil {
			return 0, err
		}
		w.mu.Lock()
		w.wrote += uint64(n)
		w.mu.Unlock()
		if w.each != nil {
			w.each(n)
		}
		p = p[n:]
	}
	return all, nil
}

// take returns what was written since it was last asked.
func (w *wire) take() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.wrote
	w.wrote = 0
	return n
}

// secure begins TLS.
func (c *client) secure(config *tls.Config) *wire {
	c.t.Helper()
	w := &wire{TCPConn: c.conn}
	c.secureOver(w, config)
	return w
}

func (c *client) secureOver(w *wire, config *tls.Config) {
	c.t.Helper()
	over := tls.Client(w, config)
	if err := over.Handshake(); err != nil {
		c.t.Fatalf("TLS: %v", err)
	}
	c.w, c.r = over, bufio.NewReader(over)
}

func dialTLS(t testing.TB, e *Engine, config *tls.Config) *client {
	t.Helper()
	c := dialAddress(t, e.TLSAddr().String())
	c.secure(config)
	return c
}

// A conversation over TLS, with broadcasts to those who have it and those who have not, in both ways to broadcast.
func TestTLS(t *testing.T) {
	for _, way := range []string{BroadcastAuto, BroadcastWrite} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(way+", "+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				e, m := serve(t, Config{Loops: 1, TLS: serving(), Broadcast: way})
				m.announce(3)
				bare := joined(t, e, 12, 3)
				var all []*client
				for i := range 100 { // more than a slice
					all = append(all, dialTLS(t, e, trusting(version)).upgrade().greet(e, proto.AccountID(20+i)).join(3))
				}
				all[0].ask(`{"type":"stake","id":3,"pool":196609,"outcome":1,"amount":250}`)
				all[0].expect("receipt", 3)
				stake := m.await(t, "stake", func(c *market.Command) bool { return c.Kind == market.Stake })
				if stake.Account != 20 || stake.Arrived == 0 {
					t.Errorf("the market got %+v", stake)
				}
				all[7].ask(`{"type":"time","id":4}`) // its broadcasts go with the answer
				for i := range 20 {
					m.odds(3, uint32(i+1))
				}
				all[7].expect("time", 4)
				for _, c := range append(all, bare) {
					for seq := range uint64(20) {
						if odds := c.expect("odds", 0); odds.Seq != seq+2 {
							t.Fatalf("odds %s, want number %d", odds.raw, seq+2)
						}
					}
				}
				all[1].write(frames(fr(cl, true, closeBody(1000, ""))))
				all[1].expectClose(1000) // and close_notify, or the end would be unexpected
				all[2].write(frames(fr(cont, true, "")))
				all[2].expectClose(proto.CloseProtocol)
				eventually(t, "they are counted", func() bool {
					s := e.Stats()
					return s.TLSConnections == 98 && s.TLSHandshakes == 100 && s.Connections == 99
				})
				s := e.Stats()
				if s.TLSBytesIn == 0 || s.TLSBytesIn >= s.BytesIn || s.TLSBytesOut == 0 || s.TLSBytesOut >= s.BytesOut {
					t.Errorf("%d of %d bytes came by TLS, %d of %d went", s.TLSBytesIn, s.BytesIn, s.TLSBytesOut, s.BytesOut)
				}
			})
		}
	}
}

// The TLS handshake, the request and the first frames may be cut anywhere, and may come at once.
func TestTLSCut(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			e, _ := serve(t, Config{Loops: 1, TLS: serving()})
			sent := uint64(0)
			for _, piece := range []int{1, 2, 5, 100, 1000, 0} {
				c := dialAddress(t, e.TLSAddr().String())
				w := &wire{TCPConn: c.conn, piece: piece, each: func(n int) { sent += uint64(n); settled(t, e, sent) }}
				c.secureOver(w, trusting(version))
				c.write(append([]byte(upgradeRequest), text(`{"type":"time","id":1}`)...))
				c.readUpgrade()
				c.expect("time", 1)
				c.conn.Close()
			}
		})
	}
}

// A page over TLS, of many records, and behind it close_notify, without which nobody could tell the end from a cut. In TLS 1.2 one sees that
// a record is an alert.
func TestTLSPage(t *testing.T) {
	page := bytes.Repeat([]byte("page "), 200_000)
	e, _ := serve(t, Config{TLS: serving(), Page: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })})
	c := dialAddress(t, e.TLSAddr().String())
	w := &wire{TCPConn: c.conn, read: new(bytes.Buffer)}
	c.secureOver(w, trusting(tls.VersionTLS12))
	c.write([]byte("GET / HTTP/1.1\r\nHost: tote\r\n\r\n"))
	response, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(response.Body)
	if err != nil || !bytes.Equal(got, page) {
		t.Errorf("%d bytes came, %v; want %d", len(got), err, len(page))
	}
	c.expectEnd()
	last := byte(0)
	for all := w.read.Bytes(); len(all) > 0; all = all[5+int(binary.BigEndian.Uint16(all[3:])):] {
		last = all[0]
	}
	if last != recordAlert {
		t.Errorf("the last record is of type %d", last)
	}
}

// A client that comes back says its ticket; one that has no certificate of ours to trust leaves.
func TestTLSResumed(t *testing.T) {
	e, _ := serve(t, Config{TLS: serving()})
	config := trusting(0)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		c := dialTLS(t, e, config).upgrade()
		c.sync()
		c.conn.Close()
	}
	c := dialAddress(t, e.TLSAddr().String())
	if err := tls.Client(c.conn, &tls.Config{ServerName: "127.0.0.1"}).Handshake(); err == nil {
		t.Error("a certificate that nobody has signed is trusted")
	}
	eventually(t, "they are counted", func() bool {
		s := e.Stats()
		return s.TLSResumed == 1 && s.TLSHandshakes == 2 && s.Insecurities[InsecureDistrust] == 1
	})
}

// hello is the first flight of a client.
func hello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	var first bytes.Buffer
	err := tls.Client(sink{&first}, config).Handshake()
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return first.Bytes()
}

// sink is a connection whose other side takes all and says nothing.
type sink struct{ *bytes.Buffer }

func (sink) Read([]byte) (int, error)         { return 0, io.EOF }
func (sink) Close() error                     { return nil }
func (sink) LocalAddr() net.Addr              { return nil }
func (sink) RemoteAddr() net.Addr             { return nil }
func (sink) SetDeadline(time.Time) error      { return nil }
func (sink) SetReadDeadline(time.Time) error  { return nil }
func (sink) SetWriteDeadline(time.Time) error { return nil }

const recordAlert = 21

// raw says what is no TLS, and hears the end.
func raw(t *testing.T, e *Engine, said []byte) []byte {
	c := dialAddress(t, e.TLSAddr().String())
	_, _ = c.conn.Write(said)
	got, _ := io.ReadAll(c.conn) // a reset, where it says more than is read
	return got
}

// What may be tried against TLS. Each is bounded, refused and counted; meanwhile an honest client is served.
func TestTLSHostile(t *testing.T) {
	for _, row := range []struct {
		name   string
		why    Insecurity
		attack func(t *testing.T, e *Engine)
	}{
		{"plain HTTP", InsecurePlain, func(t *testing.T, e *Engine) {
			response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw(t, e, []byte(upgradeRequest)))), nil)
			if err != nil || response.StatusCode != http.StatusBadRequest {
				t.Fatalf("answered %v, %v", response, err)
			}
			if body, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(body), "https://") {
				t.Errorf("answered %q, %v", body, err)
			}
		}},
		{"garbage", InsecureGarbage, func(t *testing.T, e *Engine) { raw(t, e, []byte{0, 1, 2, 3}) }},
		{"SSL 2", InsecureGarbage, func(t *testing.T, e *Engine) { raw(t, e, []byte{0x80, 0x2e, 1, 0, 2}) }},
		{"a record of another version", InsecureGarbage, func(t *testing.T, e *Engine) { raw(t, e, []byte("\x16\x47\x00\x00\x05hello")) }},
		{"a hello that is none", InsecureRefused, func(t *testing.T, e *Engine) {
			if got := raw(t, e, []byte("\x16\x03\x01\x00\x08\x01\x00\x00\x04hell")); len(got) != 7 || got[0] != recordAlert {
				t.Errorf("heard %x; want an alert", got)
			}
		}},
		{"TLS 1.1", InsecureRefused, func(t *testing.T, e *Engine) {
			c := dialAddress(t, e.TLSAddr().String())
			if err := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}).Handshake(); err == nil {
				t.Error("it is spoken")
			}
		}},
		{"half a hello", InsecureLate, func(t *testing.T, e *Engine) {
			h := hello(t, trusting(0))
			raw(t, e, h[:len(h)/2])
		}},
		{"half a hello, and gone", InsecureGone, func(t *testing.T, e *Engine) {
			c := dialAddress(t, e.TLSAddr().String())
			_, _ = c.conn.Write(hello(t, trusting(0))[:100])
			_ = c.conn.CloseWrite()
			_, _ = io.ReadAll(c.conn)
			_ = c.conn.Close()
		}},
		{"a hello, and nothing more", InsecureLate, func(t *testing.T, e *Engine) { raw(t, e, hello(t, trusting(0))) }},
		{"silence", InsecureLate, func(t *testing.T, e *Engine) { raw(t, e, nil) }},
		{"10 MB of handshake", InsecureLong, func(t *testing.T, e *Engine) {
			// One message of 60 kB, which crypto/tls would wait for, and so on without end.
			record := append([]byte("\x16\x03\x01\x40\x00\x01\x00\xea\x60"), make([]byte, 16<<10-4)...)
			raw(t, e, bytes.Repeat(record, 640))
		}},
		{"many small records", InsecureLong, func(t *testing.T, e *Engine) {
			first := []byte("\x16\x03\x01\x00\x04\x01\x00\xea\x60")
			raw(t, e, append(first, bytes.Repeat([]byte("\x16\x03\x01\x00\x01\x00"), 100_000)...))
		}},
		{"records without anything in them", InsecureRefused, func(t *testing.T, e *Engine) {
			raw(t, e, bytes.Repeat([]byte("\x16\x03\x01\x00\x00"), 100))
		}},
		{"a record that is not what was encrypted", InsecureBroken, func(t *testing.T, e *Engine) {
			c := dialAddress(t, e.TLSAddr().String())
			w := &wire{TCPConn: c.conn}
			c.secureOver(w, trusting(0))
			c.upgrade()
			w.change = func(p []byte) []byte { p = bytes.Clone(p); p[len(p)-1] ^= 1; return p }
			c.write(text(`{"type":"time","id":1}`))
			if _, err := io.ReadAll(c.r); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
				t.Errorf("heard %v", err)
			}
		}},
		{"keys that change again and again", InsecureBroken, func(t *testing.T, e *Engine) {
			c, f := forging(t, e)
			for range 100 {
				if _, err := c.conn.Write(f.update()); err != nil {
					break
				}
			}
			if b, err := io.ReadAll(c.r); err == nil {
				t.Errorf("heard %q", b)
			}
		}},
		{"plain frames after the handshake", InsecureBroken, func(t *testing.T, e *Engine) {
			c := dialTLS(t, e, trusting(tls.VersionTLS12)).upgrade()
			_, _ = c.conn.Write(text(`{"type":"time","id":1}`))
			if b, err := io.ReadAll(c.r); err == nil {
				t.Errorf("heard %q", b)
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e, m := serve(t, Config{Loops: 1, TLS: serving(), Limits: mild})
			m.announce(3)
			honest := dialTLS(t, e, trusting(0)).upgrade().greet(e, 12).join(3)
			row.attack(t, e)
			eventually(t, "it is counted", func() bool { return e.Stats().Insecurities[row.why] == 1 })
			honest.sync()
			m.odds(3, 1)
			honest.expect("odds", 0)
		})
	}
}

// A header of the PROXY protocol comes before TLS, cut or not; without one there is no TLS.
func TestTLSBehindProxy(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1, TLS: serving(), Proxies: Proxies{Header: networks("127.0.0.0/8")}})
	header := []byte(signature + "\x21\x11\x00\x0c\xc0\x00\x02\x07\x7f\x00\x00\x01\x01\x00\x02\x00")
	for _, first := range []int{1, 20, len(header)} {
		c := dialAddress(t, e.TLSAddr().String())
		_, _ = c.conn.Write(header[:first])
		time.Sleep(time.Millisecond) // so that it is cut, in most runs
		_, _ = c.conn.Write(header[first:])
		c.secure(trusting(0))
		c.upgrade().sync()
		onLoop(e, 0, func(l *loop) {
			for _, p := range l.places {
				if p.session != nil && p.session.address.String() != "192.0.2.7" {
					t.Errorf("the client is at %v", p.session.address)
				}
			}
		})
		c.conn.Close()
	}
	if got := raw(t, e, hello(t, trusting(0))); !strings.HasPrefix(string(got), "HTTP/1.1 400") {
		t.Errorf("a client without a header hears %q", got)
	}
}

// Who is not let in hears an alert, and whoever is shaking hands when the server stops is let go.
func TestTLSStops(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	m := newTestMarket()
	e, stop := serveWith(t, Config{Loops: 1, TLS: serving(), Limits: Limits{Connections: 3, DrainTime: patience}}, m)
	silent, halfway, in := dialAddress(t, e.TLSAddr().String()), dialAddress(t, e.TLSAddr().String()), dialTLS(t, e, trusting(0)).upgrade()
	halfway.write(hello(t, trusting(0)))
	if _, err := halfway.r.ReadByte(); err != nil {
		t.Fatal(err)
	}
	if got := raw(t, e, nil); string(got) != alertRefused {
		t.Errorf("a fourth hears %q", got)
	}
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	in.expectClose(proto.CloseRestart)
	for _, c := range []*client{in, silent, halfway} {
		_, _ = io.ReadAll(c.r)
		c.conn.Close()
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s := e.Stats(); s.Insecurities[InsecureEnding] != 2 || s.TLSConnections != 0 || len(e.loops[0].shaking) != 0 {
		t.Errorf("%d were let go, %d are left, %d handshakes", s.Insecurities[InsecureEnding], s.TLSConnections, len(e.loops[0].shaking))
	}
	eventually(t, "no handshake is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

// forge makes the records of a client of TLS 1.3 that it would not make itself (RFC 8446, section 5.2).
type forge struct {
	t      testing.TB
	secret []byte // of what the client sends: section 7.1
	sealer cipher.AEAD
	iv     []byte
	next   uint64 // number of the next record
}

// forging connects and upgrades a client whose records are forged from now on. What the server says is read as ever.
func forging(t testing.TB, e *Engine) (*client, *forge) {
	t.Helper()
	c := dialAddress(t, e.TLSAddr().String())
	var log bytes.Buffer
	config := trusting(tls.VersionTLS13)
	config.KeyLogWriter = &log
	c.secure(config)
	c.upgrade() // one record
	for line := range strings.Lines(log.String()) {
		if words := strings.Fields(line); words[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, err := hex.DecodeString(words[2])
			if err != nil {
				t.Fatal(err)
			}
			f := &forge{t: t}
			f.rekey(secret)
			f.next = 1
			return c, f
		}
	}
	t.Fatal("no secret is told")
	return nil, nil
}

// rekey derives what is encrypted with from a secret: for 256 bits and SHA-384, or 128 and SHA-256, by the suite.
func (f *forge) rekey(secret []byte) {
	bytes := 16
	if len(secret) == sha512.Size384 {
		bytes = 32
	}
	block, err := aes.NewCipher(f.expand(secret, "key", bytes))
	if err != nil {
		f.t.Fatal(err)
	}
	if f.sealer, err = cipher.NewGCM(block); err != nil {
		f.t.Fatal(err)
	}
	f.secret, f.iv, f.next = secret, f.expand(secret, "iv", 12), 0
}

// expand is HKDF-Expand-Label without a context.
func (f *forge) expand(secret []byte, label string, n int) []byte {
	info := append([]byte{0, byte(n), byte(len("tls13 " + label))}, "tls13 "+label+"\x00"...)
	hashes := map[int]func() hash.Hash{sha256.Size: sha256.New, sha512.Size384: sha512.New384}
	out, err := hkdf.Expand(hashes[len(secret)], secret, string(info), n)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f *forge) record(kind byte, content []byte) []byte {
	nonce := bytes.Clone(f.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(f.next >> (56 - 8*i))
	}
	f.next++
	inner := append(bytes.Clone(content), kind)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+f.sealer.Overhead()))
	return f.sealer.Seal(header, nonce, inner, header)
}

// update is a KeyUpdate that asks for another one. What follows is encrypted with new keys.
func (f *forge) update() []byte {
	record := f.record(recordHandshake, []byte{24, 0, 0, 1, 1})
	f.rekey(f.expand(f.secret, "traffic upd", len(f.secret)))
	return record
}

// Keys change in the middle of a conversation, in records that come byte by byte, with requests between them and behind.
func TestTLSKeysChange(t *testing.T) {
	e, _ := serve(t, Config{Loops: 1, TLS: serving()})
	c, f := forging(t, e)
	for i := range 5 {
		in := f.update()
		in = append(in, f.record(23, text(fmt.Sprintf(`{"type":"time","id":%d}`, i+1)))...)
		for at := range in {
			var before uint64
			onLoop(e, 0, func(l *loop) { before = l.counts.BytesIn })
			if _, err := c.conn.Write(in[at : at+1]); err != nil {
				t.Fatal(err)
			}
			settled(t, e, before+1)
		}
		c.expect("time", proto.RequestID(i+1))
	}
}

// Nothing stays with a connection that is quiet but the part of a record, and Go still has the buffers that are taken from it.
func TestTLSKeepsNoBuffers(t *testing.T) {
	if rawInput < 0 || hand < 0 {
		t.Fatal("tls.Conn has no such buffers any more")
	}
	e, _ := serve(t, Config{Loops: 1, TLS: serving()})
	c, f := forging(t, e)
	other := dialTLS(t, e, trusting(0)).upgrade()
	kept := func() (records, messages int) {
		onLoop(e, 0, func(l *loop) {
			s := l.places[0].session
			records, messages = s.tls.buffer(rawInput).Cap(), s.tls.buffer(hand).Cap()
		})
		return records, messages
	}
	if records, messages := kept(); records != 0 || messages != 0 {
		t.Errorf("%d bytes are kept for records, %d for messages", records, messages)
	}
	long := f.record(23, text(`{"type":"time","id":1,"sent":1`+strings.Repeat(" ", 10_000)+`}`))
	for _, piece := range [][]byte{long[:3], long[3:5000], long[5000:]} {
		other.sync() // in the same memory
		read := uint64(0)
		onLoop(e, 0, func(l *loop) { read = l.counts.BytesIn })
		if _, err := c.conn.Write(piece); err != nil {
			t.Fatal(err)
		}
		settled(t, e, read+uint64(len(piece)))
		if records, _ := kept(); (records == 0) != (len(piece) == len(long)-5000) {
			t.Errorf("%d bytes are kept for records", records)
		}
	}
	c.expect("time", 1)
}

// Whoever sends as much of a handshake as may be, and nothing more, costs no more than a client may.
func TestTLSHalfwayIsBounded(t *testing.T) {
	const clients = 200
	e, _ := serve(t, Config{Loops: 1, TLS: serving()})
	// A hello of 60,000 bytes of which a record of 10,240 comes, and a part of a longer one, in pieces.
	said := append([]byte("\x16\x03\x01\x28\x00\x01\x00\xea\x60"), make([]byte, 10<<10-4)...)
	said = append(said, "\x16\x03\x01\x40\x00"...)
	said = append(said, make([]byte, secureMax-len(said))...)
	before := heap()
	for range clients {
		c := dialAddress(t, e.TLSAddr().String())
		for piece := said; len(piece) > 0; piece = piece[min(len(piece), 5000):] {
			c.write(piece[:min(len(piece), 5000)])
		}
	}
	eventually(t, "all has been read", func() bool { return e.Stats().TLSBytesIn == clients*secureMax })
	onLoop(e, 0, func(*loop) {}) // whatever the hands had is back
	if each := (heap() - before) / clients; each > stuckMax {
		t.Errorf("each costs %d bytes", each)
	}
}
