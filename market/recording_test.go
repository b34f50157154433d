package market

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"slices"
	"testing"

	"tote/server/proto"
)

// recording has a replica record the table's journal, and returns a game's file.
func (tb *table) recording(g proto.GameID) []byte {
	tb.t.Helper()
	kept := newShelf()
	r := NewReplica()
	r.Tell(kept)
	r.Record(true)
	for i, record := range tb.journal.records {
		if err := r.Apply(uint64(i+1), record); err != nil {
			tb.t.Fatal(err)
		}
	}
	var file bytes.Buffer
	if err := WriteRecording(&file, kept, g); err != nil {
		tb.t.Fatal(err)
	}
	return file.Bytes()
}

func (tb *table) outcome(g proto.GameID) *Outcome {
	tb.t.Helper()
	r, err := ReadRecording(bytes.NewReader(tb.recording(g)))
	if err != nil {
		tb.t.Fatal(err)
	}
	o, err := r.Outcome()
	if err != nil {
		tb.t.Fatal(err)
	}
	return o
}

// evening is a game with questions by template and by hand, among other games; bets are its stakes, in order.
func (tb *table) evening(players []proto.AccountID, bets ...proto.Amount) proto.GameID {
	tb.t.Helper()
	g := tb.game(scorer("next", "kickoff", "goal"))
	other := tb.pool(tb.game(), proto.PoolOpening{})
	next := tb.post(g, "kickoff", 0).Opened[0]
	rain := tb.pool(g, proto.PoolOpening{Question: "Rain?", Labels: []string{"yes", "no"}, Takeout: 1500})
	wind := tb.pool(g, proto.PoolOpening{Question: "Wind?", Labels: []string{"yes", "no"}})
	for i, amount := range bets {
		n := i % len(players)
		id := proto.RequestID(1000*uint64(g) + uint64(10*i))
		tb.accept(n+1, players[n], id, next, proto.Outcome(i%2), amount)
		tb.accept(n+1, players[n], id+1, rain, proto.Outcome(i%2), amount+1)
		tb.accept(n+1, players[n], id+2, wind, 0, 7)
		tb.accept(n+1, players[n], id+3, other, 0, 3)
	}
	tb.lock(rain)
	tb.settlePool(rain, 1)
	tb.answer(Command{Kind: VoidPool, Pool: wind, Args: &proto.Voiding{Reason: "nobody measured it"}})
	tb.post(g, "goal", 1)
	tb.post(g, "end", 0)
	return g
}

// Two games in which the same was done come to the same, though their ids, times and accounts are others; and one stake more or
// less shows.
func TestOutcomes(t *testing.T) {
	tb := newTable(t, 3)
	var one, two []proto.AccountID
	for n := range 4 {
		one = append(one, tb.player(n+1, 10_000))
	}
	first := tb.evening(one, 100, 200, 300, 50, 70)
	tb.after(proto.Hour)
	for n := range 4 {
		two = append(two, tb.player(n+1, 50_000))
	}
	again := tb.evening(two, 100, 200, 300, 50, 70)
	a, b := tb.outcome(first), tb.outcome(again)
	if !reflect.DeepEqual(a, b) {
		t.Errorf("the same came to\n%+v and\n%+v", a, b)
	}
	if len(a.Questions) != 3 || len(a.Players) != 4 {
		t.Errorf("%d questions, %d players", len(a.Questions), len(a.Players))
	}
	// Rain: 101, 301 and 71 on yes, 201 and 51 on no, which wins 725 less 108.
	if rain := a.Questions[1]; rain.State != "settled" || rain.Paid != 617 || !slices.Equal(rain.Staked, []proto.Amount{473, 252}) {
		t.Errorf("rain came to %+v", rain)
	}
	for _, bets := range [][]proto.Amount{{100, 200, 300, 50, 71}, {200, 100, 300, 50, 70}, {100, 200, 300, 50}} {
		if c := tb.outcome(tb.evening(two, bets...)); c.Digest == a.Digest {
			t.Errorf("%v came to the same", bets)
		}
	}

	// Once the game has left memory, its recording stays as it was.
	tb.after(archiveAfter + proto.Hour)
	if c := tb.outcome(first); c.Digest != a.Digest {
		t.Error("archiving changed what the game came to")
	}
}

// What came too late for an event that was told late, and was returned, counts for nothing.
func TestOutcomeWithoutLateStakes(t *testing.T) {
	tb := newTable(t, 2)
	ada, bob := tb.player(1, 1000), tb.player(2, 1000)
	play := func(late bool) *Outcome {
		g := tb.game(scorer("next", "kickoff", "goal"))
		next := tb.post(g, "kickoff", 0).Opened[0]
		id := proto.RequestID(100 * uint64(g))
		tb.accept(1, ada, id, next, 0, 100)
		tb.accept(2, bob, id, next, 1, 50)
		tb.after(proto.Second)
		if late {
			tb.accept(1, ada, id+1, next, 1, 30)
			tb.accept(2, bob, id+1, next, 0, 30)
		}
		tb.answer(Command{Kind: PostEvent, Game: g, Args: &proto.Event{Kind: "goal", Team: 1, At: tb.now - proto.Second/2}})
		r, err := ReadRecording(bytes.NewReader(tb.recording(g)))
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Late()
		if want := map[bool]int{true: 2}[late]; err != nil || len(found) != want {
			t.Fatalf("%d late stakes, %v, want %d", len(found), err, want)
		}
		return tb.outcome(g)
	}
	if with, without := play(true), play(false); !reflect.DeepEqual(with, without) {
		t.Errorf("with late stakes the game came to\n%+v, without to\n%+v", with, without)
	}
}

