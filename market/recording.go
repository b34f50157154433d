package market

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"tote/server/proto"
)

// A recording is a game's records as the journal had them: its opening, stakes, events and all that followed. The replica keeps
// them as it applies them; so whoever records costs the shards nothing. As a file:
//
//	"toterec" version 1 │ game u64 │ { length u32, seq u64, record (see record.append, without its own length) }…
//
// All integers are little-endian; a record has its kind in its first byte and its time, in µs, in the next eight.
const (
	recordingMagic = "toterec\x01"
	recordedMax    = 1 << 24 // bytes of one record; more is a broken file

	// viewRecordings is the bucket of the views: game u64, ^seq u64, big-endian -> record. A range runs downwards, and
	// so from a game's first record to its last. The number is in files: never change it.
	// In a life of the server that does not record, a game's first record is kept empty: a recording that was begun before has a gap
	// there, and must not be taken for the whole.
	viewRecordings uint8 = 60
)

// Record says whether the replica keeps each game's records in its views, or that it does not, from here on. Call it before Load.
func (r *Replica) Record(on bool) { r.records, r.gaps = on, map[proto.GameID]bool{} }

// keep keeps a record that belongs to a game.
func (r *Replica) keep(seq proto.Seq, rec *record, b []byte) {
	g := rec.game()
	switch {
	case g == 0 || r.views == nil || r.gaps == nil:
	case r.records:
		r.views.Put(viewRecordings, recordingKey(g, seq), b)
	case rec.kind == recordArchived:
		delete(r.gaps, g)
	case !r.gaps[g]:
		r.gaps[g] = true
		r.views.Put(viewRecordings, recordingKey(g, seq), nil)
	}
}

func recordingKey(g proto.GameID, seq proto.Seq) []byte {
	key := binary.BigEndian.AppendUint64(nil, uint64(g))
	return binary.BigEndian.AppendUint64(key, math.MaxUint64-uint64(seq))
}

// recordingChunk is how many records are read at once: while they are, the file cannot reuse its pages.
const recordingChunk = 1 << 12

// ErrNotRecorded says that nothing is kept of a game.
var ErrNotRecorded = errors.New("the game is not recorded")

// WriteRecording writes a game's recording as a file.
func WriteRecording(to io.Writer, from Views, g proto.GameID) error {
	b := binary.LittleEndian.AppendUint64([]byte(recordingMagic), uint64(g))
	prefix := binary.BigEndian.AppendUint64(nil, uint64(g))
	for before, any := []byte(nil), false; ; any = true {
		n := 0
		err := from.Range(viewRecordings, prefix, before, func(key, value []byte) bool {
			b = binary.LittleEndian.AppendUint32(b, uint32(8+len(value)))
			b = binary.LittleEndian.AppendUint64(b, math.MaxUint64-binary.BigEndian.Uint64(key[8:]))
			b = append(b, value...)
			before = append(before[:0], key...)
			n++
			return n < recordingChunk
		})
		if err != nil {
			return fmt.Errorf("write a recording: %w", err)
		}
		if n == 0 && !any {
			return ErrNotRecorded
		}
		if _, err := to.Write(b); err != nil {
			return fmt.Errorf("write a recording: %w", err)
		}
		if b = b[:0]; n < recordingChunk {
			return nil
		}
	}
}

// Recording is a game as it was played.
type Recording struct {
	Game  proto.GameID
	Deeds []Deed
}

// Deed is one record of it, as somebody could do it again.
type Deed struct {
	Seq  proto.Seq
	Time proto.Time   // of its decision; of a stake, of its arrival
	Pool proto.PoolID // that it concerns; 0: the game

	// What says what was done: *proto.GameOpening, *proto.PoolOpening, *proto.Event, *proto.TemplateSet, *proto.Locking,
	// *proto.Settlement, *proto.Voiding, *proto.OutcomeWithdrawal, *RecordedStake; nil: something that only the market does.
	What any

	record record
}

