package feed

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tote/server/proto"
	"tote/server/proto/control"
)

const oneQuestion = `[[template]]
name = "NAME"
question = "Who wins?"
opens = 'event.kind == "kickoff"'
outcomes = [
  { label = "{team1}", wins = 'event.team == 1' },
  { label = "{team2}", wins = 'event.team == 2' },
]
`

// plays notes with which templates a game is opened, and which are set.
type plays struct{ sets []string }

func (p *plays) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	var said proto.TemplateSet // an opening has the member too
	json.Unmarshal(body, &said)
	if len(said.Templates) > 0 {
		p.sets = append(p.sets, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1")+" "+said.Templates[0].Name)
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"game":3}`)), Request: r}, nil
}

// Templates that are rewritten during a match reach the game; a file with a mistake does not, and does not end the match.
func TestTemplatesAreReloaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "derby.toml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
	write(strings.Replace(oneQuestion, "NAME", "first", 1))
	synctest.Test(t, func(t *testing.T) {
		w, match := final(t)
		seen := new(plays)
		f := &Feed{Client: &control.Client{Base: "http://tote.example", HTTP: &http.Client{Transport: seen}}, Speed: 60, Log: quiet, Templates: file}
		time.AfterFunc(20*time.Second, func() { write(strings.Replace(oneQuestion, "NAME", "the second", 1)) })
		time.AfterFunc(40*time.Second, func() { write(strings.Replace(oneQuestion, "event.kind", "event.knd", 1)) })
		time.AfterFunc(60*time.Second, func() { write(strings.Replace(oneQuestion, "NAME", "the third one", 1)) })
		if _, err := f.Play(t.Context(), Football(w, match)); err != nil {
			t.Fatal(err)
		}
		want := "POST /games first, PUT /games/3/templates the second, PUT /games/3/templates the third one"
		if got := strings.Join(seen.sets, ", "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// A match does not begin with templates that do not compile.
func TestTemplatesAreCheckedFirst(t *testing.T) {
	file := filepath.Join(t.TempDir(), "derby.toml")
	if err := os.WriteFile(file, []byte(strings.Replace(oneQuestion, "event.kind", "event.knd", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	w, match := final(t)
	game, err := (&Feed{Client: &control.Client{Base: "http://tote.example"}, Speed: 1, Templates: file}).Play(t.Context(), Football(w, match))
	if err == nil || game != 0 || !strings.Contains(err.Error(), `derby.toml:4:10: template "NAME": opens: there is no event.knd`) {
		t.Errorf("game %d, %v", game, err)
	}
}
