// Package sports is the questions that ship, a file of templates for each sport, and the reader of such files.
//
// Games are opened with its templates, `server ctl templates check` runs its reader on what operators write, and the feed on
// a file that changes while a match is on. It knows no match and no event: a sport is what its file says, and what
// a rule means is package rules'. It opens no file either; callers read the bytes.
package sports

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"tote/server/proto"
)

//go:embed *.toml
var files embed.FS

const suffix = ".toml"

// Names are the sports that ship, by name.
func Names() []string {
	entries, err := fs.ReadDir(files, ".")
	assert(err == nil, "the compiled-in files can be listed")
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), suffix))
	}
	slices.Sort(names)
	return names
}

// Templates returns a sport's questions in the order in which they are asked. The caller may change them.
func Templates(sport string) ([]proto.Template, error) {
	text, err := files.ReadFile(path.Clean(sport) + suffix)
	if err != nil {
		return nil, fmt.Errorf("find the templates of %.40q: they do not ship; there are %s", sport, strings.Join(Names(), ", "))
	}
	return Read(sport+suffix, text)
}

// Football is the templates of the matches that package football plays.
func Football() []proto.Template {
	ts, err := Templates("football")
	assert(err == nil, "the compiled-in templates are sound")
	return ts
}

func assert(ok bool, what string) {
	if !ok {
		panic("sports: " + what)
	}
}
