// Package proto is what is said on the wire: the requests of players, the
// messages of the server, refusals and close codes, in JSON and in MessagePack. asyncapi.yaml
// says the same to people and tools that do not read Go; the tests hold it against the code.
//
// It knows no socket and no market. engine reads and writes these messages,
// market answers with them, bench speaks them as a client.
//
// # Grammar
//
// A conversation runs over one WebSocket at /ws. The subprotocol tote.json, the
// default, puts one JSON object into each text message; tote.msgpack puts one MessagePack map of the same
// members, under the same names and in the same order, into each binary message. Every object has a
// "type". Numbers are integers below 2^53, so that JavaScript reads them exactly;
// amounts are minor units of credit; times are microseconds of Unix time by the
// server's clock; outcomes count from 0. The only fractions are multipliers
// ("x": what one staked unit would return, to three decimals). In MessagePack integers take the
// shortest format (a reader must take any), multipliers are doubles: the same number that JSON is read as.
//
//	conversation = hello welcome { request reply | private | broadcast } close
//	request      = hello | games | join | leave | pools | stake | sell | account | predictions
//	             | friends | follow | unfollow | presence | time | heartbeat | quote
//	             | ask | resolve | challenge | report | questions
//	             | circles | circle | circle_create | circle_join | circle_leave | circle_remove | circle_game
//	             | statement | history | archive | leaders
//	reply        = welcome | games | joined | left | pools | receipt | account | predictions
//	             | friends | followed | unfollowed | presence | time | heartbeat | refused
//	             | sold | quote
//	             | question | questions | circles | circle | circle_left | circle_game
//	             | statement | history | archive | leaders
//	private      = receipt | sold | refused | payout | refund | balance | question      (numbered by "n") | missed
//	broadcast    = odds | event | opened | locked | settled | voided | sealed | pool | game   (numbered by "seq")
//	             | conflated | heartbeat | presence_changed
//
// A request carries an "id" chosen by the client, from 1 to 2^53-1, and is answered
// exactly once, with the same id: by its reply or by a refusal. The id of a stake is
// remembered for its account, not for its connection: the same stake sent again under
// the same id, after a lost connection say, gets the first answer and costs nothing; another
// stake under a used id is refused (request_reused). So an account that plays from
// two windows must not count both from 1; take the clock, or a random start.
//
// # Lanes
//
// The private lane belongs to the account: receipts, refusals of stakes, payouts, refunds and changes of
// balance reach every connection of that account, complete and in order of "n", and
// only after what they tell is on the disk. The private numbers hold within one "epoch", the
// life of one server process, told in welcome. A client that lost its connection says hello with the epoch and the n that it
// has heard last: where welcome says resumed, what it missed follows, up to welcome's n. Otherwise (the server has restarted, or
// more than 32 messages were missed) it gets what it missed of its statement, if hello had "since".
//
// Private messages end with "since": of journal records up to there, nothing is left to be told to the account. A client
// keeps the last one that it got, and says it in hello. Where welcome says missed, one or several missed follow, the last one with
// last true and a new since; until then the client keeps the one that it said. They have every entry of the statement
// above it, refusals and what is not about money excepted, from the oldest to the newest; of more than 1000 the newest, and statement has
// the rest. Some of it may have been told before, or be told on the private lane as well: a prediction is accepted once, under its
// number, and ends once, and a balance has the seq of its record. None is lost, whatever happened meanwhile, a restart included. missed
// comes when the server's views of the past have what it is about: at once, or, with a durability of an interval, after up to that.
//
// A server that restarts closes with 1012, and the reason says after how many milliseconds the client is expected, which is different for each:
// "server restarts; come back in 2500 ms".
//
// A balance is what is free to stake: stakes that are still being decided are not in it. After a refusal in
// such a moment, account tells the new one.
//
// The broadcast lane belongs to a game. joined is the image of the game at "seq"; from there
// each broadcast has the next seq. Odds come at most once per pool and "interval". A reader
// too slow for them is told how many messages of the game it was spared (conflated) and gets the
// newest odds next; its seq then jumps by that number. If it was spared anything but odds, it gets a new image
// unasked: joined with id 0. A game that has been silent for 5 seconds says by a heartbeat which seq it has come to, and whether
// its odds are stale because the market has stopped; a client may ask for one, and with "every" for more. "counts" in odds is the number of the
// last journal record that the odds include.
//
// # Dynamic pools
//
// A pool of kind "dpm" sells shares of its outcomes at a price that every purchase raises; the pool's money is divided among
// the shares of the winner. A stake buys shares for its amount; sell gives shares back, the oldest first, for money from the
// pool, where its variant buys back (share_ratio). Shares are integers in millionths of a share: 2500000 are two and a half.
// Prices are millionths of a minor unit for a whole share, probabilities millionths of certainty, and both stand beside "x" in
// the odds. quote asks, in any pool, what a stake or a sale would come to. Since others may be quicker, stake and sell
// take a limit: the least shares or, in a parimutuel pool, the least multiplier in thousandths; the least money of a
// sale. A request that cannot keep to its limit is refused (limit_missed). The id of a sale is remembered as that of a stake.
//
// # Questions and circles
//
// A player asks a question with ask. Where questions are moderated it is proposed, and opens when an operator approves; else it
// opens at once, and everybody in the game is told (opened). Its stakes lie in the pool as everybody's do; who asked has no
// share of them, and may not stake where he names the winner. Says settle "asker", then after the lock he resolves: the
// winner that he names is told to all (pool, with asked.claim and asked.until) and wins at "until", unless one who has staked
// challenges before: then an operator decides. A question that nobody resolves voids itself, as any pool, and all stakes return.
// Players report what should not be asked; after the server's number of reports it takes no stakes until an operator has
// approved or rejected it. Its asker hears privately of each state (question), and lists his questions with the reasons.
//
// A circle is joined by the code that its owner passes on. circle_game names its room in a game: a game of its own with
// "circle" and "parent", on no list, which members join, leave, ask and stake in as in any game. The events of the parent
// are heard in it, and it ends with the parent. Others are refused (circle_foreign) whatever they ask about it. Whom the owner removes
// is told (circle_left with id 0); the room's broadcasts end for him, what he has staked there stays and is settled.
//
// presence tells how many connections are in a game, and while they are at most 50 players, who: by name, with the latency that the
// server measures by pings. Such a room is told by presence_changed whenever that changes, at most every few seconds.
//
// # A worked conversation
//
//	→ {"type":"hello","id":1,"guest":"Ada"}
//	← {"type":"welcome","id":1,"t":1671382800000000,"epoch":77,"account":12,"name":"Ada","balance":100000,"n":0,"since":90209,"resumed":false,"missed":false,"token":"eyJ…","durability":"always"}
//	→ {"type":"games","id":2}
//	← {"type":"games","id":2,"t":1671382801000000,"games":[{"game":3,"name":"Argentina v France","state":"live","teams":["Argentina","France"],"score":[0,0],"minute":1,"interval":3000000,"present":201}]}
//	→ {"type":"join","id":3,"game":3}
//	← {"type":"joined","id":3,"t":1671382802000000,"game":{…},"seq":41,"pools":[{"pool":196609,"question":"Which team scores next?","labels":["Argentina","France","No more goals"],"state":"open","odds":[{"staked":500,"backers":2,"x":2.400},…],…}]}
//	→ {"type":"stake","id":4,"pool":196609,"outcome":0,"amount":250}
//	← {"type":"receipt","id":4,"t":1671382803000250,"n":1,"prediction":90210,"pool":196609,"outcome":0,"amount":250,"balance":99750,"arrived":1671382803000110,"durability":"always"}
//	← {"type":"odds","t":1671382803000251,"game":3,"seq":42,"pool":196609,"counts":90210,"odds":[{"staked":750,"backers":3,"x":1.933},…]}
//	← {"type":"event","t":1671382880000000,"game":3,"seq":43,"kind":"goal","minute":23,"team":1,"player":"Lionel Messi","score":[1,0]}
//	← {"type":"locked","t":1671382880000000,"game":3,"seq":44,"pool":196609,"at":1671382880000000,"counts":91002,"odds":[…]}
//	← {"type":"settled","t":1671382880000000,"game":3,"seq":45,"pool":196609,"winners":[0],"gross":1450,"takeout":0,"paid":1450,"x":1.933,"refunded":false}
//	← {"type":"payout","t":1671382880000000,"n":2,"prediction":90210,"pool":196609,"outcome":0,"amount":250,"payout":483,"balance":100233}
//	→ {"type":"stake","id":5,"pool":196609,"outcome":0,"amount":250}
//	← {"type":"refused","id":5,"t":1671382881000000,"n":3,"code":"pool_settled","reason":"the pool is settled; choose an open one"}
//
// Unknown members of a request are ignored; unknown types of a message should be ignored by clients.
package proto
