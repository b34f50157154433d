package comparator

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"tote/server/bench/peer"
	"tote/server/proto"
)

// books are the file.
//
//	accounts     account ─▶ JSON: name, token
//	balances     account ─▶ amount
//	games        game ─▶ JSON
//	pools        pool ─▶ JSON
//	predictions  prediction ─▶ see entry
//	sums         deposits, pools, house ─▶ amount
type books struct {
	db *bbolt.DB
}

var (
	bucketAccounts    = []byte("accounts")
	bucketBalances    = []byte("balances")
	bucketGames       = []byte("games")
	bucketPools       = []byte("pools")
	bucketPredictions = []byte("predictions")
	bucketSums        = []byte("sums")

	sumDeposits = []byte("deposits") // of all guests
	sumPools    = []byte("pools")    // staked in pools that are not over
	sumHouse    = []byte("house")    // takeout, and what rounding has left
)

// openBooks opens the file, or makes it. Stakes wait for each other for delay at most.
func openBooks(dir string, delay time.Duration) (*books, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	file := filepath.Join(dir, "comparator.db")
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	db.MaxBatchDelay = delay
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketAccounts, bucketBalances, bucketGames, bucketPools, bucketPredictions, bucketSums} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("make the buckets of %s: %w", file, err)
	}
	return &books{db: db}, nil
}

