package market

import (
	"cmp"
	"fmt"
	"slices"

	"tote/server/proto"
)

// A circle crosses two owners, as a stake does. Its own shard keeps the members and decides who joins; each account's shard knows
// the circles of the account, and says so in every letter about a room. A place among the account's circles is held while
// a circle's shard decides, and never journaled.
//
//	CreateCircle, JoinCircle ─▶ account's shard ──errand──▶ circle's shard ──append──▶ record
//	                            hold → member  ◀─letterMember──┘
//
// A room is a game that only members may join. It lives with its game on one shard, so that an event and all that it decides, in the
// game and in every room, is one append.

// Limits of circles.
const (
	membersMax = 200 // a list that is asked for whole
	circlesMax = 32  // of one account
)

// circle is a group of players. Its first member, the oldest, owns it.
type circle struct {
	id      proto.CircleID
	name    string
	code    uint64 // who shows it may join
	members []proto.Friend
}

// Bodies of the records.
type (
	circleCreated struct {
		Name    string          `json:"name"`
		Code    uint64          `json:"code"`
		Account proto.AccountID `json:"account"`
		Owner   string          `json:"owner"`
	}
	circleJoined struct {
		Account proto.AccountID `json:"account"`
		Name    string          `json:"name"`
	}
	// circleLeft takes a member out; Code, where it is not 0, is the circle's code from now on.
	circleLeft struct {
		Account proto.AccountID `json:"account"`
		Code    uint64          `json:"code,omitempty"`
	}
	roomOpened struct {
		Circle proto.CircleID `json:"circle"`
		Name   string         `json:"name"`
	}
)

// in reports whether a circle is among an account's.
func in(circles *[]proto.CircleName, id proto.CircleID) bool { return nameOf(circles, id) != "" }

// nameOf is the circle's name; empty where it is not among them.
func nameOf(circles *[]proto.CircleName, id proto.CircleID) string {
	if circles != nil {
		for _, c := range *circles {
			if c.Circle == id {
				return c.Name
			}
		}
	}
	return ""
}

// join puts a circle among the account's, and leave takes it out. They are kept by id, for acceptances of two shards may come in
// any order, and never changed in place, for letters hold them.
func (a *account) join(id proto.CircleID, name string) {
	circles := slices.Clone(a.circleNames())
	at, _ := slices.BinarySearchFunc(circles, id, func(c proto.CircleName, id proto.CircleID) int { return cmp.Compare(c.Circle, id) })
	circles = slices.Insert(circles, at, proto.CircleName{Circle: id, Name: name})
	a.tie(func(t *ties) { t.circles = &circles })
}

func (a *account) leave(id proto.CircleID) {
	circles := slices.DeleteFunc(slices.Clone(a.circleNames()), func(c proto.CircleName) bool { return c.Circle == id })
	a.tie(func(t *ties) {
		if t.circles = &circles; len(circles) == 0 {
			t.circles = nil
		}
	})
}

func (a *account) circleNames() []proto.CircleName {
	if circles := a.circles(); circles != nil {
		return *circles
	}
	return []proto.CircleName{}
}

// circleCommand is the account's side.
func (s *Shard) circleCommand(c *Command, a *account) {
	switch c.Kind {
	case ShowCircles:
		s.reply(c, &proto.Circles{ID: c.ID, T: s.now, Circles: a.circleNames()})
		return
	case CreateCircle, JoinCircle:
		s.joinCircle(c, a)
		return
	}
	switch {
	case !in(a.circles(), c.Circle):
		s.refuse(c, proto.RefusedCircleForeign)
	case c.Kind == EnterRoom:
		s.sendErrand(s.market.shardOfGame(c.Game), c, a)
	default:
		s.sendErrand(s.market.shardOfCircle(c.Circle), c, a)
	}
}

// joinCircle holds a place among the account's circles and asks the circle's shard. Who is a member already, has joined.
func (s *Shard) joinCircle(c *Command, a *account) {
	live := s.lives(a)
	switch {
	case c.Kind == JoinCircle && in(a.circles(), c.Circle):
	case c.Kind == CreateCircle && !validText(c.Args.(*proto.CircleOpening).Name):
		s.refuse(c, proto.RefusedTextInvalid)
		return
	case len(a.circleNames())+live.joining >= circlesMax:
		s.refuse(c, proto.RefusedCirclesMany)
		return
	}
	live.joining++
	s.sendErrand(s.market.shardOfCircle(c.Circle), c, a)
}

