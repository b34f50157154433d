package baseline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"tote/server/proto"
)

// cache is what Redis has: images of games and pools, what stands on the outcomes, times of the last broadcasts, channels.
//
//	games        hash   game    → proto.Game, as JSON
//	pools:GAME   hash   pool    → proto.Pool without odds, as JSON
//	odds:POOL    hash   s0, s1… staked, b0, b1… backers, counts
//	backers:POOL:OUTCOME  set of accounts
//	last:POOL    time of the last broadcast, which every process reads, and then sets
//	seq:GAME     broadcasts so far
//	present      hash   game    → connections
//	meters       hash   of what has happened
//	game:GAME, private     channels
//
// Many goroutines use it.
type cache struct{ redis *redis.Client }

func openCache(s *Site) *cache {
	return &cache{redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + strconv.Itoa(s.Redis), Password: s.Password, DisableIndentity: true})}
}

const (
	keyGames   = "games"
	keyPresent = "present"
	keyMeters  = "meters"

	channelPrivate = "private"

	meterDistributions = "distributions"
	meterEarly         = "early"
)

func keyOf[T ~uint64](kind string, id T) string {
	return kind + ":" + strconv.FormatUint(uint64(id), 10)
}

func field[T ~uint64](id T) string { return strconv.FormatUint(uint64(id), 10) }

// setGame and setPool keep what has just been written to MariaDB.
func (c *cache) setGame(ctx context.Context, g *proto.Game) error {
	text, err := json.Marshal(g)
	if err != nil {
		return err
	}
	return c.redis.HSet(ctx, keyGames, field(g.Game), text).Err()
}

func (c *cache) setPool(ctx context.Context, p *proto.Pool) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return c.redis.HSet(ctx, keyOf("pools", p.Pool.Game()), field(p.Pool), text).Err()
}

// games are all of them, by id.
func (c *cache) games(ctx context.Context) ([]proto.Game, error) {
	pipe := c.redis.Pipeline()
	images, present := pipe.HGetAll(ctx, keyGames), pipe.HGetAll(ctx, keyPresent)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("list games: %w", err)
	}
	all := make([]proto.Game, 0, len(images.Val()))
	for id, text := range images.Val() {
		var g proto.Game
		if err := json.Unmarshal([]byte(text), &g); err != nil {
			return nil, fmt.Errorf("list games: %w", err)
		}
		g.Present, _ = strconv.Atoi(present.Val()[id])
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b proto.Game) int { return int(a.Game) - int(b.Game) })
	return all, nil
}

// image is a game with its pools, as of a broadcast: it may know of later ones already.
type image struct {
	game  proto.Game
	seq   uint64
	pools []proto.Pool
}

// image reads a game; nil: there is none.
func (c *cache) image(ctx context.Context, id proto.GameID) (*image, error) {
	pipe := c.redis.Pipeline()
	seq := pipe.Get(ctx, keyOf("seq", id)) // before what it is about
	game, present := pipe.HGet(ctx, keyGames, field(id)), pipe.HGet(ctx, keyPresent, field(id))
	pools := pipe.HGetAll(ctx, keyOf("pools", id))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read a game: %w", err)
	}
	if game.Err() != nil {
		return nil, nil
	}
	m := &image{}
	m.seq, _ = seq.Uint64()
	err := json.Unmarshal([]byte(game.Val()), &m.game)
	m.game.Present, _ = present.Int()
	for _, text := range pools.Val() {
		var p proto.Pool
		err = errors.Join(err, json.Unmarshal([]byte(text), &p))
		m.pools = append(m.pools, p)
	}
	if err != nil {
		return nil, fmt.Errorf("read a game: %w", err)
	}
	slices.SortFunc(m.pools, func(a, b proto.Pool) int { return int(a.Pool) - int(b.Pool) })
	odds := make([]*redis.MapStringStringCmd, len(m.pools))
	pipe = c.redis.Pipeline()
	for i := range m.pools {
		odds[i] = pipe.HGetAll(ctx, keyOf("odds", m.pools[i].Pool))
	}
	if len(odds) == 0 {
		return m, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read a game's odds: %w", err)
	}
	for i := range m.pools {
		fill(&m.pools[i], odds[i].Val())
	}
	return m, nil
}

