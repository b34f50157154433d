package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"tote/server/market"
	"tote/server/proto"
	"tote/server/proto/control"
)

// Replay plays a recorded game again, in another game of a running server: as a demonstration, as a load, or to check that
// the same deeds come to the same.
//
// New accounts stand for the recorded ones. What the market itself did, because of an event say, the other market does by itself;
// what somebody did by hand is done by hand.
type Replay struct {
	Client *control.Client
	Speed  float64      // recorded seconds in a second; 0: as fast as the server takes it
	Log    *slog.Logger // nil: slog.Default
}

// Replayed is what a replay did.
type Replayed struct {
	Game     proto.GameID `json:"game"`
	Accounts int          `json:"accounts"`
	Stakes   int          `json:"stakes"`
	Refused  int          `json:"refused"` // of them
	Took     float64      `json:"seconds"`
}

// Play plays the recording into a game that has no pools yet, or into a new one where into is 0. It returns with the first deed that the
// server refuses, stakes apart: those are counted.
func (r *Replay) Play(ctx context.Context, rec *market.Recording, into proto.GameID) (*Replayed, error) {
	if len(rec.Deeds) == 0 {
		return nil, errors.New("replay: the recording is empty")
	}
	opening, ok := rec.Deeds[0].What.(*proto.GameOpening)
	if !ok {
		return nil, errors.New("replay: the recording begins in the middle of the game; was it opened before the server recorded?")
	}
	late, err := rec.Late()
	if err != nil {
		return nil, err
	}
	p := &replaying{Replay: r, late: late, did: &Replayed{Game: into}, pools: map[proto.PoolID]proto.PoolState{}}
	if err := p.openGame(ctx, opening); err != nil {
		return nil, fmt.Errorf("replay: %w", err)
	}
	if err := p.openAccounts(ctx, rec); err != nil {
		return nil, fmt.Errorf("replay into game %d: %w", p.did.Game, err)
	}
	p.began, p.first = time.Now(), rec.Deeds[0].Time
	for i := range rec.Deeds[1:] {
		d := &rec.Deeds[1+i]
		if err := p.do(ctx, d); err != nil {
			return nil, fmt.Errorf("replay into game %d: record %d: %w", p.did.Game, d.Seq, err)
		}
	}
	if err := p.flush(ctx); err != nil {
		return nil, fmt.Errorf("replay into game %d: %w", p.did.Game, err)
	}
	p.did.Took = time.Since(p.began).Seconds()
	return p.did, nil
}

// replaying is a replay under way.
type replaying struct {
	*Replay
	did      *Replayed
	late     map[proto.Seq]bool
	accounts map[proto.AccountID]proto.AccountID // recorded -> new
	pools    map[proto.PoolID]proto.PoolState    // of the new game, that are there
	batch    proto.StakeBatch                    // stakes whose time has come
	requests proto.RequestID
	began    time.Time
	first    proto.Time
}

func (p *replaying) openGame(ctx context.Context, o *proto.GameOpening) error {
	if p.did.Game == 0 {
		answer, err := p.Client.OpenGame(ctx, *o)
		if err != nil {
			return err
		}
		p.did.Game = answer.Game
		return nil
	}
	pools, err := p.Client.Pools(ctx, p.did.Game)
	if err != nil {
		return err
	}
	if len(pools.Pools) > 0 {
		return fmt.Errorf("game %d has %d pools already; a recording is played from its beginning", p.did.Game, len(pools.Pools))
	}
	_, err = p.Client.SetTemplates(ctx, p.did.Game, proto.TemplateSet{Templates: o.Templates})
	return err
}

// openers is how many accounts are opened at once.
const openers = 16

// openAccounts opens an account for each that has staked, with what it staked in all.
func (p *replaying) openAccounts(ctx context.Context, rec *market.Recording) error {
	credits := map[proto.AccountID]proto.Amount{}
	var order []proto.AccountID
	for i := range rec.Deeds {
		if s, ok := rec.Deeds[i].What.(*market.RecordedStake); ok && !p.late[rec.Deeds[i].Seq] {
			if _, known := credits[s.Account]; !known {
				order = append(order, s.Account)
			}
			if s.Shares == 0 {
				credits[s.Account] = min(credits[s.Account]+s.Amount, proto.AmountMax)
			}
		}
	}
	opened := make([]proto.AccountID, len(order))
	failures := make([]error, openers)
	var opening sync.WaitGroup
	for n := range openers {
		opening.Go(func() {
			for i := n; i < len(order) && failures[n] == nil; i += openers {
				account, err := p.Client.OpenAccount(ctx, proto.AccountOpening{Name: fmt.Sprintf("Recorded %d", order[i]), Deposit: credits[order[i]]})
				if failures[n] = err; err == nil {
					opened[i] = account.Account
				}
			}
		})
	}
	opening.Wait()
	p.accounts = make(map[proto.AccountID]proto.AccountID, len(order))
	for i, a := range order {
		p.accounts[a] = opened[i]
	}
	p.did.Accounts = len(order)
	return errors.Join(failures...)
}

