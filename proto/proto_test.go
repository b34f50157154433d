package proto

import (
	"bufio"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var (
	someOdds = []Odd{{Staked: 750, Backers: 3, Multiplier: 1933}, {Staked: 0, Backers: 0, Multiplier: 0}, {Staked: AmountMax, Backers: 1 << 31, Multiplier: 2005, Price: 1234567, Probability: 1000000}}
	someGame = Game{Game: 3, Name: "Argentina \"v\" <France> \u2028 \x01", State: GameLive, Teams: [2]string{"Argentina", "Côte d'Ivoire"},
		Score: [2]uint16{1, 65535}, Minute: 90, Interval: 3 * Second, Present: 201, Circle: 5, Parent: 4}
	somePool = Pool{Kind: KindDynamic, Variant: "share_ratio", Pool: NewPoolID(3, 1), Question: "Wer?\n\\", Labels: []string{"Kylian Mbappé", "\t", ""}, State: PoolSettled, LocksAt: 5,
		Takeout: 1500, Odds: someOdds, Winners: []Outcome{0, 63}}
	fullPool = Pool{Pool: NewPoolID(3, 3), Question: "?", Labels: []string{"a", "b"}, State: PoolSettled, Odds: someOdds, Unit: 100, AccountMax: 500,
		Carried: 7, Withdrawn: []Outcome{2}, Refunded: true, CarriedTo: NewPoolID(3, 4)}
	askedPool = Pool{Pool: NewPoolID(3, 2), Question: "?", Labels: []string{"a", "b"}, State: PoolClaimed, Odds: someOdds,
		Asked: Asked{Account: 12, Name: "Ada", Settle: SettledByRules, Suspended: true, Claim: []Outcome{1, 2}, Until: 9}}
	openPool = Pool{Pool: NewPoolID(GameMax, PoolsMax), Question: "?", Labels: []string{"a", "b"}, Odds: someOdds}
)

// said has every message, filled and (where lists may be empty) empty.
var said = []Message{
	&Welcome{ID: 1, T: 2, Epoch: 77, Account: 12, Name: "Ada", Balance: 1000, N: 4, Token: "eyJ", Durability: "always"},
	&Welcome{ID: RequestMax, T: 1671382800000000, Epoch: 1, Account: 12, Name: "😀\xff", Balance: 0, Durability: "interval=1s"},
	&Games{ID: 1, T: 2, Games: []Game{someGame, {}}},
	&Games{Games: []Game{}},
	&Joined{ID: 1, T: 2, Game: someGame, Seq: 41, Pools: []Pool{somePool, openPool}},
	&Left{ID: 1, T: 2, Game: 3},
	&Pools{ID: 1, T: 2, Game: 3, Seq: 9, Pools: []Pool{somePool, fullPool}},
	&Receipt{ID: 4, T: 5, N: 1, Prediction: 90210, Pool: somePool.Pool, Outcome: 2, Amount: 250, Balance: 750, Arrived: 4, Durability: "always"},
	&Receipt{ID: 4, Amount: 250, Shares: 2500000, LocksAt: 6, Durability: "always"},
	&Sold{ID: 4, T: 5, N: 1, Sale: 90312, Pool: somePool.Pool, Outcome: 2, Shares: SharesMax, Amount: 250, Balance: 750, Arrived: 4, Durability: "always"},
	&Quote{ID: 4, T: 5, Pool: somePool.Pool, Outcome: 2, Amount: 50, Shares: 45773797, Payout: 78, Multiplier: 1470, Price: 1166190, Probability: 680000, Counts: 9},
	&Quote{ID: 4, Multiplier: 1470},
	&Account{ID: 1, T: 2, N: 3, Account: 4, Name: "Ada", Balance: 5, Held: 6, Staked: 7, Following: []Friend{{8, "Bob"}, {9, "Eve"}}},
	&Account{Following: []Friend{}},
	&Predictions{ID: 1, T: 2, N: 3, Predictions: []Prediction{{4, 5, 6, 7, 8, PredictionWon, 9, 10}, {State: PredictionRefunded}, {State: PredictionSold}}},
	&Friends{ID: 1, T: 2, Pool: 3, Predictions: []FriendPrediction{{4, "Bob", 1, 5, 6}, {}}},
	&Followed{ID: 1, T: 2, Account: 3, Name: "Bob"},
	&Unfollowed{ID: 1, T: 2, Account: 3},
	&Presence{ID: 1, T: 2, Game: 3, Present: 400},
	&Presence{ID: 1, T: 2, Game: 3, Present: 4, People: []Person{{5, "Ada", 31_000}, {6, "Bob", 0}}},
	&PresenceChanged{T: 2, Game: 3, Present: 4, People: []Person{{5, "Ada", 31_000}}},
	&PresenceChanged{T: 2, Game: 3, Present: 51},
	&Clock{ID: 1, T: 2, Sent: -3},
	&Payout{T: 1, N: 2, Prediction: 3, Pool: 4, Outcome: 5, Amount: 6, Payout: 7, Balance: 8},
	&Refund{T: 1, N: 2, Prediction: 3, Pool: 4, Outcome: 5, Amount: 6, Balance: 7, Reason: RefundWithdrawn},
	&Refund{T: 1, N: 2},
	&Balance{T: 1, N: 2, Seq: 5, Change: -3, Balance: 4, Since: 6},
	&Odds{T: 1, Game: 2, Seq: 3, Pool: 4, Counts: 5, Odds: someOdds},
	&Odds{T: 1, Game: 2, Seq: 3, Pool: 4, Counts: 5, Odds: someOdds, Carried: 6},
	&Conflated{T: 1, Game: 2, N: 3},
	&Happened{T: 1, Game: 2, Seq: 3, Kind: "goal", Minute: 23, Team: 1, Player: "Lionel Messi", Score: [2]uint16{1, 0}},
	&Opened{T: 1, Game: 2, Seq: 3, Pool: openPool},
	&Locked{T: 1, Game: 2, Seq: 3, Pool: 4, At: 5, Counts: 6, Odds: someOdds},
	&Settled{T: 1, Game: 2, Seq: 3, Pool: 4, Winners: []Outcome{1}, Gross: 5, Takeout: 6, Paid: 7, Multiplier: 1001, Refunded: true},
	&Settled{T: 1, Game: 2, Seq: 3, Pool: 4, Winners: []Outcome{1, 2}, Gross: 5, Takeout: 6, Paid: 7, Multiplier: 1001, Reason: RefundOneSided,
		Dividends: []Dividend{{1, 105, 7, 1050}, {2, 0, 0, 2000}}, Breakage: 8, Minus: 9, Carried: 10, CarriedOn: 11, CarriedTo: NewPoolID(3, 4)},
	&Voided{T: 1, Game: 2, Seq: 3, Pool: 4, Reason: "rain"},
	&GameChanged{T: 1, Seq: 2, Game: someGame},
	&Heartbeat{ID: 5, T: 1, Game: 2, Seq: 3, Interval: 4, Stale: true},
	&Heartbeat{T: 1, Game: 2},
	&Refused{ID: 1, T: 2, N: 3, Reason: RefusedPoolLocked, Arrived: 7, Locked: 6},
	&Refused{ID: 1, T: 2, N: 3, Reason: RefusedFundsShort, Arrived: 7},
	&Refused{T: 2, Reason: RefusedMalformed},
	&Refused{ID: 1, T: 2, Reason: RefusedTemplate, Detail: "wins 1:2: \"?\""},
	&QuestionState{ID: 1, T: 2, Pool: 3, State: PoolProposed},
	&QuestionState{T: 2, N: 3, Pool: 4, State: PoolClaimed},
	&Questions{ID: 1, T: 2, Game: 3, Questions: []Inquiry{{Pool: askedPool, Reports: 4, Challenger: 5, Reason: "rain"}, {Pool: openPool}}},
	&Questions{Questions: []Inquiry{}},
	&Circles{ID: 1, T: 2, Circles: []CircleName{{3, "Row 12"}}},
	&Circles{Circles: []CircleName{}},
	&Circle{ID: 1, T: 2, Circle: 3, Name: "Row 12", Owner: 4, Code: 1<<53 - 1, Members: []Friend{{4, "Ada"}, {5, "Bob"}}},
	&Circle{ID: 1, T: 2, Circle: 3, Name: "Row 12", Owner: 4, Members: []Friend{}},
	&CircleLeft{ID: 1, T: 2, Circle: 3},
	&CircleGame{ID: 1, T: 2, Circle: 3, Game: NewRoomID(4, 5)},
	&PoolChanged{T: 1, Game: 2, Seq: 3, Pool: askedPool},
	&Statement{ID: 1, T: 2, Counts: 3, Entries: []Entry{{Entry: 9, Seq: 8, T: 7, Kind: EntryDeposit, Change: 6, Balance: 5},
		{Entry: 4, Seq: 3, T: 2, Kind: EntryRefund, Change: 1, Balance: 5, Prediction: Prediction{Prediction: 1, State: PredictionRefunded}, Reason: "late"}}, More: true, Next: 4},
	&History{ID: 1, T: 2, Counts: 3, Entries: []Entry{}},
	&History{ID: 1, Entries: []Entry{{Kind: EntryLoss, Change: -3, Prediction: Prediction{4, 5, 6, 7, 8, PredictionLost, 0, 0}}}},
	&Archive{ID: 1, T: 2, Counts: 3, Games: []PastGame{{Game: someGame, Ended: 4, Pools: 5, Players: 6, Gross: 7}}, Pools: []PastPool{}, More: true, Next: 8},
	&Archive{Games: []PastGame{}, Pools: []PastPool{{Pool: somePool, Opened: 1, Locked: 2, Ended: 3, Gross: 4, Paid: 5, Record: 6, Head: "0f"}, {Pool: openPool}}},
	&Leaders{ID: 1, T: 2, Game: 3, Counts: 4, Players: 5, Leaders: []Leader{{1, 2, "Ada", -3, 4}}, Own: Leader{5, 6, "Bob", 7, 8}},
	&Leaders{Leaders: []Leader{}},
	&Missed{T: 1, Entries: []Entry{{Kind: EntryOpened}}, More: true, Next: 2, Last: true, Since: 3},
	&Missed{Entries: []Entry{}},
	&Sealed{T: 1, Game: 2, Seq: 3, Pool: 4, Record: 5, Head: "00ff"},
}

// The append encoder and its naive twin, encoding/json with the struct tags, say the same.
func TestEncoderAgainstItsTwin(t *testing.T) {
	types := map[string]bool{}
	for _, m := range said {
		types[m.Type()] = true
		got := m.AppendJSON(nil)
		var flat map[string]any
		if err := json.Unmarshal(got, &flat); err != nil {
			t.Errorf("%s: %v\n%s", m.Type(), err, got)
			continue
		}
		if flat["type"] != m.Type() {
			t.Errorf("%s says it is %v", m.Type(), flat["type"])
		}
		delete(flat, "type")
		if want := twin(t, m); !reflect.DeepEqual(flat, want) {
			t.Errorf("%s:\n%s\nthe twin says %v", m.Type(), got, want)
		}
	}
	if len(types) != len(messageTypes) {
		t.Errorf("%d types of messages are tested, there are %d", len(types), len(messageTypes))
	}
}

func twin(t *testing.T, m Message) (flat map[string]any) {
	if r, ok := m.(*Refused); ok {
		flat = map[string]any{"id": float64(r.ID), "t": float64(r.T), "code": r.Reason.Code(), "reason": r.Reason.Reason()}
		if r.N != 0 {
			flat["n"] = float64(r.N)
		}
		if r.Detail != "" {
			flat["detail"] = r.Detail
		}
		for name, at := range map[string]Time{"arrived": r.Arrived, "locked": r.Locked} {
			if at != 0 {
				flat[name] = float64(at)
			}
		}
		return flat
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &flat); err != nil {
		t.Fatal(err)
	}
	return flat
}

// A client reads back what the server said.
func TestMessagesAreRead(t *testing.T) {
	for _, m := range said {
		b := m.AppendJSON(nil)
		got, err := ReadMessage(b)
		if err != nil {
			t.Errorf("%s: %v", m.Type(), err)
			continue
		}
		if again, err := ReadMessage(got.AppendJSON(nil)); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s reads as\n%+v, then as\n%+v (%v)", b, got, again, err)
		}
		head, ok := ReadHead(b)
		if !ok || head.Type != m.Type() {
			t.Errorf("the head of %s is %+v, %v", b, head, ok)
		}
		var slow struct{ T Time }
		if err := json.Unmarshal(b, &slow); err != nil || slow.T != head.T {
			t.Errorf("%s: the head's t is %d, want %d", m.Type(), head.T, slow.T)
		}
	}
	for _, wrong := range []string{``, `{}`, `[]`, `{"type":"no such"}`, `{"type":"refused","code":"no such"}`, `{"type":"odds","seq":"x"}`} {
		if m, err := ReadMessage([]byte(wrong)); err == nil {
			t.Errorf("%q reads as %+v", wrong, m)
		}
	}
}

