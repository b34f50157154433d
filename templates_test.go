package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tote/server/market/sports"
	"tote/server/proto"
)

// shell runs `server ctl` and returns what it prints, errors included.
func shell(t *testing.T, admin string, args ...string) (out string, ok bool) {
	t.Helper()
	b, err := exec.Command(binary, append([]string{"ctl", "--admin", admin}, args...)...).CombinedOutput()
	return string(b), err == nil
}

const rainTemplates = `[[template]]
name = "rain"
question = "Will it rain on {team1}?"
opens = 'event.kind == "kickoff"'
locks = 'event.kind == "clouds"'
outcomes = [
  { label = "yes", wins = 'event.kind == "rain"' },
  { label = "no", wins = 'event.kind == "end"' },
]
`

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// words is a table without its columns.
func words(table string) string { return strings.Join(strings.Fields(table), " ") }

// Without a server: files are checked, and matches played.
func TestTemplatesWithoutAServer(t *testing.T) {
	good, bad := writeFile(t, "rain.toml", rainTemplates), writeFile(t, "bad.toml", strings.Replace(rainTemplates, "event.kind", "event.knd", 1))
	if out, ok := shell(t, "", "templates", "check", good); !ok || !strings.HasSuffix(out, "rain.toml: 1 templates are good\n") {
		t.Errorf("a good file: %v, %s", ok, out)
	}
	if out, ok := shell(t, "", "templates", "check", good, bad); ok || !strings.Contains(out, `bad.toml:4:10: template "rain": opens: there is no event.knd; expected one of event.kind`) {
		t.Errorf("a bad file: %v, %s", ok, out)
	}
	if out, ok := shell(t, "", "dry-run", "--find", "Final"); !ok || !strings.Contains(words(out), "kickoff 0' 0-0 minute 75' 2-0 end 120' 3-3 Argentina") {
		t.Errorf("the final: %v\n%s", ok, out)
	}
	if out, ok := shell(t, "", "dry-run", "--find", "Final", "--templates", good); !ok || !strings.Contains(words(out), "Will it rain on Argentina? kickoff 0' 0-0 end 120' 3-3 end 120' 3-3 no") {
		t.Errorf("the final with other questions: %v\n%s", ok, out)
	}
	never := writeFile(t, "never.toml", strings.Replace(rainTemplates, `"end"`, `"never"`, 1))
	if out, ok := shell(t, "", "dry-run", "--find", "Final", "--templates", never); ok || !strings.Contains(out, "1 questions never end") {
		t.Errorf("a question that never ends: %v\n%s", ok, out)
	}
	out, ok := shell(t, "", "dry-run", "--json")
	var all []struct{ Questions []struct{ State string } }
	if err := json.Unmarshal([]byte(out), &all); err != nil || !ok || len(all) != 64 || all[63].Questions[0].State != "settled" {
		t.Errorf("the tournament as JSON: %v, %v, %d matches", ok, err, len(all))
	}
}

// A running game gets new templates, from a file or from what ships; what is open keeps its rules, over a kill too.
func TestTemplatesOfARunningGame(t *testing.T) {
	s := start(t, t.TempDir())
	g := must(s.desk.OpenGame(t.Context(), proto.GameOpening{Name: "Argentina v France", Teams: [2]string{"Argentina", "France"}, Templates: sports.Football()[:1]}))(t).Game
	next := must(s.desk.PostEvent(t.Context(), g, proto.Event{Kind: "kickoff"}))(t).Opened[0]

	bad := writeFile(t, "bad.toml", strings.Replace(rainTemplates, "event.kind", "event.knd", 1))
	if out, ok := shell(t, s.desk.Base, "templates", "set", "1", bad); ok {
		t.Fatalf("a bad file was set: %s", out)
	}
	broken := []proto.Template{{Name: "x", Question: "?", Opens: "event.knd"}}
	if _, err := s.desk.SetTemplates(t.Context(), g, proto.TemplateSet{Templates: broken}); err == nil || !strings.Contains(err.Error(), "there is no event.knd") {
		t.Fatalf("the server took broken templates: %v", err)
	}
	if out, ok := shell(t, s.desk.Base, "templates", "set", "1", writeFile(t, "rain.toml", rainTemplates)); !ok {
		t.Fatalf("set templates: %s", out)
	}
	s.process.Process.Kill()
	s.gone()

	s = start(t, s.data)
	rain := must(s.desk.PostEvent(t.Context(), g, proto.Event{Kind: "kickoff"}))(t).Opened
	if len(rain) != 1 {
		t.Fatalf("a kick-off opens %v, want one pool", rain)
	}
	if settled := must(s.desk.PostEvent(t.Context(), g, proto.Event{Kind: "goal", Team: 1, Score: [2]uint16{1, 0}}))(t).Settled; len(settled) != 1 || settled[0] != next {
		t.Errorf("a goal settles %v, want %d: its rules were there first", settled, next)
	}
	if settled := must(s.desk.PostEvent(t.Context(), g, proto.Event{Kind: "rain"}))(t).Settled; len(settled) != 1 || settled[0] != rain[0] {
		t.Errorf("rain settles %v, want %v", settled, rain)
	}
	s.stop()
	s.audited()
}
