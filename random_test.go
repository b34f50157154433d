package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"tote/server/bench"
	"tote/server/market/sports"
	"tote/server/proto"
	"tote/server/proto/control"
)

// talker is a player who says anything, and remembers what he was promised.
type talker struct {
	account proto.AccountID
	token   string
	next    proto.RequestID
	claims  map[proto.RequestID]proto.Receipt
	sales   map[proto.RequestID]proto.Sold
	asked   map[proto.RequestID]proto.Request // stakes and sales without an answer yet
	follows map[proto.AccountID]bool          // as it was confirmed; what was asked without an answer is not in it
	circles map[proto.CircleID]bool
}

// table is what all talkers of one round know of.
type table struct {
	mutex   sync.Mutex
	games   []proto.GameID
	pools   []proto.PoolID
	circles map[proto.CircleID]uint64 // and their codes
	crowd   []*talker
	said    map[string]int // replies by type, refusals by request and reason
}

func (b *table) note(what string) { b.mutex.Lock(); b.said[what]++; b.mutex.Unlock() }

func (b *table) pool(r *rand.Rand) proto.PoolID {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	n := len(b.pools)
	return b.pools[max(0, n-1-r.IntN(min(n, 12)))]
}

func (b *table) game(r *rand.Rand) proto.GameID {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	n := len(b.games)
	return b.games[max(0, n-1-r.IntN(min(n, 5)))]
}

func (b *table) circle(r *rand.Rand) (proto.CircleID, uint64) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	skip := r.IntN(max(1, len(b.circles)))
	for c, code := range b.circles {
		if skip--; skip < 0 {
			return c, code
		}
	}
	return 1, 1
}

func (b *table) open(p ...proto.PoolID) {
	b.mutex.Lock()
	b.pools = append(b.pools, p...)
	b.mutex.Unlock()
}

// talk goes on until the server dies or quota requests are answered.
func (k *talker) talk(t *testing.T, s *running, b *table, r *rand.Rand, quota int) {
	c, err := bench.Dial(t.Context(), s.players)
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := c.Ask(proto.Request{Type: proto.RequestHello, Token: k.token}); err != nil {
		return
	}
	for range quota {
		request := k.request(b, r)
		if request.Type == proto.RequestStake || request.Type == proto.RequestSell {
			for id, again := range k.asked {
				request, request.ID = again, id
			}
			if request.ID == 0 {
				k.next++
				request.ID = k.next
			}
			if _, known := k.claims[request.ID]; !known {
				k.asked[request.ID] = request
			}
			if r.IntN(6) == 0 { // twice at once: both are answered, the same way
				if _, err := c.Send(request); err != nil {
					return
				}
			}
		}
		switch request.Type {
		case proto.RequestFollow, proto.RequestUnfollow:
			delete(k.follows, request.Account)
		case proto.RequestCircleJoin, proto.RequestCircleLeave, proto.RequestCircleRemove:
			delete(k.circles, request.Circle)
		}
		reply, err := c.Ask(request)
		if err != nil {
			return
		}
		b.note(reply.Type())
		switch m := reply.(type) {
		case *proto.Receipt:
			if old, known := k.claims[m.ID]; known && old.Prediction != m.Prediction {
				t.Errorf("account %d: %+v, and again %+v", k.account, old, m)
			}
			k.claims[m.ID] = *m
			delete(k.asked, m.ID)
		case *proto.Sold:
			if old, known := k.sales[m.ID]; known && old.Sale != m.Sale {
				t.Errorf("account %d: %+v, and again %+v", k.account, old, m)
			}
			k.sales[m.ID] = *m
			delete(k.asked, m.ID)
		case *proto.Refused:
			b.note(request.Type.String() + " refused " + m.Reason.Code())
			if m.Reason != proto.RefusedBusy && m.Reason != proto.RefusedStakesFast {
				delete(k.asked, request.ID)
			}
			if m.Reason == proto.RefusedMalformed || m.Reason == proto.RefusedRequestUnknown {
				t.Errorf("%s was answered %+v", request.AppendJSON(nil), m)
			}
		case *proto.QuestionState:
			if request.Type == proto.RequestAsk {
				b.open(m.Pool)
			}
		case *proto.Circle:
			k.circles[m.Circle] = true
			if m.Code != 0 {
				b.mutex.Lock()
				b.circles[m.Circle] = m.Code
				b.mutex.Unlock()
			}
		case *proto.CircleGame:
			b.mutex.Lock()
			b.games = append(b.games, m.Game)
			b.mutex.Unlock()
		case *proto.Followed:
			k.follows[m.Account] = true
		case *proto.Unfollowed:
			k.follows[m.Account] = false
		}
	}
}

