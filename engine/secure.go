package engine

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"iter"
	"net"
	"reflect"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// secure is the TLS of a session: crypto/tls over bytes in memory, so that nothing waits for the socket and no
// goroutine belongs to it.
//
//	socket ─▶ read ─▶ in ─▶ tls.Conn ─▶ clear ─▶ HTTP, frames
//	socket ◀─ transmit ◀─ to ◀─ tls.Conn ◀─ pending, broadcasts
//
// A tls.Conn can go on after a Read that found too little, but for its handshake: that one runs in a coroutine, which
// stops where it wants bytes that have not come. It also takes a third of a millisecond of a core, so it is resumed by
// the hands, which leave half the cores to loops and shards, and not by the loop.
//
//	loop: bytes ─▶ in ─▶ queue ─▶ hands: the coroutine, as far as the bytes go ─▶ inbox of the loop: shaken
//	      └─ held, while the hands have the rest
//
// Owner of every field: the loop of the session; of a handshake that is away, but for held, taken and session, the hands.
type secure struct {
	conn  *tls.Conn // nil: nothing has come yet
	in    []byte    // ciphertext that conn has not read
	to    *[]byte   // where it writes to: loop.sealed, or out of the handshake
	shake *shake    // nil: it is done
}

// shake is a TLS handshake under way.
type shake struct {
	session *session
	resume  func() (struct{}, bool)    // runs the coroutine until it wants bytes, and then says true
	stop    func()                     // has it end
	want    func(wanted struct{}) bool // of the coroutine: waits for bytes; false: it must end
	out     []byte                     // for the socket
	err     error                      // of the handshake, when it has ended
	ended   bool
	held    []byte // came while it was away
	taken   int    // bytes, in all
	away    bool   // with the hands
	left    bool   // the client, meanwhile
}

const (
	// secureMax is how much a client may send before the handshake is done: hellos have 2 kB today, and a request and first frames may
	// come with its end. crypto/tls itself would take 64 kB and keep them in buffers of twice that.
	secureMax = 16 << 10

	// shakesMax is how many handshakes may wait for the hands: a second and a half for one core. More are closed, and may come again.
	shakesMax = 4096

	// sealedKept is the length up to which the slice for what is encrypted is kept.
	sealedKept = 256 << 10

	// clearMax is what is decrypted at once: a record.
	clearMax = 16 << 10
)

// Insecurity is why there is no TLS with somebody who came for it.
type Insecurity uint8

const (
	InsecurePlain    Insecurity = iota // it spoke HTTP
	InsecureGarbage                    // it spoke something else, or no TLS of today
	InsecureRefused                    // we have no version, suite or protocol in common, or its hello was wrong
	InsecureDistrust                   // it refused us: our certificate, in most cases
	InsecureLong                       // it sent more than a handshake takes
	InsecureLate                       // not done by Limits.HelloTime
	InsecureGone                       // it left before the end
	InsecureBusy                       // too many handshakes waited
	InsecureEnding                     // the server stopped
	InsecureBroken                     // later: what it sent was not what it had encrypted
	insecurities
)

var insecurityNames = [insecurities]string{"plain http", "no tls", "refused", "distrusted", "long", "late", "gone", "busy", "stopping", "broken"}

func (i Insecurity) String() string { return insecurityNames[i] }

// answerPlain is for those who ask the TLS listener in plain HTTP.
const answerPlain = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 43\r\n\r\n" +
	"This port speaks TLS: say https:// or wss.\n"

const recordHandshake = 22 // the first byte of a TLS connection

// The net.Conn that crypto/tls has.

// dry is what Read says where there is nothing to read yet. crypto/tls takes an error for the end unless it is temporary.
type dry struct{}

func (dry) Error() string   { return "nothing has come" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

var (
	errDry  error = dry{}
	errLeft       = errors.New("the client has left")
)

func (t *secure) Read(p []byte) (int, error) {
	for len(t.in) == 0 {
		if t.shake == nil {
			return 0, errDry
		}
		if !t.shake.want(struct{}{}) {
			return 0, errLeft
		}
	}
	n := copy(p, t.in)
	if t.in = t.in[n:]; len(t.in) == 0 {
		t.in = nil // not to be kept while the next are waited for
	}
	return n, nil
}

// Write never fails: crypto/tls takes an error in writing for the end.
func (t *secure) Write(p []byte) (int, error) {
	*t.to = append(*t.to, p...)
	return len(p), nil
}

func (t *secure) Close() error                     { return nil }
func (t *secure) LocalAddr() net.Addr              { return nil }
func (t *secure) RemoteAddr() net.Addr             { return nil }
func (t *secure) SetDeadline(time.Time) error      { return nil } // deadlines are the loop's
func (t *secure) SetReadDeadline(time.Time) error  { return nil }
func (t *secure) SetWriteDeadline(time.Time) error { return nil }

// hands do the work of handshakes.
type hands struct {
	queue chan *shake
	ended sync.WaitGroup
}

func (h *hands) start() {
	h.queue = make(chan *shake, shakesMax)
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		h.ended.Go(func() {
			for k := range h.queue {
				_, more := k.resume()
				k.ended = !more
				l := k.session.loop
				l.inbox.call(func() { l.shaken(k) })
			}
		})
	}
}

