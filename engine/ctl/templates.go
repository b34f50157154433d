package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"tote/server/engine/feed"
	"tote/server/market/football"
	"tote/server/market/sports"
	"tote/server/proto"
)

// Templates: checked, shown to do what they should, and given to games.

type templatesCheck struct {
	Files []string `arg:"" type:"existingfile" help:"Files of [[template]] tables."`
}

// Run checks every file, so that one run tells all.
func (c *templatesCheck) Run(s *Session) error {
	var wrong []error
	for _, name := range c.Files {
		ts, err := readTemplates(name)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		if _, err := fmt.Fprintf(s.Out, "%s: %d templates are good\n", name, len(ts)); err != nil {
			return err
		}
	}
	return errors.Join(wrong...)
}

type templatesSet struct {
	Game proto.GameID `arg:""`
	File string       `arg:"" help:"File of [[template]] tables, or the name of a sport that ships."`
}

func (c *templatesSet) Run(s *Session) error {
	ts, err := shippedOrRead(c.File)
	if err != nil {
		return err
	}
	answer, err := s.Client.SetTemplates(s.Context, c.Game, proto.TemplateSet{Templates: ts})
	return print(s, answer, err)
}

type templatesShow struct {
	Sport string `arg:"" optional:"" help:"One of the sports that ship; without it, their names."`
}

func (c *templatesShow) Run(s *Session) error {
	if c.Sport == "" {
		_, err := fmt.Fprintln(s.Out, strings.Join(sports.Names(), "\n"))
		return err
	}
	ts, err := sports.Templates(c.Sport)
	return print(s, &proto.TemplateSet{Templates: ts}, err)
}

func readTemplates(name string) ([]proto.Template, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read templates: %w", err)
	}
	return sports.Read(name, text)
}

// shippedOrRead takes a sport that ships, or else a file.
func shippedOrRead(name string) ([]proto.Template, error) {
	if slices.Contains(sports.Names(), name) {
		return sports.Templates(name)
	}
	return readTemplates(name)
}

type dryRun struct {
	File      string `arg:"" optional:"" type:"existingfile" help:"Tournament in openfootball's JSON, or a script; the 2022 World Cup is built in."`
	Find      string `help:"One match of it: a number, Argentina-France, or a round that has one match. All, if not set."`
	Templates string `help:"File of templates, or a sport that ships, instead of the match's own." placeholder:"FILE"`
	JSON      bool   `help:"Print JSON."`
}

// rehearsed is a match and what became of its questions, as --json prints it.
type rehearsed struct {
	Match     string           `json:"match"`
	Questions []*feed.Question `json:"questions"`
}

// Run plays the matches and tells when each question opens, locks and ends. One that never ends is an error.
func (c *dryRun) Run(s *Session) error {
	matches, err := readMatches(c.File, c.Find)
	if err != nil {
		return err
	}
	var templates []proto.Template
	if c.Templates != "" {
		if templates, err = shippedOrRead(c.Templates); err != nil {
			return err
		}
	}
	var all []rehearsed
	left := 0
	for _, m := range matches {
		if c.Templates != "" {
			m.Opening.Templates = templates
		}
		questions, err := feed.DryRun(m)
		if err != nil {
			return err
		}
		all = append(all, rehearsed{m.Name, questions})
		for _, q := range questions {
			if !q.Done() {
				left++
			}
		}
	}
	if err := c.show(s, all); err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%d questions never end: somebody would have to settle them by hand", left)
	}
	return nil
}

func (c *dryRun) show(s *Session, all []rehearsed) error {
	if c.JSON {
		e := json.NewEncoder(s.Out)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	for i, m := range all {
		if i > 0 {
			fmt.Fprintln(s.Out)
		}
		if _, err := fmt.Fprintf(s.Out, "%s\n", m.Match); err != nil {
			return err
		}
		w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "  QUESTION\tOPENS\tLOCKS\tENDS\tWINNER")
		for _, q := range m.Questions {
			winner := strings.Join(q.Winners, ", ")
			switch q.State {
			case proto.PoolVoided.String():
				winner = "void: " + q.Reason
			case proto.PoolSettled.String():
			default:
				winner = "never ends"
			}
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", q.Question, &q.Opened, q.Locked, q.Ended, winner)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// readMatches reads a match file; without one it takes the tournament that is compiled in.
func readMatches(name, find string) ([]feed.Match, error) {
	if name == "" {
		return feed.Of(football.WorldCup2022(), find)
	}
	file, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read a match: %w", err)
	}
	return feed.Read(file, find)
}
