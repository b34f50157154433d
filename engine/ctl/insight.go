package ctl

import (
	"io"
	"log/slog"

	"tote/server/engine/admin/insight"
	"tote/server/proto/control"
)

type dashboard struct{}

func (*dashboard) Run(s *Session) error {
	_, err := io.WriteString(s.Out, insight.Dashboard)
	return err
}

type alerts struct{}

func (*alerts) Run(s *Session) error {
	_, err := io.WriteString(s.Out, insight.Alerts)
	return err
}

type logging struct {
	Level *slog.Level `arg:"" optional:"" help:"debug, info, warn or error; if it is left out, the level is shown."`
}

func (c *logging) Run(s *Session) error {
	var answer *control.Logging
	var err error
	if c.Level == nil {
		answer, err = s.Client.Logging(s.Context)
	} else {
		answer, err = s.Client.SetLogging(s.Context, control.Logging{Level: *c.Level})
	}
	return print(s, answer, err)
}