func key[T ~uint64](id T) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func number(b []byte) uint64 {
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// add changes an amount.
func add(b *bbolt.Bucket, at []byte, change proto.Amount) error {
	return b.Put(at, key(number(b.Get(at))+uint64(change)))
}

// put writes JSON.
func put(b *bbolt.Bucket, at []byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(at, text)
}

// entry is a prediction in the file, numbers big-endian:
//
//	0         8          16     24       32       40        41
//	│ account │ request  │ pool │ amount │ payout │ outcome │ state │
func entry(holder proto.AccountID, p *proto.Prediction) []byte {
	b := make([]byte, 0, 42)
	for _, n := range []uint64{uint64(holder), uint64(p.ID), uint64(p.Pool), uint64(p.Amount), uint64(p.Payout)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return append(b, byte(p.Outcome), byte(p.State))
}

func readEntry(k, b []byte) (holder proto.AccountID, p proto.Prediction) {
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return proto.AccountID(at(0)), proto.Prediction{Prediction: proto.Seq(number(k)), ID: proto.RequestID(at(1)), Pool: proto.PoolID(at(2)),
		Amount: proto.Amount(at(3)), Payout: proto.Amount(at(4)), Outcome: proto.Outcome(b[40]), State: proto.PredictionState(b[41])}
}

// openAccount opens a guest's account with its credits.
func (k *books) openAccount(a *account) error {
	return k.db.Batch(func(tx *bbolt.Tx) error {
		accounts := tx.Bucket(bucketAccounts)
		id, err := accounts.NextSequence()
		if err != nil {
			return err
		}
		a.id = proto.AccountID(id)
		if err := put(accounts, key(id), &holder{a.name, a.token, a.balance}); err != nil {
			return err
		}
		if err := add(tx.Bucket(bucketBalances), key(id), a.balance); err != nil {
			return err
		}
		return add(tx.Bucket(bucketSums), sumDeposits, a.balance)
	})
}

// holder is an account as the file has it.
type holder struct {
	Name, Token string
	Deposit     proto.Amount
}

// stake makes a prediction durable, together with those that come at the same time, and numbers it. Then done is called, in the order of the numbers.
func (k *books) stake(a *account, p *proto.Prediction, done func()) error {
	return k.db.Batch(func(tx *bbolt.Tx) error {
		predictions := tx.Bucket(bucketPredictions)
		predictions.FillPercent = 0.95 // keys count up
		n, err := predictions.NextSequence()
		if err != nil {
			return err
		}
		p.Prediction = proto.Seq(n)
		if err := predictions.Put(key(n), entry(a.id, p)); err != nil {
			return err
		}
		if err := add(tx.Bucket(bucketBalances), key(a.id), -p.Amount); err != nil {
			return err
		}
		tx.OnCommit(done)
		return add(tx.Bucket(bucketSums), sumPools, p.Amount)
	})
}

// openGame opens a game and gives it its id.
func (k *books) openGame(g *proto.Game) error {
	return k.db.Update(func(tx *bbolt.Tx) error {
		games := tx.Bucket(bucketGames)
		id, err := games.NextSequence()
		if err != nil {
			return err
		}
		g.Game = proto.GameID(id)
		return put(games, key(id), g)
	})
}

func (k *books) putGame(g *proto.Game) error {
	return k.db.Update(func(tx *bbolt.Tx) error { return put(tx.Bucket(bucketGames), key(g.Game), g) })
}

func (k *books) putPool(p *pool) error {
	return k.db.Update(func(tx *bbolt.Tx) error { return putPool(tx, p) })
}

func putPool(tx *bbolt.Tx, p *pool) error {
	kept := pool{Image: p.Image, StakeMin: p.StakeMin, StakeMax: p.StakeMax}
	kept.Image.Odds = nil // predictions say it
	return put(tx.Bucket(bucketPools), key(p.Image.Pool), &kept)
}

// finish ends a pool: each of its predictions is won, lost or refunded, in one transaction.
func (k *books) finish(p *pool, ended []ending, house proto.Amount) error {
	return k.db.Update(func(tx *bbolt.Tx) error {
		balances, predictions, gross := tx.Bucket(bucketBalances), tx.Bucket(bucketPredictions), proto.Amount(0)
		for i := range ended {
			e := &ended[i]
			gross += e.Amount
			if err := predictions.Put(key(e.Prediction.Prediction), entry(e.account.id, &e.Prediction)); err != nil {
				return err
			}
			if e.Payout == 0 {
				continue
			}
			if err := add(balances, key(e.account.id), e.Payout); err != nil {
				return err
			}
		}
		if err := add(tx.Bucket(bucketSums), sumPools, -gross); err != nil {
			return err
		}
		if err := add(tx.Bucket(bucketSums), sumHouse, house); err != nil {
			return err
		}
		return putPool(tx, p)
	})
}

// sum adds up all balances.
func (k *books) sum() (m peer.Money, err error) {
	err = k.db.View(func(tx *bbolt.Tx) error {
		sums := tx.Bucket(bucketSums)
		m.Deposits, m.Pools, m.House = proto.Amount(number(sums.Get(sumDeposits))), proto.Amount(number(sums.Get(sumPools))), proto.Amount(number(sums.Get(sumHouse)))
		return tx.Bucket(bucketBalances).ForEach(func(_, v []byte) error {
			m.Accounts += proto.Amount(number(v))
			return nil
		})
	})
	return m, err
}

// each reads the whole file: accounts, then games, pools and predictions.
func (k *books) each(eachAccount func(*account), eachGame func(*proto.Game), eachPool func(*pool), eachTicket func(ticket, proto.Prediction)) error {
	return k.db.View(func(tx *bbolt.Tx) error {
		balances := tx.Bucket(bucketBalances)
		if err := images(tx, bucketAccounts, func(id []byte, h *holder) {
			eachAccount(&account{id: proto.AccountID(number(id)), name: h.Name, token: h.Token, deposit: h.Deposit, balance: proto.Amount(number(balances.Get(id)))})
		}); err != nil {
			return err
		}
		if err := images(tx, bucketGames, func(_ []byte, g *proto.Game) { eachGame(g) }); err != nil {
			return err
		}
		if err := images(tx, bucketPools, func(_ []byte, p *pool) { eachPool(newPool(p.Image, p.StakeMin, p.StakeMax)) }); err != nil {
			return err
		}
		return tx.Bucket(bucketPredictions).ForEach(func(k, v []byte) error {
			holder, p := readEntry(k, v)
			eachTicket(ticket{holder: holder, prediction: p.Prediction, outcome: p.Outcome, amount: p.Amount}, p)
			return nil
		})
	})
}

// images reads a bucket of JSON.
func images[T any](tx *bbolt.Tx, bucket []byte, do func(key []byte, image *T)) error {
	return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
		image := new(T)
		if err := json.Unmarshal(v, image); err != nil {
			return fmt.Errorf("read %s %d: %w", bucket, number(k), err)
		}
		do(k, image)
		return nil
	})
}
