// Package peer is a server's end of players' connections as most servers have it: gorilla/websocket, and two goroutines for each connection, one
// that reads and one that writes. The servers that ours is compared with stand on it.
//
// It speaks tote.json, answers by itself what needs no market (the time, what is malformed, what comes before hello) and hands everything else on. It
// knows no games and no accounts.
//
//	socket ─▶ read ─▶ Server.Request ─▶ Conn.Send ──────▶ queue ─▶ write ─▶ socket
//	                                    Conn.SendFrame ─▶
package peer

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"tote/server/proto"
)

// Subprotocol is what is spoken here.
const Subprotocol = "tote.json"

const (
	messageMax = 16 << 10         // bytes of a request
	queueMax   = 1024             // messages that a client may be behind
	queueKept  = 16               // places of a queue that are kept for the next messages
	idleMax    = 90 * time.Second // without a byte from a client
	pingEvery  = idleMax / 2
	writeMax   = 10 * time.Second // for one message, to a client that takes nothing
	lingerMax  = time.Second      // for the answer to our close frame
)

// Server takes connections at the path where it is mounted. S is what the handlers keep of a connection. All fields are set before the first
// connection.
type Server[S any] struct {
	// Request is called by the connection's reading goroutine, one request after the other. Before hello has set Conn.Account, it is called with
	// hello only. arrived is when the message had been read.
	Request func(c *Conn[S], r *proto.Request, arrived proto.Time)
	// Gone is called by the same goroutine, once, after the last Request.
	Gone func(c *Conn[S])

	mu      sync.Mutex
	conns   map[*Conn[S]]struct{}
	closing bool
	running sync.WaitGroup // the goroutines of all connections
}

// Frame is a message that is encoded once and sent to many.
type Frame = websocket.PreparedMessage

// NewFrame makes a frame of a message's text.
func NewFrame(text []byte) (*Frame, error) {
	f, err := websocket.NewPreparedMessage(websocket.TextMessage, text)
	if err != nil {
		return nil, fmt.Errorf("prepare a frame: %w", err)
	}
	return f, nil
}

// Now is the time on the wire.
func Now() proto.Time { return proto.Time(time.Now().UnixMicro()) }

// Buffers for writing are needed only while something is written; for reading, requests are short.
var upgrader = websocket.Upgrader{
	Subprotocols: []string{Subprotocol}, ReadBufferSize: 1024, WriteBufferSize: 4096, WriteBufferPool: &sync.Pool{},
	CheckOrigin: func(*http.Request) bool { return true },
}

// ServeHTTP makes a connection of a handshake.
func (s *Server[S]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	socket, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the client has been told
	}
	c := &Conn[S]{server: s, socket: socket, wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		reason := websocket.FormatCloseMessage(int(proto.CloseGoingAway), proto.CloseGoingAway.Reason())
		socket.WriteControl(websocket.CloseMessage, reason, time.Now().Add(writeMax))
		socket.Close()
		return
	}
	if s.conns == nil {
		s.conns = map[*Conn[S]]struct{}{}
	}
	s.conns[c] = struct{}{}
	// Goroutines of their own: the one that this runs on goes back to net/http, with its stack and buffers.
	s.running.Go(c.read)  // ends with the socket
	s.running.Go(c.write) // ends with read
}

// Close says goodbye to all clients and waits until they have gone.
func (s *Server[S]) Close() {
	s.mu.Lock()
	s.closing = true
	for c := range s.conns {
		c.Close(proto.CloseGoingAway)
	}
	s.mu.Unlock()
	s.running.Wait()
}

// Conn is one connection.
type Conn[S any] struct {
	State   S               // the handlers' own
	Account proto.AccountID // set by Request when it has welcomed somebody; its goroutine's, as is the other's writing

	server *Server[S]
	socket *websocket.Conn
	wake   chan struct{} // something is in the queue

	mu     sync.Mutex
	queue  []outgoing // until the writer takes it
	closed bool       // nothing more is put into the queue
}

// outgoing is a message, or the end.
type outgoing struct {
	text  []byte
	frame *Frame
	code  proto.CloseCode // not 0: the connection ends
}

// Send sends a message. Any goroutine may call it; it does not wait.
func (c *Conn[S]) Send(m proto.Message) { c.SendText(m.AppendJSON(nil)) }

