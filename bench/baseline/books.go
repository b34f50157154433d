package baseline

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/go-sql-driver/mysql"

	"tote/server/proto"
)

// books are what MariaDB has: accounts, games, pools and predictions. Many goroutines use them.
type books struct{ db *sql.DB }

// openBooks connects as often as one process needs it.
func openBooks(s *Site) (*books, error) {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = "baseline", s.Password, "baseline"
	c.Net, c.Addr = "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.MariaDB))
	c.InterpolateParams = true // one way there and back for a statement, instead of two
	c.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("configure MariaDB: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(sessionsEach)
	db.SetMaxIdleConns(sessionsEach)
	return &books{db: db}, nil
}

// What MariaDB calls things that are no failures of ours.
const (
	errDuplicate = 1062
	errLockWait  = 1205
	errDeadlock  = 1213
)

func isError(err error, number uint16) bool {
	var failed *mysql.MySQLError
	return errors.As(err, &failed) && failed.Number == number
}

// triesMax bounds how often a transaction that a deadlock has ended is begun again.
const triesMax = 5

// transact does something in one transaction. Where it was the victim of a deadlock it does it again.
func (b *books) transact(ctx context.Context, deed string, do func(*sql.Tx) error) error {
	for try := 1; ; try++ {
		tx, err := b.db.BeginTx(ctx, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", deed, err)
		}
		if err = do(tx); err == nil {
			err = tx.Commit()
		} else {
			tx.Rollback()
		}
		if err == nil {
			return nil
		}
		if try == triesMax || !isError(err, errDeadlock) && !isError(err, errLockWait) {
			return fmt.Errorf("%s: %w", deed, err)
		}
	}
}

// owner is an account as hello needs it.
type owner struct {
	account proto.AccountID
	name    string
	token   string
	balance proto.Amount
	n       uint64
}

const tokenSize = 32 // hexadecimal digits

// openAccount makes an account for a guest.
func (b *books) openAccount(ctx context.Context, name string, credits proto.Amount) (*owner, error) {
	var secret [tokenSize / 2]byte
	rand.Read(secret[:]) // never fails
	o := &owner{name: name, token: hex.EncodeToString(secret[:]), balance: credits}
	made, err := b.db.ExecContext(ctx, "INSERT INTO accounts (name, token, deposited, balance) VALUES (?, ?, ?, ?)", name, o.token, credits, credits)
	if err != nil {
		return nil, fmt.Errorf("open an account: %w", err)
	}
	id, err := made.LastInsertId()
	o.account = proto.AccountID(id)
	return o, err
}

// owner finds the account of a token; nil: there is none.
func (b *books) owner(ctx context.Context, token string) (*owner, error) {
	if _, err := hex.DecodeString(token); err != nil || len(token) != tokenSize {
		return nil, nil
	}
	o := &owner{}
	err := b.db.QueryRowContext(ctx, "SELECT id, name, balance, n FROM accounts WHERE token = ?", token).Scan(&o.account, &o.name, &o.balance, &o.n)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("find the account of a token: %w", err)
	}
	return o, nil
}

// stake is a decided stake.
type stake struct {
	refusal    proto.Refusal
	repeated   bool // the first answer, once more
	prediction proto.Seq
	balance    proto.Amount
	n          uint64 // of the receipt or refusal
}

// stake makes a stake, or refuses it. The pool is locked before the account, as in a settlement.
func (b *books) stake(ctx context.Context, account proto.AccountID, r *proto.Request, arrived proto.Time) (made stake, err error) {
	err = b.transact(ctx, "stake", func(tx *sql.Tx) error {
		made = stake{}
		var outcomes int
		state := proto.PoolVoided
		err := tx.QueryRowContext(ctx, "SELECT state, outcomes FROM pools WHERE id = ? LOCK IN SHARE MODE", r.Pool).Scan(&state, &outcomes)
		unknown := errors.Is(err, sql.ErrNoRows)
		if err != nil && !unknown {
			return err
		}
		if err := tx.QueryRowContext(ctx, "SELECT balance, n FROM accounts WHERE id = ? FOR UPDATE", account).Scan(&made.balance, &made.n); err != nil {
			return err
		}
		made.n++
		switch {
		case !r.Amount.Valid():
			made.refusal = proto.RefusedAmountInvalid
		case unknown:
			made.refusal = proto.RefusedPoolUnknown
		case state != proto.PoolOpen:
			made.refusal = closed[state]
		case int(r.Outcome) >= outcomes:
			made.refusal = proto.RefusedOutcomeUnknown
		case r.Amount > made.balance:
			made.refusal = proto.RefusedFundsShort
		}
		if made.refusal == proto.Accepted {
			if err := made.insert(ctx, tx, account, r, arrived); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, "UPDATE accounts SET balance = ?, n = ? WHERE id = ?", made.balance, made.n, account)
		return err
	})
	return made, err
}

