package market

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"

	"tote/server/proto"
)

// A snapshot is a book in bytes: a head, then each account and each game, by id, behind its length. Integers
// are varints; what is rare is JSON.
//
//	"tote" version 6 │ seq, last game, house, deposits, withdrawals, accounts, games, last circle, circles, entries │
//	head of the hash chain │ {length, account, ledger}… │ {length, game, ladder}… │ {length, circle}…
//
// SnapshotVersion is the format of snapshots: a market reads its own and no other.
const SnapshotVersion = 6

const (
	snapshotMagic = "tote"
	objectMax     = 1 << 30 // bytes of one account or game; more is a broken snapshot
)

var errSnapshotShort = errors.New("the snapshot ends too early")

// encoder appends an object's fields.
type encoder struct{ b []byte }

func (e *encoder) uint(v uint64)        { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) money(v proto.Amount) { e.b = binary.AppendVarint(e.b, int64(v)) }
func (e *encoder) text(v string) {
	e.uint(uint64(len(v)))
	e.b = append(e.b, v...)
}

func (e *encoder) json(v any) {
	b, err := json.Marshal(v)
	assert(err == nil, "a snapshot's object always encodes")
	e.text(string(b))
}

func (e *encoder) account(a *account) {
	e.uint(uint64(a.id))
	e.text(a.name)
	e.money(a.balance)
	e.uint(uint64(len(a.tickets)))
	for i := range a.tickets {
		e.ticket(&a.tickets[i])
	}
	e.uint(uint64(len(a.closed)))
	for i := range a.closed {
		e.ticket(&a.closed[i].ticket)
		e.uint(a.closed[i].end)
	}
	e.trades(a.trades)
	e.uint(uint64(len(a.following())))
	for _, f := range a.following() {
		e.uint(uint64(f.Account))
		e.text(f.Name)
	}
	circles := a.circleNames()
	e.uint(uint64(len(circles)))
	for _, c := range circles {
		e.uint(uint64(c.Circle))
		e.text(c.Name)
	}
}

func (e *encoder) circle(c *circle) {
	e.uint(uint64(c.id))
	e.text(c.name)
	e.uint(c.code)
	e.uint(uint64(len(c.members)))
	for _, m := range c.members {
		e.uint(uint64(m.Account))
		e.text(m.Name)
	}
}

func (e *encoder) trades(t *trades) {
	if t == nil {
		t = &trades{}
	}
	e.uint(uint64(len(t.holdings)))
	for i := range t.holdings {
		h := &t.holdings[i]
		e.uint(uint64(h.seq))
		e.uint(uint64(h.bought))
		e.uint(uint64(h.shares))
		e.money(h.cost)
		e.money(h.cash)
	}
	e.uint(uint64(len(t.sales)))
	for i := range t.sales {
		s := &t.sales[i]
		e.uint(uint64(s.seq))
		e.uint(uint64(s.request))
		e.uint(uint64(s.on))
		e.uint(uint64(s.shares))
		e.money(s.cash)
	}
}

func (e *encoder) ticket(t *ticket) {
	e.uint(uint64(t.seq))
	e.uint(uint64(t.request))
	e.uint(uint64(t.on))
	e.money(t.amount)
}

func (e *encoder) game(g *game) {
	e.uint(uint64(g.id))
	e.json(&g.opening)
	e.uint(uint64(g.state))
	e.uint(uint64(g.minute))
	e.uint(uint64(g.score[0]))
	e.uint(uint64(g.score[1]))
	e.uint(uint64(g.events))
	e.uint(uint64(g.ended))
	e.uint(uint64(g.asks))
	e.uint(uint64(g.circle))
	e.uint(uint64(len(g.pools)))
	for _, p := range g.pools {
		e.pool(p)
	}
}