// circleErrand is the circle's side.
func (s *Shard) circleErrand(e *errand) {
	c := &e.command
	var refusal proto.Refusal
	switch c.Kind {
	case CreateCircle, JoinCircle:
		refusal = s.addMember(e)
		s.write(s.market.shardOfAccount(c.Account), &letter{kind: letterMember, account: c.Account, refusal: refusal, joins: true,
			errand: &errand{command: *c, circle: s.nameOfCircle(c.Circle)}})
	case LeaveCircle:
		refusal = s.removeMember(c, c.Account)
	case RemoveMember:
		refusal = s.removeByOwner(c)
	default:
		refusal = s.circleRefusal(c)
	}
	switch {
	case refusal != proto.Accepted:
		s.refuse(c, refusal)
	case c.Kind != LeaveCircle: // which the account's shard answers
		s.showCircle(c)
	}
}

func (s *Shard) nameOfCircle(id proto.CircleID) string {
	if on := s.circles[id]; on != nil {
		return on.name
	}
	return ""
}

func (o *circle) member(id proto.AccountID) bool {
	return slices.ContainsFunc(o.members, func(f proto.Friend) bool { return f.Account == id })
}

// circleRefusal looks again whether the account is a member: it may have been removed while it asked.
func (s *Shard) circleRefusal(c *Command) proto.Refusal {
	if on := s.circles[c.Circle]; on == nil || !on.member(c.Account) {
		return proto.RefusedCircleForeign
	}
	return proto.Accepted
}

// addMember opens a circle, or lets in who has its code.
func (s *Shard) addMember(e *errand) proto.Refusal {
	c := &e.command
	opening := c.Args.(*proto.CircleOpening)
	on := s.circles[c.Circle]
	if c.Kind == CreateCircle {
		assert(on == nil, "a circle's id is new")
		s.decideCircle(rare(recordCircleCreated, s.now, uint64(c.Circle), &circleCreated{Name: opening.Name, Code: opening.Code,
			Account: c.Account, Owner: e.name}))
		return proto.Accepted
	}
	switch {
	case on == nil:
		return proto.RefusedCircleCode
	case on.member(c.Account):
		return proto.Accepted
	case on.code != opening.Code:
		return proto.RefusedCircleCode
	case len(on.members) >= membersMax:
		return proto.RefusedCircleFull
	}
	s.decideCircle(rare(recordCircleJoined, s.now, uint64(c.Circle), &circleJoined{Account: c.Account, Name: e.name}))
	return proto.Accepted
}

// removeByOwner changes the code too, or who was removed could come back with it.
func (s *Shard) removeByOwner(c *Command) proto.Refusal {
	on := s.circles[c.Circle]
	switch {
	case on == nil || !on.member(c.Account):
		return proto.RefusedCircleForeign
	case on.members[0].Account != c.Account, c.Other == c.Account:
		return proto.RefusedCircleOwner
	case !on.member(c.Other):
		return proto.RefusedMemberUnknown
	}
	return s.removeMember(c, c.Other)
}

func (s *Shard) removeMember(c *Command, member proto.AccountID) proto.Refusal {
	if on := s.circles[c.Circle]; on == nil || !on.member(member) {
		return proto.RefusedCircleForeign
	}
	left := &circleLeft{Account: member}
	if c.Kind == RemoveMember {
		left.Code = c.Args.(*proto.CircleOpening).Code
	}
	s.decideCircle(rare(recordCircleLeft, s.now, uint64(c.Circle), left))
	s.write(s.market.shardOfAccount(member), &letter{kind: letterMember, account: member, errand: &errand{command: *c}})
	return proto.Accepted
}

func (s *Shard) decideCircle(r record) {
	s.record(r)
	s.applied(s.applyCircle(s.commit(), &r))
}

// showCircle answers a member.
func (s *Shard) showCircle(c *Command) {
	on := s.circles[c.Circle]
	m := &proto.Circle{ID: c.ID, T: s.now, Circle: on.id, Name: on.name, Owner: on.members[0].Account, Members: slices.Clone(on.members)}
	if m.Owner == c.Account {
		m.Code = on.code
	}
	s.reply(c, m)
}