// closed are the refusals of a stake in a pool that is not open.
var closed = map[proto.PoolState]proto.Refusal{
	proto.PoolLocked: proto.RefusedPoolLocked, proto.PoolSettled: proto.RefusedPoolSettled, proto.PoolVoided: proto.RefusedPoolVoided,
}

// insert writes the prediction and takes the money, unless the request's id was used before.
func (s *stake) insert(ctx context.Context, tx *sql.Tx, account proto.AccountID, r *proto.Request, arrived proto.Time) error {
	made, err := tx.ExecContext(ctx, "INSERT INTO predictions (account, request, pool, outcome, amount, state, arrived) VALUES (?, ?, ?, ?, ?, ?, ?)",
		account, r.ID, r.Pool, r.Outcome, r.Amount, proto.PredictionOpen, arrived)
	if err == nil {
		id, err := made.LastInsertId()
		s.prediction = proto.Seq(id)
		s.balance -= r.Amount
		return err
	}
	if !isError(err, errDuplicate) {
		return err
	}
	var before proto.Request
	err = tx.QueryRowContext(ctx, "SELECT id, pool, outcome, amount FROM predictions WHERE account = ? AND request = ?", account, r.ID).
		Scan(&s.prediction, &before.Pool, &before.Outcome, &before.Amount)
	s.repeated = true
	if before.Pool != r.Pool || before.Outcome != r.Outcome || before.Amount != r.Amount {
		s.refusal = proto.RefusedRequestReused
	}
	return err
}

// account reads an account with what is staked.
func (b *books) account(ctx context.Context, id proto.AccountID) (*proto.Account, error) {
	m := &proto.Account{Account: id}
	err := b.db.QueryRowContext(ctx, `SELECT name, balance, n, (SELECT COALESCE(SUM(amount), 0) FROM predictions WHERE account = accounts.id AND state = ?)
		FROM accounts WHERE id = ?`, proto.PredictionOpen, id).Scan(&m.Name, &m.Balance, &m.N, &m.Staked)
	if err != nil {
		return nil, fmt.Errorf("read an account: %w", err)
	}
	return m, nil
}

// closedMax is how many of an account's closed predictions are listed.
const closedMax = 32

// predictions lists the open ones and the last closed ones, oldest first.
func (b *books) predictions(ctx context.Context, id proto.AccountID) (*proto.Predictions, error) {
	m := &proto.Predictions{Predictions: []proto.Prediction{}}
	if err := b.db.QueryRowContext(ctx, "SELECT n FROM accounts WHERE id = ?", id).Scan(&m.N); err != nil {
		return nil, fmt.Errorf("read an account: %w", err)
	}
	const columns = "SELECT id, request, pool, outcome, amount, state, payout FROM predictions WHERE account = ? AND state "
	rows, err := b.db.QueryContext(ctx, columns+"= ? UNION ALL ("+columns+"<> ? ORDER BY id DESC LIMIT ?) ORDER BY id",
		id, proto.PredictionOpen, id, proto.PredictionOpen, closedMax)
	if err != nil {
		return nil, fmt.Errorf("list predictions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var p proto.Prediction
		if err := rows.Scan(&p.Prediction, &p.ID, &p.Pool, &p.Outcome, &p.Amount, &p.State, &p.Payout); err != nil {
			return nil, fmt.Errorf("list predictions: %w", err)
		}
		m.Predictions = append(m.Predictions, p)
	}
	return m, rows.Err()
}
