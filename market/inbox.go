package market

import (
	"sync"

	"tote/server/proto"
)

// inbox is where others leave commands and letters for a shard. The shard swaps both slices out whole, so
// a lock is held for a copy of one value, and the shard is woken only when it may be asleep.
type inbox struct {
	mu       sync.Mutex
	commands []Command
	letters  []letter
	seen     proto.Seq     // the senders of the letters had appended up to here
	max      int           // commands that may wait; more are told "busy"
	wake     chan struct{} // holds one: there is something to look at
}

// letterKind is what one shard writes to another.
type letterKind uint8

const (
	letterDecide   letterKind = iota // to the pool: may this stake in? The account has held it
	letterQuote                      // to the pool: what would this stake come to? It answers the session
	letterVerdict                    // to the account: refusal, or accepted as seq
	letterResult                     // to the account: how its stake ended
	letterSlice                      // to an account's shard: the results so far are one slice
	letterPaid                       // back: they are paid
	letterHear                       // to any shard: is all decided that arrived by a game's moment?
	letterHeard                      // back: it is
	letterAsk                        // to any shard: a question that several shards answer together
	letterErrand                     // to a game or circle: what a player asks of it
	letterAdmit                      // to the account: is it in the room's circle? It sends the errand back
	letterMember                     // to the account: it has joined a circle, or has left it
	letterEvict                      // to all shards: these sessions leave the circle's rooms
	letterQuestion                   // to the account: how its question stands
	letterAnswered                   // back
	letterMissed                     // to the archive, and back: what a session has missed
)

// letter is a message between shards.
type letter struct {
	kind    letterKind
	sell    bool
	refusal proto.Refusal
	state   proto.PredictionState
	reason  proto.RefundReason
	outcome proto.Outcome
	from    uint16 // shard
	account proto.AccountID
	game    proto.GameID
	pool    proto.PoolID
	request proto.RequestID
	seq     proto.Seq
	amount  proto.Amount
	shares  proto.Shares // of a sale, or bought
	limit   int64        // the least that is agreed to
	payout  proto.Amount
	arrived proto.Time
	locked  proto.Time   // the lock time by which a stake was judged
	staked  proto.Amount // what the account has in this pool already
	backs   uint64       // the outcomes that it backs there, a bit each
	selling *selling
	asking  *asking
	circles *[]proto.CircleName // of the account; never changed
	errand  *errand
	stands  proto.PoolState // of a question
	joins   bool            // a circle; else it leaves
	missed  *missed
}

// asking is a question to other shards, and comes back as the answer. Whoever holds the letter owns it.
type asking struct {
	from     int            // the shard that asks
	number   uint64         // its own number for the question
	pool     proto.PoolID   // whose stakes are asked for; 0: only the names
	poolOnly bool           // asks only whether the pool exists
	accounts []proto.Friend // asked for by id; names are the answer, empty where there is no such account
	stakes   []proto.FriendPrediction
	circles  *[]proto.CircleName // of the account that asks
	missing  bool
	foreign  bool
}

func newInbox() inbox { return inbox{max: inboxMax, wake: make(chan struct{}, 1)} }

func (i *inbox) submit(c *Command) bool {
	i.mu.Lock()
	if len(i.commands) >= i.max && c.Kind != Detach && c.Kind != Seal {
		i.mu.Unlock()
		return false
	}
	i.commands = append(i.commands, *c)
	first := len(i.commands) == 1
	i.mu.Unlock()
	if first {
		i.rouse()
	}
	return true
}

// post hands letters over; seen is the last record that their writer has seen.
func (i *inbox) post(letters []letter, seen proto.Seq) {
	i.mu.Lock()
	i.letters = append(i.letters, letters...)
	i.seen = max(i.seen, seen)
	i.mu.Unlock()
	i.rouse()
}

// rouse wakes the shard, or lets it look once more if it is awake.
func (i *inbox) rouse() {
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// swap takes everything and leaves the two emptied slices to be filled.
func (i *inbox) swap(commands []Command, letters []letter) ([]Command, []letter, proto.Seq) {
	i.mu.Lock()
	defer i.mu.Unlock()
	commands, i.commands = i.commands, commands[:0]
	letters, i.letters = i.letters, letters[:0]
	return commands, letters, i.seen
}

func (i *inbox) empty() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.commands) == 0 && len(i.letters) == 0
}

func (i *inbox) depth() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.commands)
}
