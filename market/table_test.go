package market

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"tote/server/proto"
)

// table is a market whose shards are turned by hand, on one goroutine, with a journal in memory. When a test
// ends, the journal is replayed and the books are audited and compared.
type table struct {
	t       testing.TB
	m       *Market
	journal *memory
	replica *Replica // follows the journal when follow is called
	shelf   *shelf   // what it tells of the past
	now     proto.Time
	said    []Out
	mark    proto.Time // what arrived later may not have been submitted yet; 0: all has
	passing func()     // what loops submit before they say so
}

// memory is a journal that a test can hold back.
type memory struct {
	records [][]byte
	bytes   []byte
	market  *Market
}

func (j *memory) Append(records []byte, n int) uint64 {
	first := uint64(len(j.records)) + 1
	j.bytes = append(j.bytes, records...)
	for range n {
		size := binary.LittleEndian.Uint32(records)
		j.records = append(j.records, bytes.Clone(records[4:4+size]))
		records = records[4+size:]
	}
	return first
}

const start = proto.Time(1671375600 * proto.Second) // 2022-12-18 15:00 UTC

func newTable(t testing.TB, shards int) *table {
	return reopen(t, shards, NewReplica(), nil)
}

// reopen starts a market from a replica, as after a restart.
func reopen(t testing.TB, shards int, from *Replica, records [][]byte) *table {
	kept, ok := from.views.(*shelf)
	if !ok {
		kept = newShelf()
		from.Tell(kept)
	}
	kept.reached = uint64(from.seq)
	tb := &table{t: t, journal: &memory{records: records}, replica: from, shelf: kept, now: start}
	m, err := New(Config{
		Shards: shards, Views: kept, Epoch: 1, Durability: "always", Journal: tb.journal,
		Now: func() proto.Time { return tb.now },
		Passed: func(at proto.Time) bool {
			if tb.passing != nil {
				tb.passing()
			}
			return tb.mark == 0 || at <= tb.mark
		},
		Deliver: func(b *Batch) { tb.said = append(tb.said, b.Outs...) },
	}, from)
	if err != nil {
		t.Fatal(err)
	}
	tb.m, tb.journal.market = m, m
	for _, s := range m.shards {
		s.announce()
	}
	t.Cleanup(tb.audit)
	return tb
}

// turns lets all shards work until nothing is left to do but to wait for the journal.
func (tb *table) turns() {
	for again, waits := true, 0; again && waits < 8; again = !tb.m.settled() {
		if tb.m.idle() {
			waits++ // for the loops, or a few turns for an answer
		}
		for _, s := range tb.m.shards {
			s.turn(tb.now)
		}
	}
}

// settle makes everything durable and said.
func (tb *table) settle() {
	tb.turns()
	tb.m.Durable(uint64(len(tb.journal.records)))
	tb.turns()
}

// do submits commands and returns what was said to their sessions and to everybody.
func (tb *table) do(commands ...Command) []Out {
	tb.t.Helper()
	tb.said = nil
	for i := range commands {
		if !tb.m.Submit(&commands[i]) {
			tb.t.Fatalf("command %d: the inbox is full", i)
		}
	}
	tb.settle()
	return tb.said
}

// after lets time pass.
func (tb *table) after(d proto.Time) []Out {
	tb.said = nil
	tb.now += d
	tb.settle()
	return tb.said
}

// audit is the consistency check that ends every test.
func (tb *table) audit() {
	tb.turns()
	r := tb.replay()
	if err := r.Check(); err != nil {
		tb.t.Error(err)
	}
	for _, wrong := range auditPast(r, r.views.(*shelf)) {
		tb.t.Error(wrong)
	}
	if live, replayed := tb.m.Digest(), r.Digest(); live != replayed {
		tb.t.Errorf("the live market's digest is %x, its journal's %x", live, replayed)
	}
}

// replay builds a replica from the journal; Apply audits the money after each record.
func (tb *table) replay() *Replica {
	r := NewReplica()
	r.Tell(newShelf())
	for i, record := range tb.journal.records {
		if err := r.Apply(uint64(i+1), record); err != nil {
			tb.t.Error(err)
			break
		}
	}
	return r
}

// Shorthands of the trade.

var desk = NewSession(DeskLoop, 1, 1)

func session(n int) Session { return NewSession(0, 1, uint32(n)) }

// player opens an account with a deposit and attaches session n to it.
func (tb *table) player(n int, credits proto.Amount) proto.AccountID {
	tb.t.Helper()
	id := tb.m.NextAccount()
	outs := tb.do(Command{Kind: OpenAccount, From: session(n), ID: 1, Account: id, Attach: true,
		Args: &proto.AccountOpening{Name: fmt.Sprint("player ", n), Deposit: credits}})
	welcome := only[*proto.Welcome](tb.t, outs)
	if welcome.Account != id || welcome.Balance != credits {
		tb.t.Fatalf("welcome %+v", welcome)
	}
	return id
}

