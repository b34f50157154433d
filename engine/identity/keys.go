// Package identity is how players prove who they are to a server that has not made their tokens itself: what a token claims,
// and the keys of those who sign them.
//
// A key set (RFC 7517) comes from a file or a URL, and is looked at again and again, so that keys are rotated while the
// server runs. The algorithm of a token is its key's, never what the token says. Nothing here knows a connection.
package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Keys are the keys of a set as it was last.
//
//	file, URL ─▶ look ─▶ keys ─▶ Find, by verifiers
//	              ▲ every so often, and when a key is unknown
type Keys struct {
	config Config
	keys   atomic.Pointer[[]Key]
	looked atomic.Int64  // when a look began, ns of the clock
	wanted chan struct{} // a word: look now
	client http.Client
}

// Config says where keys are.
type Config struct {
	Source string        // a file, or a URL: https, or http to this host
	Cache  string        // a file that keeps what a URL said last, for a start while it does not answer; "": none
	Every  time.Duration // between two looks; 0: 5 minutes
	Pause  time.Duration // between two looks that unknown keys ask for, since anybody can invent names of keys; 0: 10 s
	Log    *slog.Logger  // nil: slog.Default
}

// Key verifies tokens.
type Key struct {
	ID        string // "kid"; may be empty
	Algorithm string // HS256, RS256 or EdDSA, which follows from its kind
	Material  any    // []byte, *rsa.PublicKey or ed25519.PublicKey
}

const (
	lookEvery  = 5 * time.Minute
	lookPause  = 10 * time.Second
	lookTime   = 10 * time.Second // for an answer
	sourceMax  = 1 << 20          // bytes
	modulusMin = 2048             // bits, RFC 7518, section 3.3
	sharedMin  = 32               // bytes, section 3.2
)

// Open reads the keys. Where a URL does not answer, what is in the cache will do.
func Open(ctx context.Context, c Config) (*Keys, error) {
	if c.Every <= 0 {
		c.Every = lookEvery
	}
	if c.Pause <= 0 {
		c.Pause = lookPause
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if err := checkSource(c.Source); err != nil {
		return nil, err
	}
	k := &Keys{config: c, wanted: make(chan struct{}, 1), client: http.Client{Timeout: lookTime}}
	err := k.look(ctx)
	if err == nil {
		return k, nil
	}
	if !isURL(c.Source) || c.Cache == "" {
		return nil, err
	}
	b, failed := os.ReadFile(c.Cache)
	if failed == nil {
		failed = k.take(b)
	}
	if failed != nil {
		return nil, errors.Join(err, fmt.Errorf("read the keys of before: %w", failed))
	}
	c.Log.Warn("the keys of players' tokens are those of before", "source", c.Source, "error", err)
	return k, nil
}

// checkSource refuses keys that anybody on the way could change.
func checkSource(source string) error {
	if !isURL(source) {
		return nil
	}
	u, err := url.Parse(source)
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	host, _ := netip.ParseAddr(u.Hostname())
	if u.Scheme == "https" || u.Hostname() == "localhost" || host.IsLoopback() {
		return nil
	}
	return fmt.Errorf("keys from %s: only https is safe from others on the way", source)
}

func isURL(source string) bool {
	u, err := url.Parse(source)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http")
}

// Run looks again until ctx ends. What cannot be read leaves the keys as they were.
func (k *Keys) Run(ctx context.Context) {
	ticker := time.NewTicker(k.config.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-k.wanted:
		}
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			k.config.Log.Warn("the keys of players' tokens stay as they are", "source", k.config.Source, "error", err)
		}
	}
}

// Find returns the keys that a token may be signed with: the one of that id, or without an id the only one of the algorithm.
func (k *Keys) Find(id, algorithm string) (key Key, ok bool) {
	for _, candidate := range *k.keys.Load() {
		if candidate.Algorithm != algorithm || id != "" && candidate.ID != id {
			continue
		}
		if ok && id == "" {
			return Key{}, false // which one?
		}
		key, ok = candidate, true
	}
	return key, ok
}

