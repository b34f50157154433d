package bench

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"tote/server/proto"
)

// line is the connection of a coordinator and an agent: a word of JSON on each line.
//
//	coordinator                            agent
//	           ◀──────────── greeting ────        its version, a nonce
//	           ───── proof ──────────────▶        of the secret, for that nonce, and a nonce
//	           ◀──────────── proof, facts         for this nonce
//	           ───── task ───────────────▶        the plan, and the agent's share of its players
//	           ◀──────────── ready ───────        or refused: why not, in one line
//	           ───── clock ──────────────▶        and back, a few times now, once a second from then on
//	           ───── start ──────────────▶        when, by the agent's clock
//	           ───── phase ──────────────▶
//	           ◀──────────── tally ───────        once a second; the last one has the tails
//
// The secret itself is never sent. Whoever can read and change what is on the way is not kept out: that takes a network of one's own.
type line struct {
	conn net.Conn
	in   *bufio.Reader
	max  int
	read []byte
}

// lineVersion is refused by whoever has another one: the two are built from the same source, or near it.
const lineVersion = 1

// Lengths of lines.
const (
	lineStranger = 4 << 10 // before the secret is proven
	lineMax      = 64 << 20
)

// word is what is said on a line; one of its fields is set.
type word struct {
	Greeting *greeting  `json:"greeting,omitempty"`
	Proof    *proof     `json:"proof,omitempty"`
	Task     *task      `json:"task,omitempty"`
	Ready    bool       `json:"ready,omitempty"`
	Refused  string     `json:"refused,omitempty"` // or ended, by the agent's doing
	Clock    *exchange  `json:"clock,omitempty"`
	Start    int64      `json:"start,omitempty"` // by the agent's clock, in ns
	Phase    phase      `json:"phase,omitempty"`
	Tally    *tallyLine `json:"tally,omitempty"`
}

type (
	greeting struct {
		Protocol string `json:"protocol"`
		Version  int    `json:"version"`
		Nonce    []byte `json:"nonce"`
	}
	proof struct {
		Sum   []byte `json:"sum"`
		Nonce []byte `json:"nonce,omitempty"` // of the coordinator
		Facts *facts `json:"facts,omitempty"` // of the agent
	}
	// facts are what an agent says of its host.
	facts struct {
		Host    string `json:"host"`
		Kernel  string `json:"kernel"`
		CPUs    int    `json:"cpus"`
		Workers int    `json:"workers"`
	}
	task struct {
		Plan Plan `json:"plan"`
		Deal deal `json:"deal"`
	}
	// exchange of clocks, in ns since 1970 by the clocks of whoever notes them. Ahead is what a clock of the server shows ahead of the agent's,
	// as far as is known.
	exchange struct {
		Sent     int64 `json:"sent"`
		Received int64 `json:"received,omitempty"`
		Answered int64 `json:"answered,omitempty"`
		Ahead    int64 `json:"ahead,omitempty"`
	}
)

func newLine(conn net.Conn) *line {
	return &line{conn: conn, in: bufio.NewReaderSize(conn, lineStranger), max: lineStranger}
}

// hear reads a word.
func (l *line) hear() (w word, err error) {
	l.read = l.read[:0]
	for {
		part, err := l.in.ReadSlice('\n')
		if l.read = append(l.read, part...); len(l.read) > l.max {
			return w, fmt.Errorf("a line of more than %d bytes", l.max)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return w, err
		}
	}
	if err := json.Unmarshal(l.read, &w); err != nil {
		return w, fmt.Errorf("no word of ours: %w", err)
	}
	return w, nil
}

// follow hands over what is said, until the connection ends or over is closed. from names who speaks.
func (l *line) follow(from int, watch stopwatch, to chan<- heard, over <-chan struct{}) {
	for {
		w, err := l.hear()
		select {
		case to <- heard{from, w, watch.now(), err}:
		case <-over:
			return
		}
		if err != nil {
			return
		}
	}
}

