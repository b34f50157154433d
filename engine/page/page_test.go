package page_test

import (
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"tote/server/engine/page"
)

func get(t *testing.T, method, target string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for key, values := range header {
		r.Header[key] = values
	}
	w := httptest.NewRecorder()
	page.Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestPageIsServed(t *testing.T) {
	for _, row := range []struct {
		method, target string
		status         int
		contentType    string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/?utm=x", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/style.css", 200, "text/css; charset=utf-8"},
		{"GET", "/app.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/favicon.svg", 200, "image/svg+xml"},
		{"GET", "/nothing.js", 404, "text/plain; charset=utf-8"},
		{"GET", "/package.json", 404, "text/plain; charset=utf-8"},
		{"GET", "/../page.go", 404, "text/plain; charset=utf-8"},
		{"POST", "/", 405, "text/plain; charset=utf-8"},
	} {
		answer := get(t, row.method, row.target, nil)
		if answer.StatusCode != row.status || answer.Header.Get("Content-Type") != row.contentType {
			t.Errorf("%s %s: %d %s, want %d %s", row.method, row.target, answer.StatusCode, answer.Header.Get("Content-Type"), row.status, row.contentType)
		}
		for header, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
			if got := answer.Header.Get(header); got != want {
				t.Errorf("%s %s: %s is %q, want %q", row.method, row.target, header, got, want)
			}
		}
		if answer.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s %s has no content security policy", row.method, row.target)
		}
	}
}

// A browser asks each time, and is told "not modified" until another server has another page.
func TestPageIsCachedByContent(t *testing.T) {
	first := get(t, "GET", "/app.js", nil)
	etag := first.Header.Get("ETag")
	if first.Header.Get("Cache-Control") != "no-cache" || !strings.HasPrefix(etag, `"`) {
		t.Fatalf("Cache-Control %q, ETag %q", first.Header.Get("Cache-Control"), etag)
	}
	if again := get(t, "GET", "/app.js", http.Header{"If-None-Match": {etag}}); again.StatusCode != http.StatusNotModified {
		t.Errorf("asked again: %d, want 304", again.StatusCode)
	}
	if other := get(t, "GET", "/style.css", http.Header{"If-None-Match": {etag}}); other.StatusCode != http.StatusOK {
		t.Errorf("another file with this tag: %d, want 200", other.StatusCode)
	}
}

// The policy names the host that was asked, so that a WebSocket to it is allowed, and nothing that only looks like one.
func TestPolicyNamesTheHost(t *testing.T) {
	for _, row := range []struct{ host, connect string }{
		{"localhost:8080", "connect-src 'self' ws://localhost:8080 wss://localhost:8080;"},
		{"[::1]:8080", "connect-src 'self' ws://[::1]:8080 wss://[::1]:8080;"},
		{"a.example; script-src *", "connect-src 'self';"},
		{"a b", "connect-src 'self';"},
		{"", "connect-src 'self';"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = row.host
		w := httptest.NewRecorder()
		page.Handler().ServeHTTP(w, r)
		policy := w.Result().Header.Get("Content-Security-Policy")
		if !strings.Contains(policy, row.connect) || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("host %q: %s", row.host, policy)
		}
	}
}

// Whatever a file of the page names is there: a part that is missing shows only in a browser.
func TestPageNamesWhatIsThere(t *testing.T) {
	reference := regexp.MustCompile(`(?:href|src)="(/[^"]*)"|from "\./([^"]+)"`)
	files := os.DirFS("web")
	names, err := fs.Glob(files, "*.[hjc]*")
	if err != nil || len(names) == 0 {
		t.Fatalf("list the page: %v, %v", names, err)
	}
	loaded := map[string]bool{"index.html": true, "package.json": true}
	for _, name := range names {
		body, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range reference.FindAllStringSubmatch(string(body), -1) {
			target := "/" + strings.TrimPrefix(match[1], "/") + match[2]
			loaded[target[1:]] = true
			if answer := get(t, "GET", target, nil); answer.StatusCode != http.StatusOK {
				t.Errorf("%s names %s: %d", name, target, answer.StatusCode)
			}
		}
	}
	for _, name := range names {
		if !loaded[name] {
			t.Errorf("nothing loads %s", name)
		}
	}
}

func TestPageIsWhatIsInTheFolder(t *testing.T) {
	want, err := os.ReadFile("web/index.html")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(get(t, "GET", "/", nil).Body)
	if err != nil || string(got) != string(want) {
		t.Errorf("/ is not index.html: %v", err)
	}
}
