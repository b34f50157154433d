package proto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// The document, as far as the code can be held against it.
type asyncAPI struct {
	AsyncAPI string
	Channels struct {
		WS struct {
			Address  string
			Bindings struct {
				WS struct {
					Headers struct {
						Properties map[string]struct{ Enum []string }
					}
				}
			}
			Messages     map[string]pointer
			Subprotocols map[string]struct{ Frame, ContentType string } `json:"x-subprotocols"`
			CloseCodes   []struct {
				Code          CloseCode
				Reason, Again string
			} `json:"x-close-codes"`
		}
	}
	Operations map[string]struct {
		Action   string
		Messages []pointer
		Reply    struct{ Messages []pointer }
	}
	Components struct {
		Messages map[string]struct {
			Name, Summary string
			Payload       schema
			Examples      []struct{ Payload json.RawMessage }
		}
		Schemas map[string]schema
	}

	compile *jsonschema.Compiler
}

type pointer struct {
	Ref string `json:"$ref"`
}

type schema struct {
	pointer
	AllOf, OneOf      []schema
	Type, Description string
	Const             string
	Enum              []string
	Required          []string
	Properties        map[string]schema
	Items             *schema
}

func readAsyncAPI(t testing.TB) *asyncAPI {
	var node yaml.Node
	if err := yaml.Unmarshal(AsyncAPI, &node); err != nil {
		t.Fatal(err)
	}
	text := jsonOf(t, nil, node.Content[0])
	doc := &asyncAPI{compile: jsonschema.NewCompiler()}
	if err := json.Unmarshal(text, doc); err != nil {
		t.Fatal(err)
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	doc.compile.DefaultDraft(jsonschema.Draft7) // which AsyncAPI's schemas are a superset of
	if err := doc.compile.AddResource("file:///asyncapi.json", whole); err != nil {
		t.Fatal(err)
	}
	return doc
}

// jsonOf keeps the order of members and the digits of numbers. YAML that JSON has no like of is an error.
func jsonOf(t testing.TB, b []byte, n *yaml.Node) []byte {
	switch {
	case n.Kind == yaml.MappingNode:
		b = append(b, '{')
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if seen[key] {
				t.Errorf("asyncapi.yaml: %q twice in one object, line %d", key, n.Line)
			}
			seen[key] = true
			if i > 0 {
				b = append(b, ',')
			}
			b = append(quoteSlow(b, key), ':')
			b = jsonOf(t, b, n.Content[i+1])
		}
		return append(b, '}')
	case n.Kind == yaml.SequenceNode:
		b = append(b, '[')
		for i, element := range n.Content {
			if i > 0 {
				b = append(b, ',')
			}
			b = jsonOf(t, b, element)
		}
		return append(b, ']')
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str":
		return quoteSlow(b, n.Value)
	case n.Kind == yaml.ScalarNode && (n.Tag == "!!int" || n.Tag == "!!float" || n.Tag == "!!bool"):
		return append(b, n.Value...)
	}
	t.Fatalf("asyncapi.yaml: line %d is no JSON", n.Line)
	return nil
}

// schemaOf compiles the payload of a message.
func (doc *asyncAPI) schemaOf(t testing.TB, message string) *jsonschema.Schema {
	s, err := doc.compile.Compile("file:///asyncapi.json#/components/messages/" + message + "/payload")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func conforms(t testing.TB, s *jsonschema.Schema, text []byte) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = s.Validate(value)
	}
	if err != nil {
		t.Errorf("%s: %v", text, err)
	}
}

// resolve follows references; what stands beside one is only its description.
func (doc *asyncAPI) resolve(s schema) schema {
	if len(s.AllOf) == 1 {
		s = s.AllOf[0]
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return doc.resolve(doc.Components.Schemas[name])
	}
	return s
}

// sent is every message as the codec writes it: full, with every member, and bare, with those that are
// always there. Requests are under the name that the document gives them.
func sent() (full, bare map[string][]byte) {
	full, bare = map[string][]byte{}, map[string][]byte{}
	for kind := RequestHello; int(kind) < len(requestTypes); kind++ {
		all := fullRequest(kind)
		full[kind.String()+"Request"] = all.AppendJSON(nil)
		bare[kind.String()+"Request"] = (&Request{Type: kind}).AppendJSON(nil)
	}
	for _, m := range emptyMessages() {
		bare[m.Type()] = m.AppendJSON(nil)
		v := reflect.ValueOf(m).Elem()
		ones(v)
		full[m.Type()] = m.AppendJSON(nil)
	}
	return full, bare
}

