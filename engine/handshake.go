package engine

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// path is where WebSockets begin; everything else is the page's.
const path = "/ws"

// Answers to requests that are not carried out.
const (
	answerMalformed = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	answerMethod    = "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	answerTimeout   = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
	answerLong      = "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)

// originAllowed is for opening handshakes of pages, whose browser names where they come from (section 10.2). Programs name
// nothing and are let in: whoever can write a program can write any origin.
func (l *loop) originAllowed(key, value []byte) error {
	if !bytes.EqualFold(key, []byte("Origin")) || slices.Contains(l.engine.config.Origins, strings.ToLower(string(value))) {
		return nil
	}
	l.counts.HandshakesForeign++
	return errOrigin
}

var errOrigin = ws.RejectConnectionError(ws.RejectionStatus(http.StatusForbidden), ws.RejectionReason("pages from there may not connect"))

// checkOrigins returns origins as browsers write them.
func checkOrigins(origins []string) ([]string, error) {
	var checked []string
	for _, o := range origins {
		u, err := url.Parse(strings.ToLower(o))
		if err != nil || u.Scheme == "" || u.Host == "" || u.String() != u.Scheme+"://"+u.Host {
			return nil, fmt.Errorf("%q is no origin; say a scheme and a host, as in https://tote.example", o)
		}
		checked = append(checked, u.String())
	}
	return checked, nil
}

var blankLine = []byte("\r\n\r\n")

// handshake collects the head of an HTTP request and answers it.
func (l *loop) handshake(s *session, in []byte) {
	if s.owes == owesHeader {
		if in = l.introduced(s, in); len(in) == 0 {
			return
		}
	}
	had := 0
	if s.head != nil {
		had = s.head.Len()
	}
	if had == 0 && (in[0] < 'A' || in[0] > 'Z') {
		l.answerHTTP(s, answerMalformed) // no method begins so; TLS does
		return
	}
	taken := in[:min(len(in), l.engine.limits.HandshakeBytes-had)]
	head := taken
	if s.head != nil {
		s.head.B = append(s.head.B, taken...)
		head = s.head.B
	}
	from := max(0, had-len(blankLine)+1) // what came before was searched before
	end := bytes.Index(head[from:], blankLine)
	switch {
	case end >= 0:
		end += from + len(blankLine)
		l.answerHead(s, head[:end], in[end-had:])
	case len(head) == l.engine.limits.HandshakeBytes:
		l.answerHTTP(s, answerLong)
	case s.head == nil:
		s.head = l.engine.buffers.Get()
		s.head.B = append(s.head.B, head...)
	}
}

// introduced takes a proxy's header from the beginning of what came, and returns what follows it.
func (l *loop) introduced(s *session, in []byte) []byte {
	head := in
	if s.head != nil {
		s.head.B = append(s.head.B, in...)
		head = s.head.B
	}
	n, source, err := readProxy(head, l.engine.limits.HandshakeBytes)
	switch {
	case err != nil:
		l.answerHTTP(s, answerMalformed)
		return nil
	case n == 0:
		if s.head == nil {
			s.head = l.engine.buffers.Get()
			s.head.B = append(s.head.B, head...)
		}
		return nil
	}
	rest := head[n:]
	if s.head != nil {
		rest = bytes.Clone(rest) // cut headers are rare
		l.drop(&s.head)
	}
	s.owes = owesNothing
	switch {
	case !source.IsValid():
	case within(l.engine.config.Proxies.Forwarded, source):
		s.owes = owesForwarded
	default:
		if refusal := l.introduce(s, source); refusal != "" {
			l.answerHTTP(s, refusal)
			return nil
		}
	}
	return rest
}

// introduce gives the session the address that the proxy has told, unless it has had its share.
func (l *loop) introduce(s *session, client netip.Addr) (refusal string) {
	address := homeOf(client)
	if refusal = l.engine.door.introduce(address, int64(l.now/proto.Second)); refusal == "" {
		s.address = address
	}
	return refusal
}

// forwarded is introduced, by a header of HTTP.
func (l *loop) forwarded(s *session, head []byte) (refusal string) {
	s.owes = owesNothing
	client, ok := l.engine.config.Proxies.readForwarded(string(head))
	switch {
	case !ok:
		return answerMalformed
	case !client.IsValid() || within(l.engine.config.Proxies.Forwarded, client):
		return ""
	}
	return l.introduce(s, client)
}

// answerHead answers a whole head. Frames may follow in the same read, since a client need not wait for
// anything once it knows the subprotocol; what follows a request for a page is not answered, as the answer
// says.
func (l *loop) answerHead(s *session, head, rest []byte) {
	line, _, _ := strings.Cut(string(head), "\r\n")
	method, line, _ := strings.Cut(line, " ")
	target, _, _ := strings.Cut(line, " ")
	target, _, _ = strings.Cut(target, "?")
	refusal := ""
	if s.owes == owesForwarded {
		refusal = l.forwarded(s, head)
	}
	switch {
	case refusal != "":
		l.answerHTTP(s, refusal)
	case target == path:
		l.upgrade(s, head)
	case method == http.MethodGet || method == http.MethodHead:
		l.page(s, head)
	default:
		l.answerHTTP(s, answerMethod)
	}
	l.drop(&s.head)
	if s.state == open && len(rest) > 0 {
		l.frames(s, rest)
	}
}

// upgrade answers the opening handshake. gobwas reads from the head alone: from the connection it would swallow
// the frames behind it.
func (l *loop) upgrade(s *session, head []byte) {
	b := l.out(s)
	before := b.Len()
	l.negotiation.window = 0
	agreed, err := l.upgrader.Upgrade(struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(head), b})
	if err == nil {
		l.counts.Handshakes++
		s.state = open
		codec, _ := proto.CodecOf(agreed.Protocol) // without one, tote.json
		s.variant = variantOf(codec)
		if s.window = l.negotiation.window; s.window != 0 {
			s.variant |= deflated
		}
		if s.variant != plain {
			l.engine.users[s.variant].Add(1)
		}
		return
	}
	if b.Len() > before { // gobwas has said what is wrong
		l.counts.HandshakesFailed++
		l.partHTTP(s)
		return
	}
	l.answerHTTP(s, answerMalformed)
}

