package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tote/server/proto"
)

// fresh is a key set with one new Ed25519 key.
func fresh(t *testing.T) (set, id string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w, err := describe(private)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(jwkSet{Keys: []jwk{w}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b), w.ID
}

// Which keys of a set count, and what is wrong with others. The first is RFC 8037's, whose thumbprint is in its appendix A.3.
func TestParse(t *testing.T) {
	shared := base64.RawURLEncoding.EncodeToString(make([]byte, sharedMin))
	modulus := base64.RawURLEncoding.EncodeToString(append([]byte{0x80}, make([]byte, 255)...))
	const edwards = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	for _, row := range []struct{ name, keys, algorithms, wrong string }{
		{"Ed25519", edwards, "EdDSA", ""},
		{"RSA", `{"kty":"RSA","n":"` + modulus + `","e":"AQAB"}`, "RS256", ""},
		{"shared", `{"kty":"oct","k":"` + shared + `"}`, "HS256", ""},
		{"others beside", `{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"OKP","crv":"X25519","x":"AA"},` + edwards, "EdDSA", ""},
		{"another use beside", strings.Replace(edwards, "{", `{"use":"enc",`, 1) + "," + edwards, "EdDSA", ""},
		{"another algorithm", `{"kty":"RSA","alg":"RS512","n":"` + modulus + `","e":"AQAB"}`, "", "no key"},
		{"none", ``, "", "no key"},
		{"a short modulus", `{"kty":"RSA","n":"` + modulus[:170] + `","e":"AQAB"}`, "", "modulus"},
		{"an exponent of 1", `{"kty":"RSA","n":"` + modulus + `","e":"AQ"}`, "", "exponent"},
		{"a short secret", `{"kty":"oct","k":"c2VjcmV0"}`, "", "6 bytes"},
		{"a point cut", `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg"}`, "", "16 bytes"},
		{"not base64url", `{"kty":"oct","k":"++++"}`, "", "illegal base64"},
	} {
		keys, err := Parse([]byte(`{"keys":[` + row.keys + `]}`))
		var algorithms []string
		for _, k := range keys {
			algorithms = append(algorithms, k.Algorithm)
		}
		if got := strings.Join(algorithms, ","); got != row.algorithms || (err == nil) != (row.wrong == "") || err != nil && !strings.Contains(err.Error(), row.wrong) {
			t.Errorf("%s: keys for %q, %v", row.name, got, err)
		}
	}
	seed, _ := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A") // RFC 8037, A.1
	if w, err := describe(ed25519.NewKeyFromSeed(seed)); err != nil || w.ID != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Errorf("the thumbprint is %q, %v", w.ID, err)
	}
}

// A token without a key's name is good only where nobody must guess.
func TestFind(t *testing.T) {
	var k Keys
	k.keys.Store(&[]Key{{ID: "a", Algorithm: "EdDSA"}, {ID: "b", Algorithm: "EdDSA"}, {ID: "a", Algorithm: "RS256"}})
	for _, row := range []struct {
		id, algorithm string
		ok            bool
	}{
		{"a", "EdDSA", true}, {"b", "EdDSA", true}, {"", "EdDSA", false}, {"a", "RS256", true}, {"b", "RS256", false}, {"", "RS256", true}, {"a", "HS256", false},
	} {
		if key, ok := k.Find(row.id, row.algorithm); ok != row.ok || ok && (key.Algorithm != row.algorithm || row.id != "" && key.ID != row.id) {
			t.Errorf("%q for %s finds %v, %v", row.id, row.algorithm, key, ok)
		}
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not yet: %s", what)
		}
	}
}

// A file that is replaced is read again, one that is broken leaves the keys as they were.
func TestRotation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, firstID := fresh(t)
	second, secondID := fresh(t)
	write(first)
	k, err := Open(t.Context(), Config{Source: file, Every: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	go k.Run(t.Context())
	has := func(id string) bool { _, ok := k.Find(id, "EdDSA"); return ok }
	if !has(firstID) || has(secondID) {
		t.Fatal("the keys are not those in the file")
	}
	if k.Want() {
		t.Error("a name of no key has the file read, just after it was")
	}
	again := func() { // as if Config.Pause were over
		k.looked.Store(0)
		if !k.Want() {
			t.Fatal("nobody looks though it is time")
		}
		eventually(t, "the look has begun", func() bool { return len(k.wanted) == 0 })
	}
	write(second)
	again()
	eventually(t, "the new key is known, the old one is not", func() bool { return has(secondID) && !has(firstID) })
	write("{")
	again()
	if !has(secondID) {
		t.Error("a broken file took the keys away")
	}
}

// While a provider does not answer, what it said last will do, also for a start.
func TestProviderGone(t *testing.T) {
	set, id := fresh(t)
	var gone atomic.Bool
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if gone.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write([]byte(set))
	}))
	defer provider.Close()
	c := Config{Source: provider.URL, Cache: filepath.Join(t.TempDir(), "keys.json")}
	for range 2 {
		k, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := k.Find(id, "EdDSA"); !ok {
			t.Error("the key is unknown")
		}
		gone.Store(true)
		if err := k.look(t.Context()); err == nil {
			t.Error("an answer of 502 is none")
		}
		if _, ok := k.Find(id, "EdDSA"); !ok {
			t.Error("the key is forgotten")
		}
	}
	c.Cache = ""
	if _, err := Open(t.Context(), c); err == nil {
		t.Error("opened without keys")
	}
}

