package ctl

import "tote/server/proto"

type questionList struct {
	Game proto.GameID `arg:"" optional:"" help:"Only of this game; a circle's room is a game too."`
}

// Run lists one game's questions, or those of all games that have any.
func (c *questionList) Run(s *Session) error {
	if c.Game != 0 {
		answer, err := s.Client.Questions(s.Context, c.Game)
		return print(s, answer, err)
	}
	games, err := s.Client.Games(s.Context)
	if err != nil {
		return err
	}
	all := []proto.Questions{}
	for _, g := range games.Games {
		questions, err := s.Client.Questions(s.Context, g.Game)
		if err != nil {
			return err
		}
		if len(questions.Questions) > 0 {
			all = append(all, *questions)
		}
	}
	return print(s, &all, nil)
}

type questionApprove struct {
	Pool proto.PoolID `arg:""`
}

func (c *questionApprove) Run(s *Session) error {
	answer, err := s.Client.Approve(s.Context, c.Pool)
	return print(s, answer, err)
}

type questionReject struct{ poolVoid }

func (c *questionReject) Run(s *Session) error { return c.poolVoid.Run(s) }
