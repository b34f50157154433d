package engine

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"tote/server/proto"
)

// A session that speaks MessagePack is told the same as one that speaks JSON, in binary messages: replies,
// images, broadcasts, refusals and heartbeats.
func TestCodecs(t *testing.T) {
	e, m := serve(t, Config{Limits: Limits{Heartbeat: patience}})
	m.announce(3)
	text, packed := joined(t, e, 1, 3), dial(t, e)
	packed.write([]byte(strings.Replace(upgradeRequest, "tote.json", "chat, tote.msgpack", 1)))
	packed.readUpgradeTo(proto.Msgpack.Name())
	ask := func(r proto.Request) { packed.write(masked(ws.NewBinaryFrame(r.AppendMsgpack(nil)))) }
	expect := func(want proto.Message) {
		t.Helper()
		f := packed.frame()
		got, err := proto.ReadMsgpack(f.Payload)
		if err != nil || f.Header.OpCode != ws.OpBinary {
			t.Fatalf("%v, %v in %q", f.Header, err, f.Payload)
		}
		if w := want.AppendJSON(nil); !bytes.Equal(blind(got.AppendJSON(nil)), blind(w)) {
			t.Fatalf("got %s, want %s", got.AppendJSON(nil), w)
		}
	}
	ask(proto.Request{Type: proto.RequestHello, ID: 1, Token: e.Token(2)})
	expect(&proto.Welcome{ID: 1, Epoch: 77, Account: 2, Name: "Ada", Balance: 1000, Durability: "always"})
	ask(proto.Request{Type: proto.RequestJoin, ID: 2, Game: 3})
	expect(&proto.Joined{ID: 2, Seq: 1, Game: proto.Game{Game: 3, Name: "A v B", State: proto.GameLive, Present: 2}, Pools: []proto.Pool{}})
	ask(proto.Request{Type: proto.RequestStake, ID: 4, Pool: 5, Outcome: 1, Amount: 6})
	expect(&proto.Receipt{ID: 4, N: 1, Prediction: 5, Pool: 5, Outcome: 1, Amount: 6, Balance: 900, Durability: "always"})
	ask(proto.Request{Type: proto.RequestLeave, ID: 5, Game: 4})
	expect(&proto.Refused{ID: 5, Reason: proto.RefusedGameNotJoined})
	ask(proto.Request{Type: proto.RequestHeartbeat, ID: 6, Game: 3})
	expect(&proto.Heartbeat{ID: 6, Game: 3, Seq: 1})

	m.odds(3, 1)
	seen := text.frame()
	said, err := proto.ReadMessage(seen.Payload)
	if err != nil || seen.Header.OpCode != ws.OpText {
		t.Fatalf("%v, %v in %q", seen.Header, err, seen.Payload)
	}
	expect(said)

	packed.write(masked(ws.NewTextFrame([]byte(`{"type":"games","id":7}`))))
	packed.expectClose(proto.CloseData)
}

// blind replaces times of our own clock.
func blind(json []byte) []byte {
	for _, member := range []string{`"t":`, `"arrived":`} {
		if at := bytes.Index(json, []byte(member)); at >= 0 {
			at += len(member)
			end := at + bytes.IndexAny(json[at:], ",}")
			json = append(append(append([]byte(nil), json[:at]...), '0'), json[end:]...)
		}
	}
	return json
}
