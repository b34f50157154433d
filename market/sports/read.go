package sports

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"tote/server/market/rules"
	"tote/server/proto"
)

// file is a file of templates, as TOML has it.
type file struct {
	Template []proto.Template `toml:"template"`
}

// example is a game that templates are checked for. What only a certain game can break, such as a team's name that makes a label
// too long, shows when that game opens.
var example = rules.Game{Teams: [2]string{"First Team", "Second Team"}, Shortlist: []string{"First Player", "Second Player", "Third Player"}}

// Read reads a file of [[template]] tables and checks every rule and text in it. Its error has a line for each mistake: the
// file, line and column, the template, and what is expected there:
//
//	derby.toml:7:3: template "next team": locks: there is no event.knd; expected one of event.kind, …
func Read(name string, text []byte) ([]proto.Template, error) {
	places, err := locate(name, text)
	if err != nil {
		return nil, err
	}
	var f file
	d := toml.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, misread(name, err)
	}
	if len(f.Template) == 0 {
		return nil, fmt.Errorf("%s: there is no [[template]]", name)
	}
	var wrong []error
	first := map[string]int{}
	for i := range f.Template {
		t := &f.Template[i]
		for _, err := range mistakes(t) {
			wrong = append(wrong, places.point(name, i, err))
		}
		if j, again := first[t.Name]; again {
			wrong = append(wrong, places.point(name, i, &rules.Mistake{Template: t.Name, Member: "name",
				What: fmt.Sprintf("template %d has the same; give each its own", j+1)}))
		} else {
			first[t.Name] = i
		}
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return f.Template, nil
}

// mistakes are what is wrong with one template.
func mistakes(t *proto.Template) (found []*rules.Mistake) {
	_, err := rules.Compile(*t, example)
	if err == nil {
		return nil
	}
	all, ok := err.(interface{ Unwrap() []error })
	assert(ok, "mistakes come joined")
	for _, err := range all.Unwrap() {
		var m *rules.Mistake
		assert(errors.As(err, &m), "a template's mistake has its place")
		found = append(found, m)
	}
	return found
}

// misread points at what is no TOML, or no member of a template.
func misread(name string, err error) error {
	var unknown *toml.StrictMissingError
	var broken *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		var wrong []error
		for i := range unknown.Errors {
			e := &unknown.Errors[i]
			line, column := e.Position()
			wrong = append(wrong, fmt.Errorf("%s:%d:%d: there is no member %s", name, line, column, strings.Join(e.Key(), ".")))
		}
		return errors.Join(wrong...)
	case errors.As(err, &broken):
		line, column := broken.Position()
		return fmt.Errorf("%s:%d:%d: %s", name, line, column, strings.TrimPrefix(broken.Error(), "toml: "))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// places is where each member of each template stands in a file.
type places struct {
	text    []byte
	headers []int // of [[template]], by template
	members map[member]int
}

// member names a value in a file; the value is an offset: of the first letter of a text, else of the value.
type member struct {
	template int
	outcome  int // from 1; 0: of the template itself
	name     string
}

// locate walks the file, and refuses tables that are no templates: the decoder would look for them in its own ways. What is no
// TOML it leaves to the decoder to tell.
func locate(name string, text []byte) (*places, error) {
	w := &places{text: text, members: map[member]int{}}
	var p unstable.Parser
	p.Reset(text)
	template, outcome := -1, 0
	for p.NextExpression() {
		e := p.Expression()
		switch key := keyOf(e); {
		case e.Kind == unstable.ArrayTable && key == "template":
			template, outcome = template+1, 0
			w.headers = append(w.headers, w.start(e))
		case e.Kind == unstable.ArrayTable && key == "template.outcomes" && template >= 0:
			outcome++
			w.members[member{template, outcome, ""}] = w.start(e)
		case e.Kind == unstable.KeyValue && template >= 0:
			w.member(member{template, outcome, key}, e)
		case e.Kind != unstable.Comment:
			line, column := w.position(w.start(e))
			return nil, fmt.Errorf("%s:%d:%d: there is %s, expected [[template]] or [[template.outcomes]]", name, line, column, key)
		}
	}
	return w, nil
}

// member notes where a key's value stands, and the members of outcomes that are tables within one array.
func (w *places) member(m member, e *unstable.Node) {
	value := e.Value()
	if value.Kind != unstable.Array || m.name != "outcomes" {
		w.members[m] = w.start(e)
		if value.Kind == unstable.String {
			w.members[m] = w.content(value)
		}
		return
	}
	w.members[m] = w.start(e)
	for tables := value.Children(); tables.Next(); {
		m.outcome++
		for members := tables.Node().Children(); members.Next(); {
			in := members.Node()
			if in.Kind != unstable.KeyValue {
				continue
			}
			w.member(member{m.template, m.outcome, keyOf(in)}, in)
		}
	}
}

// start is where the key of an expression begins.
func (w *places) start(e *unstable.Node) int {
	keys := e.Key()
	keys.Next()
	return int(keys.Node().Raw.Offset)
}

// content is where the text of a string begins, after its quotes, and after the newline that TOML drops there.
func (w *places) content(value *unstable.Node) int {
	at := int(value.Raw.Offset)
	rest := w.text[at:]
	for _, quotes := range []string{`'''`, `"""`} {
		if bytes.HasPrefix(rest, []byte(quotes)) {
			at += len(quotes)
			at += len(w.text[at:]) - len(bytes.TrimPrefix(w.text[at:], []byte("\r")))
			at += len(w.text[at:]) - len(bytes.TrimPrefix(w.text[at:], []byte("\n")))
			return at
		}
	}
	return at + 1
}

func keyOf(e *unstable.Node) string {
	var parts []string
	for keys := e.Key(); keys.Next(); {
		parts = append(parts, string(keys.Node().Data))
	}
	return strings.Join(parts, ".")
}

// point says where in the file a mistake is. A member that is missing is looked for where it should be: at its
// outcome, or at its template.
func (w *places) point(name string, template int, m *rules.Mistake) error {
	what := *m
	if m.Member == "" {
		what.Member = "name"
	}
	at, ok := w.members[member{template, m.Outcome, what.Member}]
	if !ok {
		what.Line = 0
		at, ok = w.members[member{template, m.Outcome, ""}]
	}
	if !ok && m.Outcome > 0 {
		at, ok = w.members[member{template, 0, "outcomes"}]
	}
	if !ok {
		at = w.headers[template]
	}
	line, column := w.position(at)
	switch {
	case what.Line == 1:
		column += what.Column - 1
	case what.Line > 1:
		line, column = line+what.Line-1, what.Column
	}
	where := m.Member
	if m.Outcome > 0 {
		where = fmt.Sprintf("outcome %d %s", m.Outcome, m.Member)
	}
	if where != "" {
		where += ": "
	}
	return fmt.Errorf("%s:%d:%d: template %.60q: %s%s", name, line, column, m.Template, where, m.What)
}

// position is the line and column of an offset, from 1; columns count letters.
func (w *places) position(at int) (line, column int) {
	before := w.text[:at]
	return 1 + bytes.Count(before, []byte("\n")), 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
}
