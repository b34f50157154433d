package market

import (
	"slices"

	"tote/server/proto"
)

// question is asked of several shards and answered when all have answered. Nothing changes while it is under
// way, so nothing is held.
type question struct {
	command Command
	left    int // shards that have not answered
	pool    proto.PoolID
	stakes  []proto.FriendPrediction
	missing bool // the pool does not exist
	foreign bool // it is a circle's, and the asker is no member
	name    string
}

// ask sends one part of a question to a shard.
func (s *Shard) ask(to *Shard, q *question, number uint64, part asking) {
	q.left++
	part.from, part.number = s.index, number
	s.write(to, &letter{kind: letterAsk, asking: &part})
}

func (s *Shard) newQuestion(c *Command) (*question, uint64) {
	s.asked++
	q := &question{command: *c, pool: c.Pool, left: 1} // one for the asker, until all parts are sent
	s.questions[s.asked] = q
	return q, s.asked
}

// showFriends asks the shards of all friends what they have staked in the pool, and the pool's shard
// whether there is such a pool.
func (s *Shard) showFriends(c *Command, a *account) {
	q, number := s.newQuestion(c)
	s.ask(s.market.shardOfGame(c.Pool.Game()), q, number, asking{pool: c.Pool, poolOnly: true, circles: a.circles()})
	for i, to := range s.market.shards {
		var there []proto.Friend
		for _, friend := range a.following() {
			if spread(uint64(friend.Account), len(s.market.shards)) == i {
				there = append(there, friend)
			}
		}
		if len(there) > 0 {
			s.ask(to, q, number, asking{pool: c.Pool, accounts: there})
		}
	}
	s.part(q, number)
}

// follow asks the other account's shard for its name.
func (s *Shard) follow(c *Command, a *account) {
	switch {
	case c.Other == c.Account:
		s.refuse(c, proto.RefusedFollowSelf)
		return
	case len(a.following()) >= followsMax:
		s.refuse(c, proto.RefusedFollowsMany)
		return
	}
	q, number := s.newQuestion(c)
	s.ask(s.market.shardOfAccount(c.Other), q, number, asking{accounts: []proto.Friend{{Account: c.Other}}})
	s.part(q, number)
}

func (s *Shard) unfollow(c *Command, a *account) {
	if follows(a, c.Other) {
		s.decideAccount(record{kind: recordUnfollowed, time: s.now, id: uint64(a.id), other: c.Other})
	}
	s.reply(c, &proto.Unfollowed{ID: c.ID, T: s.now, Account: c.Other})
}

func follows(a *account, other proto.AccountID) bool {
	return slices.ContainsFunc(a.following(), func(f proto.Friend) bool { return f.Account == other })
}

// answer is the asked shard's side.
func (s *Shard) answer(q *asking) {
	if q.poolOnly {
		p := s.pool(q.pool)
		q.missing = p == nil || p.hidden()
		q.foreign = !q.missing && p.circle != 0 && !in(q.circles, p.circle)
	}
	for i := range q.accounts {
		friend := &q.accounts[i]
		a := s.accounts[friend.Account]
		if a == nil {
			continue
		}
		friend.Name = a.name
		for i := range a.tickets {
			t := &a.tickets[i]
			if q.pool != 0 && t.on.pool() == q.pool {
				q.stakes = append(q.stakes, proto.FriendPrediction{Account: a.id, Name: a.name, Outcome: t.on.outcome(), Amount: a.cost(t), Shares: a.sharesOf(t)})
			}
		}
	}
	s.write(s.market.shards[q.from], &letter{kind: letterAnswered, asking: q})
}

// answered is the asking shard's side.
func (s *Shard) answered(part *asking) {
	q := s.questions[part.number]
	q.stakes = append(q.stakes, part.stakes...)
	q.missing, q.foreign = q.missing || part.missing, q.foreign || part.foreign
	if len(part.accounts) > 0 {
		q.name = part.accounts[0].Name
	}
	s.part(q, part.number)
}

// part counts an answer; the last one completes the question.
func (s *Shard) part(q *question, number uint64) {
	if q.left--; q.left > 0 {
		return
	}
	delete(s.questions, number)
	c := &q.command
	if c.Kind == Follow {
		s.followed(c, q.name)
		return
	}
	switch {
	case q.missing:
		s.refuse(c, proto.RefusedPoolUnknown)
		return
	case q.foreign:
		s.refuse(c, proto.RefusedCircleForeign)
		return
	}
	// Shards answer in any order; by account, and each account's in the order of acceptance.
	slices.SortStableFunc(q.stakes, func(x, y proto.FriendPrediction) int {
		switch {
		case x.Account < y.Account:
			return -1
		case x.Account > y.Account:
			return 1
		}
		return 0
	})
	s.reply(c, &proto.Friends{ID: c.ID, T: s.now, Pool: q.pool, Predictions: q.stakes})
}

func (s *Shard) followed(c *Command, name string) {
	a := s.accounts[c.Account]
	switch {
	case name == "":
		s.refuse(c, proto.RefusedAccountUnknown)
		return
	case len(a.following()) >= followsMax: // filled up while the name was asked for
		s.refuse(c, proto.RefusedFollowsMany)
		return
	case !follows(a, c.Other):
		s.decideAccount(record{kind: recordFollowed, time: s.now, id: uint64(a.id), other: c.Other, name: name})
	}
	s.reply(c, &proto.Followed{ID: c.ID, T: s.now, Account: c.Other, Name: name})
}