// pool reads one pool with its odds, and up to which prediction they count; nil: there is none.
func (c *cache) pool(ctx context.Context, id proto.PoolID) (p *proto.Pool, counts proto.Seq, err error) {
	pipe := c.redis.Pipeline()
	text, odds := pipe.HGet(ctx, keyOf("pools", id.Game()), field(id)), pipe.HGetAll(ctx, keyOf("odds", id))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, 0, fmt.Errorf("read a pool: %w", err)
	}
	if text.Err() != nil {
		return nil, 0, nil
	}
	p = &proto.Pool{}
	if err := json.Unmarshal([]byte(text.Val()), p); err != nil {
		return nil, 0, fmt.Errorf("read a pool: %w", err)
	}
	return p, fill(p, odds.Val()), nil
}

// fill gives a pool the odds that its hash has.
func fill(p *proto.Pool, hash map[string]string) (counts proto.Seq) {
	number := func(field string) uint64 {
		n, _ := strconv.ParseUint(hash[field], 10, 64)
		return n
	}
	p.Odds = make([]proto.Odd, len(p.Labels))
	for i := range p.Odds {
		p.Odds[i].Staked, p.Odds[i].Backers = proto.Amount(number("s"+strconv.Itoa(i))), uint32(number("b"+strconv.Itoa(i)))
	}
	multiply(p)
	return proto.Seq(number("counts"))
}

// multiply says what one unit on each outcome would return.
func multiply(p *proto.Pool) {
	gross := proto.Amount(0)
	for _, o := range p.Odds {
		gross += o.Staked
	}
	for i := range p.Odds {
		p.Odds[i].Multiplier = proto.NewMultiplier(gross-takeout(gross, p.Takeout), p.Odds[i].Staked)
	}
}

// countScript counts a prediction: KEYS are odds and backers, ARGV the outcome, the amount, the account and the prediction.
var countScript = redis.NewScript(`
redis.call('HINCRBY', KEYS[1], 's' .. ARGV[1], ARGV[2])
if redis.call('SADD', KEYS[2], ARGV[3]) == 1 then
	redis.call('HINCRBY', KEYS[1], 'b' .. ARGV[1], 1)
end
if tonumber(redis.call('HGET', KEYS[1], 'counts') or '0') < tonumber(ARGV[4]) then
	redis.call('HSET', KEYS[1], 'counts', ARGV[4])
end`)

// publishScript numbers a broadcast and publishes it: KEYS is the count, ARGV the channel and the text before and behind the number. It is one step, since
// our protocol wants them in order, which the thesis' did not.
var publishScript = redis.NewScript(`
local seq = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', ARGV[1], seq .. ' ' .. ARGV[2] .. seq .. ARGV[3])`)

func (c *cache) count(ctx context.Context, r *proto.Request, account proto.AccountID, prediction proto.Seq) error {
	keys := []string{keyOf("odds", r.Pool), backersKey(r.Pool, int(r.Outcome))}
	err := countScript.Run(ctx, c.redis, keys, int(r.Outcome), int64(r.Amount), uint64(account), uint64(prediction)).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("count a prediction: %w", err)
	}
	return nil
}

// publish broadcasts a message, whose Seq is 0, in its game.
func (c *cache) publish(ctx context.Context, game proto.GameID, m proto.Message) error {
	head, tail, ok := bytes.Cut(m.AppendJSON(nil), []byte(`"seq":0`)) // no text of a user stands before it
	if !ok {
		return fmt.Errorf("publish %s: it has no number", m.Type())
	}
	head = append(head, `"seq":`...)
	err := publishScript.Run(ctx, c.redis, []string{keyOf("seq", game)}, keyOf("game", game), head, tail).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("publish %s: %w", m.Type(), err)
	}
	return nil
}

// last is when a pool was last broadcast, and setLast sets it. Others may come between the two: that is the race.
func (c *cache) last(ctx context.Context, pool proto.PoolID) (proto.Time, error) {
	at, err := c.redis.Get(ctx, keyOf("last", pool)).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("read the time of the last broadcast: %w", err)
	}
	return proto.Time(at), nil
}

func (c *cache) setLast(ctx context.Context, pool proto.PoolID, at proto.Time) error {
	if err := c.redis.Set(ctx, keyOf("last", pool), int64(at), 0).Err(); err != nil {
		return fmt.Errorf("set the time of the last broadcast: %w", err)
	}
	return nil
}