func (tb *table) game(templates ...proto.Template) proto.GameID {
	tb.t.Helper()
	return tb.answer(Command{Kind: OpenGame, Game: tb.m.NextGame(), Args: &proto.GameOpening{
		Name: "Argentina v France", Teams: [2]string{"Argentina", "France"}, Shortlist: []string{"Lionel Messi", "Kylian Mbappé"},
		Templates: templates}}).Game
}

func (tb *table) pool(g proto.GameID, o proto.PoolOpening) proto.PoolID {
	tb.t.Helper()
	if o.Question == "" {
		o.Question = "Who scores next?"
	}
	if o.Labels == nil {
		o.Labels = []string{"Argentina", "France", "nobody"}
	}
	return tb.answer(Command{Kind: OpenPool, Game: g, Args: &o}).Pool
}

// answer does an operator's command that must succeed.
func (tb *table) answer(c Command) proto.Answer {
	tb.t.Helper()
	c.From = desk
	for _, o := range tb.do(c) {
		if o.To == desk && o.Kind == OutAnswer && o.Answer.Refusal == proto.Accepted {
			return *o.Answer
		}
		if o.To == desk {
			tb.t.Fatalf("%+v was answered %+v %+v", c, o.Refused, o.Answer)
		}
	}
	tb.t.Fatalf("%+v was not answered", c)
	return proto.Answer{}
}

func (tb *table) lock(p proto.PoolID) {
	tb.t.Helper()
	tb.answer(Command{Kind: LockPool, Pool: p, Args: &proto.Locking{}})
}

func (tb *table) settlePool(p proto.PoolID, winner proto.Outcome) []Out {
	tb.t.Helper()
	tb.answer(Command{Kind: SettlePool, Pool: p, Args: &proto.Settlement{Winners: []proto.Outcome{winner}}})
	return tb.said
}

// stakeOf makes a stake that arrives now.
func (tb *table) stakeOf(n int, a proto.AccountID, id proto.RequestID, p proto.PoolID, o proto.Outcome, amount proto.Amount) Command {
	return Command{Kind: Stake, From: session(n), Account: a, ID: id, Pool: p, Outcome: o, Amount: amount, Arrived: tb.now}
}

// saleOf makes a sale that arrives now.
func (tb *table) saleOf(n int, a proto.AccountID, id proto.RequestID, p proto.PoolID, o proto.Outcome, shares proto.Shares) Command {
	return Command{Kind: Sell, From: session(n), Account: a, ID: id, Pool: p, Outcome: o, Shares: shares, Arrived: tb.now}
}

// accept stakes and returns the receipt.
func (tb *table) accept(n int, a proto.AccountID, id proto.RequestID, p proto.PoolID, o proto.Outcome, amount proto.Amount) proto.Receipt {
	tb.t.Helper()
	for _, out := range tb.do(tb.stakeOf(n, a, id, p, o, amount)) {
		if out.Kind == OutReceipt && out.To == session(n) {
			return out.Receipt
		}
		if out.Kind == OutRefused {
			tb.t.Fatalf("stake %d was refused: %s", id, out.Refused.Reason.Code())
		}
	}
	tb.t.Fatalf("stake %d was not answered", id)
	return proto.Receipt{}
}

// verdict does one command and returns its refusal, or Accepted.
func (tb *table) verdict(c Command) proto.Refusal {
	tb.t.Helper()
	for _, out := range tb.do(c) {
		if out.To != c.From || out.To == 0 {
			continue
		}
		switch out.Kind {
		case OutRefused:
			return out.Refused.Reason
		case OutAnswer:
			return out.Answer.Refusal
		}
		return proto.Accepted
	}
	tb.t.Fatalf("%+v was not answered", c)
	return 0
}

func (tb *table) balance(n int, a proto.AccountID) proto.Amount {
	tb.t.Helper()
	return only[*proto.Account](tb.t, tb.do(Command{Kind: ShowAccount, From: session(n), ID: 1, Account: a})).Balance
}

// all finds the messages of one type.
func all[M proto.Message](outs []Out) (found []M) {
	for _, o := range outs {
		if m, ok := o.Message.(M); ok {
			found = append(found, m)
		}
	}
	return found
}

// only finds the one message of a type.
func only[M proto.Message](t testing.TB, outs []Out) M {
	t.Helper()
	found := all[M](outs)
	if len(found) != 1 {
		var none M
		t.Fatalf("%d messages of type %s in %+v, want 1", len(found), none.Type(), outs)
	}
	return found[0]
}
