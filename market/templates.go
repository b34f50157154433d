package market

import (
	"fmt"

	"tote/server/proto"
)

// setTemplates gives a running game new questions. All compile, or nothing changes.
func (s *Shard) setTemplates(c *Command, g *game) {
	set := c.Args.(*proto.TemplateSet)
	changed := g.opening
	changed.Templates = set.Templates
	_, err := compile(&changed)
	switch {
	case g.state == proto.GameEnded:
		s.refuse(c, proto.RefusedGameEnded)
		return
	case len(set.Templates) > templatesMax:
		s.answerDesk(c, &proto.Answer{Refusal: proto.RefusedTemplate, Detail: fmt.Sprintf("there are %d, a game has at most %d", len(set.Templates), templatesMax)})
		return
	case err != nil:
		s.answerDesk(c, &proto.Answer{Refusal: proto.RefusedTemplate, Detail: err.Error()})
		return
	}
	r := rare(recordTemplatesSet, s.now, uint64(g.id), set)
	s.record(r)
	seq := s.commit()
	s.applied(s.applyGame(seq, &r, nil))
	s.answerDesk(c, &proto.Answer{Game: g.id, Seq: seq})
}

// applyTemplates puts new templates in the place of those that open pools. Old ones stay in front while a pool that they opened
// is not over, for it keeps the rules that people have staked under:
//
//	┌─ kept for open pools ─┬─ set: these open pools ─┐
//	0                     asks                        len
//
// So what a game carries is bounded by its open pools, however often it is changed.
func (b *book) applyTemplates(seq proto.Seq, r *record) error {
	var set proto.TemplateSet
	if err := r.read(&set); err != nil {
		return err
	}
	g := b.games[proto.GameID(r.id)]
	if g == nil {
		return fmt.Errorf("apply record %d: there is no game %d", seq, r.id)
	}
	var kept []proto.Template
	moved := map[int]int{}
	for _, p := range g.pools {
		before := p.opening.Template
		if before < 0 {
			continue
		}
		if p.done() {
			p.opening.Template = -1
			continue
		}
		if _, known := moved[before]; !known {
			moved[before] = len(kept)
			kept = append(kept, g.opening.Templates[before])
		}
		p.opening.Template = moved[before]
	}
	g.asks = len(kept)
	g.opening.Templates = append(kept, set.Templates...)
	programs, err := compile(&g.opening)
	if err != nil {
		return fmt.Errorf("apply record %d: %w", seq, err)
	}
	g.programs = programs
	return nil
}