// Sources that are not safe.
func TestSource(t *testing.T) {
	published := `{"keys":[{"kty":"oct","k":"` + base64.RawURLEncoding.EncodeToString(make([]byte, sharedMin)) + `"}]}`
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(published)) }))
	defer provider.Close()
	for source, wrong := range map[string]string{
		provider.URL:                   "published",
		"http://tote.example/keys":     "only https",
		"http://127.0.0.1.example/key": "only https",
		"nowhere.json":                 "no such file",
	} {
		if _, err := Open(t.Context(), Config{Source: source}); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v, want %q", source, err, wrong)
		}
	}
}

// What a token is good for.
func TestReach(t *testing.T) {
	const barred, viewer, yes = proto.RefusedGameBarred, proto.RefusedViewer, proto.Accepted
	join := func(g proto.GameID) proto.Request { return proto.Request{Type: proto.RequestJoin, Game: g} }
	stake := func(g proto.GameID) proto.Request {
		return proto.Request{Type: proto.RequestStake, Pool: proto.NewPoolID(g, 1)}
	}
	both := proto.Request{Type: proto.RequestJoin, Game: 4, Pool: proto.NewPoolID(3, 1)}
	for _, row := range []struct {
		claims string
		asked  proto.Request
		want   proto.Refusal
	}{
		{`{}`, stake(4), yes},
		{`{"games":null,"roles":null}`, stake(4), yes},
		{`{"roles":["admin","player"]}`, stake(4), yes},
		{`{"roles":["player","viewer"]}`, stake(4), yes},
		{`{"roles":["viewer"]}`, stake(4), viewer},
		{`{"roles":["viewer"]}`, join(4), yes},
		{`{"games":[3]}`, stake(3), yes},
		{`{"games":[3]}`, stake(4), barred},
		{`{"games":[3]}`, join(4), barred},
		{`{"games":[3]}`, both, barred},
		{`{"games":[3]}`, join(proto.NewRoomID(3, 7)), yes},
		{`{"games":[3]}`, join(proto.NewRoomID(4, 3)), barred},
		{`{"games":[3]}`, proto.Request{Type: proto.RequestAccount}, yes},
		{`{"games":[]}`, join(3), barred},
		{`{"games":[3],"roles":["viewer"]}`, stake(3), viewer},
		{`{"games":[3],"roles":["viewer"]}`, join(4), barred},
	} {
		var c Claims
		if err := json.Unmarshal([]byte(row.claims), &c); err != nil {
			t.Fatal(err)
		}
		reach, ok := c.Reach()
		if got := reach.Permits(&row.asked); !ok || got != row.want {
			t.Errorf("%s: %v is %v", row.claims, row.asked.Type, got)
		}
	}
	for _, claims := range []string{`{"roles":[]}`, `{"roles":["admin"]}`} {
		var c Claims
		if err := json.Unmarshal([]byte(claims), &c); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Reach(); ok {
			t.Errorf("%s is good for something", claims)
		}
	}
}

// Whose a token is.
func TestOwner(t *testing.T) {
	for claims, want := range map[string]proto.AccountID{
		`{"sub":"12"}`: 12, `{"sub":"auth0|5f","account":12}`: 12, `{"sub":"12","account":13}`: 13, `{"sub":"auth0|5f"}`: 0, `{}`: 0,
		`{"sub":"9007199254740991"}`: 1<<53 - 1, `{"sub":"9007199254740992"}`: 0, `{"sub":"12","account":9007199254740992}`: 0, `{"sub":"99999999999999999999"}`: 0,
	} {
		var c Claims
		if err := json.Unmarshal([]byte(claims), &c); err != nil {
			t.Fatal(err)
		}
		if got := c.Owner(); got != want {
			t.Errorf("%s is of %d, want %d", claims, got, want)
		}
	}
}