// writeMax bounds a write, which waits only for a peer that takes nothing.
const writeMax = 5 * time.Second

// say writes a word.
func (l *line) say(w word) error {
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	l.conn.SetWriteDeadline(time.Now().Add(writeMax))
	_, err = l.conn.Write(append(text, '\n'))
	return err
}

// The secret.

const lineProtocol = "tote-bench-agent"

func newNonce() []byte {
	nonce := make([]byte, 16)
	rand.Read(nonce) // it never fails
	return nonce
}

// prove is what only those can compute who have the secret; who keeps one side's proof from serving as the other's.
func prove(secret, who string, asked, given []byte) []byte {
	sum := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(sum, "%s %d %s %x %x", lineProtocol, lineVersion, who, asked, given)
	return sum.Sum(nil)
}

var (
	errSecret  = errors.New("the secrets differ: give both the same --token, --token-file or SERVER_AGENT_TOKEN")
	errVersion = errors.New("no agent of this version of server answers there: run the same version on both hosts")
)

// introduce is the coordinator's side of what comes before a task.
func (l *line) introduce(secret string) (*facts, error) {
	w, err := l.hear()
	switch {
	case err != nil:
		return nil, fmt.Errorf("no agent greets us there: %w", err)
	case w.Greeting == nil || w.Greeting.Protocol != lineProtocol || w.Greeting.Version != lineVersion:
		return nil, errVersion
	}
	nonce := newNonce()
	if err := l.say(word{Proof: &proof{Sum: prove(secret, "coordinator", w.Greeting.Nonce, nonce), Nonce: nonce}}); err != nil {
		return nil, err
	}
	answer, err := l.hear()
	switch {
	case err != nil:
		return nil, err
	case answer.Refused != "":
		return nil, errors.New(answer.Refused)
	case answer.Proof == nil || !hmac.Equal(answer.Proof.Sum, prove(secret, "agent", w.Greeting.Nonce, nonce)):
		return nil, errSecret
	case answer.Proof.Facts == nil || answer.Proof.Facts.Workers < 1:
		return nil, errVersion
	}
	l.max = lineMax
	return answer.Proof.Facts, nil
}

// receive is the agent's side.
func (l *line) receive(secret string, f facts) error {
	nonce := newNonce()
	if err := l.say(word{Greeting: &greeting{Protocol: lineProtocol, Version: lineVersion, Nonce: nonce}}); err != nil {
		return err
	}
	w, err := l.hear()
	switch {
	case err != nil:
		return err
	case w.Proof == nil || !hmac.Equal(w.Proof.Sum, prove(secret, "coordinator", nonce, w.Proof.Nonce)):
		l.say(word{Refused: errSecret.Error()})
		return errSecret
	}
	l.max = lineMax
	return l.say(word{Proof: &proof{Sum: prove(secret, "agent", nonce, w.Proof.Nonce), Facts: &f}})
}

// Tallies on a line.