func (e *encoder) pool(p *pool) {
	e.uint(uint64(p.id))
	e.json(&p.opening)
	e.json(p.inquiry)
	e.uint(uint64(p.state))
	e.uint(uint64(p.first))
	e.uint(uint64(p.opened))
	e.uint(uint64(p.locked))
	e.money(p.gross)
	e.money(p.carried)
	e.money(p.paid)
	e.uint(p.withdrawn)
	e.json(&p.ended)
	e.uint(uint64(len(p.winners)))
	for _, w := range p.winners {
		e.uint(uint64(w))
	}
	for _, on := range p.outcomes {
		e.money(on.staked)
		e.uint(uint64(on.backers))
	}
	e.uint(uint64(p.stakes.len()))
	for s := range p.stakes.all() {
		e.uint(s.who)
		e.uint(s.sum)
		e.uint(s.nth)
	}
	if p.dynamic != nil {
		e.dynamic(p.dynamic)
	}
}

func (e *encoder) dynamic(d *dynamic) {
	e.money(d.Total)
	for i := range d.Shares {
		e.money(d.Money[i])
		e.uint(uint64(d.Shares[i]))
	}
	e.uint(uint64(len(d.lots)))
	for i := range d.lots {
		e.uint(uint64(d.lots[i].shares))
		e.money(d.lots[i].cost)
	}
}

// decoder reads what encoder wrote. After the first error all values are zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) money() proto.Amount {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return proto.Amount(v)
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errSnapshotShort
	}
	d.b = nil
}

// count reads how many objects follow, each of at least one byte.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) text() string {
	n := d.count()
	v := string(d.b[:n])
	d.b = d.b[n:]
	return v
}

func (d *decoder) json(v any) {
	text := d.text()
	if d.err == nil {
		d.err = json.Unmarshal([]byte(text), v)
	}
}

func (d *decoder) account() (*account, error) {
	a := &account{id: proto.AccountID(d.uint()), name: d.text(), balance: d.money()}
	for range d.count() {
		a.tickets = insert(a.tickets, len(a.tickets), d.ticket())
	}
	for range d.count() {
		a.closed = insert(a.closed, len(a.closed), closedTicket{d.ticket(), d.uint()})
	}
	a.trades = d.trades()
	for range d.count() {
		friend := proto.Friend{Account: proto.AccountID(d.uint()), Name: d.text()}
		a.tie(func(t *ties) { t.following = append(t.following, friend) })
	}
	for range d.count() {
		a.join(proto.CircleID(d.uint()), d.text())
	}
	if d.err != nil {
		return nil, fmt.Errorf("decode account %d: %w", a.id, d.err)
	}
	return a, nil
}

func (d *decoder) trades() *trades {
	t := &trades{}
	for range d.count() {
		t.holdings = insert(t.holdings, len(t.holdings), holding{seq: proto.Seq(d.uint()), bought: proto.Shares(d.uint()),
			lot: d.lot(), cash: d.money()})
	}
	for range d.count() {
		t.sales = insert(t.sales, len(t.sales), sale{seq: proto.Seq(d.uint()), request: proto.RequestID(d.uint()), on: place(d.uint()),
			shares: proto.Shares(d.uint()), cash: d.money()})
	}
	if len(t.holdings) == 0 && len(t.sales) == 0 {
		return nil
	}
	return t
}

func (d *decoder) lot() lot { return lot{shares: proto.Shares(d.uint()), cost: d.money()} }

func (d *decoder) ticket() ticket {
	return ticket{seq: proto.Seq(d.uint()), request: proto.RequestID(d.uint()), on: place(d.uint()), amount: d.money()}
}

func (d *decoder) circle() (*circle, error) {
	c := &circle{id: proto.CircleID(d.uint()), name: d.text(), code: d.uint()}
	for range d.count() {
		c.members = append(c.members, proto.Friend{Account: proto.AccountID(d.uint()), Name: d.text()})
	}
	if d.err != nil {
		return nil, fmt.Errorf("decode circle %d: %w", c.id, d.err)
	}
	return c, nil
}