func (k *talker) request(b *table, r *rand.Rand) proto.Request {
	p, g := b.pool(r), b.game(r)
	other := b.crowd[r.IntN(len(b.crowd))].account
	outcome := proto.Outcome(r.IntN(3))
	one := func(t proto.RequestType) proto.Request {
		return proto.Request{Type: t, Pool: p, Game: g, Outcome: outcome}
	}
	switch n := r.IntN(100); {
	case n < 40:
		q := one(proto.RequestStake)
		q.Amount = proto.Amount(10 * (1 + r.IntN(30)))
		return q
	case n < 43 && len(k.claims) > 0: // a receipt that is held, again, if it is one of the last
		if m, ok := k.claims[k.next]; ok {
			return proto.Request{Type: proto.RequestStake, ID: m.ID, Pool: m.Pool, Outcome: m.Outcome, Amount: m.Amount}
		}
		return one(proto.RequestPredictions)
	case n < 53:
		q := one(proto.RequestSell)
		q.Shares = proto.Shares(1 + r.IntN(60_000_000))
		return q
	case n < 58:
		q := one(proto.RequestQuote)
		if r.IntN(2) == 0 {
			q.Amount = proto.Amount(1 + r.IntN(1000))
		} else {
			q.Shares = proto.Shares(1 + r.IntN(60_000_000))
		}
		return q
	case n < 64:
		q := one(proto.RequestAsk)
		q.Ask = &proto.Question{Question: "Who takes the next corner?", Labels: []string{"Argentina", "France", "nobody"}, LocksAt: now() + proto.Time(r.IntN(300))*proto.Millisecond}
		switch r.IntN(4) {
		case 0:
			q.Ask.Settle = proto.SettledByAdmin
		case 1:
			q.Ask.Settle, q.Ask.LocksAt = proto.SettledByRules, 0
			q.Ask.Wins = []string{`event.kind == "goal"`, `event.kind == "end"`, `event.kind == "corner"`}
		}
		return q
	case n < 69:
		q := one(proto.RequestResolve)
		q.Winners = uint64(1 + r.IntN(7))
		return q
	case n < 71:
		return one(proto.RequestChallenge)
	case n < 72:
		return one(proto.RequestReport)
	case n < 73:
		return one(proto.RequestQuestions)
	case n < 75:
		return proto.Request{Type: proto.RequestCircleCreate, Name: "Row 12"}
	case n < 78:
		circle, code := b.circle(r)
		return proto.Request{Type: proto.RequestCircleJoin, Circle: circle, Code: code}
	case n < 79:
		circle, _ := b.circle(r)
		return proto.Request{Type: proto.RequestCircleLeave, Circle: circle}
	case n < 81:
		circle, _ := b.circle(r)
		return proto.Request{Type: proto.RequestCircleGame, Circle: circle, Game: g.Main()}
	case n < 84:
		return proto.Request{Type: proto.RequestFollow, Account: other}
	case n < 86:
		return proto.Request{Type: proto.RequestUnfollow, Account: other}
	case n < 88:
		return one(proto.RequestFriends)
	case n < 91:
		return one(proto.RequestJoin)
	case n < 92:
		return one(proto.RequestLeave)
	case n < 93:
		return one(proto.RequestPools)
	case n < 94:
		return proto.Request{Type: proto.RequestHistory, Limit: int64(1 + r.IntN(9))}
	case n < 95:
		return proto.Request{Type: proto.RequestStatement, Limit: int64(1 + r.IntN(9))}
	case n < 96:
		return proto.Request{Type: proto.RequestArchive, Game: g}
	case n < 97:
		return proto.Request{Type: proto.RequestLeaders, Game: g}
	case n < 98:
		circle, _ := b.circle(r)
		return proto.Request{Type: proto.RequestLeaders, Circle: circle}
	case n < 99:
		return one(proto.RequestPresence)
	}
	return proto.Request{Type: proto.RequestAccount}
}

// operate does what operators and feeds do.
func (b *table) operate(t *testing.T, s *running, r *rand.Rand, quota int) {
	for range quota {
		err := b.operation(t, s, r)
		var refused *control.Error
		switch {
		case err == nil:
		case errors.As(err, &refused):
			b.note("desk refused " + refused.Code)
			if refused.Status >= 500 {
				t.Errorf("the desk: %v", err)
			}
		default:
			return
		}
	}
}

