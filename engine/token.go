package engine

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tote/server/engine/identity"
	"tote/server/proto"
)

// tokens signs our tokens, and reads ours and those of an identity provider: JWT. Ours are HS256 with our own secret, and
// do not expire: a guest comes back with his. An "exp" that another signer set is kept.
type tokens struct {
	secret  []byte
	parser  *jwt.Parser // of ours
	keys    *identity.Keys
	foreign *jwt.Parser // of those that keys are for
}

// Provider is whoever else may sign players' tokens.
type Provider struct {
	Keys     *identity.Keys // nil: nobody
	Issuer   string         // that a token must name; "": any
	Audience string         // that a token must be for; "": any
}

// leeway is for clocks that go wrong: RFC 7519, section 4.1.4.
const leeway = 30 * time.Second

// newTokens accepts HS256 alone of ours: "none", and keys of another kind, are the oldest tricks with JWT. Others' tokens
// must expire, since nobody here can take them back.
func newTokens(secret []byte, p Provider) tokens {
	ours := jwt.SigningMethodHS256.Alg()
	options := []jwt.ParserOption{jwt.WithExpirationRequired(), jwt.WithLeeway(leeway),
		jwt.WithValidMethods([]string{ours, jwt.SigningMethodRS256.Alg(), jwt.SigningMethodEdDSA.Alg()})}
	if p.Issuer != "" {
		options = append(options, jwt.WithIssuer(p.Issuer))
	}
	if p.Audience != "" {
		options = append(options, jwt.WithAudience(p.Audience))
	}
	return tokens{secret: secret, parser: jwt.NewParser(jwt.WithValidMethods([]string{ours})), keys: p.Keys, foreign: jwt.NewParser(options...)}
}

// sign makes the token of an account. The same account has the same token.
func (t *tokens) sign(a proto.AccountID) string {
	claims := jwt.RegisteredClaims{Subject: strconv.FormatUint(uint64(a), 10)}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(t.secret)
	assert(err == nil, "HS256 signs with any key of bytes")
	return signed
}

// grant is what a token is good for.
type grant struct {
	account proto.AccountID
	reach   *identity.Reach // nil: all
}

// read returns what a token of ours is good for.
func (t *tokens) read(token string) (grant, proto.Refusal) {
	return read(t.parser, token, func(*jwt.Token) (any, error) { return t.secret, nil })
}

// verify returns what a token of the provider's is good for. The key may be of the kind that takes 100 µs.
func (t *tokens) verify(token string) (grant, proto.Refusal) {
	return read(t.foreign, token, func(parsed *jwt.Token) (any, error) {
		id, _ := parsed.Header["kid"].(string)
		key, ok := t.keys.Find(id, parsed.Method.Alg())
		switch {
		case ok:
			return key.Material, nil
		case id != "" && t.keys.Want():
			return nil, errKeyWanted
		}
		return nil, errKeyUnknown
	})
}

var (
	errKeyUnknown = errors.New("no key has this id")
	errKeyWanted  = errors.New("no key has this id yet")
)

func read(parser *jwt.Parser, token string, key jwt.Keyfunc) (grant, proto.Refusal) {
	var claims identity.Claims
	parsed, err := parser.ParseWithClaims(token, &claims, key)
	if errors.Is(err, errKeyWanted) {
		return grant{}, proto.RefusedBusy
	}
	if err != nil || !parsed.Valid {
		return grant{}, proto.RefusedTokenInvalid
	}
	reach, ok := claims.Reach()
	g := grant{account: claims.Owner(), reach: reach}
	if g.account == 0 || !ok {
		return grant{}, proto.RefusedTokenInvalid
	}
	return g, proto.Accepted
}

// looksForeign is true for what may be the provider's: three parts, not too long to be worth a look.
func looksForeign(token string) bool { return len(token) <= tokenMax && strings.Count(token, ".") == 2 }
