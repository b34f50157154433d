package proto

// What operators and feeds say over the admin listener, as JSON bodies; see package
// control for the paths. Players never see these.
type (
	// AccountOpening asks for an account with a first deposit.
	AccountOpening struct {
		Name    string `json:"name"`
		Deposit Amount `json:"deposit"`
	}
	// AccountOpened names the new account and the token with which its owner says hello.
	AccountOpened struct {
		Account AccountID `json:"account"`
		Token   string    `json:"token"`
		Balance Amount    `json:"balance"`
	}
	// Transfer asks for a deposit or a withdrawal.
	Transfer struct {
		Amount Amount `json:"amount"`
	}
	// GameOpening asks for a game. Shortlist are players that templates may ask about;
	// Interval is the batching interval of its odds, 0 for the server's default.
	GameOpening struct {
		Name      string     `json:"name"`
		Teams     [2]string  `json:"teams"`
		Shortlist []string   `json:"shortlist,omitempty"`
		Interval  Time       `json:"interval,omitempty"`
		Templates []Template `json:"templates,omitempty"`
	}
	// TemplateSet replaces the templates of a running game. Pools that are open keep the rules that they were opened
	// with; new ones come from the new set. It is refused as a whole where any of it does not compile.
	TemplateSet struct {
		Templates []Template `json:"templates"`
	}
	// PoolOpening asks for a pool. Amounts of 0 mean no limit, LocksAt 0 means locked by an event or by hand.
	PoolOpening struct {
		Question string   `json:"question"`
		Labels   []string `json:"labels"`
		LocksAt  Time     `json:"locks_at,omitempty"`
		Takeout  uint16   `json:"takeout,omitempty"` // basis points of the gross pool
		StakeMin Amount   `json:"stake_min,omitempty"`
		StakeMax Amount   `json:"stake_max,omitempty"`
		Kind     string   `json:"kind,omitempty"`    // "dpm"; none: parimutuel
		Variant  string   `json:"variant,omitempty"` // of a dynamic pool: share_ratio if none, money_ratio, losers_payoff or losers_money
		Seeds    []Seed   `json:"seeds,omitempty"`   // of a dynamic pool, one for each outcome
		Rules
	}
	// Locking locks a pool at a time that is not in the future; 0 is now.
	Locking struct {
		At Time `json:"at,omitempty"`
	}
	// Settlement names the winner of a locked pool, or several: a dead heat.
	Settlement struct {
		Winners []Outcome `json:"winners"`
	}
	// Voiding ends a pool and returns all stakes.
	Voiding struct {
		Reason string `json:"reason"`
	}
	// Event is something that happened in a game. The kinds "kickoff" and "end" start and end the
	// game; all others mean what the game's templates make of them. At 0 is now. A feed that numbers its
	// events from 1 may post one again when it is not sure: a number not above the last one is refused.
	Event struct {
		Kind    string    `json:"kind"`
		Number  uint32    `json:"number,omitempty"`
		At      Time      `json:"at,omitempty"`
		Minute  uint16    `json:"minute"`
		Team    uint8     `json:"team"` // 1 or 2, 0: neither
		Player  string    `json:"player,omitempty"`
		Score   [2]uint16 `json:"score"` // after the event
		Penalty bool      `json:"penalty,omitempty"`
		OwnGoal bool      `json:"own_goal,omitempty"`
	}
	// Answer says what became of an operator's request.
	Answer struct {
		Account AccountID `json:"account,omitempty"`
		Balance Amount    `json:"balance,omitempty"`
		Game    GameID    `json:"game,omitempty"`
		Pool    PoolID    `json:"pool,omitempty"`
		Opened  []PoolID  `json:"opened,omitempty"`  // pools that an event opened
		Locked  []PoolID  `json:"locked,omitempty"`  // … locked
		Settled []PoolID  `json:"settled,omitempty"` // … settled
		Voided  []PoolID  `json:"voided,omitempty"`  // … voided
		Seq     Seq       `json:"seq"`               // of the journal record that made it so
		// Refusal, if not Accepted, says why nothing changed. Over HTTP it is a Problem.
		Refusal Refusal `json:"-"`
		// Detail points at the place, where a refusal alone does not.
		Detail string `json:"-"`
	}
	// Problem is the body of every HTTP answer that is not a success.
	Problem struct {
		Code   string `json:"code"`
		Reason string `json:"reason"`
		Detail string `json:"detail,omitempty"`
	}
)

// Template is a question that asks itself: its rules say which events open a pool, lock it, settle
// it and void it. Rules are CEL expressions that yield true or false over
//
//	event  kind, minute, team, player, score1, score2, penalty, own_goal
//	game   minute, score1, score2, team1, team2          as they are after the event
//	pool   minute, score1, score2                        as they were when the pool opened
//	player a name of the shortlist, in an outcome with Each = "shortlist"
//
// In Question and Label, {team1}, {team2}, {minute} and {player} are replaced.
type Template struct {
	Name     string `json:"name" toml:"name"`
	Question string `json:"question" toml:"question"`
	Opens    string `json:"opens" toml:"opens"`
	Locks    string `json:"locks,omitempty" toml:"locks"`
	Voids    string `json:"voids,omitempty" toml:"voids"`
	Takeout  uint16 `json:"takeout,omitempty" toml:"takeout"`
	StakeMin Amount `json:"stake_min,omitempty" toml:"stake_min"`
	StakeMax Amount `json:"stake_max,omitempty" toml:"stake_max"`
	Kind     string `json:"kind,omitempty" toml:"kind"`       // as in PoolOpening
	Variant  string `json:"variant,omitempty" toml:"variant"` // as in PoolOpening
	Rules
	Outcomes []TemplateOutcome `json:"outcomes" toml:"outcomes"`
}

// TemplateOutcome is an outcome of a template, or one for each name of the shortlist. The first
// outcome whose rule holds wins; an open pool is locked first, at the event's time.
type TemplateOutcome struct {
	Label string `json:"label" toml:"label"`
	Wins  string `json:"wins" toml:"wins"`
	Each  string `json:"each,omitempty" toml:"each"` // "shortlist" or empty
	Seed  *Seed  `json:"seed,omitempty" toml:"seed"` // of a dynamic pool
}
