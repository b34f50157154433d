package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"tote/server/proto"
)

// issue writes a certificate that has signed itself, for 127.0.0.1 and a name, into dir, and returns the flags that have it shown.
func issue(t *testing.T, dir, name string) (flags []string) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der := must(x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key))(t)
	secret := must(x509.MarshalPKCS8PrivateKey(key))(t)
	flags = []string{"--tls-listen", "127.0.0.1:0"}
	for _, file := range []struct {
		flag, name, kind string
		content          []byte
	}{{"--tls-cert", "tls.crt", "CERTIFICATE", der}, {"--tls-key", "tls.key", "PRIVATE KEY", secret}} {
		path := filepath.Join(dir, file.name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.content}), 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, file.flag, path)
	}
	return flags
}

// trusting is a client that trusts the certificate in dir and no other.
func trusting(t *testing.T, dir string) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(must(os.ReadFile(filepath.Join(dir, "tls.crt")))(t)) {
		t.Fatal("the certificate is not read")
	}
	return &tls.Config{RootCAs: roots}
}

// Over TLS there is what there is without: the page and the games. A certificate is changed while somebody plays.
func TestServeTLS(t *testing.T) {
	dir := t.TempDir()
	s := start(t, t.TempDir(), issue(t, dir, "first.example")...)
	_, pools := s.game(1)
	account := must(s.desk.OpenAccount(t.Context(), proto.AccountOpening{Name: "Ada", Deposit: 1000}))(t)
	first := trusting(t, dir)

	get := func(config *tls.Config) (string, error) {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		response, err := client.Get("https://" + s.tls + "/")
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		page, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("the page is %s, %v", response.Status, err)
		}
		return string(page), nil
	}
	plain := must(http.Get("http" + strings.TrimSuffix(strings.TrimPrefix(s.players, "ws"), "ws")))(t)
	page := string(must(io.ReadAll(plain.Body))(t))
	plain.Body.Close()
	if secured := must(get(first))(t); secured != page || !strings.Contains(page, "<html") {
		t.Errorf("over TLS the page is %.200q", secured)
	}

	dialer := ws.Dialer{Protocols: []string{"tote.json"}, TLSConfig: first}
	conn, _, _, err := dialer.Dial(t.Context(), "wss://"+s.tls+"/ws")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	play := func(id proto.RequestID, balance proto.Amount) {
		t.Helper()
		stake := proto.Request{Type: proto.RequestStake, ID: id, Pool: pools[0], Amount: 10}
		if err := wsutil.WriteClientText(conn, stake.AppendJSON(nil)); err != nil {
			t.Fatal(err)
		}
		for {
			var m struct {
				ID      proto.RequestID
				Balance proto.Amount
			}
			if err := json.Unmarshal(must(wsutil.ReadServerText(conn))(t), &m); err != nil {
				t.Fatal(err)
			}
			if m.ID == id {
				if m.Balance != balance {
					t.Errorf("the balance is %d, want %d", m.Balance, balance)
				}
				return
			}
		}
	}
	hello := proto.Request{Type: proto.RequestHello, ID: 1, Token: account.Token}
	if err := wsutil.WriteClientText(conn, hello.AppendJSON(nil)); err != nil {
		t.Fatal(err)
	}
	play(2, 990)

	issue(t, dir, "second.example")
	if err := s.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	second := trusting(t, dir)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := get(second)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the new certificate is not shown: %v", err)
		}
	}
	if _, err := get(first); err == nil {
		t.Error("the old certificate is still shown")
	}
	play(3, 980) // over the connection of before
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := s.metrics()
		if got["server_tls_certificates_refused_total"] > 0 && got["server_tls_certificates_taken_total"] > 0 && got["server_tls_connections"] == 1 &&
			got[`server_tls_failed_total{reason="distrusted"}`]+got[`server_tls_failed_total{reason="gone"}`] > 0 { // gone, where its reset was faster than its alert
			break
		}
		if time.Now().After(end) {
			maps.DeleteFunc(got, func(name string, _ float64) bool { return !strings.HasPrefix(name, "server_tls") })
			t.Fatalf("the metrics say %v", got)
		}
	}
	must(get(second))(t)
	s.stop()
	s.audited()
}

// Flags that do not fit together are refused before anything is opened.
func TestTLSFlags(t *testing.T) {
	dir := t.TempDir()
	flags := issue(t, dir, "first.example")
	for _, row := range []struct {
		name  string
		flags []string
		want  string
	}{
		{"no key", flags[:4], "each certificate has one key"},
		{"no such file", append(flags[:5:5], filepath.Join(dir, "none")), "none"},
		{"a certificate for a key", append(flags[:5:5], flags[3]), "tls.crt"},
	} {
		data := filepath.Join(dir, "data")
		said, err := exec.CommandContext(t.Context(), binary, append([]string{"serve", "--data", data}, row.flags...)...).CombinedOutput()
		if _, opened := os.Stat(data); err == nil || !strings.Contains(string(said), row.want) || opened == nil {
			t.Errorf("%s: %v, said %q, want %q in it, and no data", row.name, err, said, row.want)
		}
	}
}

// Players over TLS: they come, stake, lose their connections and read badly, and all books agree.
func TestBenchOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, t.TempDir(), append(issue(t, dir, "first.example"), "--guest-credits", "1000000")...)
	target := []string{"--target", "wss://" + s.tls, "--admin", s.desk.Base, "--no-limit", "--json", "-"}
	text := shortGame + "[players]\nthink = [\"50ms\", \"200ms\"]\nchurn = 0.2\nread_slowly = 0.1\nslow_bytes = 100\n[[storms]]\nat = \"1s\"\nshare = 0.5\nback = \"500ms\"\n"
	run := append([]string{"run", scenario(t, text)}, target...)
	report, said, err := benched(t, append(run, "--ca", filepath.Join(dir, "tls.crt"))...)
	if err != nil || report == nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if c := report.Connections; c.Returned == 0 || report.Stakes.Receipts < 100 {
		t.Errorf("%+v, %+v", c, report.Stakes)
	}
	if report, said, err = benched(t, append(run, "--insecure", "--duration", "500ms")...); err != nil || report == nil {
		t.Errorf("whoever trusts anyone: %v\n%s", err, said)
	}
	if report, said, err = benched(t, run...); err == nil || report != nil || !strings.Contains(said, "certificate") {
		t.Errorf("whoever trusts the system's: %v\n%s", err, said)
	}
	if got := s.metrics(); got["server_tls_handshakes_total"] < 120 || got[`server_tls_failed_total{reason="broken"}`] != 0 {
		t.Errorf("%v handshakes, %v broken", got["server_tls_handshakes_total"], got[`server_tls_failed_total{reason="broken"}`])
	}
	s.stop()
	s.audited()
}