// do does a deed when its time has come. Stakes are collected, and made before the next deed of another kind.
func (p *replaying) do(ctx context.Context, d *market.Deed) error {
	if p.Speed > 0 {
		at := p.began.Add(time.Duration(float64(d.Time-p.first) * 1000 / p.Speed))
		if time.Until(at) > 0 {
			if err := p.flush(ctx); err != nil {
				return err
			}
			if err := sleepUntil(ctx, at); err != nil {
				return err
			}
		}
	}
	if s, ok := d.What.(*market.RecordedStake); ok {
		return p.stake(ctx, d, s)
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	pool := proto.NewPoolID(p.did.Game, uint32(d.Pool.Number()))
	state, there := p.pools[pool]
	var answer *proto.Answer
	var err error
	switch what := d.What.(type) {
	case *proto.Event:
		e := *what
		e.At = 0 // now
		answer, err = p.Client.PostEvent(ctx, p.did.Game, e)
	case *proto.TemplateSet:
		answer, err = p.Client.SetTemplates(ctx, p.did.Game, *what)
	case *proto.PoolOpening:
		if there {
			return nil // by an event
		}
		o := *what
		o.LocksAt, o.LateSpan, o.LateMax = 0, 0, 0 // it is locked when the recorded one was
		if o.CarryTo != 0 {
			o.CarryTo = proto.NewPoolID(p.did.Game, uint32(o.CarryTo.Number()))
		}
		answer, err = p.Client.OpenPool(ctx, p.did.Game, o)
		if err == nil && answer.Pool != pool {
			err = fmt.Errorf("pool %d was opened, expected %d; does somebody else open pools in the game?", answer.Pool, pool)
		}
	case *proto.Locking:
		if state != proto.PoolOpen {
			return nil
		}
		answer, err = p.Client.Lock(ctx, pool, 0)
	case *proto.Settlement:
		if state == proto.PoolSettled {
			return nil
		}
		answer, err = p.Client.Settle(ctx, pool, what.Winners...)
	case *proto.OutcomeWithdrawal:
		if state == proto.PoolVoided {
			return nil
		}
		answer, err = p.Client.WithdrawOutcome(ctx, pool, what.Outcome)
	case *proto.Voiding:
		if state == proto.PoolVoided {
			return nil
		}
		answer, err = p.Client.Void(ctx, pool, what.Reason)
	default:
		return nil // the market's own
	}
	if err != nil {
		return err
	}
	p.note(answer)
	return nil
}

// note keeps what a deed did to the pools.
func (p *replaying) note(a *proto.Answer) {
	for _, change := range []struct {
		pools []proto.PoolID
		state proto.PoolState
	}{{a.Opened, proto.PoolOpen}, {a.Locked, proto.PoolLocked}, {a.Settled, proto.PoolSettled}, {a.Voided, proto.PoolVoided}} {
		for _, pool := range change.pools {
			p.pools[pool] = change.state
		}
	}
}

func (p *replaying) stake(ctx context.Context, d *market.Deed, s *market.RecordedStake) error {
	if p.late[d.Seq] {
		return nil // it counted for nothing
	}
	p.requests++
	stake := proto.AccountStake{Account: p.accounts[s.Account], ID: p.requests,
		Pool: proto.NewPoolID(p.did.Game, uint32(d.Pool.Number())), Outcome: s.Outcome, Amount: s.Amount, Shares: s.Shares}
	if s.Shares > 0 {
		stake.Amount = 0
	}
	p.batch.Stakes = append(p.batch.Stakes, stake)
	if len(p.batch.Stakes) < proto.StakeBatchMax {
		return nil
	}
	return p.flush(ctx)
}

// flush makes the stakes whose time has come.
func (p *replaying) flush(ctx context.Context) error {
	if len(p.batch.Stakes) == 0 {
		return nil
	}
	answer, err := p.Client.Stake(ctx, p.did.Game, p.batch)
	if err != nil {
		return err
	}
	p.did.Stakes += len(answer.Verdicts)
	for i, v := range answer.Verdicts {
		if v.Code == "" {
			continue
		}
		p.did.Refused++
		p.log().Warn("a recorded stake was refused", "stake", p.batch.Stakes[i], "code", v.Code)
	}
	p.batch.Stakes = slices.Delete(p.batch.Stakes, 0, len(p.batch.Stakes))
	return nil
}

func (r *Replay) log() *slog.Logger {
	if r.Log == nil {
		return slog.Default()
	}
	return r.Log
}
