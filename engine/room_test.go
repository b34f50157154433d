package engine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tote/server/market"
	"tote/server/proto"
)

// A name that another connection had is not the next one's.
func TestGenerations(t *testing.T) {
	e, m := serve(t, Config{Loops: 1})
	first := greeted(t, e, 12)
	old := m.last[12]
	first.conn.Close()
	m.await(t, "detach", func(c *market.Command) bool { return c.Kind == market.Detach && c.From == old })
	second := greeted(t, e, 14)
	if old.Slot() != m.last[14].Slot() || old == m.last[14] {
		t.Fatalf("sessions %x and %x do not share a slot", old, m.last[14])
	}
	m.tell(old, &proto.Balance{T: 7, N: 1})
	m.tell(market.NewSession(0, 1, 1<<20), &proto.Balance{T: 7, N: 2})
	m.tell(market.NewSession(market.DeskLoop, 1, 0), &proto.Balance{T: 7, N: 3})
	m.tell(m.last[14], &proto.Payout{T: 7, N: 4})
	second.expect("payout", 0)
	eventually(t, "orphans are counted", func() bool { return e.Stats().Orphans == 2 })
}

// Games are listed from the market's broadcasts: live and scheduled ones, and ended ones for a while.
func TestCatalogue(t *testing.T) {
	now := proto.Time(1000 * proto.Second)
	e, m := serve(t, Config{Loops: 1, Now: func() proto.Time { return now }})
	m.announce(7, 3, 5)
	m.changed(5, proto.GameEnded)
	c := joined(t, e, 12, 5)
	listed := func() string {
		c.ask(`{"type":"games","id":50}`)
		return strings.Join(ids(c.expect("games", 50).raw), " ")
	}
	if got := listed(); got != "3 5 7" {
		t.Errorf("listed %s", got)
	}
	for g := range proto.GameID(endedMax) {
		m.changed(100+g, proto.GameEnded)
	}
	c.sync()
	if got := strings.Fields(listed()); len(got) != 2+endedMax+1-1 && got[0] != "3" {
		t.Errorf("%d games are listed: %v", len(got), got)
	}
	onLoop(e, 0, func(l *loop) { now += endedStay; l.now = now; l.forget() })
	if got := listed(); got != "3 7" {
		t.Errorf("later %s are listed", got)
	}
	onLoop(e, 0, func(l *loop) {
		if len(l.rooms) != 3 || l.rooms[5] == nil {
			t.Errorf("%d rooms are left; want 3 and 7, and 5, where somebody is", len(l.rooms))
		}
	})
}

// ids are the games of a games message.
func ids(raw string) (found []string) {
	for _, piece := range strings.Split(raw, `{"game":`)[1:] {
		id, _, _ := strings.Cut(piece, ",")
		found = append(found, id)
	}
	return found
}

// The lists of a loop hold together.
func checkLoop(l *loop) error {
	for id, r := range l.rooms {
		if id != r.game.Game {
			return fmt.Errorf("room %d is listed as %d", r.game.Game, id)
		}
		holes := 0
		for at, sub := range r.subs {
			if sub.session == nil {
				holes++
				continue
			}
			i := sub.session.in(r)
			if i < 0 || sub.session.games[i].at != at || sub.session.state != open {
				return fmt.Errorf("room %d, place %d: the session does not know", id, at)
			}
		}
		if holes != len(r.holes) || holes > 0 && !r.underway {
			return fmt.Errorf("room %d has %d holes and lists %d, underway is %v", id, holes, len(r.holes), r.underway)
		}
	}
	for _, p := range l.places {
		if p.session == nil {
			continue
		}
		for _, m := range p.session.games {
			if m.room.subs[m.at].session != p.session {
				return fmt.Errorf("session %x is not at place %d of room %d", p.session.name(), m.at, m.room.game.Game)
			}
		}
	}
	return nil
}

// Whoever joins at seq s gets s+1, s+2, … once each and in order, whenever he came, whoever else comes and
// goes, and however the slices fall; whoever stays gets the last one.
func TestJoinInTheMiddle(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { joinInTheMiddle(t, seed) })
	}
}