// stop ends what start began, when no loop runs any more.
func (h *hands) stop() {
	if h.queue != nil {
		close(h.queue)
		h.ended.Wait()
	}
}

// decrypt takes what came for a session with TLS.
func (l *loop) decrypt(s *session, in []byte) {
	if s.state == securing {
		l.secure(s, in)
		return
	}
	s.tls.in = in
	lent := s.tls.borrow(l.lent)
	for s.state == handshaking || s.state == open {
		from := len(l.sealed)
		n, err := s.tls.conn.Read(l.clear)
		l.transmitSealed(s, from) // an alert, or what a change of keys has to be answered with
		if n > 0 && s.state != gone {
			l.take(s, l.clear[:n])
		}
		if err == errDry {
			break
		}
		if err != nil {
			l.unreadable(s, err)
		}
	}
	s.tls.giveBack(lent)
	s.tls.in = nil
}

// A tls.Conn keeps two buffers for as long as it lives, as large as the largest hello and record that came: 4.3 kB of the 6.7 of a connection,
// and of use only while something is read. So the loop lends its own for reading, and empties them when nothing is in them. They are
// found by their names and type; where Go has changed these, connections keep their buffers.
var (
	rawInput = bufferOf("rawInput") // records
	hand     = bufferOf("hand")     // handshake messages
)

// lentMax is a record with all that may be around it, and what bytes.Buffer wants to be free beyond.
const lentMax = 20 << 10

// bufferOf returns where a buffer lies in a tls.Conn; below 0: nowhere.
func bufferOf(name string) int {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
	if !ok || f.Type != reflect.TypeFor[bytes.Buffer]() {
		return -1
	}
	return int(f.Offset)
}

func (t *secure) buffer(at int) *bytes.Buffer {
	if at < 0 {
		return nil
	}
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(t.conn), at))
}

// borrow has records read into memory of the loop's, unless there is a part of one already.
func (t *secure) borrow(memory []byte) (lent bool) {
	b := t.buffer(rawInput)
	if b == nil || b.Len() > 0 {
		return false
	}
	*b = *bytes.NewBuffer(memory[:0])
	return true
}

// giveBack leaves with the connection only the part of a record that has come. All that was decrypted has been taken, or nobody wants it.
func (t *secure) giveBack(lent bool) {
	if b := t.buffer(rawInput); b != nil {
		switch {
		case b.Len() == 0:
			*b = bytes.Buffer{}
		case lent:
			*b = *bytes.NewBuffer(bytes.Clone(b.Bytes()))
		}
	}
	if b := t.buffer(hand); b != nil && b.Len() == 0 {
		*b = bytes.Buffer{}
	}
}

// unreadable ends a session whose client has said that it ends, or has sent what is no TLS.
func (l *loop) unreadable(s *session, err error) {
	switch {
	case s.state != handshaking && s.state != open:
	case err == io.EOF:
		l.counts.Aborted++
		l.part(s)
		l.shut(s)
	default:
		l.insecure(s, InsecureBroken)
	}
}

// secure goes on with the TLS handshake.
func (l *loop) secure(s *session, in []byte) {
	if s.owes == owesHeader {
		if in = l.introduced(s, in); len(in) == 0 {
			return
		}
	}
	if s.tls.conn == nil && in[0] != recordHandshake {
		if in[0] >= 'A' && in[0] <= 'Z' {
			l.counts.insecure[InsecurePlain]++
			l.answerHTTP(s, answerPlain)
			return
		}
		l.insecure(s, InsecureGarbage)
		return
	}
	if s.tls.conn == nil {
		s.tls.begin(s, l.engine.config.TLS)
		l.shaking[s.tls.shake] = struct{}{}
	}
	k := s.tls.shake
	if k.taken += len(in); k.taken > secureMax {
		l.insecure(s, InsecureLong)
		return
	}
	k.held = append(k.held, in...)
	l.handOver(k)
}