// membership is the account's side again: it has joined or left, or could not join.
func (s *Shard) membership(l *letter) {
	a, c := s.accounts[l.account], &l.errand.command
	if l.joins {
		a.live.joining--
		if l.refusal == proto.Accepted && !in(a.circles(), c.Circle) {
			a.join(c.Circle, l.errand.circle)
		}
		s.rest(a)
		return
	}
	a.leave(c.Circle)
	if a.live == nil {
		return
	}
	for _, to := range s.market.shards {
		s.write(to, &letter{kind: letterEvict, errand: &errand{command: *c, sessions: slices.Clone(a.live.sessions)}})
	}
	for _, session := range a.live.sessions { // one of them may have asked for it
		m := &proto.CircleLeft{T: s.now, Circle: c.Circle}
		if session == c.From && c.Kind == LeaveCircle {
			m.ID = c.ID
		}
		s.batch.Outs = append(s.batch.Outs, Out{Kind: OutMessage, To: session, Message: m})
	}
}

// evict takes sessions out of a circle's rooms. Each shard says so itself: a room's image that was on its way when the account left
// the circle is said before, by the same shard.
func (s *Shard) evict(e *errand) {
	for _, session := range e.sessions {
		s.batch.Outs = append(s.batch.Outs, Out{Kind: OutEvicted, To: session, Circle: e.command.Circle})
	}
}

// applyCircle is the circle's side of a record.
func (b *book) applyCircle(seq proto.Seq, r *record) error {
	id := proto.CircleID(r.id)
	on := b.circles[id]
	if (on == nil) != (r.kind == recordCircleCreated) {
		return fmt.Errorf("apply record %d: circle %d exists, or does not, against what kind %d expects", seq, id, r.kind)
	}
	switch r.kind {
	case recordCircleCreated:
		var body circleCreated
		if err := r.read(&body); err != nil {
			return err
		}
		b.circles[id] = &circle{id: id, name: body.Name, code: body.Code, members: []proto.Friend{{Account: body.Account, Name: body.Owner}}}
	case recordCircleJoined:
		var body circleJoined
		if err := r.read(&body); err != nil {
			return err
		}
		on.members = append(on.members, proto.Friend{Account: body.Account, Name: body.Name})
	case recordCircleLeft:
		var body circleLeft
		if err := r.read(&body); err != nil {
			return err
		}
		on.members = slices.DeleteFunc(on.members, func(f proto.Friend) bool { return f.Account == body.Account })
		if body.Code != 0 {
			on.code = body.Code
		}
		if len(on.members) == 0 {
			delete(b.circles, id)
		}
	}
	return nil
}

// ofCircle tells the records of a circle's shard from all others.
func (r *record) ofCircle() bool {
	return r.kind == recordCircleCreated || r.kind == recordCircleJoined || r.kind == recordCircleLeft
}

// applyMembers applies both sides.
func (r *Replica) applyMembers(seq proto.Seq, rec *record) error {
	var who struct {
		Account proto.AccountID `json:"account"`
	}
	if err := rec.read(&who); err != nil {
		return err
	}
	id := proto.CircleID(rec.id)
	if err := r.applyCircle(seq, rec); err != nil {
		return err
	}
	a := r.accounts[who.Account]
	switch {
	case a == nil:
		return fmt.Errorf("apply record %d: circle %d has no account %d", seq, id, who.Account)
	case rec.kind == recordCircleLeft:
		a.leave(id)
	default:
		a.join(id, r.circles[id].name)
	}
	r.lastCircle = max(r.lastCircle, id)
	return nil
}

// checkCircles matches each circle's members with the accounts' circles.
func (b *book) checkCircles() error {
	places := 0
	for id, a := range b.accounts {
		for i, c := range a.circleNames() {
			if on := b.circles[c.Circle]; on == nil || !on.member(id) || on.name != c.Name || i > 0 && a.circleNames()[i-1].Circle >= c.Circle {
				return fmt.Errorf("audit: account %d has circle %d, which does not have it", id, c.Circle)
			}
			places--
		}
	}
	for id, on := range b.circles {
		if len(on.members) == 0 || len(on.members) > membersMax {
			return fmt.Errorf("audit: circle %d has %d members", id, len(on.members))
		}
		places += len(on.members)
	}
	if places != 0 {
		return fmt.Errorf("audit: circles have %d more members than accounts have circles", places)
	}
	return nil
}