func TestRequestsAreRead(t *testing.T) {
	const pool = PoolID(196609)
	for _, row := range []struct {
		text   string
		want   Refusal
		expect Request
	}{
		{`{"type":"stake","id":4,"pool":196609,"outcome":0,"amount":250}`, Accepted, Request{Type: RequestStake, ID: 4, Pool: pool, Amount: 250}},
		{"\t{ \"amount\" : 250 ,\n\"outcome\":63, \"pool\":196609,\"id\":4 ,\"type\":\"stake\" }\r\n", Accepted, Request{Type: RequestStake, ID: 4, Pool: pool, Amount: 250, Outcome: 63}},
		{`{"type":"hello","id":1,"guest":"Zoë"}`, Accepted, Request{Type: RequestHello, ID: 1, Guest: "Zoë", Outcome: OutcomeNone}},
		{`{"type":"hello","id":1,"token":"a.b-c_d"}`, Accepted, Request{Type: RequestHello, ID: 1, Token: "a.b-c_d", Outcome: OutcomeNone}},
		{`{"type":"hello","id":1,"token":"a","epoch":77,"n":5}`, Accepted, Request{Type: RequestHello, ID: 1, Token: "a", Epoch: 77, N: 5, Outcome: OutcomeNone}},
		{`{"type":"heartbeat","id":1,"game":3,"every":1000000}`, Accepted, Request{Type: RequestHeartbeat, ID: 1, Game: 3, Every: Second, Outcome: OutcomeNone}},
		{`{"type":"time","id":9007199254740991,"sent":-5}`, Accepted, Request{Type: RequestTime, ID: RequestMax, Sent: -5, Outcome: OutcomeNone}},
		{`{"type":"join","id":3,"game":7,"future":{"x":[1,"}"]}}`, Accepted, Request{Type: RequestJoin, ID: 3, Game: 7, Outcome: OutcomeNone}},

		{`{"type":"ask","id":1,"game":3,"question":"¿?","labels":["a","b"],"locks_at":5,"settle":"rules","wins":["true","false"],"locks":"l","voids":"v"}`, Accepted,
			Request{Type: RequestAsk, ID: 1, Game: 3, Outcome: OutcomeNone, Ask: &Question{"¿?", []string{"a", "b"}, 5, SettledByRules, []string{"true", "false"}, "l", "v"}}},
		{`{"type":"ask","id":1}`, Accepted, Request{Type: RequestAsk, ID: 1, Outcome: OutcomeNone, Ask: &Question{}}},
		{`{"type":"ask","id":1,"settle":"nobody"}`, RefusedMalformed, Request{Type: RequestAsk, ID: 1, Outcome: OutcomeNone, Ask: &Question{}}},
		{`{"type":"ask","id":1,"labels":["a",null]}`, RefusedMalformed, Request{Type: RequestAsk, ID: 1, Outcome: OutcomeNone, Ask: &Question{}}},
		{`{"type":"ask","id":1,"labels":"a"}`, RefusedMalformed, Request{Type: RequestAsk, ID: 1, Outcome: OutcomeNone, Ask: &Question{}}},
		{`{"type":"ask","id":1,"question":5}`, RefusedMalformed, Request{Type: RequestAsk, ID: 1, Outcome: OutcomeNone, Ask: &Question{}}},
		{`{"type":"ask","id":1,"locks_at":"noon"}`, RefusedMalformed, Request{Type: RequestAsk, ID: 1, Outcome: OutcomeNone, Ask: &Question{}}},
		{`{"type":"resolve","id":1,"pool":7,"winners":[2,0,63,2]}`, Accepted, Request{Type: RequestResolve, ID: 1, Pool: 7, Outcome: OutcomeNone, Winners: 1<<63 | 1<<2 | 1}},
		{`{"type":"resolve","id":1,"pool":7,"winners":[2,64]}`, Accepted, Request{Type: RequestResolve, ID: 1, Pool: 7, Outcome: OutcomeNone}},
		{`{"type":"resolve","id":1,"pool":7,"winners":[1.5]}`, RefusedMalformed, Request{Type: RequestResolve, ID: 1, Pool: 7, Outcome: OutcomeNone}},
		{`{"type":"resolve","id":1,"pool":7,"winners":2}`, RefusedMalformed, Request{Type: RequestResolve, ID: 1, Pool: 7, Outcome: OutcomeNone}},
		{`{"type":"circle_create","id":1,"name":"Row 12"}`, Accepted, Request{Type: RequestCircleCreate, ID: 1, Outcome: OutcomeNone, Name: "Row 12"}},
		{`{"type":"circle_join","id":1,"circle":5,"code":9007199254740991}`, Accepted, Request{Type: RequestCircleJoin, ID: 1, Outcome: OutcomeNone, Circle: 5, Code: 1<<53 - 1}},

		{`{"type":"stake","id":4,"pool":1,"outcome":1,"amount":2,"limit":1900}`, Accepted, Request{Type: RequestStake, ID: 4, Pool: 1, Outcome: 1, Amount: 2, Limit: 1900}},
		{`{"type":"sell","id":4,"pool":1,"outcome":1,"shares":2500000,"limit":-3}`, Accepted, Request{Type: RequestSell, ID: 4, Pool: 1, Outcome: 1, Shares: 2500000, Limit: -3}},
		{`{"type":"sell","id":4,"pool":1,"outcome":1,"shares":2.5}`, RefusedSharesInvalid, Request{Type: RequestSell, ID: 4, Pool: 1, Outcome: 1}},
		{`{"type":"sell","id":4,"pool":1,"outcome":1,"shares":2,"limit":"3"}`, RefusedMalformed, Request{Type: RequestSell, ID: 4, Pool: 1, Outcome: 1, Shares: 2}},
		{`{"type":"quote","id":4,"pool":1,"outcome":1,"shares":3000000}`, Accepted, Request{Type: RequestQuote, ID: 4, Pool: 1, Outcome: 1, Shares: 3000000}},

		{`{"type":"stake","id":4,"pool":1,"outcome":-1,"amount":-1}`, Accepted, Request{Type: RequestStake, ID: 4, Pool: 1, Outcome: OutcomeNone, Amount: -1}},
		{`{"type":"stake","id":4,"pool":1,"outcome":64,"amount":9223372036854775808}`, Accepted, Request{Type: RequestStake, ID: 4, Pool: 1, Outcome: OutcomeNone, Amount: 1<<63 - 1}},
		{`{"type":"stake","id":4,"pool":9007199254740992,"outcome":300,"amount":0}`, Accepted, Request{Type: RequestStake, ID: 4, Outcome: OutcomeNone}},
		{`{"type":"stake","id":4,"pool":1,"outcome":0,"amount":1.5}`, RefusedAmountInvalid, Request{Type: RequestStake, ID: 4, Pool: 1}},
		{`{"type":"stake","id":4,"pool":1,"outcome":0,"amount":"5"}`, RefusedAmountInvalid, Request{Type: RequestStake, ID: 4, Pool: 1}},
		{`{"type":"stake","id":4,"pool":1,"outcome":0,"amount":1e3}`, RefusedAmountInvalid, Request{Type: RequestStake, ID: 4, Pool: 1}},
		{`{"type":"stake","id":4,"pool":"1","outcome":0,"amount":5}`, RefusedMalformed, Request{Type: RequestStake, ID: 4, Amount: 5}},

		{`{"type":"bet","id":4}`, RefusedRequestUnknown, Request{ID: 4, Outcome: OutcomeNone}},
		{`{"type":"games"}`, RefusedMalformed, Request{Type: RequestGames, Outcome: OutcomeNone}},
		{`{"type":"games","id":0}`, RefusedMalformed, Request{Type: RequestGames, Outcome: OutcomeNone}},
		{`{"type":"games","id":-1}`, RefusedMalformed, Request{Type: RequestGames, Outcome: OutcomeNone}},
		{`{"type":"games","id":9007199254740992}`, RefusedMalformed, Request{Type: RequestGames, Outcome: OutcomeNone}},
		{`{"id":4}`, RefusedMalformed, Request{ID: 4, Outcome: OutcomeNone}},
		{`{"type":"games","id":4`, RefusedMalformed, Request{Outcome: OutcomeNone}},
		{`{"type":"games","id":04}`, RefusedMalformed, Request{Outcome: OutcomeNone}},
		{`{"type":"games","id":4}}`, RefusedMalformed, Request{Outcome: OutcomeNone}},
		{`{"type":"games" "id":4}`, RefusedMalformed, Request{Outcome: OutcomeNone}},
		{``, RefusedMalformed, Request{Outcome: OutcomeNone}},
		{`null`, RefusedMalformed, Request{Outcome: OutcomeNone}},
		{`[1]`, RefusedMalformed, Request{Outcome: OutcomeNone}},
		{`hello`, RefusedMalformed, Request{Outcome: OutcomeNone}},
	} {
		var r Request
		if got := r.Parse([]byte(row.text)); got != row.want || !reflect.DeepEqual(r, row.expect) {
			t.Errorf("%s: %q %+v\nwant %q %+v", row.text, got.Code(), r, row.want.Code(), row.expect)
		}
	}
}

