package engine

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tote/server/engine/identity"
	"tote/server/market"
	"tote/server/proto"
)

// issuer is an identity provider, with a key of each kind.
type issuer struct {
	t       testing.TB
	keys    *identity.Keys
	file    string            // with public
	private map[string][]byte // by algorithm, as identity.Sign takes it
	public  []byte            // the key set
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	shared := fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"shared","k":"%s"}]}`, base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte("shared"), 6)))
	p := &issuer{t: t, private: map[string][]byte{"HS256": []byte(shared)}}
	sets := []string{shared[len(`{"keys":[`) : len(shared)-len(`]}`)]}
	for _, algorithm := range []string{"EdDSA", "RS256"} {
		private, set, err := identity.NewKey(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		p.private[algorithm] = private
		sets = append(sets, string(set[len(`{"keys":[`):len(set)-len(`]}`)]))
	}
	p.public = []byte(`{"keys":[` + strings.Join(sets, ",") + `]}`)
	p.file = filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(p.file, p.public, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.keys, err = identity.Open(t.Context(), identity.Config{Source: p.file}); err != nil {
		t.Fatal(err)
	}
	return p
}

// claims are those of the twelfth account's token, good for an hour.
func claims(change func(c *identity.Claims)) *identity.Claims {
	c := &identity.Claims{RegisteredClaims: jwt.RegisteredClaims{
		Subject: "12", Issuer: "https://id.example", Audience: jwt.ClaimStrings{"tote"}, ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}}
	if change != nil {
		change(c)
	}
	return c
}

func (p *issuer) sign(algorithm string, c *identity.Claims) string {
	p.t.Helper()
	token, err := identity.Sign(p.private[algorithm], c)
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

// forged is a token with any header and signature.
func forged(t *testing.T, method jwt.SigningMethod, id string, key any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims(nil))
	token.Header["kid"] = id
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// Whom hello lets in. What follows it need not wait for the answer.
func TestProvider(t *testing.T) {
	p, stranger := newIssuer(t), newIssuer(t)
	e, _ := serve(t, Config{Provider: Provider{Keys: p.keys, Issuer: "https://id.example", Audience: "tote"}, Limits: Limits{Malformed: 2}})
	good := p.sign("EdDSA", claims(nil))
	parts := strings.Split(good, ".")
	id := func(token string) string {
		parsed, _, err := jwt.NewParser().ParseUnverified(token, &identity.Claims{})
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Header["kid"].(string)
	}
	for _, row := range []struct {
		name, token string
		want        proto.Refusal
	}{
		{"ours", e.Token(12), proto.Accepted},
		{"Ed25519", good, proto.Accepted},
		{"RSA", p.sign("RS256", claims(nil)), proto.Accepted},
		{"shared", p.sign("HS256", claims(nil)), proto.Accepted},
		{"an account of its own", p.sign("EdDSA", claims(func(c *identity.Claims) { c.Subject, c.Account = "auth0|7", 12 })), proto.Accepted},
		{"expired just now", p.sign("EdDSA", claims(func(c *identity.Claims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-leeway / 2)) })), proto.Accepted},

		{"of a stranger", stranger.sign("EdDSA", claims(nil)), proto.RefusedTokenInvalid},
		{"of a stranger, under our provider's key", forged(t, jwt.SigningMethodHS256, "shared", []byte("another secret, long enough for it")), proto.RefusedTokenInvalid},
		{"no signature", forged(t, jwt.SigningMethodNone, id(good), jwt.UnsafeAllowNoneSignatureType), proto.RefusedTokenInvalid},
		{"HS256 with a public key as the secret", forged(t, jwt.SigningMethodHS256, id(good), p.public), proto.RefusedTokenInvalid},
		{"HS512", forged(t, jwt.SigningMethodHS512, "shared", bytes.Repeat([]byte("shared"), 6)), proto.RefusedTokenInvalid},
		{"another key's id", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","kid":"shared"}`)) + "." + parts[1] + "." + parts[2], proto.RefusedTokenInvalid},
		{"another payload", parts[0] + "." + strings.Split(p.sign("EdDSA", claims(func(c *identity.Claims) { c.Subject = "14" })), ".")[1] + "." + parts[2], proto.RefusedTokenInvalid},
		{"signature cut", good[:len(good)-2], proto.RefusedTokenInvalid},
		{"never expires", p.sign("EdDSA", claims(func(c *identity.Claims) { c.ExpiresAt = nil })), proto.RefusedTokenInvalid},
		{"expired", p.sign("EdDSA", claims(func(c *identity.Claims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-2 * leeway)) })), proto.RefusedTokenInvalid},
		{"not yet", p.sign("EdDSA", claims(func(c *identity.Claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(2 * leeway)) })), proto.RefusedTokenInvalid},
		{"another issuer", p.sign("EdDSA", claims(func(c *identity.Claims) { c.Issuer = "https://evil.example" })), proto.RefusedTokenInvalid},
		{"for another service", p.sign("EdDSA", claims(func(c *identity.Claims) { c.Audience = nil })), proto.RefusedTokenInvalid},
		{"nobody", p.sign("EdDSA", claims(func(c *identity.Claims) { c.Subject = "auth0|7" })), proto.RefusedTokenInvalid},
		{"a role of elsewhere", p.sign("EdDSA", claims(func(c *identity.Claims) { c.Roles = []string{"admin"} })), proto.RefusedTokenInvalid},
		{"too long", good + strings.Repeat("A", tokenMax), proto.RefusedTokenInvalid},
		{"garbage", "a.b.c", proto.RefusedTokenInvalid},
		{"two parts", "a.b", proto.RefusedTokenInvalid},
	} {
		c := upgraded(t, e)
		c.write(append(text(fmt.Sprintf(`{"type":"hello","id":1,"token":%q}`, row.token)), text(`{"type":"account","id":2}`)...))
		if row.want == proto.Accepted {
			c.expect("welcome", 1)
			c.expect("account", 2)
			continue
		}
		t.Log(row.name)
		c.expectRefused(1, row.want)
		c.expectRefused(2, proto.RefusedHelloMissing)
		c.ask(`{"type":"hello","id":3,"token":%q}`, row.token) // guessing goes on
		c.expectRefused(3, row.want)
		c.expectClose(proto.ClosePolicy)
	}
}

