package baseline

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// takeout is what the house keeps of a gross pool.
func takeout(gross proto.Amount, basisPoints uint16) proto.Amount {
	const whole = 10_000
	// In two parts, so that nothing overflows.
	return gross/whole*proto.Amount(basisPoints) + gross%whole*proto.Amount(basisPoints)/whole
}

// openGame opens a game.
func (b *books) openGame(ctx context.Context, g *proto.Game) error {
	return b.transact(ctx, "open a game", func(tx *sql.Tx) error {
		made, err := tx.ExecContext(ctx, "INSERT INTO games (state, image) VALUES (?, '')", g.State)
		if err != nil {
			return err
		}
		id, err := made.LastInsertId()
		if err != nil {
			return err
		}
		g.Game = proto.GameID(id)
		return setImage(ctx, tx, "games", id, uint8(g.State), g)
	})
}

// setImage writes what stands in a row as JSON, with the state that is asked for by itself.
func setImage(ctx context.Context, tx *sql.Tx, table string, id any, state uint8, image any) error {
	text, err := json.Marshal(image)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE "+table+" SET state = ?, image = ? WHERE id = ?", state, text, id)
	return err
}

// image locks a row until the transaction ends, and reads it.
func rowImage[T any](ctx context.Context, tx *sql.Tx, table string, id any, unknown proto.Refusal) (*T, error) {
	var text []byte
	image := new(T)
	err := tx.QueryRowContext(ctx, "SELECT image FROM "+table+" WHERE id = ? FOR UPDATE", id).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, peer.Refused(unknown)
	} else if err != nil {
		return nil, err
	}
	return image, json.Unmarshal(text, image)
}

// happen applies an event to its game.
func (b *books) happen(ctx context.Context, id proto.GameID, e *proto.Event) (g *proto.Game, err error) {
	err = b.transact(ctx, "post an event", func(tx *sql.Tx) error {
		if g, err = rowImage[proto.Game](ctx, tx, "games", id, proto.RefusedGameUnknown); err != nil {
			return err
		}
		switch {
		case e.Kind == "":
			return peer.Refused(proto.RefusedEventInvalid)
		case g.State == proto.GameEnded:
			return peer.Refused(proto.RefusedGameEnded)
		case e.Kind == "kickoff":
			g.State = proto.GameLive
		case e.Kind == "end":
			g.State = proto.GameEnded
		}
		g.Score, g.Minute = e.Score, e.Minute
		return setImage(ctx, tx, "games", id, uint8(g.State), g)
	})
	return g, err
}

// openPool opens a pool.
func (b *books) openPool(ctx context.Context, game proto.GameID, o *proto.PoolOpening) (p *proto.Pool, err error) {
	err = b.transact(ctx, "open a pool", func(tx *sql.Tx) error {
		g, err := rowImage[proto.Game](ctx, tx, "games", game, proto.RefusedGameUnknown)
		if err != nil {
			return err
		}
		var pools uint32
		if err := tx.QueryRowContext(ctx, "SELECT pools FROM games WHERE id = ?", game).Scan(&pools); err != nil {
			return err
		}
		switch n := len(o.Labels); {
		case g.State == proto.GameEnded:
			return peer.Refused(proto.RefusedGameEnded)
		case pools == proto.PoolsMax:
			return peer.Refused(proto.RefusedPoolsMany)
		case n < proto.OutcomesMin || n > proto.OutcomesMax:
			return peer.Refused(proto.RefusedOutcomesCount)
		case o.Rules != proto.Rules{} || o.Kind != "" || o.LocksAt != 0 || o.StakeMin != 0 || o.StakeMax != 0 || o.Takeout > 10_000:
			return peer.Refused(proto.RefusedRules)
		}
		p = &proto.Pool{Pool: proto.NewPoolID(game, pools+1), Question: o.Question, Labels: o.Labels, State: proto.PoolOpen, Takeout: o.Takeout}
		if _, err := tx.ExecContext(ctx, "UPDATE games SET pools = ? WHERE id = ?", pools+1, game); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "INSERT INTO pools (id, game, state, outcomes, takeout, image) VALUES (?, ?, ?, ?, ?, '')",
			p.Pool, game, p.State, len(p.Labels), p.Takeout)
		if err != nil {
			return err
		}
		return setImage(ctx, tx, "pools", p.Pool, uint8(p.State), p)
	})
	return p, err
}

