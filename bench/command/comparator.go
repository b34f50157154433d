package command

import (
	"context"
	"log/slog"
	"os"
	"time"

	"tote/server/bench/comparator"
	"tote/server/proto"
)

// Comparator is `server bench comparator`.
type Comparator struct {
	Serve ComparatorServe `cmd:"" help:"Serve, until it is interrupted."`
	Audit ComparatorAudit `cmd:"" help:"Look at what a server that has stopped left in its directory."`
}

// ComparatorServe is `server bench comparator serve`.
type ComparatorServe struct {
	Listen       string        `default:"127.0.0.1:8080" help:"Address for players, at /ws." placeholder:"HOST:PORT"`
	Admin        string        `default:"127.0.0.1:8081" help:"Address for operators." placeholder:"HOST:PORT"`
	Data         string        `default:"comparator" help:"Directory of the file." placeholder:"DIR"`
	GuestCredits proto.Amount  `default:"1000000" help:"What each guest gets."`
	Interval     time.Duration `default:"3s" help:"Of the distributions, where a game says nothing."`
	BatchDelay   time.Duration `default:"1ms" help:"What a stake waits for others to share a transaction with it."`
}

func (c *ComparatorServe) Run(ctx context.Context, log *slog.Logger) error {
	return comparator.Serve(ctx, comparator.Config{Listen: c.Listen, Admin: c.Admin, Data: c.Data, Credits: c.GuestCredits, Interval: c.Interval, Delay: c.BatchDelay}, log)
}

// ComparatorAudit is `server bench comparator audit`.
type ComparatorAudit struct {
	Data string `default:"comparator" type:"existingdir" help:"The directory." placeholder:"DIR"`
}

func (c *ComparatorAudit) Run() error { return comparator.Audit(c.Data, os.Stdout) }