// The strict parser never disagrees with encoding/json where it has an opinion.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"type":"stake","id":4,"pool":196609,"outcome":0,"amount":250}`, `{"type":"hello","id":1,"token":"x","guest":"y"}`,
		`{"type":"time","id":1,"sent":-0}`, `{"id":1,"id":2,"type":"games","type":"bet"}`, ` {"amount":99999999999999999999,"id":1,"type":"sell"} `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var strict, any Request
		refusal, ok := strict.parseStrict(b)
		if !ok {
			return
		}
		if want := any.parseAny(b); refusal != want || !reflect.DeepEqual(strict, any) {
			t.Fatalf("%q: strict says %q %+v, encoding/json %q %+v", b, refusal.Code(), strict, want.Code(), any)
		}
	})
}

// fullRequest has every member.
func fullRequest(kind RequestType) Request {
	return Request{Type: kind, Outcome: 3, ID: 9, Game: 8, Pool: 7, Account: 6, Amount: 5, Shares: 11, Limit: 12, Sent: 4, Every: 3, Epoch: 2, N: 1, Since: 13, Before: 14, After: 15, Token: "t", Guest: "g",
		Circle: 5, Code: 4, Name: "n", Winners: 5, Ask: &Question{"q", []string{"a", "b"}, 9, SettledByRules, []string{"w", "x"}, "l", "v"}}
}