// lock closes a pool to stakes and reads what stands on it for good, and up to which prediction.
func (b *books) lock(ctx context.Context, id proto.PoolID) (p *proto.Pool, counts proto.Seq, err error) {
	err = b.transact(ctx, "lock a pool", func(tx *sql.Tx) error {
		if p, err = rowImage[proto.Pool](ctx, tx, "pools", id, proto.RefusedPoolUnknown); err != nil {
			return err
		}
		if p.State != proto.PoolOpen {
			return peer.Refused(closed[p.State])
		}
		p.State = proto.PoolLocked
		if err := setImage(ctx, tx, "pools", id, uint8(p.State), p); err != nil {
			return err
		}
		counts, err = standing(ctx, tx, p)
		return err
	})
	return p, counts, err
}

// standing fills in a pool's odds from its predictions.
func standing(ctx context.Context, tx *sql.Tx, p *proto.Pool) (counts proto.Seq, err error) {
	p.Odds = make([]proto.Odd, len(p.Labels))
	rows, err := tx.QueryContext(ctx, "SELECT outcome, SUM(amount), COUNT(DISTINCT account), MAX(id) FROM predictions WHERE pool = ? GROUP BY outcome", p.Pool)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var i int
		var last proto.Seq
		var o proto.Odd
		if err := rows.Scan(&i, &o.Staked, &o.Backers, &last); err != nil {
			return 0, err
		}
		p.Odds[i], counts = o, max(counts, last)
	}
	multiply(p)
	return counts, rows.Err()
}

// paid is a prediction whose end its owner is to be told.
type paid struct {
	proto.Prediction
	account proto.AccountID
	balance proto.Amount // after it
	n       uint64       // of the message
}

// settle pays the winners of a locked pool, or returns all stakes where nobody backed the winner.
func (b *books) settle(ctx context.Context, id proto.PoolID, winner proto.Outcome) (p *proto.Pool, m *proto.Settled, told []paid, err error) {
	err = b.transact(ctx, "settle a pool", func(tx *sql.Tx) error {
		if p, err = rowImage[proto.Pool](ctx, tx, "pools", id, proto.RefusedPoolUnknown); err != nil {
			return err
		}
		switch {
		case p.State == proto.PoolOpen:
			return peer.Refused(proto.RefusedPoolOpen)
		case p.State != proto.PoolLocked:
			return peer.Refused(closed[p.State])
		case int(winner) >= len(p.Labels):
			return peer.Refused(proto.RefusedWinners)
		}
		if _, err := standing(ctx, tx, p); err != nil {
			return err
		}
		gross := proto.Amount(0)
		for _, o := range p.Odds {
			gross += o.Staked
		}
		won := p.Odds[winner].Staked
		p.State, p.Winners = proto.PoolSettled, []proto.Outcome{winner}
		m = &proto.Settled{Game: id.Game(), Pool: id, Winners: p.Winners, Gross: gross}
		if won == 0 {
			p.Refunded, m.Refunded, m.Reason = true, true, proto.RefundNoWinner
			told, err = giveBack(ctx, tx, id, proto.PredictionRefunded)
		} else {
			m.Takeout = takeout(gross, p.Takeout)
			m.Multiplier = p.Odds[winner].Multiplier
			// DIV rounds down, exactly. 38 digits hold the product of any two amounts.
			_, err = tx.ExecContext(ctx, "UPDATE predictions SET state = IF(outcome = ?, ?, ?), payout = IF(outcome = ?, CAST(amount AS DECIMAL(38)) * ? DIV ?, 0) WHERE pool = ?",
				winner, proto.PredictionWon, proto.PredictionLost, winner, gross-m.Takeout, won, id)
			if err != nil {
				return err
			}
			told, err = giveBack(ctx, tx, id, proto.PredictionWon)
			for i := range told {
				m.Paid += told[i].Payout
			}
			m.Breakage = gross - m.Takeout - m.Paid
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE pools SET house = ? WHERE id = ?", m.Takeout+m.Breakage, id); err != nil {
			return err
		}
		p.Odds = nil // the cache has them
		return setImage(ctx, tx, "pools", id, uint8(p.State), p)
	})
	return p, m, told, err
}

