package market

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"tote/server/proto"
)

// What an auditor asks of a replica that has recovered: is this receipt true, and is this the head that was sealed then? The
// journal answers for the records that it still has, the views for those before.

// FindPrediction returns the statement's entry of the stake that is record seq, and whose it is.
func (r *Replica) FindPrediction(seq proto.Seq) (proto.AccountID, proto.Entry, error) {
	var found entry
	low, high := uint64(1), r.entries // entries stand in the order of their records
	for low <= high {
		at := low + (high-low)/2
		var e entry
		var failed error
		err := r.views.Read(viewEntries, binary.BigEndian.AppendUint64(nil, at), func(value []byte) []byte {
			failed = e.decode(at, value)
			return nil
		})
		switch {
		case err != nil || failed != nil:
			return 0, proto.Entry{}, fmt.Errorf("find prediction %d: %w", seq, errors.Join(err, failed))
		case e.seq < seq: // also where the history before was forgotten
			low = at + 1
		default:
			found, high = e, at-1
		}
	}
	if found.seq != seq || found.kind != proto.EntryStake {
		return 0, proto.Entry{}, fmt.Errorf("find prediction %d: record %d is not a prediction that was accepted", seq, seq)
	}
	return found.account, found.show(), nil
}

// CheckPast compares the end of each account's statement with its balance. An account of whose history nothing is left is passed
// over.
func (r *Replica) CheckPast() error {
	for _, id := range sortedKeys(r.accounts) {
		var last entry
		at := r.ledgers.at(id).lastEntry()
		err := r.views.Read(viewEntries, binary.BigEndian.AppendUint64(nil, at), func(value []byte) []byte {
			if err := last.decode(at, value); err != nil {
				last.account = 0
			}
			return nil
		})
		switch a := r.accounts[id]; {
		case err != nil:
			return fmt.Errorf("audit the past: %w", err)
		case last.number != 0 && (last.account != id || last.balance != a.balance):
			return fmt.Errorf("audit the past: the statement of account %d ends at %d of account %d, its balance is %d", id, last.balance, last.account, a.balance)
		}
	}
	return nil
}

// SealedAt returns the pool that record seq ended, and the head that was sealed with it.
func (r *Replica) SealedAt(seq proto.Seq) (pool proto.PoolID, head string, err error) {
	var kept []byte
	err = r.views.Read(viewSeals, binary.BigEndian.AppendUint64(nil, uint64(seq)), func(value []byte) []byte {
		kept = bytes.Clone(value)
		return nil
	})
	if err == nil && len(kept) != 8+len(r.head) {
		err = fmt.Errorf("record %d did not end a pool", seq)
	}
	if err != nil {
		return 0, "", fmt.Errorf("find the seal of record %d: %w", seq, err)
	}
	return proto.PoolID(binary.BigEndian.Uint64(kept)), hex.EncodeToString(kept[8:]), nil
}
