package baseline

import (
	"context"
	"errors"
	"fmt"

	"tote/server/proto"
)

// Audit compares what MariaDB has of each account with its predictions, the sum of all money, and the cache with the books. Nothing may happen meanwhile.
func Audit(ctx context.Context, dir string) error {
	s, err := readSite(dir)
	if err != nil {
		return err
	}
	b, err := openBooks(s)
	if err != nil {
		return err
	}
	defer b.db.Close()
	c := openCache(s)
	defer c.redis.Close()
	m, err := b.money(ctx)
	if err != nil {
		return err
	}
	return errors.Join(m.Check(), b.auditAccounts(ctx), c.audit(ctx, b))
}

// auditAccounts wants each balance to be what was deposited, less stakes, plus payouts.
func (b *books) auditAccounts(ctx context.Context) error {
	var wrong, first uint64
	err := b.db.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(MIN(id), 0) FROM accounts LEFT JOIN
		(SELECT account, SUM(amount) AS staked, SUM(payout) AS paid FROM predictions GROUP BY account) AS p ON p.account = accounts.id
		WHERE balance <> deposited - COALESCE(staked, 0) + COALESCE(paid, 0)`).Scan(&wrong, &first)
	switch {
	case err != nil:
		return fmt.Errorf("audit accounts: %w", err)
	case wrong > 0:
		return fmt.Errorf("%d accounts differ from their predictions, as account %d", wrong, first)
	}
	return nil
}

// audit wants the cache to have what stands on each pool that is not over.
func (c *cache) audit(ctx context.Context, b *books) (wrong error) {
	pools, err := images[proto.Pool](ctx, b, "SELECT image FROM pools WHERE state IN (?, ?)", proto.PoolOpen, proto.PoolLocked)
	if err != nil {
		return err
	}
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("audit pools: %w", err)
	}
	defer tx.Rollback()
	for i := range pools {
		if _, err := standing(ctx, tx, &pools[i]); err != nil {
			return fmt.Errorf("audit pools: %w", err)
		}
		cached, _, err := c.pool(ctx, pools[i].Pool)
		switch {
		case err != nil:
			return err
		case cached == nil:
			wrong = errors.Join(wrong, fmt.Errorf("the cache lacks pool %d", pools[i].Pool))
		case fmt.Sprint(cached.Odds) != fmt.Sprint(pools[i].Odds):
			wrong = errors.Join(wrong, fmt.Errorf("pool %d: the cache has %+v, the books have %+v", pools[i].Pool, cached.Odds, pools[i].Odds))
		}
	}
	return wrong
}