// SendText sends a message that is text already.
func (c *Conn[S]) SendText(text []byte) { c.put(outgoing{text: text}) }

// SendFrame sends a frame, which may be on its way to others too.
func (c *Conn[S]) SendFrame(f *Frame) { c.put(outgoing{frame: f}) }

// Refuse answers a request with a refusal that is not numbered.
func (c *Conn[S]) Refuse(id proto.RequestID, reason proto.Refusal) {
	c.Send(&proto.Refused{ID: id, T: Now(), Reason: reason})
}

// Close ends the connection behind what has been sent.
func (c *Conn[S]) Close(code proto.CloseCode) { c.put(outgoing{code: code}) }

// put queues a message. Who is too far behind is cut: nothing is conflated here.
func (c *Conn[S]) put(o outgoing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if len(c.queue) == queueMax {
		c.queue, o = c.queue[:0], outgoing{code: proto.CloseSlow}
	}
	c.queue = append(c.queue, o)
	c.closed = o.code != 0
	c.wakeWriter()
}

func (c *Conn[S]) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default: // it is awake, or will be
	}
}

// read takes requests until the socket ends.
func (c *Conn[S]) read() {
	defer c.end()
	c.socket.SetReadLimit(messageMax)
	c.socket.SetReadDeadline(time.Now().Add(idleMax))
	c.socket.SetPongHandler(func(string) error { c.heard(); return nil })
	for {
		kind, text, err := c.socket.ReadMessage() // answers pings and close frames
		if err != nil {
			return
		}
		arrived := Now()
		if !c.heard() {
			return
		}
		if kind != websocket.TextMessage {
			c.Close(proto.CloseData)
			continue
		}
		var r proto.Request
		switch refusal := r.Parse(text); {
		case refusal != proto.Accepted:
			c.Refuse(r.ID, refusal)
		case r.Type == proto.RequestTime:
			c.Send(&proto.Clock{ID: r.ID, T: Now(), Sent: r.Sent})
		case c.Account == 0 && r.Type != proto.RequestHello:
			c.Refuse(r.ID, proto.RefusedHelloMissing)
		case c.Account != 0 && r.Type == proto.RequestHello:
			c.Refuse(r.ID, proto.RefusedHelloAgain)
		default:
			c.server.Request(c, &r, arrived)
		}
	}
}

// heard lets the client be silent for a while again, unless it is being closed: then only the answer to our close frame is waited for.
func (c *Conn[S]) heard() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.socket.SetReadDeadline(time.Now().Add(idleMax))
	}
	return !c.closed
}

// end gives back what the connection had.
func (c *Conn[S]) end() {
	c.server.Gone(c)
	c.mu.Lock()
	c.closed, c.queue = true, nil
	c.mu.Unlock()
	c.socket.Close()
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	close(c.wake)
}

// write sends what is in the queue, and pings, until the connection ends.
func (c *Conn[S]) write() {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	var taken []outgoing
	for {
		select {
		case _, ok := <-c.wake:
			if !ok {
				return
			}
		case <-ping.C:
			c.socket.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeMax)) // a dead socket ends the reader
			continue
		}
		if cap(taken) > queueKept {
			taken = nil
		}
		c.mu.Lock()
		taken, c.queue = c.queue, taken[:0]
		c.mu.Unlock()
		for i := range taken {
			if !c.say(&taken[i]) {
				c.socket.Close() // ends the reader
			}
			taken[i] = outgoing{}
		}
	}
}

// say writes one message.
func (c *Conn[S]) say(o *outgoing) bool {
	deadline := time.Now().Add(writeMax)
	switch {
	case o.code != 0:
		reason := websocket.FormatCloseMessage(int(o.code), o.code.Reason())
		err := c.socket.WriteControl(websocket.CloseMessage, reason, deadline)
		c.socket.SetReadDeadline(time.Now().Add(lingerMax))
		return err == nil
	case o.frame != nil:
		c.socket.SetWriteDeadline(deadline)
		return c.socket.WritePreparedMessage(o.frame) == nil
	default:
		c.socket.SetWriteDeadline(deadline)
		return c.socket.WriteMessage(websocket.TextMessage, o.text) == nil
	}
}