// RecordedStake is an accepted stake, or a sale of shares.
type RecordedStake struct {
	Account proto.AccountID
	Outcome proto.Outcome
	Amount  proto.Amount // staked; of a sale, what it brought
	Shares  proto.Shares // sold; 0: it is a stake
}

// ReadRecording reads a file.
func ReadRecording(from io.Reader) (*Recording, error) {
	in := bufio.NewReaderSize(from, 1<<16)
	head := make([]byte, len(recordingMagic)+8)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(recordingMagic)]) != recordingMagic {
		return nil, fmt.Errorf("read a recording: it begins with %q and is none, or of another version", head)
	}
	r := &Recording{Game: proto.GameID(binary.LittleEndian.Uint64(head[len(recordingMagic):]))}
	for {
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); errors.Is(err, io.EOF) {
			return r, nil
		} else if err != nil {
			return nil, fmt.Errorf("read a recording: after record %d: %w", len(r.Deeds), err)
		}
		n := binary.LittleEndian.Uint32(length[:])
		if n < 8 || n > recordedMax {
			return nil, fmt.Errorf("read a recording: after record %d: a record of %d bytes", len(r.Deeds), n)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, fmt.Errorf("read a recording: after record %d: %w", len(r.Deeds), errors.Join(err, io.ErrUnexpectedEOF))
		}
		d := Deed{Seq: proto.Seq(binary.LittleEndian.Uint64(b))}
		if err := d.decode(b[8:]); err != nil {
			return nil, fmt.Errorf("read a recording: record %d: %w", d.Seq, err)
		}
		if d.record.game() != r.Game || len(r.Deeds) > 0 && d.Seq <= r.Deeds[len(r.Deeds)-1].Seq {
			return nil, fmt.Errorf("read a recording: record %d is of another game, or out of order", d.Seq)
		}
		r.Deeds = append(r.Deeds, d)
	}
}

// decode makes a deed of a record.
func (d *Deed) decode(b []byte) error {
	if len(b) == 0 {
		return errors.New("the server did not record then, for a while")
	}
	if err := d.record.decode(b); err != nil {
		return err
	}
	rec := &d.record
	d.Time = rec.time
	switch rec.kind {
	case recordStaked, recordBought, recordSold:
		d.Time, d.Pool = rec.arrived, rec.pool
		stake := &RecordedStake{Account: proto.AccountID(rec.id), Outcome: rec.outcome, Amount: rec.amount}
		if rec.kind == recordSold {
			stake.Shares = rec.shares
		}
		d.What = stake
		return nil
	case recordGameOpened:
		d.What = new(proto.GameOpening)
	case recordHappened:
		d.What = new(proto.Event)
	case recordTemplatesSet:
		d.What = new(proto.TemplateSet)
	case recordPoolOpened, recordAsked: // who asks replays as an operator does, who settles by hand what was settled
		d.What = new(proto.PoolOpening)
	case recordLocked:
		d.What = new(proto.Locking)
	case recordSettled:
		d.What = new(proto.Settlement)
	case recordVoided:
		d.What = new(proto.Voiding)
	case recordWithdrawn:
		d.What = new(proto.OutcomeWithdrawal)
	default:
		return nil
	}
	if rec.ofPool() {
		d.Pool = proto.PoolID(rec.id)
	}
	return rec.read(d.What)
}

// Outcome is what a recorded game came to. Two games in which the same was done to the same questions have the same
// outcome, whatever their times, ids and accounts are: players stand in the order of what they did, and who did the same are alike.
type Outcome struct {
	Digest    string     `json:"digest"` // SHA-256 over the rest
	Questions []Question `json:"questions"`
	Players   []Player   `json:"players"`
}

// Question is what became of a pool.
type Question struct {
	Question string          `json:"question"`
	Labels   []string        `json:"labels"`
	State    string          `json:"state"`
	Staked   []proto.Amount  `json:"staked"`  // per outcome
	Backers  []uint32        `json:"backers"` // per outcome
	Winners  []proto.Outcome `json:"winners,omitempty"`
	Paid     proto.Amount    `json:"paid"`
}

// Player is what an account has staked and got back, question by question. Stakes that came too late, and were returned for it,
// are none.
type Player []Share

