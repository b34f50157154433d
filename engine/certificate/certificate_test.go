package certificate

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// issue makes a certificate that is good for an hour from a time on, and its key.
func issue(t *testing.T, name string, from time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), NotBefore: from, NotAfter: from.Add(time.Hour), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

func write(t *testing.T, pair Pair, cert, key []byte) {
	t.Helper()
	for file, content := range map[string][]byte{pair.Cert: cert, pair.Key: key} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func pairIn(dir, name string) Pair {
	return Pair{filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")}
}

// shown is the name in the certificate that a client gets who asks for a name.
func shown(t *testing.T, s *Set, asked string) string {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	go func() { _ = tls.Server(there, s.TLS()).Handshake(); there.Close() }()
	client := tls.Client(here, &tls.Config{InsecureSkipVerify: true, ServerName: asked, NextProtos: []string{"h2", "http/1.1"}})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	state := client.ConnectionState()
	if state.NegotiatedProtocol != "http/1.1" {
		t.Errorf("the protocol is %q", state.NegotiatedProtocol)
	}
	return state.PeerCertificates[0].DNSNames[0]
}

// Clients get the certificate that they ask for; changes are taken, and what is no good is refused, once for each change.
func TestCertificatesChange(t *testing.T) {
	dir := t.TempDir()
	first, second := pairIn(dir, "first"), pairIn(dir, "second")
	now := time.Now()
	cert, key := issue(t, "a.example", now)
	write(t, first, cert, key)
	otherCert, otherKey := issue(t, "b.example", now)
	write(t, second, otherCert, otherKey)
	s, err := Open(Config{Pairs: []Pair{first, second}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[string]string{"a.example": "a.example", "b.example": "b.example", "c.example": "a.example", "": "a.example"} {
		if got := shown(t, s, asked); got != want {
			t.Errorf("who asks for %q gets %q, want %q", asked, got, want)
		}
	}
	newCert, newKey := issue(t, "new.example", now)
	oldCert, oldKey := issue(t, "old.example", now.Add(-2*time.Hour))
	soonCert, soonKey := issue(t, "soon.example", now.Add(time.Hour))
	for _, step := range []struct {
		name           string
		cert, key      []byte
		want           string
		taken, refused uint64
	}{
		{"nothing has changed", cert, key, "a.example", 0, 0},
		{"the certificate alone", newCert, key, "a.example", 0, 1},
		{"nothing more", newCert, key, "a.example", 0, 0},
		{"its key, too", newCert, newKey, "new.example", 1, 0},
		{"no PEM", []byte("certificate"), newKey, "new.example", 0, 1},
		{"half a file", newCert[:100], newKey, "new.example", 0, 1},
		{"an empty file", nil, newKey, "new.example", 0, 1},
		{"as before", newCert, newKey, "new.example", 1, 0},
		{"one that is over", oldCert, oldKey, "new.example", 0, 1},
		{"one that is not good yet", soonCert, soonKey, "new.example", 0, 1},
		{"the first again", cert, key, "a.example", 1, 0},
	} {
		write(t, first, step.cert, step.key)
		before := s.Stats()
		s.look()
		after := s.Stats()
		if got := shown(t, s, "a.example"); got != step.want || after.Taken-before.Taken != step.taken || after.Refused-before.Refused != step.refused {
			t.Errorf("%s: %q is shown, %d taken, %d refused; want %q, %d, %d", step.name, got,
				after.Taken-before.Taken, after.Refused-before.Refused, step.want, step.taken, step.refused)
		}
	}
	if err := os.Remove(first.Key); err != nil {
		t.Fatal(err)
	}
	before := s.Stats().Refused
	s.look()
	s.look()
	if got := shown(t, s, ""); got != "a.example" || s.Stats().Refused != before+1 {
		t.Errorf("without a key %q is shown, %d refused", got, s.Stats().Refused-before)
	}
	if until := s.Stats().Until[first.Cert]; !until.Equal(now.Add(time.Hour).Truncate(time.Second)) {
		t.Errorf("it is good until %v", until)
	}
}

// Run looks now and then, and when it is asked.
func TestRun(t *testing.T) {
	for _, row := range []struct {
		name  string
		every time.Duration
		asks  bool
	}{{"now and then", time.Millisecond, false}, {"when asked", time.Hour, true}} {
		t.Run(row.name, func(t *testing.T) {
			pair := pairIn(t.TempDir(), "tote")
			cert, key := issue(t, "a.example", time.Now())
			write(t, pair, cert, key)
			s, err := Open(Config{Pairs: []Pair{pair}, Every: row.every, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			asked, ended := make(chan os.Signal, 1), make(chan struct{})
			go func() { s.Run(ctx, asked); close(ended) }()
			cert, key = issue(t, "b.example", time.Now())
			write(t, pair, cert, key)
			if row.asks {
				asked <- syscall.SIGHUP
			}
			for end := time.Now().Add(20 * time.Second); shown(t, s, "") != "b.example"; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the old one stays")
				}
			}
			cancel()
			<-ended
		})
	}
}

// What cannot be shown is refused at the start.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	good, mixed := pairIn(dir, "good"), pairIn(dir, "mixed")
	cert, key := issue(t, "a.example", time.Now())
	write(t, good, cert, key)
	_, other := issue(t, "a.example", time.Now())
	write(t, mixed, cert, other)
	for _, row := range []struct {
		name  string
		pairs []Pair
		wrong string
	}{
		{"none", nil, "there is none"},
		{"no file", []Pair{good, pairIn(dir, "none")}, "none.crt"},
		{"another key", []Pair{good, mixed}, "mixed.key"},
		{"a key for a certificate", []Pair{{good.Key, good.Key}}, "good.key"},
	} {
		if _, err := Open(Config{Pairs: row.pairs}); err == nil || !strings.Contains(err.Error(), row.wrong) {
			t.Errorf("%s: %v; want %q in it", row.name, err, row.wrong)
		}
	}
	if config := (*Set)(nil).TLS(); config != nil {
		t.Errorf("without certificates there is %v", config)
	}
}
