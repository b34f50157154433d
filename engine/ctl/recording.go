package ctl

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"tote/server/engine/feed"
	"tote/server/market"
	"tote/server/proto"
)

// Recordings: kept by a server with --record, exported, looked at, and played again.

type recordExport struct {
	Game proto.GameID `arg:""`
	File string       `arg:"" type:"path" help:"Where to; it must not exist."`
}

func (c *recordExport) Run(s *Session) error {
	file, err := os.OpenFile(c.File, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("export a recording: %w", err)
	}
	err = s.Client.Recording(s.Context, c.Game, file)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = (&recordShow{File: c.File, Brief: true}).Run(s)
	}
	if err != nil {
		os.Remove(c.File) // what cannot be played is no recording
	}
	return err
}

type recordShow struct {
	File  string `arg:"" type:"existingfile"`
	Brief bool   `help:"Only how much there is, and the digest."`
}

// recorded is what a recording has, as it is printed.
type recorded struct {
	Game      proto.GameID    `json:"game"`
	Records   int             `json:"records"`
	Questions int             `json:"questions"`
	Players   int             `json:"players"`
	Digest    string          `json:"digest"`
	Outcome   *market.Outcome `json:"outcome,omitempty"`
}

func (c *recordShow) Run(s *Session) error {
	r, err := readRecording(c.File)
	if err != nil {
		return err
	}
	o, err := r.Outcome()
	if err != nil {
		return err
	}
	m := &recorded{Game: r.Game, Records: len(r.Deeds), Questions: len(o.Questions), Players: len(o.Players), Digest: o.Digest}
	if !c.Brief {
		m.Outcome = o
	}
	return print(s, m, nil)
}

func readRecording(name string) (*market.Recording, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read a recording: %w", err)
	}
	defer file.Close()
	return market.ReadRecording(file)
}

// fetch gets the recording of a game of the server.
func (s *Session) fetch(g proto.GameID) (*market.Recording, error) {
	var b bytes.Buffer
	if err := s.Client.Recording(s.Context, g, &b); err != nil {
		return nil, err
	}
	return market.ReadRecording(&b)
}

type replay struct {
	Recording string `arg:"" help:"A file, or the id of a game that the server has recorded."`
	Into      string `default:"new" help:"A game without pools, or new." placeholder:"GAME"`
	Speed     string `default:"max" help:"Recorded seconds in a second, 1 to 1000, or max." placeholder:"N"`
	Loop      int    `default:"1" help:"How often, each time into a new game."`
	Check     bool   `help:"Fail unless the replayed game comes to the same; the server must record."`
}

// replayed is what a replay came to, as it is printed.
type replayed struct {
	*feed.Replayed
	Recorded string `json:"recorded"`           // digest of the recording
	Digest   string `json:"replayed,omitempty"` // of the new game, with --check
}

func (c *replay) Run(s *Session) error {
	speed, into, err := c.numbers()
	if err != nil {
		return err
	}
	recording, err := c.read(s)
	if err != nil {
		return err
	}
	want, err := recording.Outcome()
	if err != nil {
		return err
	}
	r := &feed.Replay{Client: s.Client, Speed: speed, Log: s.Log}
	for range c.Loop {
		did, err := r.Play(s.Context, recording, into)
		if err != nil {
			return err
		}
		told := &replayed{Replayed: did, Recorded: want.Digest}
		if !c.Check {
			if err := print(s, told, nil); err != nil {
				return err
			}
			continue
		}
		if err := c.check(s, told, want); err != nil {
			return err
		}
	}
	return nil
}

// numbers reads the speed, of which 0 is as fast as possible, and the game, of which 0 is a new one.
func (c *replay) numbers() (speed float64, into proto.GameID, err error) {
	if c.Speed != "max" {
		if speed, err = strconv.ParseFloat(c.Speed, 64); err != nil || !(speed >= 1 && speed <= 1000) {
			return 0, 0, fmt.Errorf("replay at speed %q: say 1 to 1000, or max", c.Speed)
		}
	}
	if c.Into != "new" {
		id, err := strconv.ParseUint(c.Into, 10, 53)
		if err != nil || id == 0 || c.Loop > 1 {
			return 0, 0, fmt.Errorf("replay into %q: say new, or a game's id, once", c.Into)
		}
		into = proto.GameID(id)
	}
	return speed, into, nil
}

func (c *replay) read(s *Session) (*market.Recording, error) {
	if id, err := strconv.ParseUint(c.Recording, 10, 53); err == nil && id > 0 {
		return s.fetch(proto.GameID(id))
	}
	return readRecording(c.Recording)
}

// check holds what the new game came to against what the recorded one did.
func (c *replay) check(s *Session, told *replayed, want *market.Outcome) error {
	again, err := s.fetch(told.Game)
	if err != nil {
		return fmt.Errorf("check the replay: %w", err)
	}
	got, err := again.Outcome()
	if err != nil {
		return fmt.Errorf("check the replay: %w", err)
	}
	told.Digest = got.Digest
	if err := print(s, told, nil); err != nil {
		return err
	}
	if got.Digest != want.Digest {
		return fmt.Errorf("the replayed game came to something else: %s", difference(want, got))
	}
	return nil
}

// difference is the first thing in which two outcomes differ.
func difference(want, got *market.Outcome) string {
	for i := range want.Questions {
		if i >= len(got.Questions) {
			break
		}
		if a, b := fmt.Sprintf("%+v", want.Questions[i]), fmt.Sprintf("%+v", got.Questions[i]); a != b {
			return fmt.Sprintf("question %d is %s, recorded %s", i+1, b, a)
		}
	}
	if len(want.Questions) != len(got.Questions) {
		return fmt.Sprintf("%d questions, recorded %d", len(got.Questions), len(want.Questions))
	}
	for i := range want.Players {
		if i >= len(got.Players) {
			break
		}
		if a, b := fmt.Sprintf("%+v", want.Players[i]), fmt.Sprintf("%+v", got.Players[i]); a != b {
			return fmt.Sprintf("a player has %s, recorded %s", b, a)
		}
	}
	return fmt.Sprintf("%d players, recorded %d", len(got.Players), len(want.Players))
}
