package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"tote/server/bench"
	"tote/server/bench/sheet"
)

// Compare is `server bench compare`.
type Compare struct {
	Against  []string `default:"ours,comparator,baseline" help:"The servers; the others are compared with the first." placeholder:"NAME"`
	Scenario string   `default:"football" help:"Name of a built-in scenario (see bench scenarios), or a file that ends in .toml."`
	Variant  string   `help:"One of the scenario's variants." placeholder:"NAME"`
	Rounds   int      `default:"5" help:"So often each of them plays; with fewer than 5 there are ratios, but no intervals."`

	Users    int           `help:"Users, instead of the scenario's."`
	Rate     bench.Rate    `help:"Arrivals, instead of the scenario's." placeholder:"N/s"`
	Duration time.Duration `help:"How long, instead of the scenario's."`
	Stakes   bench.Rate    `help:"Stakes of all users together, at random times, instead of the scenario's habits." placeholder:"N/s"`
	Seed     uint64        `help:"Of all randomness; each round adds its number."`
	Workers  int           `help:"Event loops of the generator; 0: one for every two CPUs."`
	Dir      string        `type:"existingdir" help:"Where the servers' data are made and removed: on the disk that matters." placeholder:"DIR"`

	JSON  string `help:"Write all runs to this file; -: to the standard output, and nothing else." placeholder:"FILE"`
	HTML  string `help:"Write the comparison as a page to this file." placeholder:"FILE"`
	Quiet bool   `help:"No progress."`
}

func (c *Compare) Run(ctx context.Context, log *slog.Logger) error {
	s, err := bench.ReadScenario(c.Scenario, c.Variant)
	if err != nil {
		return err
	}
	adapt(s, c.Users, c.Rate, c.Duration, c.Stakes, c.Seed)
	contest := bench.Contest{Scenario: s, Rounds: max(1, c.Rounds)}
	groups := map[*bench.Rival]*sheet.Group{}
	page := sheet.Sheet{Title: strings.Join(c.Against, ", ") + ": " + s.Name, Made: time.Now(), Command: bench.Again(os.Args)}
	for _, name := range c.Against {
		rival, err := bench.FindRival(name)
		if err != nil {
			return err
		}
		if groups[rival] != nil {
			return fmt.Errorf("%s is named twice", name)
		}
		groups[rival] = &sheet.Group{Name: name}
		page.Groups = append(page.Groups, groups[rival])
		contest.Rivals = append(contest.Rivals, rival)
	}
	binary, err := self()
	if err != nil {
		return err
	}
	contest.Stage = bench.Stage{Binary: binary, Dir: c.Dir, Workers: c.Workers, Log: log}
	if !c.Quiet && c.JSON != "-" && terminal(os.Stderr) {
		contest.Stage.Progress, contest.Stage.Live = os.Stderr, true
	}
	if c.Quiet || c.JSON == "-" {
		contest.Stage.Log = slog.New(slog.DiscardHandler)
	}
	contest.Told = func(b *bench.Bout) {
		g := groups[b.Rival]
		if b.Wrong == nil {
			g.Runs = append(g.Runs, b.Report)
		} else {
			g.Lost = append(g.Lost, fmt.Sprintf("round %d: %v", b.Round, b.Wrong))
		}
		if !c.Quiet {
			fmt.Fprintf(os.Stderr, "round %d of %d, %s: %s (%s)\n", b.Round, contest.Rounds, b.Rival.Name, outcome(b), b.Took.Round(time.Second))
		}
	}
	_, err = contest.Run(ctx)
	for _, g := range page.Groups {
		if n := len(g.Lost); n > 0 {
			err = errors.Join(err, fmt.Errorf("%s lost %d of %d rounds", g.Name, n, contest.Rounds))
		}
	}
	for _, r := range page.Groups[0].Runs { // what the others break is a finding; what ours breaks is a failure
		err = errors.Join(err, r.Failed())
	}
	if c.HTML != "" {
		err = errors.Join(err, writeTo(c.HTML, page.Write))
	}
	if c.JSON == "-" {
		return errors.Join(err, write(os.Stdout, page.Groups))
	}
	if c.JSON != "" {
		err = errors.Join(err, writeTo(c.JSON, func(w io.Writer) error { return write(w, page.Groups) }))
	}
	fmt.Printf("%s: %s\n%d users, %s, each round with another one first\n\n", s.Name, s.About, s.Users, strings.Join(c.Against, ", "))
	page.WriteText(os.Stdout)
	return err
}

// outcome is a bout in a line.
func outcome(b *bench.Bout) string {
	if b.Wrong != nil {
		first, _, _ := strings.Cut(b.Wrong.Error(), "\n")
		return "lost: " + first
	}
	r := b.Report
	said := fmt.Sprintf("%.1f answers/s, receipts in %.1f ms (99 %%)", r.Stakes.AchievedRate+r.Deeds.AchievedRate, float64(r.Latency.Receipt.P99)/1000)
	if r.Server != nil {
		said += fmt.Sprintf(", %.1f µs of CPU for a message", r.Server.CPUPerFrame)
	}
	if r.Failed() != nil {
		return said + ", not all audits agree"
	}
	return said + ", every audit agrees"
}
