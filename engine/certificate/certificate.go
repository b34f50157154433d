// Package certificate is the certificates that the server shows: pairs of files, read again when they change.
//
// `server serve` runs it beside the engine, whose handshakes ask for the pair of a name. Connections that are open keep what they were
// made with. Nothing here signs a certificate or asks anybody for one.
package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Pair names the files of a certificate with its chain, and of its private key, both PEM.
type Pair struct{ Cert, Key string }

// Config says where certificates are.
type Config struct {
	Pairs []Pair        // the first is for clients who name no server, or one that nobody has
	Every time.Duration // between two looks; 0: 5 s
	Log   *slog.Logger  // nil: slog.Default
}

const lookEvery = 5 * time.Second

// Set is the certificates as they were read last.
//
//	files ─▶ look ─▶ shown ─▶ Choose, by handshakes
//	          ▲ every so often, and when asked
type Set struct {
	config Config
	shown  []atomic.Pointer[tls.Certificate] // by pair
	read   [][2][]byte                       // what was read last, by pair, good or not; owned by look

	taken, refused atomic.Uint64 // changes
}

// Open reads the certificates. All must be good.
func Open(c Config) (*Set, error) {
	if len(c.Pairs) == 0 {
		return nil, errors.New("read certificates: there is none")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Every <= 0 {
		c.Every = lookEvery
	}
	s := &Set{config: c, shown: make([]atomic.Pointer[tls.Certificate], len(c.Pairs)), read: make([][2][]byte, len(c.Pairs))}
	for i, pair := range c.Pairs {
		files, err := pair.read()
		if err != nil {
			return nil, err
		}
		certificate, err := tls.X509KeyPair(files[0], files[1])
		if err != nil {
			return nil, fmt.Errorf("read the certificate %s with the key %s: %w", pair.Cert, pair.Key, err)
		}
		if err := fresh(&certificate); err != nil {
			c.Log.Warn("clients will not trust a certificate", "file", pair.Cert, "error", err)
		}
		s.read[i] = files
		s.shown[i].Store(&certificate)
	}
	return s, nil
}

// read returns the contents of both files, or of none.
func (p Pair) read() (files [2][]byte, err error) {
	for i, name := range []string{p.Cert, p.Key} {
		if files[i], err = os.ReadFile(name); err != nil {
			return [2][]byte{}, fmt.Errorf("read a certificate: %w", err)
		}
	}
	return files, nil
}

// TLS is how the server speaks, or nil where there are no certificates: HTTP/1.1, which WebSockets begin with, over TLS 1.2 and 1.3, with the suites and the order that crypto/tls
// thinks best. It also keeps the keys of session tickets, a new one each day, of which none is older than a week.
func (s *Set) TLS() *tls.Config {
	if s == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: s.Choose}
}

// Choose returns the first certificate that a client can use and has asked for, or the first of all.
func (s *Set) Choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for i := range s.shown {
		if c := s.shown[i].Load(); len(s.shown) > 1 && hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return s.shown[0].Load(), nil
}

// Run looks for changes until ctx ends: every so often, and when asked.
func (s *Set) Run(ctx context.Context, asked <-chan os.Signal) {
	ticker := time.NewTicker(s.config.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-asked:
		}
		s.look()
	}
}

// look takes the pairs whose files have changed. A pair that is broken, or that is over while the one that is shown is not, is
// refused once and looked at again when its files change: of two files, one is always written first.
func (s *Set) look() {
	for i, pair := range s.config.Pairs {
		files, err := pair.read()
		if bytes.Equal(files[0], s.read[i][0]) && bytes.Equal(files[1], s.read[i][1]) {
			continue
		}
		s.read[i] = files
		var certificate tls.Certificate
		if err == nil {
			certificate, err = tls.X509KeyPair(files[0], files[1])
		}
		if err == nil && fresh(s.shown[i].Load()) == nil {
			err = fresh(&certificate)
		}
		if err != nil {
			s.refused.Add(1)
			s.config.Log.Error("a new certificate is refused; the old one stays", "file", pair.Cert, "key", pair.Key, "error", err)
			continue
		}
		s.taken.Add(1)
		s.shown[i].Store(&certificate)
		s.config.Log.Info("a new certificate is shown", "file", pair.Cert, "names", certificate.Leaf.DNSNames, "until", certificate.Leaf.NotAfter)
	}
}

// fresh returns why a certificate is not good today.
func fresh(c *tls.Certificate) error {
	switch now := time.Now(); {
	case now.After(c.Leaf.NotAfter):
		return fmt.Errorf("it was good until %v", c.Leaf.NotAfter)
	case now.Before(c.Leaf.NotBefore):
		return fmt.Errorf("it is good from %v on", c.Leaf.NotBefore)
	}
	return nil
}

// Stats is what is shown, and what has come of changes.
type Stats struct {
	Until          map[string]time.Time // when each certificate is over, by file
	Taken, Refused uint64               // changes
}

// Stats may be called by anybody. Where there are no certificates, they are empty.
func (s *Set) Stats() Stats {
	if s == nil {
		return Stats{}
	}
	stats := Stats{Until: map[string]time.Time{}, Taken: s.taken.Load(), Refused: s.refused.Load()}
	for i, pair := range s.config.Pairs {
		stats.Until[pair.Cert] = s.shown[i].Load().Leaf.NotAfter
	}
	return stats
}
