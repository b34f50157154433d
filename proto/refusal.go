package proto

// Refusal says why a request was not carried out. Nothing changed: a refusal leaves no
// trace in the journal. Accepted is the zero value.
type Refusal uint8

// The refusals, in the order in which a request meets them.
const (
	Accepted Refusal = iota

	// By the engine.
	RefusedMalformed
	RefusedRequestUnknown
	RefusedHelloMissing
	RefusedHelloAgain
	RefusedTokenInvalid
	RefusedGuests
	RefusedViewer
	RefusedGameBarred
	RefusedBusy
	RefusedRequestsFast
	RefusedGameNotJoined
	RefusedJoinsMany

	// By an account's shard.
	RefusedAccountUnknown
	RefusedAccountExists
	RefusedConnectionsMany
	RefusedAmountInvalid
	RefusedSharesInvalid
	RefusedRequestReused
	RefusedTicketsMany
	RefusedStakesFast
	RefusedFundsShort
	RefusedBalanceFull
	RefusedFollowSelf
	RefusedFollowsMany
	RefusedQuestionsFast
	RefusedCirclesMany
	RefusedCircleForeign
	RefusedBackersOnly

	// By a game's shard.
	RefusedGameUnknown
	RefusedGameExists
	RefusedGameEnded
	RefusedPoolUnknown
	RefusedPoolLocked
	RefusedPoolSettled
	RefusedPoolVoided
	RefusedOutcomeUnknown
	RefusedStakeSmall
	RefusedStakeLarge
	RefusedStakeUnits
	RefusedAccountFull
	RefusedLateFull
	RefusedOutcomeWithdrawn
	RefusedPoolFull
	RefusedPoolUnsold
	RefusedSharesShort
	RefusedTradeSmall
	RefusedLimitMissed
	RefusedPoolOpen
	RefusedPoolProposed
	RefusedPoolSuspended
	RefusedStakeByAsker
	RefusedQuestionsMany
	RefusedQuestionsFull
	RefusedLabelsAlike
	RefusedLockMissing
	RefusedLockFar
	RefusedPoolUnasked
	RefusedQuestionForeign
	RefusedSettledOtherwise
	RefusedClaimAgain
	RefusedClaimMissing
	RefusedReportOwn
	RefusedReportAgain
	RefusedRoomsMany
	RefusedCircleCode
	RefusedCircleFull
	RefusedCircleOwner
	RefusedMemberUnknown

	// By the archive.
	RefusedPage
	RefusedPast

	// By a game's shard, to whoever runs it.
	RefusedTextInvalid
	RefusedOutcomesCount
	RefusedWinners
	RefusedIntervalShort
	RefusedLockPast
	RefusedRules
	RefusedSeeds
	RefusedPoolDynamic
	RefusedPoolsMany
	RefusedTemplate
	RefusedEventInvalid
	RefusedEventRepeated
	RefusedApproval
	RefusedRoomEvent

	refusals
)

