package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"reflect"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// Client is one connection, for tests and small tools: it blocks, and one goroutine uses it.
type Client struct {
	// Patience bounds every wait; Dial sets it to 10 s.
	Patience time.Duration

	conn net.Conn
	rw   io.ReadWriter
	id   proto.RequestID
	kept []proto.Message // came while Ask waited for its reply
}

// Dial connects to ws://host:port/ws, up to the end of the handshake.
func Dial(ctx context.Context, target string) (*Client, error) { return DialTLS(ctx, target, nil) }

// DialTLS is Dial, to wss://host:port/ws as well. Where c is nil, the system says whom to trust.
func DialTLS(ctx context.Context, target string, c *tls.Config) (*Client, error) {
	dialer := ws.Dialer{Protocols: []string{subprotocol}, Timeout: 10 * time.Second, TLSConfig: c}
	conn, buffered, handshake, err := dialer.Dial(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	if handshake.Protocol != subprotocol {
		conn.Close()
		return nil, fmt.Errorf("dial %s: subprotocol %q instead of %q", target, handshake.Protocol, subprotocol)
	}
	client := &Client{
		Patience: 10 * time.Second, conn: conn,
		id: proto.RequestID(time.Now().UnixMicro()), // new to an account that was used before
	}
	if buffered == nil { // nothing came right behind the handshake
		buffered = bufio.NewReader(conn)
	}
	client.rw = struct {
		io.Reader
		io.Writer
	}{buffered, conn}
	return client, nil
}

// knock finds out whether there is anyone, so that a wrong target is one line and not ten thousand faults.
func (t *target) knock(ctx context.Context, url string) error {
	c, err := t.call(ctx, url)
	if err != nil {
		return err
	}
	return c.Close()
}

// call is Dial, to one of the target's URLs, with a remedy where nobody answers.
func (t *target) call(ctx context.Context, at string) (*Client, error) {
	c, err := DialTLS(ctx, at, t.tls)
	if err == nil {
		return c, nil
	}
	var address *net.OpError
	if errors.As(err, &address) && errors.Is(err, unix.ECONNREFUSED) {
		u, _ := url.Parse(at)
		return nil, fmt.Errorf("nothing listens at %s: start the server, or name another --target", u.Host)
	}
	return nil, err
}

// Send sends a request; without an ID it gets the next one.
func (c *Client) Send(r proto.Request) (proto.RequestID, error) {
	if r.ID == 0 {
		c.id++
		r.ID = c.id
	}
	return r.ID, c.SendText(r.AppendJSON(nil))
}

// SendText sends any text as one message.
func (c *Client) SendText(text []byte) error {
	c.conn.SetWriteDeadline(time.Now().Add(c.Patience))
	return wsutil.WriteClientText(c.conn, text)
}

// Receive returns the next message: first those that came while Ask waited. When the server has closed
// the connection, the error is a wsutil.ClosedError with code and reason.
func (c *Client) Receive() (proto.Message, error) {
	if len(c.kept) > 0 {
		m := c.kept[0]
		c.kept = c.kept[1:]
		return m, nil
	}
	return c.receive()
}

func (c *Client) readFrame() (ws.Frame, error) {
	h, err := ws.ReadHeader(c.rw)
	switch {
	case err != nil:
		return ws.Frame{}, err
	case h.Length > messageMax:
		return ws.Frame{}, errTooBig
	}
	payload := make([]byte, h.Length)
	_, err = io.ReadFull(c.rw, payload)
	return ws.Frame{Header: h, Payload: payload}, err
}

func (c *Client) receive() (proto.Message, error) {
	c.conn.SetDeadline(time.Now().Add(c.Patience))
	for assembly := (assembly{}); ; {
		f, err := c.readFrame()
		if err != nil {
			return nil, err
		}
		switch f.Header.OpCode {
		case ws.OpPing:
			err = ws.WriteFrame(c.conn, ws.MaskFrame(ws.NewPongFrame(f.Payload)))
		case ws.OpPong:
		case ws.OpClose: // also with a code younger than RFC 6455, as 1012 is
			code, reason, wrong := readClose(f.Payload)
			ended := wsutil.ClosedError{Code: ws.StatusCode(code), Reason: reason}
			if wrong == nil {
				wrong = ended
			}
			_ = ws.WriteFrame(c.conn, ws.MaskFrame(ws.NewCloseFrame(f.Payload[:min(len(f.Payload), 2)])))
			return nil, wrong
		default:
			opcode, text, whole, wrong := assembly.add(frame{final: f.Header.Fin, opcode: f.Header.OpCode, payload: f.Payload})
			switch {
			case wrong != nil:
				err = wrong
			case whole && opcode != ws.OpText:
				return nil, fmt.Errorf("a message of opcode %d", opcode)
			case whole:
				return proto.ReadMessage(text)
			}
		}
		if err != nil {
			return nil, err
		}
	}
}

// Ask sends a request and returns its reply, which may be a *proto.Refused. Messages that come before are
// kept for Receive.
func (c *Client) Ask(r proto.Request) (proto.Message, error) {
	id, err := c.Send(r)
	if err != nil {
		return nil, fmt.Errorf("send %s: %w", r.Type, err)
	}
	for {
		m, err := c.receive()
		if err != nil {
			return nil, fmt.Errorf("wait for the reply to %s: %w", r.Type, err)
		}
		if replyTo(m) == id {
			return m, nil
		}
		c.kept = append(c.kept, m)
	}
}

// replyTo is the id of the request that a message answers; 0: none. Every reply has it as ID.
func replyTo(m proto.Message) proto.RequestID {
	if id := reflect.ValueOf(m).Elem().FieldByName("ID"); id.IsValid() {
		return id.Interface().(proto.RequestID)
	}
	return 0
}

// Close says goodbye and closes.
func (c *Client) Close() error {
	c.conn.SetDeadline(time.Now().Add(time.Second))
	said := ws.WriteFrame(c.conn, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))))
	return errors.Join(said, c.conn.Close())
}

// Abort closes without a word, as a phone does that leaves its network.
func (c *Client) Abort() error { return c.conn.Close() }
