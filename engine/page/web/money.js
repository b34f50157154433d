// Money and odds as people read them. Amounts are whole credits, integers below 2^53.

const grouped = new Intl.NumberFormat("en");

export const AMOUNT_MAX = Number.MAX_SAFE_INTEGER;

// 12345 → "12,345"
export function credits(amount) {
  return grouped.format(amount);
}

// 250 → "+250", -100 → "−100"
export function signed(amount) {
  if (amount === 0) return "0";
  return (amount > 0 ? "+" : "−") + grouped.format(Math.abs(amount));
}

// What one staked credit would return. It is rounded down, so that nobody is promised more than there is.
// 2.345 → "2.34×", 23.45 → "23.4×", 1234.5 → "1,234×", nobody staked → "–"
export function multiplier(x) {
  const thousandths = Math.round(x * 1000); // 2.3 * 100 is 229.99…: round before rounding down
  if (thousandths <= 0) return "–";
  if (thousandths < 10_000) return (Math.floor(thousandths / 10) / 100).toFixed(2) + "×";
  if (thousandths < 100_000) return (Math.floor(thousandths / 100) / 10).toFixed(1) + "×";
  return grouped.format(Math.floor(thousandths / 1000)) + "×";
}

// The part of a pool that stands on an outcome, in percent to one decimal.
export function share(staked, gross) {
  return gross > 0 ? Math.round((staked / gross) * 1000) / 10 : 0;
}

export function gross(odds) {
  return odds.reduce((sum, odd) => sum + odd.staked, 0);
}

// What a stake would return if its outcome won and nothing more were staked: net × stake ÷ winning, where net
// and winning include the stake itself. Rounded down; exact integers all the way.
export function estimate(pool, outcome, amount) {
  if (dynamic(pool)) return times(amount, pool.odds[outcome].x);
  return payout(pool, pool.odds[outcome].staked + amount, gross(pool.odds) + amount, amount);
}

// A dynamic pool sells shares. Its multiplier holds for small stakes: what they raise the price by is not in it.
export function dynamic(pool) {
  return pool.kind === "dpm";
}

function times(amount, x) {
  return Number((BigInt(amount) * BigInt(Math.round(x * 1000))) / 1000n);
}

// Millionths of a share, or of a credit for one: 45773797 → "45.77"
export function millionths(n) {
  return (Math.floor(n / 10_000) / 100).toLocaleString("en", { minimumFractionDigits: 2 });
}

// What a stake that is in the odds already would return now; in a dynamic pool, its shares.
export function worth(pool, outcome, amount, shares = 0) {
  if (dynamic(pool)) return times(Math.floor((shares / 1e6) * ((pool.odds[outcome].price ?? 0) / 1e6)), pool.odds[outcome].x);
  return payout(pool, Math.max(pool.odds[outcome].staked, amount), Math.max(gross(pool.odds), amount), amount);
}

function payout(pool, winning, total, amount) {
  const [w, t, a] = [BigInt(winning), BigInt(total), BigInt(amount)];
  const net = t - (t * BigInt(pool.takeout ?? 0)) / 10_000n + BigInt(pool.carried ?? 0);
  return Number((net * a) / w);
}

// What somebody typed as an amount: "1,000" and "1 000" are 1000, but "1.5" is nothing. NaN if it is no amount at all.
export function parseAmount(text) {
  const typed = text.trim();
  if (!/^(\d+|\d{1,3}([\s,.'’]\d{3})+)$/.test(typed)) return NaN;
  const amount = Number(typed.replace(/\D/g, ""));
  return amount >= 1 && amount <= AMOUNT_MAX ? amount : NaN;
}
