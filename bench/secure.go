package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net"
	"time"
)

// Trust says whose certificates are believed, where the target is wss://.
type Trust struct {
	Roots  []byte // PEM; nil: those that the system trusts
	Anyone bool   // whatever is shown is believed
}

// config is the TLS of a client of a host.
func (t Trust) config(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, InsecureSkipVerify: t.Anyone, NextProtos: []string{"http/1.1"}}
	if t.Roots != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(t.Roots) {
			return nil, errors.New("read whom to trust: there is no certificate in PEM")
		}
	}
	return c, nil
}

// secure is the TLS of a player: crypto/tls over what the worker has read, and into what it will write. It can go on after a read that
// found too little, but for its handshake, which is a coroutine that stops where bytes are missing.
//
// Owner: the worker.
type secure struct {
	conn   *tls.Conn
	in     []byte  // read, and not decrypted
	to     *[]byte // encrypted, and not written
	resume func() (struct{}, bool)
	stop   func()
	want   func(struct{}) bool // nil: the handshake is done
	failed error               // of the handshake
}

func newSecure(c *tls.Config, to *[]byte) *secure {
	s := &secure{to: to}
	s.conn = tls.Client(s, c)
	s.resume, s.stop = iter.Pull(func(want func(struct{}) bool) {
		s.want = want
		s.failed = s.conn.HandshakeContext(context.Background())
		s.want = nil
	})
	return s
}

// dry is what Read says where there is nothing: crypto/tls takes an error for the end unless it is temporary.
type dry struct{}

func (dry) Error() string   { return "nothing has come" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

var errDry error = dry{}

func (s *secure) Read(p []byte) (int, error) {
	for len(s.in) == 0 {
		if s.want == nil || !s.want(struct{}{}) {
			return 0, errDry
		}
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *secure) Write(p []byte) (int, error) {
	*s.to = append(*s.to, p...)
	return len(p), nil
}

func (s *secure) Close() error                     { return nil }
func (s *secure) LocalAddr() net.Addr              { return nil }
func (s *secure) RemoteAddr() net.Addr             { return nil }
func (s *secure) SetDeadline(time.Time) error      { return nil }
func (s *secure) SetReadDeadline(time.Time) error  { return nil }
func (s *secure) SetWriteDeadline(time.Time) error { return nil }

// secure begins TLS.
func (w *worker) secure(p *player) {
	p.tls = newSecure(w.target.tls, &w.sealed)
	p.stage = stageSecuring
	w.shake(p)
}

// shake goes on with the handshake as far as the bytes reach.
func (w *worker) shake(p *player) {
	_, more := p.tls.resume()
	w.writeSealed(p)
	switch {
	case more:
	case p.tls.failed != nil:
		w.lose(p, "TLS: "+p.tls.failed.Error(), "")
	default:
		w.upgrade(p)
	}
}

// writeSealed writes what was encrypted.
func (w *worker) writeSealed(p *player) {
	if len(w.sealed) > 0 {
		w.put(p, w.sealed)
		w.sealed = w.sealed[:0]
	}
}

// decrypt takes what was read of a player with TLS.
func (w *worker) decrypt(p *player, in []byte) {
	p.tls.in = in
	if p.stage == stageSecuring {
		w.shake(p)
	}
	for p.fd != unset && p.stage != stageSecuring {
		for len(w.clear)-len(p.cut) < inRoom {
			w.clear = make([]byte, 2*len(w.clear)+inSize) // bounded by messageMax, see readFrame
		}
		kept := copy(w.clear, p.cut)
		n, err := p.tls.conn.Read(w.clear[kept:])
		w.writeSealed(p)
		if n > 0 {
			w.takeIn(p, w.clear[:kept+n])
		}
		if err == errDry || p.fd == unset {
			break
		}
		if err != nil {
			w.lose(p, fmt.Sprintf("TLS: %v", err), "")
		}
	}
	if p.tls != nil {
		p.tls.in = nil
	}
}
