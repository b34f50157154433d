package market

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"tote/server/proto"
)

// recordKind is the first byte of every record. The numbers are in journals: never reuse one.
type recordKind uint8

const (
	recordAccountOpened recordKind = 1
	recordDeposited     recordKind = 2 // amount below zero: withdrawn
	recordStaked        recordKind = 3
	recordGameOpened    recordKind = 4
	recordPoolOpened    recordKind = 5
	recordHappened      recordKind = 6
	recordLocked        recordKind = 7
	recordSettled       recordKind = 8
	recordVoided        recordKind = 9
	recordFollowed      recordKind = 10
	recordUnfollowed    recordKind = 11
	recordArchived      recordKind = 12
	recordWithdrawn     recordKind = 20 // an outcome of a pool

	// 30 to 39: dynamic pools.
	recordBought recordKind = 30
	recordSold   recordKind = 31 // amount: what the shares brought

	// 40 to 59: questions and circles.
	recordAsked         recordKind = 40
	recordApproved      recordKind = 41
	recordReported      recordKind = 42
	recordClaimed       recordKind = 43
	recordChallenged    recordKind = 44
	recordCircleCreated recordKind = 50
	recordCircleJoined  recordKind = 51
	recordCircleLeft    recordKind = 52
	recordRoomOpened    recordKind = 53

	// 60 to 69: templates and recordings.
	recordTemplatesSet recordKind = 60
)

// record is one decided change, as the journal keeps it. All integers are little-endian.
//
//	┌────────┬────────┬─────────┬──────────────────────────────────────────────────────┐
//	│ kind 1 │ time 8 │ id 8    │ body                                                 │
//	├────────┼────────┼─────────┼──────────────────────────────────────────────────────┤
//	│ staked │        │ account │ pool 8, request 8, arrived 8, amount 8, outcome 1    │
//	│ bought, sold    │ account │ as staked, then shares 8                             │
//	│ deposited       │ account │ amount 8                                             │
//	│ (un)followed    │ account │ other 8, name                                        │
//	│ all others      │ account, game or pool │ JSON                                   │
//	└────────┴────────┴─────────┴──────────────────────────────────────────────────────┘
type record struct {
	kind    recordKind
	time    proto.Time // of the turn that decided
	id      uint64     // account, game or pool, as the kind says
	pool    proto.PoolID
	request proto.RequestID
	arrived proto.Time
	amount  proto.Amount
	shares  proto.Shares
	outcome proto.Outcome
	other   proto.AccountID
	name    string
	body    []byte // JSON of the rare kinds
}

// poolOpening is the body of recordPoolOpened; the other bodies are proto's types as they stand.
type poolOpening struct {
	proto.PoolOpening
	Template int       `json:"template"` // index in the game's templates; -1: opened by hand
	Minute   uint16    `json:"minute"`   // of the game as the pool opened
	Score    [2]uint16 `json:"score"`
}

const (
	headerSize = 1 + 8 + 8
	stakedSize = headerSize + 8 + 8 + 8 + 8 + 1
	tradedSize = stakedSize + 8
)

// append encodes the record behind its length, as the journal takes it.
func (r *record) append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(r.kind))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.time))
	b = binary.LittleEndian.AppendUint64(b, r.id)
	switch r.kind {
	case recordStaked, recordBought, recordSold:
		b = binary.LittleEndian.AppendUint64(b, uint64(r.pool))
		b = binary.LittleEndian.AppendUint64(b, uint64(r.request))
		b = binary.LittleEndian.AppendUint64(b, uint64(r.arrived))
		b = binary.LittleEndian.AppendUint64(b, uint64(r.amount))
		b = append(b, byte(r.outcome))
		if r.kind != recordStaked {
			b = binary.LittleEndian.AppendUint64(b, uint64(r.shares))
		}
	case recordDeposited:
		b = binary.LittleEndian.AppendUint64(b, uint64(r.amount))
	case recordFollowed, recordUnfollowed:
		b = binary.LittleEndian.AppendUint64(b, uint64(r.other))
		b = append(b, r.name...)
	default:
		b = append(b, r.body...)
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// decode reads a record without its length. The record keeps parts of b.
func (r *record) decode(b []byte) error {
	if len(b) < headerSize {
		return fmt.Errorf("decode a record: %d bytes are too few", len(b))
	}
	*r = record{
		kind: recordKind(b[0]),
		time: proto.Time(binary.LittleEndian.Uint64(b[1:])),
		id:   binary.LittleEndian.Uint64(b[9:]),
	}
	body := b[headerSize:]
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(body[i*8:]) }
	want := 0
	switch r.kind {
	case recordStaked:
		want = stakedSize - headerSize
	case recordBought, recordSold:
		want = tradedSize - headerSize
	case recordDeposited, recordFollowed, recordUnfollowed:
		want = 8
	}
	if len(body) < want {
		return fmt.Errorf("decode a record of kind %d: %d bytes are too few", r.kind, len(b))
	}
	switch r.kind {
	case recordStaked, recordBought, recordSold:
		r.pool, r.request = proto.PoolID(word(0)), proto.RequestID(word(1))
		r.arrived, r.amount, r.outcome = proto.Time(word(2)), proto.Amount(word(3)), proto.Outcome(body[32])
		if r.kind != recordStaked {
			r.shares = proto.Shares(binary.LittleEndian.Uint64(body[33:]))
		}
	case recordDeposited:
		r.amount = proto.Amount(word(0))
	case recordFollowed, recordUnfollowed:
		r.other, r.name = proto.AccountID(word(0)), string(body[8:])
	default:
		r.body = body
	}
	return nil
}

// rare makes a record whose body is JSON.
func rare(kind recordKind, now proto.Time, id uint64, body any) record {
	b, err := json.Marshal(body)
	assert(err == nil, "a record's body always encodes")
	return record{kind: kind, time: now, id: id, body: b}
}

// read decodes the JSON body.
func (r *record) read(body any) error {
	if err := json.Unmarshal(r.body, body); err != nil {
		return fmt.Errorf("decode a record of kind %d: %w", r.kind, err)
	}
	return nil
}

// assert stops the process where our own code is wrong.
func assert(ok bool, what string) {
	if !ok {
		panic("market: " + what)
	}
}