type (
	tallyLine struct {
		Frames      uint64                     `json:"frames"`
		Bytes       uint64                     `json:"bytes"`
		Conflated   uint64                     `json:"conflated,omitempty"`
		Pings       uint64                     `json:"pings,omitempty"`
		Heartbeats  uint64                     `json:"heartbeats,omitempty"`
		Stale       uint64                     `json:"stale,omitempty"`
		Unknown     uint64                     `json:"unknown,omitempty"`
		Asides      uint64                     `json:"asides,omitempty"`
		Stakes      stakeCounts                `json:"stakes"`
		Deeds       deedCounts                 `json:"deeds"`
		Connections connectionCounts           `json:"connections"`
		Lives       lives                      `json:"lives,omitempty"`
		Checks      [checks]verdictLine        `json:"checks"`
		Faults      map[string]*Fault          `json:"faults,omitempty"`
		Times       [meters]counts             `json:"times"`
		Classes     [][len(classMeters)]counts `json:"classes,omitempty"`
		Deliveries  []deliveryLine             `json:"deliveries,omitempty"`
		Busy        time.Duration              `json:"busy"`
		Turn        time.Duration              `json:"turn"`
		Gauge       gaugeLine                  `json:"gauge"`
		Tails       []tailLine                 `json:"tails,omitempty"` // only in the last one
		CPU         time.Duration              `json:"cpu"`             // of the agent's process, since its start
	}
	verdictLine struct {
		Passed  uint64 `json:"passed,omitempty"`
		Failed  uint64 `json:"failed,omitempty"`
		Example string `json:"example,omitempty"`
	}
	// counts are a histogram's, of those values that have some: value, count, value, count, …
	counts       []int64
	deliveryLine struct {
		Epoch   uint64        `json:"epoch,omitempty"`
		Game    proto.GameID  `json:"game"`
		Seq     uint64        `json:"seq"`
		First   time.Duration `json:"first"`
		Last    time.Duration `json:"last"`
		Readers int           `json:"readers"`
		Sum     uint32        `json:"sum"`
	}
	gaugeLine struct {
		At       time.Duration `json:"at"`
		Open     int           `json:"open"`
		Joined   int           `json:"joined"`
		Came     int           `json:"came"`
		Waiting  int           `json:"waiting"`
		Audited  int           `json:"audited"`
		Away     int           `json:"away"`
		Ready    int           `json:"ready"`
		Gone     int           `json:"gone"`
		Interval time.Duration `json:"interval"`
	}
	tailLine struct {
		Seqs  []seqLine                     `json:"seqs"`
		Pools map[proto.PoolID]standingLine `json:"pools"`
	}
	seqLine struct {
		Epoch   uint64         `json:"epoch,omitempty"`
		Game    proto.GameID   `json:"game"`
		Players map[uint64]int `json:"players"` // how many stand at which broadcast
	}
	standingLine struct {
		Seq  uint64                      `json:"seq"`
		Over bool                        `json:"over,omitempty"`
		Odds []proto.Odd                 `json:"odds,omitempty"`
		Held map[proto.Outcome]proto.Odd `json:"held,omitempty"`
	}
)

// lineOf writes a tally down, with what an agent knows beside it.
func lineOf(t *tally, tails []*tail, cpu time.Duration) *tallyLine {
	l := &tallyLine{
		Frames: t.frames, Bytes: t.bytes, Conflated: t.conflated, Pings: t.pings, Heartbeats: t.heartbeats, Stale: t.stale, Unknown: t.unknown,
		Asides: t.asides, Stakes: t.stakes, Deeds: t.deeds, Connections: t.connections, Lives: maps.Clone(t.lives), Faults: t.faults, Busy: t.busy, Turn: t.turn, CPU: cpu,
		Gauge: gaugeLine{At: t.gauge.at, Open: t.gauge.open, Joined: t.gauge.joined, Came: t.gauge.came, Waiting: t.gauge.waiting,
			Audited: t.gauge.audited, Away: t.gauge.away, Ready: t.gauge.ready, Gone: t.gauge.gone, Interval: t.gauge.interval},
	}
	for c, v := range t.checks {
		l.Checks[c] = verdictLine{v.passed, v.failed, v.example}
	}
	for m, h := range t.times {
		l.Times[m] = countsOf(h)
	}
	for _, class := range t.classes {
		var line [len(classMeters)]counts
		for i, h := range class {
			line[i] = countsOf(h)
		}
		l.Classes = append(l.Classes, line)
	}
	for d, part := range t.deliveries {
		l.Deliveries = append(l.Deliveries, deliveryLine{d.game.epoch, d.game.game, d.seq, part.first, part.last, part.readers, part.sum})
	}
	for _, t := range tails {
		line := tailLine{Pools: map[proto.PoolID]standingLine{}}
		for game, players := range t.seqs {
			line.Seqs = append(line.Seqs, seqLine{game.epoch, game.game, players})
		}
		for id, s := range t.pools {
			standing := standingLine{Seq: s.seq, Over: s.over, Odds: s.odds, Held: map[proto.Outcome]proto.Odd{}}
			for i, held := range s.held {
				if held != (proto.Odd{}) {
					standing.Held[proto.Outcome(i)] = held
				}
			}
			line.Pools[id] = standing
		}
		l.Tails = append(l.Tails, line)
	}
	return l
}

