// Package page is what a visitor's browser gets: a page that joins the live match as a guest, shows the odds as they
// move, and makes predictions.
//
// The page is plain ES modules, embedded as they are written; there is no build step and nothing from elsewhere. It
// speaks to the server over the WebSocket at /ws like every other client and has no way around the protocol. The
// package serves files from memory: it knows no session and no market, and never waits.
//
// Where to read: web/app.js wires the parts, web/socket.js is the connection, web/state.js the game, web/purse.js the
// account, web/card.js a question as one sees it. The folder outside has the tests from outside: programs that play
// against the real server, with Node and with a browser.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed web/*.html web/*.css web/*.js web/*.svg
var web embed.FS

// contentTypes are those of the files that there are. Go's own table depends on the host.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// file is a file of the page, ready to be served; immutable.
type file struct {
	body        []byte
	contentType string
	etag        string // hash of body
}

// Handler serves the page at / and its parts beside it. It keeps no state and may be used by any goroutine.
func Handler() http.Handler { return pages(load()) }

type pages map[string]file // by URL path

func load() pages {
	p := pages{}
	entries, err := fs.ReadDir(web, "web")
	assert(err == nil, "the page is embedded")
	for _, e := range entries {
		body, err := web.ReadFile("web/" + e.Name())
		assert(err == nil, "a listed file is embedded")
		contentType := contentTypes[path.Ext(e.Name())]
		assert(contentType != "", "every embedded file has a content type")
		sum := sha256.Sum256(body)
		p["/"+e.Name()] = file{body, contentType, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
	}
	p["/"] = p["/index.html"]
	return p
}

func (p pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", policy(r.Host))
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	f, ok := p[r.URL.Path]
	if !ok {
		http.Error(w, "there is no such page", http.StatusNotFound)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "no-cache") // ask each time: a new server may have a new page
	h.Set("ETag", f.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.body))
}

// policy lets the page load what this server serves, and connect to it. Browsers do not agree whether 'self' covers
// WebSockets, so the host is named too.
func policy(host string) string {
	connect := "'self'"
	if isHost(host) {
		connect += " ws://" + host + " wss://" + host
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src " + connect +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// isHost reports whether a Host header is nothing but a host and a port: anybody may have written it.
func isHost(host string) bool {
	return host != "" && strings.Trim(strings.ToLower(host), "abcdefghijklmnopqrstuvwxyz0123456789.-:[]") == ""
}

// assert stops the process where our own code is wrong.
func assert(ok bool, what string) {
	if !ok {
		panic("page: " + what)
	}
}