// admits reports whether an account with these circles may see the game.
func (g *game) admits(circles *[]proto.CircleName) bool {
	return g.circle == 0 || in(circles, g.circle)
}

// show answers who wants to see a game. Who wants to see a room is sent to his account's shard, and comes back as an errand.
func (s *Shard) showTo(c *Command, g *game) {
	if g.circle == 0 || c.From.Loop() == DeskLoop {
		s.showImage(c, g)
		return
	}
	s.write(s.market.shardOfAccount(c.Account), &letter{kind: letterAdmit, account: c.Account, errand: &errand{command: *c}})
}

// admit puts the account's circles to an errand.
func (s *Shard) admit(l *letter) {
	c := &l.errand.command
	a := s.accounts[l.account]
	if a == nil {
		s.refuse(c, proto.RefusedAccountUnknown)
		return
	}
	s.sendErrand(s.market.shardOfGame(c.game()), c, a)
}

func (s *Shard) showImage(c *Command, g *game) {
	pools := g.showPools(c.From.Loop() == DeskLoop)
	if c.Kind == Join {
		s.reply(c, &proto.Joined{ID: c.ID, T: s.now, Game: g.show(), Seq: g.board.seq, Pools: pools})
	} else {
		s.reply(c, &proto.Pools{ID: c.ID, T: s.now, Game: g.id, Seq: g.board.seq, Pools: pools})
	}
}

// enterRoom opens the circle's room in a game, unless it has one, and names it.
func (s *Shard) enterRoom(e *errand, g *game) {
	c := &e.command
	room := g.roomOf(c.Circle)
	switch {
	case room != nil:
	case g.id != g.id.Main(): // a room has no rooms
		s.refuse(c, proto.RefusedGameUnknown)
		return
	case g.state == proto.GameEnded:
		s.refuse(c, proto.RefusedGameEnded)
		return
	case len(g.rooms) >= proto.RoomsMax:
		s.refuse(c, proto.RefusedRoomsMany)
		return
	default:
		id := proto.NewRoomID(g.id, uint32(len(g.rooms)+1))
		r := rare(recordRoomOpened, s.now, uint64(id), &roomOpened{Circle: c.Circle, Name: nameOf(e.circles, c.Circle)})
		s.record(r)
		s.applied(s.applyGame(s.commit(), &r, nil))
		room = s.games[id]
		s.showGame(room)
	}
	s.reply(c, &proto.CircleGame{ID: c.ID, T: s.now, Circle: c.Circle, Game: room.id})
}

func (g *game) roomOf(id proto.CircleID) *game {
	for _, room := range g.rooms {
		if room.circle == id {
			return room
		}
	}
	return nil
}

// openRoom applies the opening of a room: it is as its game is now, without the templates.
func (b *book) openRoom(seq proto.Seq, r *record) error {
	var body roomOpened
	if err := r.read(&body); err != nil {
		return err
	}
	id := proto.GameID(r.id)
	g := b.games[id.Main()]
	if g == nil || id != proto.NewRoomID(g.id, uint32(len(g.rooms)+1)) {
		return fmt.Errorf("apply record %d: room %d does not follow the rooms of its game", seq, id)
	}
	room := &game{id: id, circle: body.Circle, state: g.state, minute: g.minute, score: g.score, events: g.events}
	room.opening = proto.GameOpening{Name: body.Name, Teams: g.opening.Teams, Shortlist: g.opening.Shortlist, Interval: g.opening.Interval}
	return b.addGame(room)
}

// letIn passes on a question of the past that concerns a circle: among its members alone, or about a room. The archive knows
// whose room it was, the asker's shard knows the asker's circles.
func (s *Shard) letIn(c *Command) {
	e := &errand{command: *c}
	if c.Circle == 0 {
		a := s.accounts[c.Account]
		if a == nil {
			s.refuse(c, proto.RefusedAccountUnknown)
			return
		}
		e.circles = a.circles()
	} else {
		o := s.circles[c.Circle]
		if o == nil || !o.member(c.Account) {
			s.refuse(c, proto.RefusedCircleForeign)
			return
		}
		e.circles = &[]proto.CircleName{{Circle: o.id, Name: o.name}}
		e.command.Args = slices.Clone(o.members)
	}
	s.market.archive.inbox.post([]letter{{kind: letterErrand, errand: e}}, 0)
}