// A request that a client appends is read as what it was.
func TestRequestsRoundTrip(t *testing.T) {
	for kind := RequestHello; int(kind) < len(requestTypes); kind++ {
		full := fullRequest(kind)
		var once, twice Request
		if refusal := once.Parse(full.AppendJSON(nil)); refusal != Accepted || once.Type != kind || once.ID != 9 {
			t.Errorf("%s: %q %+v", kind, refusal.Code(), once)
		}
		if twice.Parse(once.AppendJSON(nil)); !reflect.DeepEqual(once, twice) {
			t.Errorf("%s: %+v, then %+v", kind, once, twice)
		}
	}
}

// The hot path allocates nothing: a stake in, a receipt and odds out.
func TestHotPathDoesNotAllocate(t *testing.T) {
	stake := []byte(`{"type":"stake","id":4,"pool":196609,"outcome":0,"amount":250}`)
	receipt := &Receipt{ID: 4, Pool: 196609, Amount: 250, Durability: "always"}
	odds := &Odds{Game: 3, Odds: someOdds}
	refused := &Refused{ID: 4, Reason: RefusedPoolLocked}
	buffer := make([]byte, 0, 1024)
	var r Request
	for name, do := range map[string]func(){
		"parse a stake":    func() { r.Parse(stake) },
		"append a receipt": func() { receipt.AppendJSON(buffer) },
		"append odds":      func() { odds.AppendJSON(buffer) },
		"append a refusal": func() { refused.AppendJSON(buffer) },
		"read a head":      func() { ReadHead(stake) },
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// Codes are stable, distinct and said in a sentence; so are close codes.
func TestRefusalsAndClosings(t *testing.T) {
	seen := map[string]bool{}
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for _, r := range Refusals() {
		if !word.MatchString(r.Code()) || seen[r.Code()] || len(r.Reason()) < 10 {
			t.Errorf("refusal %d: %q %q", r, r.Code(), r.Reason())
		}
		seen[r.Code()] = true
		if back, ok := RefusalOf(r.Code()); !ok || back != r {
			t.Errorf("%q is read as %d, want %d", r.Code(), back, r)
		}
	}
	for _, c := range closings {
		if reason := c.code.Reason(); reason == "" || len(reason) > 123 {
			t.Errorf("close code %d: a reason has 1 to 123 bytes, not %d", c.code, len(reason))
		}
	}
	for _, after := range []Time{0, 1, 999, Millisecond, 7300 * Millisecond, 24 * 3600 * Second} {
		reason := RestartReason(after)
		if got, ok := RestartDelay(reason); !ok || got < after || got >= after+Millisecond || len(reason) > 123 {
			t.Errorf("%q is read as %d, %v; %d was written", reason, got, ok, after)
		}
	}
	for _, text := range []string{"", CloseRestart.Reason(), CloseTryLater.Reason(), restarts + "-1" + restartsUnit, restarts + "5", "5" + restartsUnit} {
		if after, ok := RestartDelay(text); ok {
			t.Errorf("%q is read as %d", text, after)
		}
	}
}

func TestMultiplier(t *testing.T) {
	for _, row := range []struct {
		net, staked Amount
		want        string
	}{
		{1450, 750, "1.933"}, {1, 3, "0.333"}, {0, 5, "0.000"}, {5, 0, "0.000"}, {AmountMax, AmountMax, "1.000"},
		{AmountMax, 1, "9007199254740.991"}, {AmountMax, 7, "9007199254740.991"},
	} {
		b, _ := NewMultiplier(row.net, row.staked).MarshalJSON()
		if string(b) != row.want {
			t.Errorf("%d / %d is written %s, want %s", row.net, row.staked, b, row.want)
		}
	}
}

// The worked conversation in the package comment is spoken by the code: its requests parse, its messages
// are read and written to the letter, where nothing is left out of them.
func TestWorkedConversation(t *testing.T) {
	f, err := os.Open("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	requests, messages := 0, 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if _, text, ok := strings.Cut(line, "→ "); ok {
			var r Request
			if refusal := r.Parse([]byte(text)); refusal != Accepted {
				t.Errorf("%s: %s", text, refusal.Code())
			}
			requests++
		} else if _, text, ok := strings.Cut(line, "← "); ok && !strings.Contains(strings.ReplaceAll(text, `"eyJ…"`, ""), "…") {
			m, err := ReadMessage([]byte(text))
			if err != nil {
				t.Error(err)
				continue
			}
			if _, refused := m.(*Refused); string(m.AppendJSON(nil)) != text && !refused && !strings.Contains(text, "…") {
				t.Errorf("doc.go has\n%s, the code says\n%s", text, m.AppendJSON(nil))
			}
			messages++
		}
	}
	if requests < 5 || messages < 7 {
		t.Errorf("the conversation has %d requests and %d messages", requests, messages)
	}
}

func BenchmarkParseStake(b *testing.B) {
	stake := []byte(`{"type":"stake","id":4,"pool":196609,"outcome":0,"amount":250}`)
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		r.Parse(stake)
	}
}

func BenchmarkAppendReceipt(b *testing.B) {
	receipt := &Receipt{ID: 4, T: 1671382803000250, N: 1, Prediction: 90210, Pool: 196609, Amount: 250, Balance: 99750, Arrived: 1671382803000110, Durability: "always"}
	buffer := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		receipt.AppendJSON(buffer)
	}
}