// page answers with what Config.Page says, whole, and ends the connection.
func (l *loop) page(s *session, head []byte) {
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		l.answerHTTP(s, answerMalformed)
		return
	}
	request.Body = http.NoBody
	w := pageWriter{header: http.Header{}}
	l.engine.config.Page.ServeHTTP(&w, request)
	l.counts.Pages++
	response := http.Response{
		StatusCode: w.code(), ProtoMajor: 1, ProtoMinor: 1, Header: w.header, Request: request, Close: true,
		ContentLength: int64(w.body.Len()), Body: io.NopCloser(&w.body),
	}
	if n, err := strconv.ParseInt(w.header.Get("Content-Length"), 10, 64); err == nil && request.Method == http.MethodHead {
		response.ContentLength = n // of what is not sent
	}
	err = response.Write(l.out(s))
	assert(err == nil, "a response in memory is written to memory")
	_ = unix.SetsockoptInt(s.fd(), unix.SOL_SOCKET, unix.SO_SNDBUF, pageBuffer)
	l.partHTTP(s)
	s.deadline = l.tick + ticks(pageTime)
}

// answerHTTP says why there is no handshake.
func (l *loop) answerHTTP(s *session, answer string) {
	l.counts.HandshakesFailed++
	switch answer {
	case answerTimeout:
		l.counts.HandshakesLate++
	case answerLong:
		l.counts.HandshakesLong++
	}
	b := l.out(s)
	b.B = append(b.B, answer...)
	l.partHTTP(s)
}

// partHTTP lets what is written reach the client, as after a close frame.
func (l *loop) partHTTP(s *session) {
	l.drop(&s.head)
	l.part(s)
}

// pageWriter keeps a page in memory.
type pageWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *pageWriter) Header() http.Header { return w.header }

func (w *pageWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx announce another one
		w.status = status
	}
}

func (w *pageWriter) Write(b []byte) (int, error) { return w.body.Write(b) }

func (w *pageWriter) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