func (b *table) operation(t *testing.T, s *running, r *rand.Rand) error {
	ctx, p, g := t.Context(), b.pool(r), b.game(r)
	who := b.crowd[r.IntN(len(b.crowd))].account
	at := func() proto.Time {
		if r.IntN(2) == 0 {
			return 0
		}
		return now() - proto.Time(r.IntN(200_000))
	}
	switch n := r.IntN(100); {
	case n < 5:
		a, err := s.desk.OpenGame(ctx, proto.GameOpening{Name: "Argentina v France", Teams: [2]string{"Argentina", "France"},
			Shortlist: []string{"Lionel Messi"}, Templates: sports.Football(), Interval: 100 * proto.Millisecond})
		if err == nil {
			b.mutex.Lock()
			b.games = append(b.games, a.Game)
			b.mutex.Unlock()
		}
		return err
	case n < 25:
		o := proto.PoolOpening{Question: "Who?", Labels: []string{"A", "B", "C"}, Takeout: uint16(r.IntN(3) * 700)}
		switch r.IntN(6) {
		case 0:
			o.Kind, o.Takeout = proto.KindDynamic, 0
			o.Seeds = []proto.Seed{{Money: 1000}, {Money: 700}, {Money: 300, Shares: 1_000_000}}
			o.Variant = []string{"", "money_ratio", "losers_payoff", "losers_money"}[r.IntN(4)]
			if o.Variant != "" {
				o.Labels, o.Seeds = o.Labels[:2], o.Seeds[:2]
			}
		case 1:
			o.Rules = proto.Rules{Payout: proto.PayoutDividend, Unit: 10, Break: 5, DividendMin: proto.Amount(r.IntN(2) * 12), MinusMax: proto.Amount(r.IntN(2) * 50)}
		case 2:
			o.Rules = proto.Rules{NoWinner: proto.NoWinnerCarry}
		case 3:
			o.Rules = proto.Rules{OneSidedRefund: true, AccountMax: 400}
		case 4:
			o.LocksAt = now() + proto.Time(1+r.IntN(200_000))
			o.Rules = proto.Rules{LateSpan: proto.Second, LateMax: 300, NoWinner: proto.NoWinnerCarry}
		}
		a, err := s.desk.OpenPool(ctx, g, o)
		if err == nil {
			b.open(a.Pool)
		}
		return err
	case n < 40:
		_, err := s.desk.Lock(ctx, p, at())
		return err
	case n < 58:
		winners := r.Perm(3)[:1+r.IntN(5)/3]
		var named []proto.Outcome
		for _, w := range winners {
			named = append(named, proto.Outcome(w))
		}
		if r.IntN(2) == 0 {
			s.desk.Lock(ctx, p, at())
		}
		_, err := s.desk.Settle(ctx, p, named...)
		return err
	case n < 62:
		_, err := s.desk.Void(ctx, p, "rain")
		return err
	case n < 67:
		_, err := s.desk.WithdrawOutcome(ctx, p, proto.Outcome(r.IntN(3)))
		return err
	case n < 72:
		_, err := s.desk.Approve(ctx, p)
		return err
	case n < 88:
		e := proto.Event{Kind: []string{"kickoff", "goal", "corner", "halftime", "secondhalf", "fulltime", "card", "goal", "goal"}[r.IntN(9)],
			Minute: uint16(r.IntN(95)), Team: uint8(r.IntN(3)), Player: "Lionel Messi", At: at(), Score: [2]uint16{uint16(r.IntN(4)), uint16(r.IntN(4))}}
		if r.IntN(20) == 0 {
			e.Kind = "end"
		}
		a, err := s.desk.PostEvent(ctx, g, e)
		if err == nil {
			b.open(a.Opened...)
		}
		return err
	case n < 91:
		set := sports.Football()
		r.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
		_, err := s.desk.SetTemplates(ctx, g, proto.TemplateSet{Templates: set[:r.IntN(len(set)+1)]})
		return err
	case n < 96:
		_, err := s.desk.Deposit(ctx, who, proto.Amount(1+r.IntN(500)))
		return err
	}
	_, err := s.desk.Withdraw(ctx, who, proto.Amount(1+r.IntN(500)))
	return err
}

