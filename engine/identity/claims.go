package identity

import (
	"slices"
	"strconv"

	"github.com/golang-jwt/jwt/v5"

	"tote/server/proto"
)

// Claims are what a token says of its owner, besides the registered claims (RFC 7519, section 4.1). The account is in
// "account", or, where that is missing, the decimal number in "sub".
type Claims struct {
	jwt.RegisteredClaims
	Account proto.AccountID `json:"account,omitempty"`
	Roles   []string        `json:"roles,omitzero"` // missing: a player
	Games   []proto.GameID  `json:"games,omitzero"` // the only ones that he may enter; missing: all
}

// The roles. Others mean nothing here, and a token with only such is good for nothing.
const (
	RolePlayer = "player" // all
	RoleViewer = "viewer" // sees what players see, and changes nothing
)

// Owner is the account that the claims are about, or 0.
func (c *Claims) Owner() proto.AccountID {
	a := uint64(c.Account)
	if a == 0 {
		a, _ = strconv.ParseUint(c.Subject, 10, 64)
	}
	if a >= 1<<53 {
		return 0
	}
	return proto.AccountID(a)
}

// Reach returns what the claims are good for; ok is false for nothing.
func (c *Claims) Reach() (r *Reach, ok bool) {
	watches := false
	if c.Roles != nil && !slices.Contains(c.Roles, RolePlayer) {
		if !slices.Contains(c.Roles, RoleViewer) {
			return nil, false
		}
		watches = true
	}
	if !watches && c.Games == nil {
		return nil, true
	}
	return &Reach{watches: watches, games: c.Games}, true
}

// Reach is what a token is good for, where that is not all. It never changes; nil is all.
type Reach struct {
	watches bool
	games   []proto.GameID // nil: all
}

// Permits looks at a request before anything else does. Rooms of circles belong to their game.
func (r *Reach) Permits(q *proto.Request) proto.Refusal {
	switch {
	case r == nil:
		return proto.Accepted
	case r.watches && changes(q.Type):
		return proto.RefusedViewer
	case q.Game != 0 && !r.enters(q.Game), q.Pool != 0 && !r.enters(q.Pool.Game()):
		return proto.RefusedGameBarred
	}
	return proto.Accepted
}

func (r *Reach) enters(g proto.GameID) bool {
	return r.games == nil || slices.Contains(r.games, g.Main())
}

// changes is true for requests of which others would notice. One that is not known changes nothing.
func changes(t proto.RequestType) bool {
	switch t {
	case proto.RequestStake, proto.RequestSell, proto.RequestFollow, proto.RequestUnfollow,
		proto.RequestAsk, proto.RequestResolve, proto.RequestChallenge, proto.RequestReport,
		proto.RequestCircleCreate, proto.RequestCircleJoin, proto.RequestCircleLeave, proto.RequestCircleRemove, proto.RequestCircleGame:
		return true
	}
	return false
}