// note counts a distribution, and whether it came too early: less than nine tenths of the interval after the one before.
func (c *cache) note(ctx context.Context, pool proto.PoolID, at, interval proto.Time) error {
	text, err := c.redis.SetArgs(ctx, keyOf("published", pool), int64(at), redis.SetArgs{Get: true}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("note a distribution: %w", err)
	}
	before, _ := strconv.ParseInt(text, 10, 64) // none: the pool's first
	pipe := c.redis.Pipeline()
	pipe.HIncrBy(ctx, keyMeters, meterDistributions, 1)
	if at < proto.Time(before)+interval*9/10 {
		pipe.HIncrBy(ctx, keyMeters, meterEarly, 1)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("note a distribution: %w", err)
	}
	return nil
}

// present notes that so many connections more are in a game.
func (c *cache) present(ctx context.Context, game proto.GameID, more int64) error {
	return c.redis.HIncrBy(ctx, keyPresent, field(game), more).Err()
}

// tell sends payouts and refunds to whichever process has their owners.
func (c *cache) tell(ctx context.Context, told []paid, reason proto.RefundReason) error {
	for part := range slices.Chunk(told, pipeMax) {
		pipe := c.redis.Pipeline()
		for i := range part {
			pipe.Publish(ctx, channelPrivate, appendPrivate(nil, part[i].account, part[i].n, part[i].message(reason)))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("tell who is paid: %w", err)
		}
	}
	return nil
}

// pipeMax bounds what is sent to Redis at once.
const pipeMax = 1000

// forget drops what only an open pool needs.
func (c *cache) forget(ctx context.Context, p *proto.Pool) error {
	keys := []string{keyOf("last", p.Pool), keyOf("published", p.Pool)}
	for i := range p.Labels {
		keys = append(keys, backersKey(p.Pool, i))
	}
	return c.redis.Unlink(ctx, keys...).Err()
}

func backersKey(p proto.PoolID, outcome int) string {
	return keyOf("backers", p) + ":" + strconv.Itoa(outcome)
}

// fillFrom begins anew, from MariaDB.
func (c *cache) fillFrom(ctx context.Context, b *books) error {
	if err := c.redis.FlushDB(ctx).Err(); err != nil {
		return fmt.Errorf("empty the cache: %w", err)
	}
	games, err := images[proto.Game](ctx, b, "SELECT image FROM games WHERE state <> ?", proto.GameEnded)
	if err != nil {
		return err
	}
	pools, err := images[proto.Pool](ctx, b, "SELECT pools.image FROM pools JOIN games ON games.id = pools.game WHERE games.state <> ?", proto.GameEnded)
	if err != nil {
		return err
	}
	for i := range games {
		err = errors.Join(err, c.setGame(ctx, &games[i]))
	}
	for i := range pools {
		err = errors.Join(err, c.setPool(ctx, &pools[i]))
	}
	if err != nil {
		return fmt.Errorf("fill the cache: %w", err)
	}
	rows, err := b.db.QueryContext(ctx, `SELECT p.pool, p.outcome, p.account, SUM(p.amount), MAX(p.id) FROM predictions p JOIN pools ON pools.id = p.pool
		JOIN games ON games.id = pools.game WHERE games.state <> ? GROUP BY p.pool, p.outcome, p.account`, proto.GameEnded)
	if err != nil {
		return fmt.Errorf("fill the cache: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r proto.Request
		var account proto.AccountID
		var last proto.Seq
		if err := rows.Scan(&r.Pool, &r.Outcome, &account, &r.Amount, &last); err != nil {
			return fmt.Errorf("fill the cache: %w", err)
		}
		if err := c.count(ctx, &r, account, last); err != nil {
			return err
		}
	}
	return rows.Err()
}

// images reads one column of JSON.
func images[T any](ctx context.Context, b *books, query string, args ...any) (all []T, err error) {
	rows, err := b.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read images: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var text []byte
		var image T
		err := rows.Scan(&text)
		if err == nil {
			err = json.Unmarshal(text, &image)
		}
		if err != nil {
			return nil, fmt.Errorf("read images: %w", err)
		}
		all = append(all, image)
	}
	return all, rows.Err()
}

// ping waits until Redis answers.
func (c *cache) ping(ctx context.Context) error {
	ctx, end := context.WithTimeout(ctx, time.Second)
	defer end()
	return c.redis.Ping(ctx).Err()
}