// ones fills v with what is not zero, and lists with one element.
func ones(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			ones(v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			ones(v.Index(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		ones(v.Index(0))
	case reflect.String:
		v.SetString("one")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	default:
		v.SetUint(1)
	}
}

// Every message and every request is there, and no other; each is said in the channel and has its operation.
func TestAsyncAPIHasTheMessages(t *testing.T) {
	doc := readAsyncAPI(t)
	full, _ := sent()
	want := slices.Sorted(maps.Keys(full))
	if got := slices.Sorted(maps.Keys(doc.Components.Messages)); !slices.Equal(got, want) {
		t.Errorf("the document has the messages\n%v, the code\n%v", got, want)
	}
	if got := slices.Sorted(maps.Keys(doc.Channels.WS.Messages)); !slices.Equal(got, want) {
		t.Errorf("the channel has the messages\n%v, the code\n%v", got, want)
	}
	for name, to := range doc.Channels.WS.Messages {
		if to.Ref != "#/components/messages/"+name {
			t.Errorf("the channel's %s is %s", name, to.Ref)
		}
	}
	in := map[string]int{}
	for name, operation := range doc.Operations {
		message := func(p pointer) string {
			message, ok := strings.CutPrefix(p.Ref, "#/channels/ws/messages/")
			if _, known := doc.Channels.WS.Messages[message]; !ok || !known {
				t.Errorf("operation %s: no message of the channel is %s", name, p.Ref)
			}
			return message
		}
		for _, p := range slices.Concat(operation.Messages, operation.Reply.Messages) {
			in[message(p)]++
		}
		if operation.Action != "receive" {
			continue
		}
		replies := operation.Reply.Messages
		if len(operation.Messages) != 1 || message(operation.Messages[0]) != name+"Request" || len(replies) != 2 || message(replies[1]) != "refused" {
			t.Errorf("operation %s receives %v and replies %v", name, operation.Messages, replies)
		}
	}
	for _, name := range want {
		if in[name] == 0 || strings.HasSuffix(name, "Request") && in[name] != 1 {
			t.Errorf("%s is in %d operations", name, in[name])
		}
	}
	if doc.AsyncAPI != "3.0.0" || doc.Channels.WS.Address != "/ws" {
		t.Errorf("AsyncAPI %s, the channel is at %s", doc.AsyncAPI, doc.Channels.WS.Address)
	}
}

// Every member is there with its type and, if it is always sent, required; in parts of messages, too.
func TestAsyncAPIHasTheMembers(t *testing.T) {
	doc := readAsyncAPI(t)
	full, bare := sent()
	for name, message := range doc.Components.Messages {
		var value, least map[string]any
		if json.Unmarshal(full[name], &value) != nil || json.Unmarshal(bare[name], &least) != nil {
			continue // TestAsyncAPIHasTheMessages tells
		}
		if message.Name != value["type"] || message.Payload.Properties["type"].Const != value["type"] || len(message.Summary) < 10 {
			t.Errorf("%s is named %q, its type is %q: %s", name, message.Name, message.Payload.Properties["type"].Const, message.Summary)
		}
		doc.holds(t, name, message.Payload, value)
		doc.requires(t, name, message.Payload, least)
	}
	// What the parts of messages always have, they show where they are empty.
	for name, empty := range map[string]Message{
		"Game": &Games{Games: make([]Game, 1)}, "Pool": &Pools{Pools: make([]Pool, 1)}, "Odd": &Odds{Odds: make([]Odd, 1)}, "Friend": &Account{Following: make([]Friend, 1)},
		"Prediction": &Predictions{Predictions: make([]Prediction, 1)}, "FriendPrediction": &Friends{Predictions: make([]FriendPrediction, 1)},
		"Inquiry": &Questions{Questions: make([]Inquiry, 1)}, "CircleName": &Circles{Circles: make([]CircleName, 1)},
		"Entry": &Statement{Entries: make([]Entry, 1)}, "PastGame": &Archive{Games: make([]PastGame, 1)}, "PastPool": &Archive{Pools: make([]PastPool, 1)}, "Leader": &Leaders{Leaders: make([]Leader, 1)},
	} {
		var m map[string]any
		if err := json.Unmarshal(empty.AppendJSON(nil), &m); err != nil {
			t.Fatal(err)
		}
		for _, v := range m {
			if elements, ok := v.([]any); ok && len(elements) > 0 {
				doc.requires(t, name, doc.Components.Schemas[name], elements[0].(map[string]any))
			}
		}
	}
	for name, s := range doc.Components.Schemas {
		if len(s.Description) < 10 {
			t.Errorf("%s has the description %q", name, s.Description)
		}
	}
}

func (doc *asyncAPI) holds(t *testing.T, path string, s schema, value any) {
	s = doc.resolve(s)
	kind := ""
	switch value := value.(type) {
	case map[string]any:
		kind = "object"
		if got, want := slices.Sorted(maps.Keys(s.Properties)), slices.Sorted(maps.Keys(value)); !slices.Equal(got, want) {
			t.Errorf("%s has the members %v, the code sends %v", path, got, want)
		}
		for member, v := range value {
			doc.holds(t, path+"."+member, s.Properties[member], v)
		}
	case []any:
		kind = "array"
		if s.Items == nil {
			t.Errorf("%s has elements of no type", path)
			return
		}
		for _, v := range value {
			doc.holds(t, path+"[]", *s.Items, v)
		}
	case string:
		kind = "string"
	case bool:
		kind = "boolean"
	case float64:
		if kind = "integer"; value != float64(int64(value)) {
			kind = "number"
		}
	}
	if s.Type != kind {
		t.Errorf("%s is of type %q, the code sends %s", path, s.Type, kind)
	}
}

func (doc *asyncAPI) requires(t *testing.T, path string, s schema, least map[string]any) {
	if got, want := slices.Sorted(slices.Values(s.Required)), slices.Sorted(maps.Keys(least)); !slices.Equal(got, want) {
		t.Errorf("%s requires %v, the code always sends %v", path, got, want)
	}
}

// Every refusal is there with its sentence, every state, every close code with its reason, and the subprotocols.
func TestAsyncAPIHasTheCodes(t *testing.T) {
	doc := readAsyncAPI(t)
	var got, want []string
	for _, s := range doc.Components.Schemas["Refusal"].OneOf {
		got = append(got, s.Const+": "+s.Description)
	}
	for _, r := range Refusals() {
		want = append(want, r.Code()+": "+r.Reason())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the refusals are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, states := range map[string]names{"GameState": gameStates, "PoolState": poolStates, "Settling": settlings, "PredictionState": predictionStates, "EntryKind": entryKinds[1:]} {
		if enum := doc.Components.Schemas[name].Enum; !slices.Equal(enum, states) {
			t.Errorf("%s is one of %v, want %v", name, enum, states)
		}
	}
	got, want = nil, nil
	for _, c := range doc.Channels.WS.CloseCodes {
		got = append(got, fmt.Sprint(c.Code, " ", c.Reason))
		if c.Again == "" {
			t.Errorf("close code %d does not say whether to come back", c.Code)
		}
	}
	for _, c := range closings {
		want = append(want, fmt.Sprint(c.code, " ", c.reason))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the close codes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for name, s := range doc.Channels.WS.Subprotocols {
		if c, ok := CodecOf(name); !ok || (s.Frame == "binary") != c.Binary() {
			t.Errorf("subprotocol %s is in %s frames", name, s.Frame)
		}
	}
	offered := doc.Channels.WS.Bindings.WS.Headers.Properties["Sec-WebSocket-Protocol"].Enum
	if len(doc.Channels.WS.Subprotocols) != len(subprotocols) || !slices.Equal(offered, subprotocols) {
		t.Errorf("the subprotocols are %v and %v", doc.Channels.WS.Subprotocols, offered)
	}
}

// Every example is to the letter what the code says, in either codec, and as its schema has it.
func TestAsyncAPIExamples(t *testing.T) {
	doc := readAsyncAPI(t)
	for name, message := range doc.Components.Messages {
		if len(message.Examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		s := doc.schemaOf(t, name)
		for _, example := range message.Examples {
			text := example.Payload
			conforms(t, s, text)
			var again []byte
			if strings.HasSuffix(name, "Request") {
				var r, packed Request
				if refusal := r.Parse(text); refusal != Accepted {
					t.Errorf("%s: %s", text, refusal.Code())
				}
				if refusal := packed.ParseMsgpack(r.AppendMsgpack(nil)); refusal != Accepted || !reflect.DeepEqual(packed, r) {
					t.Errorf("%s is in MessagePack %q %+v", text, refusal.Code(), packed)
				}
				again = packed.AppendJSON(nil)
			} else {
				m, err := ReadMessage(text)
				if err == nil {
					m, err = ReadMsgpack(m.AppendMsgpack(nil))
				}
				if err != nil {
					t.Errorf("%s: %v", text, err)
					continue
				}
				again = m.AppendJSON(nil)
			}
			if !bytes.Equal(again, text) {
				t.Errorf("the document has\n%s, the code says\n%s", text, again)
			}
		}
	}
}

// Whatever the server says, its schema allows; a message with a member gone or of another type, it does not.
func TestMessagesAreAsTheirSchemas(t *testing.T) {
	doc := readAsyncAPI(t)
	random := rand.New(rand.NewPCG(7, 8))
	full, _ := sent()
	for kind, name := range messageKinds() {
		s := doc.schemaOf(t, name)
		for range 10 {
			conforms(t, s, someMessage(uint8(kind), noise(random)).AppendJSON(nil))
		}
	}
	for name, text := range full {
		s := doc.schemaOf(t, name)
		conforms(t, s, text)
		var value map[string]any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		for member, v := range value {
			if value[member] = nil; s.Validate(value) == nil {
				t.Errorf("the schema of %s lets %s be null", name, member)
			}
			if delete(value, member); s.Validate(value) == nil && slices.Contains(doc.Components.Messages[name].Payload.Required, member) {
				t.Errorf("the schema of %s lets %s be absent", name, member)
			}
			value[member] = v
		}
	}
}
