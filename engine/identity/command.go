package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tote/server/proto"
)

// Command is `server token`: what an identity provider does, for development.
type Command struct {
	Key  newKey `cmd:"" help:"Make a private key, and print the key set for server serve --keys."`
	Mint mint   `cmd:"" help:"Print a token for an account."`
}

type newKey struct {
	File      string `arg:"" type:"path" help:"Where the private key goes (PEM, PKCS #8); as openssl genpkey makes it, too."`
	Algorithm string `enum:"EdDSA,RS256" default:"EdDSA" help:"EdDSA or RS256."`
}

func (c *newKey) Run() error {
	private, set, err := NewKey(c.Algorithm)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // never over another key
	if err != nil {
		return err
	}
	_, err = file.Write(private)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write a key: %w", err)
	}
	fmt.Printf("%s\n", set)
	return nil
}

// NewKey makes a private key in PEM, and the key set of its public half.
func NewKey(algorithm string) (private, set []byte, err error) {
	var key any
	if algorithm == jwt.SigningMethodRS256.Alg() {
		key, err = rsa.GenerateKey(rand.Reader, modulusMin)
	} else {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	w, err := describe(key)
	if err != nil {
		return nil, nil, err
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	set, err = json.Marshal(jwkSet{Keys: []jwk{w}})
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}), set, err
}

type mint struct {
	Account  proto.AccountID `arg:"" help:"Whose it is."`
	Key      string          `required:"" type:"existingfile" help:"Private key (PEM, PKCS #8), or a key set with a shared secret." placeholder:"FILE"`
	For      time.Duration   `default:"24h" help:"How long it is good."`
	Role     []string        `help:"player or viewer; none: player."`
	Game     []proto.GameID  `help:"The only games that it is good for; none: all."`
	Issuer   string          `help:"Who says so (iss)."`
	Audience string          `help:"For whom (aud)."`
}

func (c *mint) Run() error {
	b, err := os.ReadFile(c.Key)
	if err != nil {
		return err
	}
	claims := Claims{Roles: c.Role, Games: c.Game, RegisteredClaims: jwt.RegisteredClaims{
		Subject: strconv.FormatUint(uint64(c.Account), 10), Issuer: c.Issuer,
		IssuedAt: jwt.NewNumericDate(time.Now()), ExpiresAt: jwt.NewNumericDate(time.Now().Add(c.For)),
	}}
	if c.Audience != "" {
		claims.Audience = jwt.ClaimStrings{c.Audience}
	}
	signed, err := Sign(b, &claims)
	if err != nil {
		return err
	}
	fmt.Println(signed)
	return nil
}

// Sign makes a token. The key is a private one in PEM, or a key set whose first key is a shared secret.
func Sign(key []byte, claims *Claims) (string, error) {
	block, _ := pem.Decode(key)
	if block == nil {
		keys, err := Parse(key)
		if err != nil || keys[0].Algorithm != jwt.SigningMethodHS256.Alg() {
			return "", errors.Join(errors.New("sign a token: neither a private key in PEM nor a shared secret in a key set"), err)
		}
		return sign(jwt.SigningMethodHS256, keys[0].ID, keys[0].Material, claims)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	w, err := describe(private)
	if err != nil {
		return "", err
	}
	return sign(jwt.GetSigningMethod(w.Algorithm), w.ID, private, claims)
}

func sign(method jwt.SigningMethod, id string, key any, claims *Claims) (string, error) {
	token := jwt.NewWithClaims(method, claims)
	if id != "" {
		token.Header["kid"] = id
	}
	signed, err := token.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return signed, nil
}

// describe is the public half of a key. Its id is its thumbprint (RFC 7638): the members that make it, in order.
func describe(private any) (w jwk, err error) {
	text := base64.RawURLEncoding.EncodeToString
	signer, ok := private.(crypto.Signer)
	if !ok {
		return w, fmt.Errorf("a %T signs nothing", private)
	}
	thumb := ""
	switch public := signer.Public().(type) {
	case ed25519.PublicKey:
		w = jwk{Kind: "OKP", Curve: "Ed25519", Algorithm: jwt.SigningMethodEdDSA.Alg(), X: text(public)}
		thumb = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, w.X)
	case *rsa.PublicKey:
		w = jwk{Kind: "RSA", Algorithm: jwt.SigningMethodRS256.Alg(), N: text(public.N.Bytes()), E: text(big.NewInt(int64(public.E)).Bytes())}
		thumb = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, w.E, w.N)
	default:
		return w, fmt.Errorf("a key for %T; Ed25519 and RSA are known", public)
	}
	sum := sha256.Sum256([]byte(thumb))
	w.ID, w.Use = text(sum[:]), "sig"
	return w, nil
}
