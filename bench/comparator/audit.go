package comparator

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"go.etcd.io/bbolt"

	"tote/server/proto"
)

// Audit looks at what a server that has stopped left in its directory: the file's pages, each account's balance against its predictions, and the sum of
// all money. It says what there is.
func Audit(data string, to io.Writer) (err error) {
	k, err := openBooks(data, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.db.Close()) }()
	var wrong []error
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if err := k.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			wrong = append(wrong, err)
		}
		return nil
	}); err != nil {
		return err
	}
	accounts, due, open := map[proto.AccountID]*account{}, map[proto.AccountID]proto.Amount{}, proto.Amount(0)
	pools, predictions := map[proto.PoolID]*pool{}, 0
	err = k.each(
		func(a *account) { accounts[a.id] = a },
		func(*proto.Game) {},
		func(p *pool) { pools[p.Image.Pool] = p },
		func(t ticket, r proto.Prediction) {
			predictions++
			due[t.holder] += r.Payout - r.Amount
			p := pools[r.Pool]
			switch {
			case accounts[t.holder] == nil || p == nil:
				add("prediction %d is of account %d in pool %d: there is no such", r.Prediction, t.holder, r.Pool)
				return
			case r.State == proto.PredictionOpen:
				open += r.Amount
			}
			if p.over() == (r.State == proto.PredictionOpen) {
				add("prediction %d is %s, its pool %s", r.Prediction, r.State, p.Image.State)
			}
			if won := p.Image.State == proto.PoolSettled && !p.Image.Refunded && slices.Contains(p.Image.Winners, r.Outcome); won != (r.State == proto.PredictionWon) {
				add("prediction %d on outcome %d is %s, the winner of its pool %v", r.Prediction, r.Outcome, r.State, p.Image.Winners)
			}
		})
	if err != nil {
		return err
	}
	for id, a := range accounts {
		if a.balance != a.deposit+due[id] {
			add("account %d has %d, its deposit and predictions come to %d", id, a.balance, a.deposit+due[id])
		}
	}
	m, err := k.sum()
	if err != nil {
		return err
	}
	if m.Pools != open {
		add("%d are said to be in pools, open predictions come to %d", m.Pools, open)
	}
	if err := errors.Join(append(wrong, m.Check())...); err != nil {
		return err
	}
	_, err = fmt.Fprintf(to, "%d accounts, %d pools, %d predictions, %d units: everything adds up\n", len(accounts), len(pools), predictions, m.Deposits)
	return err
}