// verify compares the server's word with what a player was promised.
func (k *talker) verify(s *running) {
	s.t.Helper()
	c := s.hello(k.token)
	defer c.Close()
	show := ask[*proto.Account](s.t, c, proto.Request{Type: proto.RequestAccount})
	var sum proto.Amount
	entries := s.statement(k.account)
	ends := map[proto.Seq]int{}
	staked := map[proto.Seq]int{}
	for _, e := range entries {
		if sum += e.Change; sum != e.Balance {
			s.t.Errorf("account %d: %+v, but the changes so far sum up to %d", k.account, e, sum)
			return
		}
		if e.Kind == proto.EntryStake {
			staked[e.Prediction.Prediction]++
		}
	}
	if show.Balance != sum || show.Held != 0 {
		s.t.Errorf("account %d: the statement sums up to %d: %+v", k.account, sum, show)
	}
	sales := map[proto.Seq]proto.Entry{}
	for page, more := (proto.Request{Type: proto.RequestHistory, Limit: 50}), true; more; {
		m := ask[*proto.History](s.t, c, page)
		for _, e := range m.Entries {
			if e.Kind == proto.EntrySale {
				sales[e.Prediction.Prediction] = e
			} else {
				ends[e.Prediction.Prediction]++
			}
		}
		page.Before, more = m.Next, m.More
	}
	listed := map[proto.Seq]proto.Prediction{}
	var open proto.Amount
	for _, p := range ask[*proto.Predictions](s.t, c, proto.Request{Type: proto.RequestPredictions}).Predictions {
		if _, twice := listed[p.Prediction]; twice {
			s.t.Errorf("account %d: %+v is listed twice", k.account, p)
		}
		listed[p.Prediction] = p
		if p.State == proto.PredictionOpen {
			open += p.Amount
			if ends[p.Prediction]++; staked[p.Prediction] != 1 {
				s.t.Errorf("account %d: %+v has %d entries", k.account, p, staked[p.Prediction])
			}
		}
	}
	if show.Staked > open {
		s.t.Errorf("account %d: %+v, but %d are in open predictions", k.account, show, open)
	}
	for id, claim := range k.claims {
		n := ends[claim.Prediction]
		if n > 1 || n == 0 && claim.Shares == 0 || staked[claim.Prediction] != 1 { // of shares that are sold, the sales tell
			s.t.Errorf("account %d: receipt %d, %+v: it is open or ended %d times, staked %d times", k.account, id, claim, n, staked[claim.Prediction])
		}
	}
	for id, sold := range k.sales {
		if e := sales[sold.Sale]; e.Change != sold.Amount || e.Prediction.Pool != sold.Pool {
			s.t.Errorf("account %d: sale %d, %+v is %+v", k.account, id, sold, e)
		}
	}
	following := map[proto.AccountID]bool{}
	for _, f := range show.Following {
		following[f.Account] = true
	}
	for a, does := range k.follows {
		if following[a] != does {
			s.t.Errorf("account %d follows %+v, was told %v of %d", k.account, show.Following, does, a)
		}
	}
	in := map[proto.CircleID]bool{}
	for _, circle := range ask[*proto.Circles](s.t, c, proto.Request{Type: proto.RequestCircles}).Circles {
		in[circle.Circle] = true
		m, ok := must(c.Ask(proto.Request{Type: proto.RequestCircle, Circle: circle.Circle}))(s.t).(*proto.Circle)
		found := false
		if ok {
			for _, f := range m.Members {
				found = found || f.Account == k.account
			}
		}
		if !found {
			s.t.Errorf("account %d is in circle %d, which has %+v", k.account, circle.Circle, m)
		}
	}
	for circle := range k.circles {
		if !in[circle] {
			s.t.Errorf("account %d is not in circle %d", k.account, circle)
		}
	}
}

var unitsShown = regexp.MustCompile(`server_money_units\{where="(\w+)"\} (\S+)`)

// balanced checks the money on /metrics.
func (s *running) balanced() {
	s.t.Helper()
	units := map[string]float64{}
	for _, m := range unitsShown.FindAllStringSubmatch(must(s.desk.Metrics(s.t.Context()))(s.t), -1) {
		units[m[1]], _ = strconv.ParseFloat(m[2], 64)
	}
	if len(units) != 5 || units["deposits"] == 0 || units["accounts"]+units["pools"]+units["house"] != units["deposits"]-units["withdrawals"] {
		s.t.Errorf("the money: %v", units)
	}
}

