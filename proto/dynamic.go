package proto

// Dynamic pools sell shares of their outcomes at a price that each purchase moves; package market/dpm has the arithmetic.

// KindDynamic is the kind of a dynamic pool; no kind is parimutuel.
const KindDynamic = "dpm"

// Shares are what a prediction in a dynamic pool buys, in millionths of a share: 2500000 are two and a half.
type Shares int64

// SharesMax bounds the shares that stand on one outcome: nine milliards of whole ones.
const SharesMax Shares = integerMax

// Valid reports whether so many shares can be sold at all.
func (n Shares) Valid() bool { return n > 0 && n <= SharesMax }

// Millionths are a fraction on the wire: of a unit of money where they are a price, of certainty where they are
// a probability.
type Millionths int64

// MillionthsMax is what a larger fraction is shown as.
const MillionthsMax Millionths = integerMax

// Seed is what the house puts on an outcome of a dynamic pool before anybody else: money, and the shares that it gets for
// it, which set the scale of all prices. Shares of 0 mean one whole share for each unit of money.
type Seed struct {
	Money  Amount `json:"money" toml:"money"`
	Shares Shares `json:"shares,omitempty" toml:"shares"`
}

type (
	// Sold answers sell: record Sale is in the journal, the shares are gone and the money is there. It is private, like a receipt.
	Sold struct {
		ID         RequestID `json:"id"`
		T          Time      `json:"t"`
		N          uint64    `json:"n"`
		Sale       Seq       `json:"sale"`
		Pool       PoolID    `json:"pool"`
		Outcome    Outcome   `json:"outcome"`
		Shares     Shares    `json:"shares"`
		Amount     Amount    `json:"amount"`  // what they brought
		Balance    Amount    `json:"balance"` // now, free to stake
		Arrived    Time      `json:"arrived"`
		Durability string    `json:"durability"`
		Since      Seq       `json:"since,omitempty"`
	}
	// Quote answers quote: what a stake of Amount would get, or what a sale of Shares would bring, if it were the next to be
	// decided. Nothing is promised by it: see limit in stake and sell.
	Quote struct {
		ID          RequestID  `json:"id"`
		T           Time       `json:"t"`
		Pool        PoolID     `json:"pool"`
		Outcome     Outcome    `json:"outcome"`
		Amount      Amount     `json:"amount"`           // staked, or got for the shares
		Shares      Shares     `json:"shares,omitempty"` // bought or sold; none in a parimutuel pool
		Payout      Amount     `json:"payout"`           // of the stake, if nobody else staked and its outcome won; 0 for a sale
		Multiplier  Multiplier `json:"x"`                // of the outcome, afterwards
		Price       Millionths `json:"price,omitempty"`  // of its next share, afterwards
		Probability Millionths `json:"probability,omitempty"`
		Counts      Seq        `json:"counts"` // the last record that the quote includes
	}
)

func (*Sold) Type() string  { return "sold" }
func (*Quote) Type() string { return "quote" }

func (m *Sold) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"n":`), m.N)
	w = num(w.key(`,"sale":`), m.Sale)
	w = num(w.key(`,"pool":`), m.Pool)
	w = num(w.key(`,"outcome":`), m.Outcome)
	w = num(w.key(`,"shares":`), m.Shares)
	w = num(w.key(`,"amount":`), m.Amount)
	w = num(w.key(`,"balance":`), m.Balance)
	w = num(w.key(`,"arrived":`), m.Arrived)
	w = text(w.key(`,"durability":`), m.Durability)
	return since(w, m.Since).end(0)
}

func (m *Quote) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	w = num(w.key(`,"pool":`), m.Pool)
	w = num(w.key(`,"outcome":`), m.Outcome)
	w = num(w.key(`,"amount":`), m.Amount)
	if m.Shares != 0 {
		w = num(w.key(`,"shares":`), m.Shares)
	}
	w = num(w.key(`,"payout":`), m.Payout)
	w = multiplier(w.key(`,"x":`), m.Multiplier)
	w = appendPrice(w, m.Price, m.Probability)
	w = num(w.key(`,"counts":`), m.Counts)
	return w.end(0)
}

// appendPrice appends what only outcomes of dynamic pools have.
func appendPrice(w writer, price, probability Millionths) writer {
	if price != 0 {
		w = num(w.key(`,"price":`), price)
	}
	if probability != 0 {
		w = num(w.key(`,"probability":`), probability)
	}
	return w
}

func (m *Sold) AppendJSON(b []byte) []byte  { return m.append(writeJSON(b)).b }
func (m *Quote) AppendJSON(b []byte) []byte { return m.append(writeJSON(b)).b }

func (m *Sold) AppendMsgpack(b []byte) []byte  { return m.append(writeMsgpack(b)).b }
func (m *Quote) AppendMsgpack(b []byte) []byte { return m.append(writeMsgpack(b)).b }