// A key that is new is looked for: the client is told to come again, not that his token is wrong. The old key is good for nothing then.
func TestProviderRotates(t *testing.T) {
	p, next := newIssuer(t), newIssuer(t)
	keys, err := identity.Open(t.Context(), identity.Config{Source: p.file, Every: time.Hour, Pause: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	go keys.Run(t.Context())
	e, _ := serve(t, Config{Provider: Provider{Keys: keys}})
	hello := func(p *issuer) (refused string) {
		c := upgraded(t, e)
		defer c.conn.Close()
		c.ask(`{"type":"hello","id":1,"token":%q}`, p.sign("EdDSA", claims(nil)))
		return c.message().Code
	}
	if code := hello(p); code != "" {
		t.Fatal(code)
	}
	if code := hello(next); code != proto.RefusedBusy.Code() {
		t.Errorf("a token with a new key: %q", code)
	}
	if err := os.WriteFile(p.file, next.public, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new key is known", func() bool { return hello(next) == "" })
	if hello(p) == "" {
		t.Error("the old key is still good")
	}
}

// What a token is not good for is refused before anything else looks at it.
func TestTokenReach(t *testing.T) {
	p := newIssuer(t)
	e, m := serve(t, Config{Provider: Provider{Keys: p.keys}})
	m.announce(3, 4)
	c := upgraded(t, e)
	c.ask(`{"type":"hello","id":1,"token":%q}`, p.sign("RS256", claims(func(c *identity.Claims) { c.Roles, c.Games = []string{"viewer"}, []proto.GameID{3} })))
	c.expect("welcome", 1)
	c.ask(`{"type":"join","id":2,"game":4}`)
	c.expectRefused(2, proto.RefusedGameBarred)
	c.ask(`{"type":"join","id":3,"game":3}`)
	c.expect("joined", 3)
	c.ask(`{"type":"stake","id":4,"pool":196609,"outcome":0,"amount":1}`)
	c.expectRefused(4, proto.RefusedViewer)
	c.ask(`{"type":"account","id":5}`)
	c.expect("account", 5)
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.commands {
		if k := m.commands[i].Kind; k == market.Stake || k == market.Join && m.commands[i].Game != 3 {
			t.Errorf("the market was asked for %v", m.commands[i])
		}
	}
}

// What waits behind a hello is bounded, and a client who leaves meanwhile is gone.
func TestVetting(t *testing.T) {
	p := newIssuer(t)
	e, _ := serve(t, Config{Loops: 1, Provider: Provider{Keys: p.keys}})
	token := p.sign("EdDSA", claims(nil))
	flood, leaver := upgraded(t, e), upgraded(t, e)
	onLoop(e, 0, func(l *loop) {
		for _, place := range l.places { // nobody reads their tokens
			if place.session != nil {
				place.session.vetting = true
			}
		}
	})
	flood.write(bytes.Repeat(text(`{"type":"time","id":1}`), heldMax/20))
	flood.expectClose(proto.ClosePolicy)
	leaver.write(text(`{"type":"time","id":1}`))
	leaver.conn.Close()
	c := upgraded(t, e)
	c.ask(`{"type":"hello","id":1,"token":%q}`, token)
	c.expect("welcome", 1)
}

// What a token costs, by who signed it: ours is read on the loop, the others beside it.
func BenchmarkToken(b *testing.B) {
	p := newIssuer(b)
	ours := newTokens(secret, Provider{Keys: p.keys})
	b.Run("ours", func(b *testing.B) {
		token := ours.sign(12)
		for b.Loop() {
			if _, refusal := ours.read(token); refusal != proto.Accepted {
				b.Fatal(refusal)
			}
		}
	})
	for _, algorithm := range []string{"HS256", "RS256", "EdDSA"} {
		token := p.sign(algorithm, claims(nil))
		b.Run(algorithm+"/loop", func(b *testing.B) { // what the loop has of it: it sees that the token is not ours
			for b.Loop() {
				if _, refusal := ours.read(token); refusal == proto.Accepted || !looksForeign(token) {
					b.Fatal(refusal)
				}
			}
		})
		b.Run(algorithm+"/beside", func(b *testing.B) {
			for b.Loop() {
				if _, refusal := ours.verify(token); refusal != proto.Accepted {
					b.Fatal(refusal)
				}
			}
		})
	}
}