// game decodes a game; its templates are not compiled yet.
func (d *decoder) game() (*game, error) {
	g := &game{id: proto.GameID(d.uint())}
	d.json(&g.opening)
	g.state, g.minute = proto.GameState(d.uint()), uint16(d.uint())
	g.score = [2]uint16{uint16(d.uint()), uint16(d.uint())}
	g.events, g.ended = uint32(d.uint()), proto.Time(d.uint())
	g.asks, g.circle = int(d.uint()), proto.CircleID(d.uint())
	for range d.count() {
		g.pools = append(g.pools, d.pool())
	}
	if d.err != nil {
		return nil, fmt.Errorf("decode game %d: %w", g.id, d.err)
	}
	return g, nil
}

func (d *decoder) pool() *pool {
	p := &pool{id: proto.PoolID(d.uint())}
	d.json(&p.opening)
	d.json(&p.inquiry)
	p.state, p.first, p.opened, p.locked = proto.PoolState(d.uint()), proto.Seq(d.uint()), proto.Time(d.uint()), proto.Time(d.uint())
	p.gross, p.carried, p.paid, p.withdrawn = d.money(), d.money(), d.money(), d.uint()
	d.json(&p.ended)
	for range d.count() {
		p.winners = append(p.winners, proto.Outcome(d.uint()))
	}
	p.outcomes = make([]standing, len(p.opening.Labels))
	for i := range p.outcomes {
		p.outcomes[i] = standing{staked: d.money(), backers: uint32(d.uint())}
	}
	for range d.count() {
		p.keep(stake{who: d.uint(), sum: d.uint(), nth: d.uint()})
	}
	if d.err == nil && p.opening.Kind == proto.KindDynamic {
		p.dynamic = d.dynamic(p)
	}
	return p
}