func joinInTheMiddle(t *testing.T, seed uint64) {
	const games, people, steps = 3, 9, 400
	e, m := serve(t, Config{Loops: 1})
	random := rand.New(rand.NewPCG(seed, 0))
	m.announce(1, 2, 3)
	clients := make([]*client, people)
	heard := make([]chan string, people)
	for i := range clients {
		clients[i] = greeted(t, e, proto.AccountID(20+i))
		heard[i] = make(chan string, 1)
		go func() {
			b, _ := io.ReadAll(clients[i].r) // all that it gets, until the end
			heard[i] <- string(b)
		}()
	}
	seq := [games + 1]uint64{0, 1, 1, 1}
	stays := [people][games + 1]bool{}
	onLoop(e, 0, func(l *loop) {
		session := func(i int) *session { return l.find(m.last[proto.AccountID(20+i)]) }
		for i := range clients { // a hundred small writes in one turn must not fill the kernel's buffer
			fd := session(i).fd()
			if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 1<<20)); err != nil {
				t.Error(err)
			}
		}
		for range steps {
			g := proto.GameID(1 + random.IntN(games))
			i := random.IntN(people)
			switch r := l.rooms[g]; random.IntN(6) {
			case 0, 1:
				seq[g]++
				b := (&delivery{}).broadcast(e, []market.Out{{Game: g, Message: &proto.Happened{T: 7, Game: g, Seq: seq[g]}}})
				l.cast(b)
			case 2:
				l.joined(session(i), &proto.Joined{ID: 2, T: 7, Seq: seq[g], Game: proto.Game{Game: g}})
				stays[i][g] = true
			case 3:
				if at := session(i).in(r); at >= 0 {
					l.flush() // what it was offered is on its way before it is out
					l.unsubscribe(session(i), at)
					l.tell(session(i), &proto.Left{ID: 3, T: 7, Game: g})
					stays[i][g] = false
				}
			case 4:
				if len(r.queue) > 0 {
					l.slice(r, 1+random.IntN(4))
					if len(r.queue) == 0 {
						l.active = without(l.active, r)
					}
				}
			case 5:
				l.distribute()
			}
			if err := checkLoop(l); err != nil {
				t.Error(err)
				return
			}
		}
		for len(l.active) > 0 {
			l.distribute()
		}
		if len(l.behind) > 0 {
			t.Errorf("%d were spared something, though all read", len(l.behind))
		}
		for i := range clients {
			l.close(session(i), proto.CloseRestart)
		}
	})
	for i := range clients {
		for g := proto.GameID(1); g <= games; g++ {
			checkStory(t, fmt.Sprintf("client %d in game %d", i, g), story(<-heard[i], heard[i], g), stays[i][g], seq[g])
		}
	}
}

func without(rs []*room, r *room) (left []*room) {
	for _, o := range rs {
		if o != r {
			left = append(left, o)
		}
	}
	return left
}

// story is what a client heard of a game: "joined 41", "event 42", "left".
func story(all string, again chan<- string, g proto.GameID) (told []string) {
	again <- all
	for _, m := range strings.Split(all, `{"type":"`)[1:] {
		kind, rest, _ := strings.Cut(m, `"`)
		if !strings.Contains(rest, fmt.Sprintf(`"game":%d,`, g)) && !strings.Contains(rest, fmt.Sprintf(`"game":%d}`, g)) {
			continue
		}
		if _, seq, ok := strings.Cut(rest, `"seq":`); ok {
			kind += " " + seq[:strings.IndexAny(seq, ",}")]
		}
		told = append(told, kind)
	}
	return told
}

func checkStory(t *testing.T, who string, told []string, stays bool, last uint64) {
	t.Helper()
	in, at := false, uint64(0)
	for _, line := range told {
		kind, number, _ := strings.Cut(line, " ")
		seq, _ := strconv.ParseUint(number, 10, 64)
		switch {
		case kind == "joined":
			in, at = true, seq
		case kind == "left":
			in = false
		case !in || seq != at+1:
			t.Fatalf("%s heard %s after %d, inside is %v; all of it: %v", who, line, at, in, told)
		default:
			at = seq
		}
	}
	if stays && at != last {
		t.Fatalf("%s heard up to %d of %d: %v", who, at, last, told)
	}
}
