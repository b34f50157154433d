package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"tote/server/market"
	"tote/server/proto"
)

// stakeAll makes stakes for accounts. Those in one pool are made one after another, since their order decides who gets a pool's
// last units, and what a share costs; pools do not wait for each other.
func (d *Desk) stakeAll(w http.ResponseWriter, r *http.Request) {
	var batch proto.StakeBatch
	g, ok := identifier(w, r)
	if !ok || !read(w, r, &batch) {
		return
	}
	if len(batch.Stakes) > proto.StakeBatchMax {
		malformed(w, fmt.Sprintf("there are %d stakes, a batch has at most %d", len(batch.Stakes), proto.StakeBatchMax))
		return
	}
	pools := map[proto.PoolID][]int{} // places in the batch
	for i := range batch.Stakes {
		s := &batch.Stakes[i]
		if s.Pool.Game() != proto.GameID(g) {
			malformed(w, fmt.Sprintf("stake %d is in pool %d, which is not of game %d", i, s.Pool, g))
			return
		}
		pools[s.Pool] = append(pools[s.Pool], i)
	}
	verdicts := proto.StakeVerdicts{Verdicts: make([]proto.StakeVerdict, len(batch.Stakes))}
	failures := make(chan error, len(pools))
	var staking sync.WaitGroup
	for _, places := range pools {
		staking.Go(func() {
			for _, i := range places {
				var err error
				if verdicts.Verdicts[i], err = d.stake(r, &batch.Stakes[i]); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	staking.Wait()
	select {
	case err := <-failures:
		fail(w, http.StatusGatewayTimeout, proto.Problem{Code: "timeout", Reason: "some of the stakes may have been made; look before you send them again", Detail: err.Error()})
	default:
		reply(w, &verdicts)
	}
}

// stake makes one, and waits for a busy market to take it.
func (d *Desk) stake(r *http.Request, s *proto.AccountStake) (proto.StakeVerdict, error) {
	for begun := time.Now(); ; {
		c := &market.Command{Kind: market.Stake, Account: s.Account, ID: s.ID, Pool: s.Pool, Outcome: s.Outcome, Amount: s.Amount,
			Arrived: proto.Time(time.Now().UnixMicro())}
		if s.Shares != 0 {
			c.Kind, c.Amount, c.Shares = market.Sell, 0, s.Shares
		}
		out, err := d.ask(r, c)
		switch {
		case errors.Is(err, errBusy) && time.Since(begun) < d.config.Timeout:
			time.Sleep(time.Millisecond)
			continue
		case err != nil:
			return proto.StakeVerdict{}, err
		case out.Kind == market.OutRefused:
			return proto.StakeVerdict{Code: out.Refused.Reason.Code()}, nil
		case out.Kind == market.OutAnswer && out.Answer.Refusal == proto.Accepted:
			return proto.StakeVerdict{Prediction: out.Answer.Seq}, nil
		}
		return proto.StakeVerdict{}, fmt.Errorf("the market's answer does not fit a stake: %+v", out)
	}
}

// showRecording sends a game's recording.
func (d *Desk) showRecording(w http.ResponseWriter, r *http.Request) {
	g, ok := identifier(w, r)
	if !ok {
		return
	}
	if d.config.Record == nil {
		fail(w, http.StatusNotFound, proto.Problem{Code: "not_recorded", Reason: "this server keeps no recordings; start it with --record"})
		return
	}
	to := &begun{w: w}
	err := d.config.Record(r.Context(), proto.GameID(g), to)
	switch {
	case err == nil:
	case to.yes: // too late for an answer: the client shall see that the file is not whole
		d.config.Log.Error("a recording could not be sent", "game", g, "error", err)
		panic(http.ErrAbortHandler)
	case errors.Is(err, market.ErrNotRecorded):
		fail(w, http.StatusNotFound, proto.Problem{Code: "not_recorded", Reason: "nothing is recorded of this game"})
	default:
		fail(w, http.StatusInternalServerError, proto.Problem{Code: "internal", Reason: "the recording cannot be read", Detail: err.Error()})
	}
}

// begun notes whether anything was written.
type begun struct {
	w   http.ResponseWriter
	yes bool
}

var _ io.Writer = (*begun)(nil)

func (b *begun) Write(p []byte) (int, error) {
	if !b.yes {
		b.w.Header().Set("Content-Type", "application/octet-stream")
	}
	b.yes = true
	return b.w.Write(p)
}