// begin makes the coroutine. It runs when it is first resumed.
func (t *secure) begin(s *session, c *tls.Config) {
	k := &shake{session: s}
	k.resume, k.stop = iter.Pull(func(want func(struct{}) bool) {
		k.want = want
		k.err = t.conn.Handshake()
	})
	t.shake, t.to, t.conn = k, &k.out, tls.Server(t, c)
}

// handOver gives the hands what they can go on with.
func (l *loop) handOver(k *shake) {
	if k.away || len(k.held) == 0 {
		return
	}
	k.session.tls.in, k.held = k.held, nil // it has read all of before
	select {
	case l.engine.hands.queue <- k:
		k.away = true
	default:
		l.insecure(k.session, InsecureBusy)
	}
}

// shaken takes a handshake back from the hands.
func (l *loop) shaken(k *shake) {
	s := k.session
	k.away = false
	if s.state != securing {
		if k.left {
			l.counts.insecure[whyInsecure(k.err)]++
		}
		l.forgetShake(k)
		return
	}
	out := k.out
	k.out = nil
	if len(out) > 0 {
		l.transmit(s, out)
		l.counts.TLSBytesOut += uint64(len(out))
	}
	switch {
	case s.state == gone:
	case !k.ended:
		l.handOver(k)
	case k.err != nil:
		l.insecure(s, whyInsecure(k.err))
	default:
		l.secured(s, k)
	}
}

// secured begins with what TLS is there for. What came with the handshake counts as arrived now.
func (l *loop) secured(s *session, k *shake) {
	l.counts.TLSHandshakes++
	if s.tls.conn.ConnectionState().DidResume {
		l.counts.TLSResumed++
	}
	delete(l.shaking, k)
	s.state, s.tls.shake, s.tls.to, l.arrived = handshaking, nil, &l.sealed, l.now
	l.decrypt(s, append(s.tls.in, k.held...)) // though there be nothing: conn may have read ahead
}

// whyInsecure tells what the client said from what we did.
func whyInsecure(err error) Insecurity {
	var header tls.RecordHeaderError
	var alert *net.OpError
	switch {
	case err == nil:
		return InsecureGone
	case errors.As(err, &header):
		return InsecureGarbage
	case errors.As(err, &alert) && alert.Op == "remote error":
		return InsecureDistrust
	}
	return InsecureRefused
}

// insecure ends a session that has no TLS.
func (l *loop) insecure(s *session, why Insecurity) {
	l.counts.insecure[why]++
	l.part(s)
	l.shut(s)
}

// unsecure lets the TLS of a session go.
func (l *loop) unsecure(s *session) {
	l.counts.TLSConnections--
	k := s.tls.shake
	switch {
	case k != nil && k.away:
		k.left = s.state == securing // why, the hands may know: it has read an alert, perhaps
		return
	case s.state == securing:
		l.counts.insecure[InsecureGone]++
	}
	if k != nil {
		l.forgetShake(k)
	}
}

// forgetShake ends a handshake that nobody waits for.
func (l *loop) forgetShake(k *shake) {
	k.stop()
	delete(l.shaking, k)
}

// seal encrypts p, behind what is in loop.sealed.
func (t *secure) seal(p []byte) {
	_, _ = t.conn.Write(p) // an error says that the connection has ended; then there is nothing to be sent
}

// transmitSealed sends what was encrypted from a place on.
func (l *loop) transmitSealed(s *session, from int) {
	if len(l.sealed) == from {
		return
	}
	l.counts.TLSBytesOut += uint64(len(l.sealed) - from)
	l.transmit(s, l.sealed[from:])
	l.sealed = l.sealed[:from]
	l.resetSealed()
}

// sealShared encrypts a broadcast for one. The bytes stay as they are until the slice is dispatched.
func (l *loop) sealShared(s *session, p []byte) []byte {
	from := len(l.sealed)
	s.tls.seal(p)
	l.counts.TLSBytesOut += uint64(len(l.sealed) - from)
	return l.sealed[from:len(l.sealed):len(l.sealed)]
}

// resetSealed makes room where nothing encrypted waits for the ring.
func (l *loop) resetSealed() {
	if len(l.posted) > 0 {
		return
	}
	if l.sealed = l.sealed[:0]; cap(l.sealed) > sealedKept {
		l.sealed = nil
	}
}

// notify says that nothing more comes: without it the client could not tell the end from a cut (RFC 8446, section 6.1).
func (l *loop) notify(s *session) {
	if s.tls.conn == nil || s.tls.shake != nil {
		return
	}
	from := len(l.sealed)
	_ = s.tls.conn.CloseWrite() // once; again, it writes nothing
	l.transmitSealed(s, from)
}
