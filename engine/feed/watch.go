package feed

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"tote/server/market/sports"
	"tote/server/proto"
)

// watched is a file of templates that somebody may be writing while a match is on.
type watched struct {
	file string // empty: none
	seen time.Time
	size int64
}

// watchEvery is how often the file is looked at between two events.
const watchEvery = time.Second

// read reads the file as it is now.
func (w *watched) read() ([]proto.Template, error) {
	if stat, err := os.Stat(w.file); err == nil {
		w.seen, w.size = stat.ModTime(), stat.Size()
	}
	text, err := os.ReadFile(w.file)
	if err != nil {
		return nil, fmt.Errorf("read templates: %w", err)
	}
	return sports.Read(w.file, text)
}

// changed reports whether the file is another one than was read last. One that is gone for a moment, as while an editor
// replaces it, has not changed.
func (w *watched) changed() bool {
	stat, err := os.Stat(w.file)
	return err == nil && (!stat.ModTime().Equal(w.seen) || stat.Size() != w.size)
}

// wait waits for a moment of the match, and meanwhile looks after its templates.
func (f *Feed) wait(ctx context.Context, log *slog.Logger, game proto.GameID, questions *watched, until time.Time) error {
	if questions.file == "" {
		return sleepUntil(ctx, until)
	}
	for {
		if questions.changed() {
			if err := f.reload(ctx, log, game, questions); err != nil {
				log.Error("the game keeps its templates", "error", err)
			}
		}
		next := time.Now().Add(watchEvery)
		if !next.Before(until) {
			return sleepUntil(ctx, until)
		}
		if err := sleepUntil(ctx, next); err != nil {
			return err
		}
	}
}

// reload gives the game what the file says now.
func (f *Feed) reload(ctx context.Context, log *slog.Logger, game proto.GameID, questions *watched) error {
	ts, err := questions.read()
	if err != nil {
		return err
	}
	err = f.insist(ctx, log, fateUnclear, func() error {
		_, err := f.Client.SetTemplates(ctx, game, proto.TemplateSet{Templates: ts})
		return err
	})
	if err != nil {
		return err
	}
	log.Info("templates set", "file", questions.file, "templates", len(ts))
	return nil
}
