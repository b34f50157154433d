package football

import (
	_ "embed"
	"fmt"
	"slices"
	"sync"

	"github.com/BurntSushi/toml"

	"tote/server/proto"
)

//go:embed templates.toml
var templatesFile []byte

var templates = sync.OnceValue(func() []proto.Template {
	ts, err := readTemplates(templatesFile)
	assert(err == nil, "the compiled-in templates are sound")
	return ts
})

// Templates returns the questions that ship, in the order in which they are asked. The caller may change them.
func Templates() []proto.Template {
	ts := slices.Clone(templates())
	for i := range ts {
		ts[i].Outcomes = slices.Clone(ts[i].Outcomes)
	}
	return ts
}

// readTemplates reads a file of [[template]] tables. Package rules checks what they say.
func readTemplates(file []byte) ([]proto.Template, error) {
	var f struct {
		Template []proto.Template `toml:"template"`
	}
	meta, err := toml.Decode(string(file), &f)
	if err != nil {
		return nil, fmt.Errorf("read templates: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("read templates: there is no member %s", unknown[0])
	}
	return f.Template, nil
}
