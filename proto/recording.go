package proto

// What the admin listener takes to play a recorded game again; see package control.
type (
	// StakeBatch are stakes in the pools of one game that an operator makes for accounts. In each pool they are decided in their
	// order.
	StakeBatch struct {
		Stakes []AccountStake `json:"stakes"`
	}
	// AccountStake is one of them, or a sale of shares in a dynamic pool; ID is a request id of the account's, of 1 or more.
	AccountStake struct {
		Account AccountID `json:"account"`
		ID      RequestID `json:"id"`
		Pool    PoolID    `json:"pool"`
		Outcome Outcome   `json:"outcome"`
		Amount  Amount    `json:"amount,omitempty"`
		Shares  Shares    `json:"shares,omitempty"` // to sell; 0: it is a stake of Amount
	}
	// StakeVerdicts answers with one for each stake, in their order.
	StakeVerdicts struct {
		Verdicts []StakeVerdict `json:"verdicts"`
	}
	// StakeVerdict has the prediction's record, or the code of the refusal.
	StakeVerdict struct {
		Prediction Seq    `json:"prediction,omitempty"`
		Code       string `json:"code,omitempty"`
	}
)

// StakeBatchMax bounds a batch.
const StakeBatchMax = 1024