// void returns all stakes of a pool.
func (b *books) void(ctx context.Context, id proto.PoolID) (p *proto.Pool, told []paid, err error) {
	err = b.transact(ctx, "void a pool", func(tx *sql.Tx) error {
		if p, err = rowImage[proto.Pool](ctx, tx, "pools", id, proto.RefusedPoolUnknown); err != nil {
			return err
		}
		if p.State != proto.PoolOpen && p.State != proto.PoolLocked {
			return peer.Refused(closed[p.State])
		}
		if told, err = giveBack(ctx, tx, id, proto.PredictionRefunded); err != nil {
			return err
		}
		p.State = proto.PoolVoided
		return setImage(ctx, tx, "pools", id, uint8(p.State), p)
	})
	return p, told, err
}

// giveBack adds the payouts of a pool's winning predictions to their accounts; or, of refunded ones, all stakes.
func giveBack(ctx context.Context, tx *sql.Tx, id proto.PoolID, state proto.PredictionState) (told []paid, err error) {
	if state == proto.PredictionRefunded {
		if _, err := tx.ExecContext(ctx, "UPDATE predictions SET state = ?, payout = amount WHERE pool = ?", state, id); err != nil {
			return nil, err
		}
	}
	rows, err := tx.QueryContext(ctx, `SELECT p.id, p.request, p.outcome, p.amount, p.payout, a.id, a.balance, a.n FROM predictions p JOIN accounts a ON a.id = p.account
		WHERE p.pool = ? AND p.state = ? ORDER BY a.id, p.id FOR UPDATE`, id, state)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		t := paid{Prediction: proto.Prediction{Pool: id, State: state}}
		if err := rows.Scan(&t.Prediction.Prediction, &t.ID, &t.Outcome, &t.Amount, &t.Payout, &t.account, &t.balance, &t.n); err != nil {
			return nil, err
		}
		if i := len(told) - 1; i >= 0 && told[i].account == t.account { // it was read as it was before all of them
			t.balance, t.n = told[i].balance, told[i].n
		}
		t.balance += t.Payout
		t.n++
		told = append(told, t)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE accounts JOIN (SELECT account, SUM(payout) AS sum, COUNT(*) AS messages FROM predictions WHERE pool = ? AND state = ? GROUP BY account) AS won
		ON won.account = accounts.id SET balance = balance + won.sum, n = n + won.messages`, id, state)
	return told, err
}

// message is what the owner is told.
func (t *paid) message(reason proto.RefundReason) proto.Message {
	if t.State == proto.PredictionRefunded {
		return &proto.Refund{T: peer.Now(), N: t.n, Prediction: t.Prediction.Prediction, Pool: t.Pool, Outcome: t.Outcome, Amount: t.Amount, Balance: t.balance, Reason: reason}
	}
	return &proto.Payout{T: peer.Now(), N: t.n, Prediction: t.Prediction.Prediction, Pool: t.Pool, Outcome: t.Outcome, Amount: t.Amount, Payout: t.Payout, Balance: t.balance}
}

// money is where it all is, in one snapshot.
func (b *books) money(ctx context.Context) (m peer.Money, err error) {
	err = b.db.QueryRowContext(ctx, `SELECT (SELECT COALESCE(SUM(balance), 0) FROM accounts), (SELECT COALESCE(SUM(amount), 0) FROM predictions WHERE state = ?),
		(SELECT COALESCE(SUM(house), 0) FROM pools), (SELECT COALESCE(SUM(deposited), 0) FROM accounts)`, proto.PredictionOpen).
		Scan(&m.Accounts, &m.Pools, &m.House, &m.Deposits)
	if err != nil {
		return m, fmt.Errorf("sum up the money: %w", err)
	}
	return m, nil
}
