// The rule "exact" of the market, from its specification and in BigInt: the naive twin of the server's arithmetic.

// What a pool's takeout is: floor(gross × basis points ÷ 10000).
export function takeout(gross, bp) {
  return Number((BigInt(gross) * BigInt(bp)) / 10_000n);
}

// Splits a pool. stakes are {prediction, outcome, amount} and every one of the pool; the answer maps each prediction to
// {state, payout}. Each winner gets net × stake ÷ winning, rounded down; what is left goes unit by unit to the largest
// fractional parts, ties in the order of acceptance, which is that of the predictions' numbers.
export function split(stakes, winners, bp) {
  const gross = stakes.reduce((sum, s) => sum + BigInt(s.amount), 0n);
  const net = gross - (gross * BigInt(bp)) / 10_000n;
  const won = stakes.filter((s) => winners.includes(s.outcome));
  const winning = won.reduce((sum, s) => sum + BigInt(s.amount), 0n);
  if (winning === 0n) return new Map(stakes.map((s) => [s.prediction, { state: "refunded", payout: s.amount }]));
  const parts = won.map((s) => ({
    prediction: s.prediction, payout: (net * BigInt(s.amount)) / winning, rest: (net * BigInt(s.amount)) % winning,
  }));
  let left = net - parts.reduce((sum, p) => sum + p.payout, 0n);
  parts.sort((a, b) => (a.rest === b.rest ? a.prediction - b.prediction : a.rest > b.rest ? -1 : 1));
  for (const p of parts) if (left > 0n) (p.payout += 1n), (left -= 1n);
  const ends = new Map(stakes.map((s) => [s.prediction, { state: "lost", payout: 0 }]));
  for (const p of parts) ends.set(p.prediction, { state: "won", payout: Number(p.payout) });
  return ends;
}