// Share is a player's part of a question.
type Share struct {
	Question int          `json:"question"` // index in Questions
	Staked   proto.Amount `json:"staked"`
	Payout   proto.Amount `json:"payout"`
}

// recordedCredit is what each account begins with when a recording is played to itself: more than anybody can stake.
const recordedCredit = proto.AmountMax

// Outcome plays the recording to itself, with the code that the replica runs.
func (r *Recording) Outcome() (*Outcome, error) {
	if len(r.Deeds) == 0 || r.Deeds[0].record.kind != recordGameOpened {
		return nil, errors.New("play a recording: it begins in the middle of the game, or is a circle's room; was the game opened before the server recorded?")
	}
	players := map[proto.AccountID]map[proto.PoolID]*Share{}
	share := func(a proto.AccountID, p proto.PoolID) *Share {
		if players[a] == nil {
			players[a] = map[proto.PoolID]*Share{}
		}
		if players[a][p] == nil {
			players[a][p] = &Share{Question: p.Number() - 1}
		}
		return players[a][p]
	}
	book, err := r.play(func(end result) {
		if s := share(end.account, end.pool); end.reason != proto.RefundLate {
			s.Payout += end.payout
		} else if s.Staked -= end.amount; s.Staked == 0 {
			delete(players[end.account], end.pool)
		}
	}, func(d *Deed, s *RecordedStake) {
		if s.Shares > 0 {
			share(s.Account, d.Pool).Payout += s.Amount
		} else {
			share(s.Account, d.Pool).Staked += s.Amount
		}
	})
	if err != nil {
		return nil, err
	}
	o := &Outcome{Questions: []Question{}, Players: []Player{}}
	for _, p := range book.games[r.Game].pools {
		q := Question{Question: p.opening.Question, Labels: p.opening.Labels, State: p.state.String(), Winners: p.winners, Paid: p.paid}
		for _, on := range p.outcomes {
			q.Staked, q.Backers = append(q.Staked, on.staked), append(q.Backers, on.backers)
		}
		o.Questions = append(o.Questions, q)
	}
	for _, shares := range players {
		var one Player
		for _, pool := range sortedKeys(shares) {
			one = append(one, *shares[pool])
		}
		if one == nil {
			continue
		}
		o.Players = append(o.Players, one)
	}
	slices.SortFunc(o.Players, func(a, b Player) int { return slices.CompareFunc(a, b, compareShares) })
	b, err := json.Marshal(o)
	assert(err == nil, "an outcome always encodes")
	sum := sha256.Sum256(b)
	o.Digest = hex.EncodeToString(sum[:])
	return o, nil
}

func compareShares(a, b Share) int {
	return cmp.Or(cmp.Compare(a.Question, b.Question), cmp.Compare(a.Staked, b.Staked), cmp.Compare(a.Payout, b.Payout))
}

// Late are the stakes that were accepted, and returned because their pool was locked at a time before they arrived.
func (r *Recording) Late() (map[proto.Seq]bool, error) {
	late := map[proto.Seq]bool{}
	_, err := r.play(func(end result) {
		if end.reason == proto.RefundLate {
			late[end.seq] = true
		}
	}, func(*Deed, *RecordedStake) {})
	return late, err
}

// play applies the deeds, up to the end of the game, to a replica in which everybody can pay. It tells of each stake, and how it ended.
func (r *Recording) play(ended func(result), staked func(*Deed, *RecordedStake)) (*Replica, error) {
	book := NewReplica()
	book.heard = ended
	for i := range r.Deeds {
		d := &r.Deeds[i]
		if d.record.kind == recordArchived {
			break // what became of the game is still to be read
		}
		if s, ok := d.What.(*RecordedStake); ok {
			if book.accounts[s.Account] == nil {
				book.accounts[s.Account] = &account{id: s.Account, balance: recordedCredit}
			}
			staked(d, s)
		}
		if err := book.apply(d.Seq, &d.record); err != nil {
			return nil, fmt.Errorf("play a recording: %w", err)
		}
	}
	return book, nil
}
