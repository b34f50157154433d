package engine

import (
	"strconv"

	"github.com/golang-jwt/jwt/v5"

	"tote/server/proto"
)

// tokens signs and reads tokens: JWT, HS256, the account in "sub". They do not expire: a guest comes back with
// his. An "exp" that another signer set is kept.
type tokens struct {
	secret []byte
	parser *jwt.Parser
}

// newTokens accepts HS256 alone: "none", and keys of another kind, are the oldest tricks with JWT.
func newTokens(secret []byte) tokens {
	return tokens{secret: secret, parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}))}
}

// sign makes the token of an account. The same account has the same token.
func (t tokens) sign(a proto.AccountID) string {
	claims := jwt.RegisteredClaims{Subject: strconv.FormatUint(uint64(a), 10)}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(t.secret)
	assert(err == nil, "HS256 signs with any key of bytes")
	return signed
}

// read returns the account that a token speaks for, or 0.
func (t tokens) read(token string) proto.AccountID {
	var claims jwt.RegisteredClaims
	parsed, err := t.parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return t.secret, nil })
	if err != nil || !parsed.Valid {
		return 0
	}
	a, err := strconv.ParseUint(claims.Subject, 10, 53)
	if err != nil {
		return 0
	}
	return proto.AccountID(a)
}
