package proto

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tinylib/msgp/msgp"
)

// The bytes of a stake, drawn. Any client's MessagePack library must come to the same, but for the order.
func TestStakeInBytes(t *testing.T) {
	drawn := slices.Concat(
		[]byte{0b1000_0101},                                      // a map of 5 members
		[]byte{0b101_00100}, []byte("type"), []byte("\xa5stake"), // a string of 4 bytes, one of 5
		[]byte{0b101_00010}, []byte("id"), []byte{0b0_0000100}, // an integer to 127 is its byte
		[]byte{0b101_00100}, []byte("pool"), []byte{0xce, 0, 3, 0, 1}, // 32 bits, most significant byte first
		[]byte{0b101_00111}, []byte("outcome"), []byte{0},
		[]byte{0b101_00110}, []byte("amount"), []byte{0xcc, 250}, // 8 bits without sign
	)
	stake := Request{Type: RequestStake, ID: 4, Pool: 196609, Amount: 250}
	if got := stake.AppendMsgpack(nil); !bytes.Equal(got, drawn) {
		t.Errorf("a stake is\n% x, want\n% x", got, drawn)
	}
	var r Request
	if refusal := r.ParseMsgpack(drawn); refusal != Accepted || r != stake {
		t.Errorf("it is read as %q %+v", refusal.Code(), r)
	}
	// Cut anywhere, or with something behind it, it is nothing.
	for cut := range drawn {
		if refusal := r.ParseMsgpack(drawn[:cut]); refusal != RefusedMalformed || r != (Request{Outcome: OutcomeNone}) {
			t.Errorf("the first %d bytes are read as %q %+v", cut, refusal.Code(), r)
		}
	}
	if refusal := r.ParseMsgpack(append(drawn, 0xc0)); refusal != RefusedMalformed || r != (Request{Outcome: OutcomeNone}) {
		t.Errorf("with a nil behind, it is read as %q %+v", refusal.Code(), r)
	}
}

