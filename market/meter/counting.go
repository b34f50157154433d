//go:build !nometers

package meter

// counting is false in builds with the tag nometers, which are for BenchmarkMeters alone: it says what counting costs.
const counting = true