// tally is what was written down; behind is how far the agent's instants are behind ours, which is added to them.
func (l *tallyLine) tally(from, classes int, behind time.Duration) (*tally, []*tail, error) {
	t := newTally(from, classes)
	t.frames, t.bytes, t.conflated, t.pings, t.heartbeats, t.stale = l.Frames, l.Bytes, l.Conflated, l.Pings, l.Heartbeats, l.Stale
	t.unknown, t.asides, t.stakes, t.deeds, t.connections, t.busy, t.turn = l.Unknown, l.Asides, l.Stakes, l.Deeds, l.Connections, l.Busy, l.Turn
	t.gauge = gauge{at: l.Gauge.At + behind, open: l.Gauge.Open, joined: l.Gauge.Joined, came: l.Gauge.Came, waiting: l.Gauge.Waiting,
		audited: l.Gauge.Audited, away: l.Gauge.Away, ready: l.Gauge.Ready, gone: l.Gauge.Gone, interval: l.Gauge.Interval}
	for c, v := range l.Checks {
		t.checks[c] = verdict{v.Passed, v.Failed, v.Example}
	}
	for epoch, one := range l.Lives {
		t.lives.add(epoch, life{one.First + behind, one.Last + behind})
	}
	for kind, f := range l.Faults {
		if f != nil {
			t.faults[kind] = f
		}
	}
	if len(l.Classes) != classes {
		return nil, nil, fmt.Errorf("%d classes of games, and not %d", len(l.Classes), classes)
	}
	var wrong []error
	for m, c := range l.Times {
		wrong = append(wrong, c.recordIn(t.times[m]))
	}
	for i, class := range l.Classes {
		for j, c := range class {
			wrong = append(wrong, c.recordIn(t.classes[i][j]))
		}
	}
	for _, d := range l.Deliveries {
		t.deliveries[distribution{course{d.Epoch, d.Game}, d.Seq}] = &delivery{first: d.First + behind, last: d.Last + behind, readers: d.Readers, sum: d.Sum}
	}
	var tails []*tail
	for _, line := range l.Tails {
		one := &tail{seqs: map[course]map[uint64]int{}, pools: map[proto.PoolID]standing{}}
		for _, s := range line.Seqs {
			one.seqs[course{s.Epoch, s.Game}] = s.Players
		}
		for id, s := range line.Pools {
			part := standing{seq: s.Seq, over: s.Over, odds: s.Odds}
			for i, held := range s.Held {
				if int(i) >= len(part.held) {
					return nil, nil, fmt.Errorf("a stake on outcome %d", i)
				}
				part.held[i] = held
			}
			one.pools[id] = part
		}
		tails = append(tails, one)
	}
	return t, tails, errors.Join(wrong...)
}

func countsOf(h *hdrhistogram.Histogram) (c counts) {
	if h == nil || h.TotalCount() == 0 {
		return nil
	}
	for _, bar := range h.Distribution() {
		if bar.Count > 0 {
			c = append(c, bar.From, bar.Count)
		}
	}
	return c
}

// recordIn adds the counts to a histogram of the same range, which keeps each where it was.
func (c counts) recordIn(h *hdrhistogram.Histogram) error {
	if len(c) == 0 {
		return nil
	}
	if h == nil || len(c)%2 != 0 {
		return errors.New("counts of no histogram of ours")
	}
	for i := 0; i < len(c); i += 2 {
		if c[i] < 0 || c[i+1] < 0 {
			return errors.New("counts of no histogram of ours")
		}
		if err := h.RecordValues(c[i], c[i+1]); err != nil {
			return err
		}
	}
	return nil
}