// A game that was played on while the server did not record has no recording, rather than a wrong one.
func TestRecordingWithAGap(t *testing.T) {
	tb := newTable(t, 1)
	g := tb.evening([]proto.AccountID{tb.player(1, 1000)}, 100, 200)
	for gap := range len(tb.journal.records) {
		kept := newShelf()
		r := NewReplica()
		r.Tell(kept)
		r.Record(true)
		missed := false
		for i, b := range tb.journal.records {
			r.records = i != gap
			if err := r.Apply(uint64(i+1), b); err != nil {
				t.Fatal(err)
			}
			var rec record
			missed = missed || i == gap && rec.decode(b) == nil && rec.game() == g
		}
		var file bytes.Buffer
		if err := WriteRecording(&file, kept, g); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRecording(&file); (err != nil) != missed {
			t.Errorf("without record %d: %v", gap+1, err)
		}
	}
}

// A file has what was done as it was done, and says where it ends too early.
func TestRecordingFile(t *testing.T) {
	tb := newTable(t, 1)
	ada := tb.player(1, 1000)
	g := tb.evening([]proto.AccountID{ada}, 100)
	file := tb.recording(g)
	r, err := ReadRecording(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, d := range r.Deeds {
		if d.What != nil {
			kinds = append(kinds, reflect.TypeOf(d.What).Elem().Name())
		}
	}
	want := []string{"GameOpening", "Event", "PoolOpening", "PoolOpening", "PoolOpening", "RecordedStake", "RecordedStake", "RecordedStake",
		"Locking", "Settlement", "Voiding", "Event", "Locking", "Settlement", "Event"}
	if !slices.Equal(kinds, want) {
		t.Errorf("the file has %q, want %q", kinds, want)
	}
	if s := r.Deeds[5].What.(*RecordedStake); s.Account != ada || s.Amount != 100 || r.Deeds[5].Time != start {
		t.Errorf("the first stake is %+v", r.Deeds[5])
	}
	for cut := range len(file) {
		if short, err := ReadRecording(bytes.NewReader(file[:cut])); err == nil && len(short.Deeds) == len(r.Deeds) {
			t.Fatalf("%d of %d bytes were taken for the whole", cut, len(file))
		}
	}
	if _, err := ReadRecording(bytes.NewReader(file[:len(file)-1])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that ends too early: %v", err)
	}
	for name, broken := range map[string][]byte{
		"other magic":  append([]byte("x"), file...),
		"other game":   func() []byte { b := bytes.Clone(file); b[len(recordingMagic)]++; return b }(),
		"great record": append(file[:len(recordingMagic)+8:len(recordingMagic)+8], binary.LittleEndian.AppendUint32(nil, recordedMax+1)...),
	} {
		if _, err := ReadRecording(bytes.NewReader(broken)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := WriteRecording(io.Discard, newShelf(), 7); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("a game that was never recorded: %v", err)
	}
	middle := &Recording{Game: g, Deeds: r.Deeds[1:]}
	if _, err := middle.Outcome(); err == nil {
		t.Error("a recording without its beginning came to something")
	}
}

// An operator's stake is answered to the operator, and told to the account as any other.
func TestOperatorStakes(t *testing.T) {
	tb := newTable(t, 2)
	ada := tb.player(1, 100)
	p := tb.pool(tb.game(), proto.PoolOpening{StakeMax: 60})
	stake := func(id proto.RequestID, amount proto.Amount) Command {
		c := tb.stakeOf(1, ada, id, p, 0, amount)
		c.From = desk
		return c
	}
	answer := tb.answer(stake(1, 50))
	if answer.Seq == 0 || answer.Balance != 50 {
		t.Errorf("answered %+v", answer)
	}
	receipts := slices.DeleteFunc(slices.Clone(tb.said), func(o Out) bool { return o.Kind != OutReceipt })
	if len(receipts) != 1 || receipts[0].To != session(1) || receipts[0].Receipt.Prediction != answer.Seq {
		t.Errorf("the account was told %+v", receipts)
	}
	for _, row := range []struct {
		c    Command
		want proto.Refusal
	}{{stake(1, 50), proto.RefusedRequestReused}, {stake(2, 51), proto.RefusedFundsShort}, {stake(3, 0), proto.RefusedAmountInvalid}} {
		if got := tb.verdict(row.c); got != row.want {
			t.Errorf("%d of %d: %s, want %s", row.c.ID, row.c.Amount, got.Code(), row.want.Code())
		}
	}
	tb.answer(Command{Kind: Deposit, Account: ada, Amount: 100})
	if got := tb.verdict(stake(4, 61)); got != proto.RefusedStakeLarge {
		t.Errorf("too large: %s", got.Code())
	}
}

// What is read is bounded by the file, whatever it says.
func FuzzReadRecording(f *testing.F) {
	tb := newTable(f, 1)
	f.Add(tb.recording(tb.evening([]proto.AccountID{tb.player(1, 1000)}, 100)))
	f.Fuzz(func(t *testing.T, file []byte) {
		if r, err := ReadRecording(bytes.NewReader(file)); err == nil {
			for _, d := range r.Deeds {
				if d.record.game() != r.Game {
					t.Fatal("a record of another game")
				}
			}
		}
	})
}
