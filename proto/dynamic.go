package proto

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