// ended waits for the process and returns how it ended.
func (s *running) ended() error {
	err := <-s.exited
	s.exited <- err
	return err
}

// image is all that stands still while nobody says anything.
func (s *running) image(b *table) map[proto.GameID][]proto.Pool {
	s.t.Helper()
	all := map[proto.GameID][]proto.Pool{}
	for _, g := range b.games {
		m, err := s.desk.Pools(s.t.Context(), g)
		if err != nil {
			continue
		}
		for _, p := range m.Pools {
			done := p.State == proto.PoolSettled || p.State == proto.PoolVoided
			if done || p.State == proto.PoolLocked || p.LocksAt == 0 && p.State != proto.PoolClaimed { // time alone changes all others
				all[g] = append(all[g], p)
			}
		}
	}
	return all
}

// Several players and operators do at once, at random, all that there is to do, while the server is killed or stopped, and started with
// other flags: what players were promised stands, statements and money add up, and a server that stops in order agrees with its journal.
func TestRandomConversations(t *testing.T) {
	const rounds = 6
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	data := t.TempDir()
	flags := func() []string {
		f := []string{"--stakes-per-second", "0", "--snapshot-at", fmt.Sprint(20 + r.IntN(200)), "--shards", fmt.Sprint(1 + r.IntN(4)), "--loops", "2",
			"--reports", "1", "--challenge-for", "150ms", "--log", "warn", "--durability", []string{"always", "interval=200ms"}[r.IntN(2)]}
		if r.IntN(3) == 0 {
			f = append(f, "--moderate")
		}
		if r.IntN(2) == 0 {
			f = append(f, "--record")
		}
		return f
	}
	s := start(t, data, flags()...)
	b := &table{circles: map[proto.CircleID]uint64{}, said: map[string]int{}}
	for i := range 7 {
		opened := must(s.desk.OpenAccount(t.Context(), proto.AccountOpening{Name: fmt.Sprint("player ", i), Deposit: 100_000}))(t)
		b.crowd = append(b.crowd, &talker{token: opened.Token, account: opened.Account, claims: map[proto.RequestID]proto.Receipt{}, sales: map[proto.RequestID]proto.Sold{},
			asked: map[proto.RequestID]proto.Request{}, follows: map[proto.AccountID]bool{}, circles: map[proto.CircleID]bool{}})
	}
	g, pools := s.game(2)
	b.games, b.pools = []proto.GameID{g}, pools
	for round := range rounds {
		var talking sync.WaitGroup
		kill := r.IntN(3) > 0
		for _, k := range b.crowd {
			own := rand.New(rand.NewPCG(r.Uint64(), 2))
			talking.Go(func() { k.talk(t, s, b, own, 60) })
		}
		for range 2 {
			own := rand.New(rand.NewPCG(r.Uint64(), 3))
			talking.Go(func() { b.operate(t, s, own, 60) })
		}
		moment := time.Duration(r.IntN(400)) * time.Millisecond
		var before map[proto.GameID][]proto.Pool
		if kill {
			time.Sleep(moment)
			s.process.Process.Kill()
			talking.Wait()
			s.ended()
		} else {
			quiet := r.IntN(2) == 0
			if quiet {
				talking.Wait()
				s.balanced()
				before = s.image(b)
			} else {
				time.Sleep(moment)
			}
			s.process.Process.Signal(syscall.SIGTERM)
			if err := s.ended(); err != nil {
				t.Fatalf("round %d: stopped with %v", round, err)
			}
			talking.Wait()
		}
		if r.IntN(3) == 0 {
			s.audited()
		}
		s = start(t, data, flags()...)
		for g, list := range before {
			after := map[proto.PoolID]proto.Pool{}
			if m, err := s.desk.Pools(t.Context(), g); err == nil {
				for _, p := range m.Pools {
					after[p.Pool] = p
				}
				for _, p := range list {
					if !reflect.DeepEqual(after[p.Pool], p) {
						t.Errorf("before the restart\n%+v\nand after it\n%+v", p, after[p.Pool])
					}
				}
			}
		}
		for _, k := range b.crowd {
			k.verify(s)
		}
		s.balanced()
		if t.Failed() {
			t.Fatalf("round %d, killed: %v", round, kill)
		}
	}
	s.process.Process.Signal(syscall.SIGTERM)
	if err := s.ended(); err != nil {
		t.Fatalf("stopped with %v", err)
	}
	t.Logf("%v; %v", s.audited().Money, b.said)
}