func (d *decoder) dynamic(p *pool) *dynamic {
	of, seeded := newDynamic(&p.opening.PoolOpening)
	if !seeded {
		d.fail()
		return nil
	}
	of.Total = d.money()
	for i := range of.Shares {
		of.Money[i], of.Shares[i] = d.money(), proto.Shares(d.uint())
	}
	for range d.count() {
		of.lots = append(of.lots, d.lot())
	}
	if len(of.lots) != p.stakes.len() {
		d.fail()
	}
	return of
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// digest is the sum of the hashes of all objects, so that it does not depend on how they are spread over
// books. Two books with one digest tell the same story.
func (b *book) digest() uint64 {
	var e encoder
	var sum uint64
	hash := func() {
		h := fnv.New64a()
		h.Write(e.b)
		sum += h.Sum64()
		e.b = e.b[:0]
	}
	for _, a := range b.accounts {
		e.account(a)
		hash()
	}
	for _, g := range b.games {
		e.game(g)
		hash()
	}
	for _, c := range b.circles {
		e.circle(c)
		hash()
	}
	return sum + uint64(b.house)*3 + uint64(b.deposits)*5 + uint64(b.withdrawals)*7
}

// Snapshot writes the book as of the last applied record.
func (r *Replica) Snapshot(w io.Writer) error {
	e := encoder{b: append([]byte(snapshotMagic), SnapshotVersion)}
	e.uint(uint64(r.seq))
	e.uint(uint64(r.lastGame))
	e.money(r.house)
	e.money(r.deposits)
	e.money(r.withdrawals)
	e.uint(uint64(len(r.accounts)))
	e.uint(uint64(len(r.games)))
	e.uint(uint64(r.lastCircle))
	e.uint(uint64(len(r.circles)))
	e.uint(r.entries)
	e.b = append(e.b, r.past.head[:]...)
	flush := func() error {
		_, err := w.Write(e.b)
		e.b = e.b[:0]
		if err != nil {
			return fmt.Errorf("write a snapshot: %w", err)
		}
		return nil
	}
	var object encoder
	put := func() error {
		e.uint(uint64(len(object.b)))
		e.b = append(e.b, object.b...)
		object.b = object.b[:0]
		if len(e.b) < 1<<16 {
			return nil
		}
		return flush()
	}
	for _, id := range sortedKeys(r.accounts) {
		object.account(r.accounts[id])
		object.ledger(r.ledgers.of(id))
		if err := put(); err != nil {
			return err
		}
	}
	for _, id := range sortedKeys(r.games) {
		object.game(r.games[id])
		object.ladder(r.ladder(id))
		if err := put(); err != nil {
			return err
		}
	}
	for _, id := range sortedKeys(r.circles) {
		object.circle(r.circles[id])
		if err := put(); err != nil {
			return err
		}
	}
	return flush()
}

// ledger and ladder are what a replica has besides, behind the account and the game.
func (e *encoder) ledger(l *ledger) {
	e.uint(l.last.Load())
	e.score(&l.score)
}

func (e *encoder) score(s *score) {
	e.money(proto.Amount(s.profit.Load()))
	e.uint(s.ended.Load())
}

func (e *encoder) ladder(l *ladder) {
	if l == nil {
		e.uint(0)
		return
	}
	e.uint(uint64(l.len()))
	for id, s := range l.all() {
		e.uint(uint64(id))
		e.score(s)
	}
}

func (d *decoder) ledger(l *ledger) error {
	l.last.Store(d.uint())
	d.score(&l.score)
	return d.err
}

func (d *decoder) score(s *score) {
	s.profit.Store(int64(d.money()))
	s.ended.Store(d.uint())
}

func (d *decoder) ladder(l *ladder) error {
	for range d.count() {
		d.score(l.of(proto.AccountID(d.uint())))
	}
	return d.err
}

// byteReader is what a snapshot is read from.
type byteReader interface {
	io.Reader
	io.ByteReader
}

// restore reads a snapshot into an empty replica.
func (r *Replica) restore(from byteReader) error {
	head := make([]byte, len(snapshotMagic)+1)
	if _, err := io.ReadFull(from, head); err != nil {
		return fmt.Errorf("read its head: %w", err)
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic || head[len(snapshotMagic)] != SnapshotVersion {
		return fmt.Errorf("it begins with %q; was it written by another version of the server?", head)
	}
	var fields [10]uint64
	for i := range fields {
		var err error
		if i >= 2 && i <= 4 {
			var v int64
			v, err = binary.ReadVarint(from)
			fields[i] = uint64(v)
		} else {
			fields[i], err = binary.ReadUvarint(from)
		}
		if err != nil {
			return fmt.Errorf("read its head: %w", err)
		}
	}
	r.seq, r.lastGame = proto.Seq(fields[0]), proto.GameID(fields[1])
	r.house, r.deposits, r.withdrawals = proto.Amount(fields[2]), proto.Amount(fields[3]), proto.Amount(fields[4])
	r.entries = fields[9]
	if _, err := io.ReadFull(from, r.past.head[:]); err != nil {
		return fmt.Errorf("read its head: %w", err)
	}
	for range fields[5] {
		d, err := readObject(from)
		if err != nil {
			return err
		}
		a, err := d.account()
		if err != nil {
			return err
		}
		if err := d.ledger(r.ledgers.of(a.id)); err != nil {
			return fmt.Errorf("decode account %d: %w", a.id, err)
		}
		r.accounts[a.id] = a
	}
	for range fields[6] {
		d, err := readObject(from)
		if err != nil {
			return err
		}
		g, err := d.game()
		if err != nil {
			return err
		}
		if err := d.ladder(r.ladderOf(g.id)); err != nil {
			return fmt.Errorf("decode game %d: %w", g.id, err)
		}
		if err := r.addGame(g); err != nil {
			return err
		}
	}
	for range fields[8] {
		d, err := readObject(from)
		if err != nil {
			return err
		}
		c, err := d.circle()
		if err != nil {
			return err
		}
		r.circles[c.id] = c
	}
	r.lastCircle = proto.CircleID(fields[7])
	return nil
}

func readObject(from byteReader) (*decoder, error) {
	n, err := binary.ReadUvarint(from)
	if err != nil || n > objectMax {
		return nil, fmt.Errorf("read an object of %d bytes: %w", n, errors.Join(err, errSnapshotShort))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(from, b); err != nil {
		return nil, fmt.Errorf("read an object of %d bytes: %w", n, err)
	}
	return &decoder{b: b}, nil
}
