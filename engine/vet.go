package engine

import (
	"runtime"
	"sync"

	"tote/server/market"
	"tote/server/proto"
)

// vetting reads tokens of the provider's on goroutines of its own, since a signature that is made with a private key takes
// longer to check than many requests:
//
//	loop: hello ─▶ queue ─▶ verify ─▶ inbox of the loop: attach, or refuse
//	      and what follows it waits in the session
type vetting struct {
	queue chan vet
	ended sync.WaitGroup
}

// vet is a hello whose token is being read.
type vet struct {
	loop    *loop
	session market.Session
	hello   proto.Request
}

const (
	// vetsMax is how many may wait: a third of a second for one core. More are told "busy".
	vetsMax = 4096

	// heldMax is how many bytes may follow a hello before its token is read; whoever sends more is closed.
	heldMax = readBuffer

	// tokenMax is the longest token that is looked at.
	tokenMax = 4 << 10
)

// start lets half the cores read tokens at most: a storm of them must not starve those who are in.
func (v *vetting) start(t *tokens) {
	v.queue = make(chan vet, vetsMax)
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		v.ended.Go(func() {
			for one := range v.queue {
				g, refusal := t.verify(one.hello.Token)
				one.loop.inbox.call(func() { one.loop.vetted(&one, g, refusal) })
			}
		})
	}
}

// stop ends what start began, when no loop runs any more.
func (v *vetting) stop() {
	if v.queue != nil {
		close(v.queue)
		v.ended.Wait()
	}
}

// vet has a token read. The session's next messages wait for that.
func (l *loop) vet(s *session, r *proto.Request) proto.Refusal {
	if !looksForeign(r.Token) {
		return proto.RefusedTokenInvalid
	}
	select {
	case l.engine.vetting.queue <- vet{loop: l, session: s.name(), hello: *r}:
	default:
		return proto.RefusedBusy
	}
	s.vetting = true
	l.counts.Vetted++
	return proto.Accepted
}

// hold keeps what follows a hello whose token is being read.
func (l *loop) hold(s *session, in []byte) {
	if s.head == nil {
		s.head = l.engine.buffers.Get()
	}
	if len(s.head.B)+len(in) > heldMax {
		l.close(s, proto.ClosePolicy)
		return
	}
	s.head.B = append(s.head.B, in...)
}

// vetted goes on with a session when its token has been read. What it has sent meanwhile counts as arrived now: the loop has said
// that all of before was submitted.
func (l *loop) vetted(v *vet, g grant, refusal proto.Refusal) {
	s := l.find(v.session)
	if s == nil {
		return
	}
	s.vetting, l.arrived = false, l.now
	if refusal == proto.Accepted {
		refusal = l.attach(s, &v.hello, g)
	}
	if refusal != proto.Accepted {
		l.refuseRequest(s, v.hello.ID, refusal)
	}
	held := s.head
	if held == nil {
		return
	}
	s.head = nil
	if s.state == open {
		l.frames(s, held.B)
	}
	l.drop(&held)
}