// Rare, and the same in both: the least integer, a member of a wrong type before or after a good one.
func TestRareRequestsAgree(t *testing.T) {
	for _, row := range []struct {
		text, packed string // of what follows type and id
		members      int
	}{
		{`,"sent":-9223372036854775808`, "\xa4sent\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 1},
		{`,"sent":18446744073709551615`, "\xa4sent\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 1},
		{`,"token":5,"guest":null`, "\xa5token\x05\xa5guest\xc0", 2},
		{`,"token":5,"token":"x"`, "\xa5token\x05\xa5token\xa1x", 2},
		{`,"token":"x","token":null`, "\xa5token\xa1x\xa5token\xc0", 2},
		{`,"pool":"x","pool":5`, "\xa4pool\xa1x\xa4pool\x05", 2},
		{`,"pool":5,"pool":"x"`, "\xa4pool\x05\xa4pool\xa1x", 2},
		{`,"amount":true,"amount":5`, "\xa6amount\xc3\xa6amount\x05", 2},
		{`,"type":null`, "\xa4type\xc0", 1},
		{`,"type":5`, "\xa4type\x05", 1},
	} {
		var want, got Request
		refusal := want.Parse([]byte(`{"type":"time","id":4` + row.text + `}`))
		b := append([]byte{fixmap + byte(2+row.members)}, "\xa4type\xa4time\xa2id\x04"+row.packed...)
		if packed := got.ParseMsgpack(b); packed != refusal || got != want {
			t.Errorf("%s: in JSON %q %+v, in MessagePack %q %+v", row.text, refusal.Code(), want, packed.Code(), got)
		}
	}
}

// What JSON cannot say is no request, or of a wrong type.
func TestMsgpackAlone(t *testing.T) {
	games := func(more ...byte) []byte { // {"type":"games","id":4, …}
		return append([]byte("\x83\xa4type\xa5games\xa2id\x04"), more...)
	}
	nothing := Request{Outcome: OutcomeNone}
	read := Request{Type: RequestGames, ID: 4, Outcome: OutcomeNone}
	for _, row := range []struct {
		name   string
		b      []byte
		want   Refusal
		expect Request
	}{
		{"nothing", nil, RefusedMalformed, nothing},
		{"nil", []byte{0xc0}, RefusedMalformed, nothing},
		{"an array", []byte{0x90}, RefusedMalformed, nothing},
		{"an empty map", []byte{0x80}, RefusedMalformed, nothing},
		{"the byte that is never used", games(0xa1, 'x', 0xc1), RefusedMalformed, nothing},
		{"JSON", []byte(`{"type":"games","id":4}`), RefusedMalformed, nothing},
		{"a key that is a number", games(7, 7), RefusedMalformed, nothing},
		{"a key that is binary", games(0xc4, 1, 'x', 7), RefusedMalformed, nothing},
		{"an unknown member that is binary", games(0xa1, 'x', 0xc4, 2, 1, 2), Accepted, read},
		{"an unknown member that is an extension", games(0xa1, 'x', 0xd6, 0xff, 1, 2, 3, 4), Accepted, read},
		{"an unknown member with any keys", games(0xa1, 'x', 0x82, 7, 0x80, 0xc0, 0x91, 0x91, 0x90), Accepted, read},
		{"a token that is binary", games(append([]byte("\xa5token"), 0xc4, 1, 'x')...), RefusedMalformed, read},
		{"an amount that is a whole float", games(append([]byte("\xa6amount"), 0xca, 0x40, 0xa0, 0, 0)...), RefusedAmountInvalid, read},
		{"shares that are a whole float", games(append([]byte("\xa6shares"), 0xca, 0x40, 0xa0, 0, 0)...), RefusedSharesInvalid, read},
		{"an amount that is a time", games(append([]byte("\xa6amount"), 0xd6, 0xff, 1, 2, 3, 4)...), RefusedAmountInvalid, read},
		{"a map that says it has 2^32-1 members", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, RefusedMalformed, nothing},
		{"a string that says it has 2^32-1 bytes", games(0xa1, 'x', 0xdb, 0xff, 0xff, 0xff, 0xff), RefusedMalformed, nothing},
		{"an array that says it has 2^32-1 elements", games(0xa1, 'x', 0xdd, 0xff, 0xff, 0xff, 0xff), RefusedMalformed, nothing},
		{"an extension that says it has 2^32-1 bytes", games(0xa1, 'x', 0xc9, 0xff, 0xff, 0xff, 0xff, 1), RefusedMalformed, nothing},
	} {
		var r Request
		if got := r.ParseMsgpack(row.b); got != row.want || r != row.expect {
			t.Errorf("%s: %q %+v\nwant %q %+v", row.name, got.Code(), r, row.want.Code(), row.expect)
		}
	}
}

// What a peer claims costs nothing, nor does nesting: 1 MiB of arrays in arrays neither allocates nor descends.
func TestMsgpackClaimsCostNothing(t *testing.T) {
	var r Request
	deep := slices.Concat([]byte("\x83\xa4type\xa5games\xa2id\x04\xa1x"), bytes.Repeat([]byte{0x91}, 1<<20), []byte{0xc0})
	if refusal := r.ParseMsgpack(deep); refusal != Accepted || r.ID != 4 {
		t.Errorf("1 MiB of arrays in an unknown member: %q %+v", refusal.Code(), r)
	}
	for name, b := range map[string][]byte{
		"deep":        deep,
		"deep, open":  deep[:len(deep)-1],
		"many":        {0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, 'x', 0xdf, 0xff, 0xff, 0xff, 0xff},
		"a long name": {0x81, 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'},
	} {
		if n := testing.AllocsPerRun(3, func() { r.ParseMsgpack(b) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Any library reads the same from MessagePack as from JSON: the same members of the same types, type first.
func TestMessagesSayTheSame(t *testing.T) {
	for _, m := range append(said, emptyMessages()...) {
		sameToAnyone(t, m)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for kind := range messageKinds() {
		for range 20 {
			sameToAnyone(t, someMessage(uint8(kind), noise(random)))
		}
	}
}

func sameToAnyone(t *testing.T, m Message) {
	packed := m.AppendMsgpack([]byte("before"))[len("before"):]
	if _, members, err := msgp.ReadMapHeaderBytes(packed); err != nil || !bytes.HasPrefix(members, []byte("\xa4type")) {
		t.Errorf("%s does not begin with its type: %q", m.Type(), packed)
	}
	got, rest, err := msgp.ReadIntfBytes(packed)
	if err != nil || len(rest) > 0 {
		t.Errorf("%s: %v, %d bytes left of % x", m.Type(), err, len(rest), packed)
	}
	var want any
	if err := json.Unmarshal(m.AppendJSON(nil), &want); err != nil {
		t.Error(err)
	}
	if got = likeJSON(got); !reflect.DeepEqual(got, want) {
		t.Errorf("%s is in MessagePack\n%v, in JSON\n%v", m.Type(), got, want)
	}
}

// likeJSON turns integers to float64, as JavaScript has them.
func likeJSON(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			v[key] = likeJSON(v[key])
		}
	case []any:
		for i := range v {
			v[i] = likeJSON(v[i])
		}
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	}
	return v
}

func emptyMessages() (empty []Message) {
	for _, kind := range messageKinds() {
		m := messageTypes[kind]()
		if r, ok := m.(*Refused); ok {
			r.Reason = RefusedMalformed
		}
		empty = append(empty, m)
	}
	return empty
}

func messageKinds() (kinds []string) {
	for kind := range messageTypes {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return kinds
}

// A client reads the same message from both codecs, whatever the server fills it with.
func FuzzMessagesAgree(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	for kind := range messageKinds() {
		f.Add(uint8(kind), []byte(nil))
		for range 8 {
			f.Add(uint8(kind), noise(random))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		m := someMessage(kind, data)
		fromJSON, err := ReadMessage(m.AppendJSON(nil))
		if err != nil {
			t.Fatal(err)
		}
		fromMsgpack, err := ReadMsgpack(m.AppendMsgpack(nil))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(fromJSON, fromMsgpack) {
			t.Errorf("from JSON\n%+v, from MessagePack\n%+v", fromJSON, fromMsgpack)
		}
	})
}

// filler makes legal values of arbitrary bytes. When they run out it begins again, with each a little larger, so
// that a short input, which the fuzzer is good at, fills a long message.
type filler struct {
	data []byte
	read int
}

func someMessage(kind uint8, data []byte) Message {
	kinds := messageKinds()
	m := messageTypes[kinds[int(kind)%len(kinds)]]()
	(&filler{data: data}).fill(reflect.ValueOf(m).Elem(), m.Type())
	return m
}

func (f *filler) byte() byte {
	if len(f.data) == 0 {
		return 0
	}
	c := f.data[f.read%len(f.data)] + 7*byte(f.read/len(f.data))
	f.read++
	return c
}

// upTo is small as often as large.
func (f *filler) upTo(most uint64) uint64 {
	var word [8]byte
	for i := range f.byte() % 9 {
		word[i] = f.byte()
	}
	n := binary.LittleEndian.Uint64(word[:])
	if most == math.MaxUint64 {
		return n
	}
	return n % (most + 1)
}

func (f *filler) fill(v reflect.Value, name string) {
	switch value := v.Addr().Interface().(type) {
	case *Outcome:
		*value = Outcome(f.upTo(OutcomesMax - 1))
	case *GameState:
		*value = GameState(f.upTo(uint64(len(gameStates) - 1)))
	case *PoolState:
		*value = PoolState(f.upTo(uint64(len(poolStates) - 1)))
	case *Settling:
		*value = Settling(f.upTo(uint64(len(settlings) - 1)))
	case *EntryKind:
		*value = EntryKind(1 + f.upTo(uint64(len(entryKinds)-2)))
	case *PredictionState:
		*value = PredictionState(f.upTo(uint64(len(predictionStates) - 1)))
	case *Refusal:
		*value = Refusal(1 + f.upTo(uint64(refusals-2)))
	case *AccountID, *GameID, *PoolID, *CircleID, *Seq: // somebody, something
		v.SetUint(1 + f.upTo(integerMax-1))
	case *RequestID:
		if name == "refused.ID" || name == "heartbeat.ID" {
			*value = RequestID(f.upTo(integerMax))
		} else {
			*value = RequestID(1 + f.upTo(integerMax-1))
		}
	default:
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				f.fill(v.Field(i), name+"."+v.Type().Field(i).Name)
			}
		case reflect.Array:
			for i := range v.Len() {
				f.fill(v.Index(i), name)
			}
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), int(f.upTo(20)), 20))
			for i := range v.Len() {
				f.fill(v.Index(i), name)
			}
		case reflect.String:
			text := make([]byte, f.upTo(300))
			for i := range text {
				text[i] = f.byte()
			}
			v.SetString(string(text))
		case reflect.Bool:
			v.SetBool(f.byte()&1 == 1)
		case reflect.Int64, reflect.Int:
			n := int64(f.upTo(integerMax))
			if (name == "balance.Change" || name == "time.Sent") && f.byte()&1 == 1 {
				n = -n
			}
			v.SetInt(n)
		case reflect.Uint64:
			v.SetUint(f.upTo(integerMax))
		case reflect.Uint32:
			v.SetUint(f.upTo(math.MaxUint32))
		case reflect.Uint16:
			most := uint64(math.MaxUint16)
			if strings.HasSuffix(name, ".Takeout") {
				most = 5000
			}
			v.SetUint(f.upTo(most))
		case reflect.Uint8:
			v.SetUint(f.upTo(2)) // a team
		default:
			panic("no filling for " + name)
		}
	}
}

// The random messages are worth their name: no member is zero in all of them.
func TestFillerFills(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for kind, name := range messageKinds() {
		members := reflect.TypeOf(messageTypes[name]()).Elem()
		filled := make([]bool, members.NumField())
		for range 50 {
			m := reflect.ValueOf(someMessage(uint8(kind), noise(random))).Elem()
			for i := range filled {
				filled[i] = filled[i] || !m.Field(i).IsZero()
			}
		}
		for i, ok := range filled {
			if !ok {
				t.Errorf("%s.%s is never filled", name, members.Field(i).Name)
			}
		}
	}
}

func noise(random *rand.Rand) []byte {
	data := make([]byte, 31)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

// What a client may send, in both codecs: the same members in the same order, with the same refusal.
func FuzzRequestsAgree(f *testing.F) {
	f.Add([]byte(nil))
	random := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		f.Add(noise(random))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		text, packed := someRequest(&filler{data: data})
		var fromJSON, fromMsgpack Request
		want, got := fromJSON.Parse(text), fromMsgpack.ParseMsgpack(packed)
		if got != want || !reflect.DeepEqual(fromMsgpack, fromJSON) {
			t.Fatalf("%q\nis %q %+v\n%q\nis %q %+v", text, want.Code(), fromJSON, packed, got.Code(), fromMsgpack)
		}
		if got != Accepted {
			return
		}
		var again, packedAgain Request
		again.Parse(fromJSON.AppendJSON(nil))
		packedAgain.ParseMsgpack(fromJSON.AppendMsgpack(nil))
		if !reflect.DeepEqual(again, packedAgain) {
			t.Fatalf("%+v is said in JSON as %+v, in MessagePack as %+v", fromJSON, again, packedAgain)
		}
	})
}

// someRequest makes any object: most are requests, some have members twice, of wrong types or unknown ones.
func someRequest(f *filler) (text, packed []byte) {
	keys := append([]string{"type", "token", "guest", "future", "", "question", "labels", "locks_at", "settle", "wins", "locks", "voids", "name", "winners"},
		requestNumbers...)
	members := int(f.byte() % 24)
	switch {
	case f.byte()%4 == 0:
		packed = append(packed, 0xde, 0, byte(members+2)) // a map of 16 bits
	default:
		packed = msgp.AppendMapHeader(packed, uint32(members+2))
	}
	kind := requestTypes[1+int(f.byte())%(len(requestTypes)-1)]
	id := f.byte() % 8
	text = fmt.Appendf(text, `{"type":%q,"id":%d`, kind, id)
	packed = msgp.AppendUint64(msgp.AppendString(msgp.AppendString(msgp.AppendString(packed, "type"), kind), "id"), uint64(id))
	for range members {
		key := keys[int(f.byte())%len(keys)]
		text = append(strconv.AppendQuote(append(text, ','), key), ':')
		packed = msgp.AppendString(packed, key)
		text, packed = someValue(f, text, packed, 3)
	}
	return append(text, '}'), packed
}

func someValue(f *filler, text, packed []byte, depth int) ([]byte, []byte) {
	switch f.byte() % 12 {
	case 0:
		return append(text, "null"...), msgp.AppendNil(packed)
	case 1:
		yes := f.byte()&1 == 1
		return strconv.AppendBool(text, yes), msgp.AppendBool(packed, yes)
	case 2:
		x := float64(int8(f.byte())) / 4
		text = fmt.Appendf(text, "%.2f", x)
		if f.byte()&1 == 1 {
			return text, msgp.AppendFloat32(packed, float32(x))
		}
		return text, msgp.AppendFloat64(packed, x)
	case 3:
		if n := int(f.byte() % 4); depth > 0 {
			text, packed = append(text, '['), msgp.AppendArrayHeader(packed, uint32(n))
			for i := range n {
				if i > 0 {
					text = append(text, ',')
				}
				text, packed = someValue(f, text, packed, depth-1)
			}
			return append(text, ']'), packed
		}
	case 4:
		if depth > 0 {
			text, packed = append(text, `{"id":`...), append(packed, "\x81\xa2id"...)
			text, packed = someValue(f, text, packed, depth-1)
			return append(text, '}'), packed
		}
	case 5: // a word, good or not
		word := requestTypes[int(f.byte())%len(requestTypes)]
		return strconv.AppendQuote(text, word), msgp.AppendString(packed, word)
	case 6: // any bytes
		word := make([]byte, f.upTo(40))
		for i := range word {
			word[i] = f.byte()
		}
		text = append(text, '"')
		for _, c := range word {
			if c < ' ' || c == '"' || c == '\\' {
				text = fmt.Appendf(text, `\u%04x`, c)
			} else {
				text = append(text, c)
			}
		}
		return append(text, '"'), msgp.AppendStringFromBytes(packed, word)
	case 7: // up to 2^64-1
		n := f.upTo(math.MaxUint64)
		return strconv.AppendUint(text, n, 10), msgp.AppendUint64(packed, n)
	case 8: // in 8 bytes, whether it needs them or not
		n := int64(f.upTo(math.MaxUint64))
		return strconv.AppendInt(text, n, 10), binary.BigEndian.AppendUint64(append(packed, 0xd3), uint64(n))
	}
	n := int64(f.byte()) - 32
	return strconv.AppendInt(text, n, 10), msgp.AppendInt64(packed, n)
}

// Whatever comes, one of four answers is given, and an accepted request has an id and a type.
func FuzzParseMsgpack(f *testing.F) {
	for kind := RequestHello; int(kind) < len(requestTypes); kind++ {
		r := fullRequest(kind)
		f.Add(r.AppendMsgpack(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		switch refusal := r.ParseMsgpack(b); refusal {
		case Accepted, RefusedAmountInvalid, RefusedSharesInvalid:
			if r.ID == 0 || r.ID > RequestMax || r.Type == RequestNone {
				t.Errorf("%q is %q: %+v", b, refusal.Code(), r)
			}
		case RefusedMalformed, RefusedRequestUnknown:
		default:
			t.Errorf("%q is %q: %+v", b, refusal.Code(), r)
		}
	})
}

// Whatever comes, a client gets a message or an error.
func FuzzReadMsgpack(f *testing.F) {
	for _, m := range said {
		f.Add(m.AppendMsgpack(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ReadMsgpack(b); (m == nil) == (err == nil) {
			t.Errorf("%q is %+v, %v", b, m, err)
		}
	})
}

// A session holds its codec and never asks again.
func TestCodecs(t *testing.T) {
	for _, row := range []struct {
		codec  Codec
		name   string
		binary bool
	}{{JSON, "tote.json", false}, {Msgpack, "tote.msgpack", true}} {
		if c, ok := CodecOf(row.name); !ok || c != row.codec || c.Name() != row.name || c.Binary() != row.binary {
			t.Errorf("%s is codec %d, %v, %q, binary %v", row.name, c, ok, c.Name(), c.Binary())
		}
		request := Request{Type: RequestJoin, ID: 3, Game: 7, Outcome: OutcomeNone}
		wire := request.AppendJSON(nil)
		if row.binary {
			wire = request.AppendMsgpack(nil)
		}
		var r Request
		if refusal := row.codec.Parse(&r, wire); refusal != Accepted || r != request {
			t.Errorf("%s: %q %+v", row.name, refusal.Code(), r)
		}
		m := &Left{ID: 3, T: 5, Game: 7}
		read := ReadMessage
		if row.binary {
			read = ReadMsgpack
		}
		if got, err := read(row.codec.Append([]byte("head"), m)[4:]); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v, %v", row.name, got, err)
		}
	}
	for _, name := range []string{"", "chat", "TOTE.JSON", "unknown"} {
		if c, ok := CodecOf(name); ok {
			t.Errorf("%q is codec %d", name, c)
		}
	}
}

// The hot path allocates nothing in MessagePack either.
func TestMsgpackHotPathDoesNotAllocate(t *testing.T) {
	stake := (&Request{Type: RequestStake, ID: 4, Pool: 196609, Amount: 250}).AppendMsgpack(nil)
	buffer := make([]byte, 0, 1024)
	var r Request
	hot := map[string]func(){"parse a stake": func() { Msgpack.Parse(&r, stake) }}
	for _, m := range []Message{benchReceipt, benchOdds, &Refused{ID: 4, Reason: RefusedPoolLocked}, &Heartbeat{Game: 3}, &Conflated{Game: 3}, &Payout{}} {
		hot["append "+m.Type()] = func() { Msgpack.Append(buffer, m) }
		hot["append "+m.Type()+" as JSON"] = func() { JSON.Append(buffer, m) }
	}
	for name, do := range hot {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

var (
	benchReceipt = &Receipt{ID: 4, T: 1671382803000250, N: 1, Prediction: 90210, Pool: 196609, Amount: 250, Balance: 99750, Arrived: 1671382803000110, Durability: "always"}
	benchOdds    = &Odds{T: 1671382803000251, Game: 3, Seq: 42, Pool: 196609, Counts: 90210, Odds: []Odd{{Staked: 750, Backers: 3, Multiplier: 1933}, {Staked: 500, Backers: 2, Multiplier: 2900}, {Staked: 200, Backers: 1, Multiplier: 7250}}}
	benchStake   = &Request{Type: RequestStake, ID: 4, Pool: 196609, Amount: 250}
)

// What is said most, in both codecs, with its size.
func BenchmarkCodecs(b *testing.B) {
	for _, c := range []Codec{JSON, Msgpack} {
		for _, m := range []Message{benchReceipt, benchOdds} {
			b.Run(m.Type()+"/"+c.Name(), func(b *testing.B) {
				buffer := make([]byte, 0, 1024)
				b.ReportAllocs()
				for b.Loop() {
					c.Append(buffer, m)
				}
				b.ReportMetric(float64(len(c.Append(nil, m))), "bytes")
			})
		}
		b.Run("stake/"+c.Name(), func(b *testing.B) {
			stake := benchStake.AppendJSON(nil)
			if c.Binary() {
				stake = benchStake.AppendMsgpack(nil)
			}
			var r Request
			b.ReportAllocs()
			for b.Loop() {
				c.Parse(&r, stake)
			}
			b.ReportMetric(float64(len(stake)), "bytes")
		})
	}
}