// refusalTable is the rule book as a player meets it: a stable code, and a sentence that
// says what to do.
var refusalTable = [refusals]struct{ code, reason string }{
	Accepted:                {"", ""},
	RefusedMalformed:        {"malformed", "the message is not a request of this protocol; send one object with type and id"},
	RefusedRequestUnknown:   {"request_unknown", "there is no request of this type"},
	RefusedHelloMissing:     {"hello_missing", "say hello with a token first"},
	RefusedHelloAgain:       {"hello_again", "this connection has said hello already; open another one for another account"},
	RefusedTokenInvalid:     {"token_invalid", "the token is not valid here or has expired; ask for a new one"},
	RefusedGuests:           {"guests_refused", "this server takes no guests; say hello with a token"},
	RefusedViewer:           {"viewer", "your token lets you watch, and nothing else"},
	RefusedGameBarred:       {"game_barred", "your token is not for this game"},
	RefusedBusy:             {"busy", "the server is busy; send the request again in a second"},
	RefusedRequestsFast:     {"requests_fast", "you, or others at your address, send too much; wait a second"},
	RefusedGameNotJoined:    {"game_not_joined", "you are not in this game; join it first"},
	RefusedJoinsMany:        {"joins_many", "you are in too many games; leave one first"},
	RefusedAccountUnknown:   {"account_unknown", "there is no such account"},
	RefusedAccountExists:    {"account_exists", "an account with this id exists already"},
	RefusedConnectionsMany:  {"connections_many", "the account has as many connections as it may have; close one of them, and say hello again"},
	RefusedAmountInvalid:    {"amount_invalid", "an amount is a whole number of units from 1 to 9007199254740991"},
	RefusedSharesInvalid:    {"shares_invalid", "shares are a whole number of millionths from 1 to 9007199254740991"},
	RefusedRequestReused:    {"request_reused", "this id was used for another stake; choose a new one"},
	RefusedTicketsMany:      {"predictions_many", "you have too many open predictions; wait until some are settled"},
	RefusedStakesFast:       {"stakes_fast", "you stake too fast; wait a second"},
	RefusedFundsShort:       {"funds_short", "your balance does not cover this amount"},
	RefusedBalanceFull:      {"balance_full", "the balance would exceed 9007199254740991 units"},
	RefusedFollowSelf:       {"follow_self", "you cannot follow yourself"},
	RefusedFollowsMany:      {"follows_many", "you follow too many players; unfollow one first"},
	RefusedQuestionsFast:    {"questions_fast", "you ask too fast; wait a few seconds"},
	RefusedCirclesMany:      {"circles_many", "you are in too many circles; leave one first"},
	RefusedCircleForeign:    {"circle_foreign", "only members of the circle may do this; join it first"},
	RefusedBackersOnly:      {"backers_only", "only who has an open prediction in the pool may challenge"},
	RefusedGameUnknown:      {"game_unknown", "there is no such game"},
	RefusedGameExists:       {"game_exists", "a game with this id exists already"},
	RefusedGameEnded:        {"game_ended", "the game has ended"},
	RefusedPoolUnknown:      {"pool_unknown", "there is no such pool"},
	RefusedPoolLocked:       {"pool_locked", "the pool is locked; choose an open one"},
	RefusedPoolSettled:      {"pool_settled", "the pool is settled; choose an open one"},
	RefusedPoolVoided:       {"pool_voided", "the pool was voided and stakes were returned; choose an open one"},
	RefusedOutcomeUnknown:   {"outcome_unknown", "the pool has no such outcome; outcomes count from 0"},
	RefusedStakeSmall:       {"stake_small", "the stake is below the pool's minimum"},
	RefusedStakeLarge:       {"stake_large", "the stake is above the pool's maximum"},
	RefusedStakeUnits:       {"stake_units", "stakes in this pool are whole multiples of its unit"},
	RefusedAccountFull:      {"account_full", "you would have more in this pool than one player may"},
	RefusedLateFull:         {"late_full", "you would have more in this pool than one player may so shortly before it locks"},
	RefusedOutcomeWithdrawn: {"outcome_withdrawn", "this outcome was withdrawn and its stakes were returned; choose another one"},
	RefusedPoolFull:         {"pool_full", "the pool cannot take this much more"},
	RefusedPoolUnsold:       {"pool_unsold", "this pool does not buy back; only dynamic pools do"},
	RefusedSharesShort:      {"shares_short", "you do not have so many shares of this outcome"},
	RefusedTradeSmall:       {"trade_small", "this is too little: it buys no millionth of a share, or brings no unit"},
	RefusedLimitMissed:      {"limit_missed", "the odds have moved beyond your limit; ask for a new quote"},
	RefusedPoolOpen:         {"pool_open", "the pool is still open; lock it first"},
	RefusedPoolProposed:     {"pool_proposed", "the question has not been approved yet"},
	RefusedPoolSuspended:    {"pool_suspended", "the question was reported and waits for an operator"},
	RefusedStakeByAsker:     {"stake_by_asker", "you name the winner of this question yourself, so you cannot stake in it"},
	RefusedQuestionsMany:    {"questions_many", "you have too many unsettled questions in this game; wait until one is settled"},
	RefusedQuestionsFull:    {"questions_full", "the game has too many unsettled questions of players; wait until some are settled"},
	RefusedLabelsAlike:      {"labels_alike", "two outcomes have the same label"},
	RefusedLockMissing:      {"lock_missing", "say when the question locks"},
	RefusedLockFar:          {"lock_far", "the lock time is too far in the future"},
	RefusedPoolUnasked:      {"pool_unasked", "no player asked this question"},
	RefusedQuestionForeign:  {"question_foreign", "only who asked the question may name its winner"},
	RefusedSettledOtherwise: {"settled_otherwise", "this question is settled by an operator or by its rules"},
	RefusedClaimAgain:       {"claim_again", "the winner of this question has been named already"},
	RefusedClaimMissing:     {"claim_missing", "there is nothing to challenge: no winner is named, or the time is over"},
	RefusedReportOwn:        {"report_own", "you cannot report your own question"},
	RefusedReportAgain:      {"report_again", "you have reported this question already"},
	RefusedRoomsMany:        {"rooms_many", "too many circles have a room in this game"},
	RefusedCircleCode:       {"circle_code", "there is no circle with this code; ask its owner for a new one"},
	RefusedCircleFull:       {"circle_full", "the circle has as many members as it may have"},
	RefusedCircleOwner:      {"circle_owner", "only the owner of the circle may do this"},
	RefusedMemberUnknown:    {"member_unknown", "the circle has no such member"},
	RefusedPage:             {"page_unknown", "there is no such place in this list; begin again without before"},
	RefusedPast:             {"past_unreadable", "what was kept of the past cannot be read; tell whoever runs this server"},
	RefusedTextInvalid:      {"text_invalid", "a name or text is empty, too long or not UTF-8"},
	RefusedOutcomesCount:    {"outcomes_count", "a pool has 2 to 64 outcomes"},
	RefusedWinners:          {"winners_invalid", "name the winning outcome of the pool, or several different ones"},
	RefusedIntervalShort:    {"interval_short", "a batching interval is from 100 ms to 60 s"},
	RefusedLockPast:         {"lock_past", "the lock time is in the past"},
	RefusedRules:            {"rules_invalid", "the pool's rules are out of range or do not fit together: see the documentation of Rules"},
	RefusedSeeds:            {"seeds_invalid", "a dynamic pool has a variant that takes so many outcomes, and a seed of money and shares for each; another pool has none"},
	RefusedPoolDynamic:      {"pool_dynamic", "this is not possible in a dynamic pool: it pays exactly, carries nothing, refunds no single side, and its outcomes stay; void it instead"},
	RefusedPoolsMany:        {"pools_many", "the game cannot open more pools"},
	RefusedTemplate:         {"template_invalid", "a question template does not compile"},
	RefusedEventInvalid:     {"event_invalid", "the event has no kind, a team other than 0, 1 or 2, or a text that is too long"},
	RefusedEventRepeated:    {"event_repeated", "an event with this number or a later one was posted before; nothing is left to do"},
	RefusedApproval:         {"approval_needless", "the question neither waits for approval nor is suspended"},
	RefusedRoomEvent:        {"room_event", "a circle's room follows its game; post the event there"},
}

// Code is the refusal's stable name on the wire, as in "pool_locked".
func (r Refusal) Code() string {
	if r >= refusals {
		return "unknown"
	}
	return refusalTable[r].code
}

// Reason is a sentence for the player that says what to do.
func (r Refusal) Reason() string {
	if r >= refusals {
		return ""
	}
	return refusalTable[r].reason
}

// Refusals returns every refusal there is.
func Refusals() []Refusal {
	all := make([]Refusal, 0, refusals-1)
	for r := Accepted + 1; r < refusals; r++ {
		all = append(all, r)
	}
	return all
}

// RefusalOf finds the refusal with this code; ok is false when there is none.
func RefusalOf(code string) (r Refusal, ok bool) {
	for r := Accepted + 1; r < refusals; r++ {
		if refusalTable[r].code == code {
			return r, true
		}
	}
	return Accepted, false
}