// Want asks for a look because a key is unknown. It returns false where the last look is too fresh to be repeated.
func (k *Keys) Want() bool {
	last := k.looked.Load()
	now := time.Now().UnixNano()
	if now-last < int64(k.config.Pause) || !k.looked.CompareAndSwap(last, now) {
		return false
	}
	select {
	case k.wanted <- struct{}{}:
	default:
	}
	return true
}

// look reads the source, and keeps what a URL said.
func (k *Keys) look(ctx context.Context) error {
	k.looked.Store(time.Now().UnixNano())
	b, err := k.read(ctx)
	if err == nil {
		err = k.take(b)
	}
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	if !isURL(k.config.Source) || k.config.Cache == "" {
		return nil
	}
	if err = os.WriteFile(k.config.Cache+".new", b, 0o600); err == nil {
		err = os.Rename(k.config.Cache+".new", k.config.Cache)
	}
	if err != nil {
		return fmt.Errorf("keep keys: %w", err)
	}
	return nil
}

func (k *Keys) read(ctx context.Context) ([]byte, error) {
	if !isURL(k.config.Source) {
		return os.ReadFile(k.config.Source)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.config.Source, nil)
	if err != nil {
		return nil, err
	}
	response, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", k.config.Source, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, sourceMax))
}

// take reads a set and makes it the current one. A set without any key of ours is taken for a mistake.
func (k *Keys) take(b []byte) error {
	keys, err := Parse(b)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if key.Algorithm == jwt.SigningMethodHS256.Alg() && isURL(k.config.Source) {
			return fmt.Errorf("key %q is a shared secret, and published", key.ID)
		}
	}
	k.keys.Store(&keys)
	return nil
}

// jwk is a key as RFC 7517 and RFC 7518, section 6, write it: numbers and bytes in base64url.
type jwk struct {
	Kind      string `json:"kty"`
	ID        string `json:"kid,omitempty"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
	K         string `json:"k,omitempty"`
}

type jwkSet struct {
	Keys []jwk `json:"keys"`
}

// Parse reads a key set. Keys of other kinds and for other uses are passed over; one of ours that is wrong is an error.
func Parse(b []byte) ([]Key, error) {
	var set jwkSet
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("no key set: %w", err)
	}
	var keys []Key
	for i, w := range set.Keys {
		key, ok, err := w.key()
		if err != nil {
			return nil, fmt.Errorf("key %d (%q) of the set: %w", i+1, w.ID, err)
		}
		if ok && w.Use != "enc" && (w.Algorithm == "" || w.Algorithm == key.Algorithm) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key for HS256, RS256 or EdDSA")
	}
	return keys, nil
}

func (w *jwk) key() (key Key, ok bool, err error) {
	key.ID = w.ID
	read := func(s string) []byte {
		b, failed := base64.RawURLEncoding.DecodeString(s)
		err = errors.Join(err, failed)
		return b
	}
	switch {
	case w.Kind == "oct":
		shared := read(w.K)
		if err == nil && len(shared) < sharedMin {
			err = fmt.Errorf("a shared secret of %d bytes; %d are the least", len(shared), sharedMin)
		}
		key.Algorithm, key.Material = jwt.SigningMethodHS256.Alg(), shared
	case w.Kind == "RSA":
		public := &rsa.PublicKey{N: new(big.Int).SetBytes(read(w.N)), E: int(new(big.Int).SetBytes(read(w.E)).Int64())}
		if err == nil && (public.N.BitLen() < modulusMin || public.E < 3 || public.E > 1<<31-1) {
			err = fmt.Errorf("a modulus of %d bits and an exponent of %d; %d and 3 are the least", public.N.BitLen(), public.E, modulusMin)
		}
		key.Algorithm, key.Material = jwt.SigningMethodRS256.Alg(), public
	case w.Kind == "OKP" && w.Curve == "Ed25519":
		public := ed25519.PublicKey(read(w.X))
		if err == nil && len(public) != ed25519.PublicKeySize {
			err = fmt.Errorf("a point of %d bytes, not %d", len(public), ed25519.PublicKeySize)
		}
		key.Algorithm, key.Material = jwt.SigningMethodEdDSA.Alg(), public
	default:
		return key, false, nil
	}
	return key, true, err
}
