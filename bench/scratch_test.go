package bench
import ("testing";"os";"time";"strconv";"os/exec")
func TestScratchSmoke(t *testing.T) {
	bin := os.Getenv("SMOKE_BIN"); if bin == "" { return }
	users, _ := strconv.Atoi(os.Getenv("USERS"))
	d, _ := time.ParseDuration(os.Getenv("DUR"))
	turn, _ := time.ParseDuration(os.Getenv("TURN"))
	iv, _ := time.ParseDuration(os.Getenv("IV"))
	w, _ := strconv.Atoi(os.Getenv("W"))
	rate, _ := strconv.ParseFloat(os.Getenv("RATE"), 64)
	if c := os.Getenv("DO"); c != "" { go exec.Command("sh", "-c", c).Run() }
	r, err := Smoke(t.Context(), SmokeConfig{Binary: bin, Users: users, Duration: d, Turnover: turn, Interval: iv, Workers: w, StakeRate: rate})
	if r != nil { r.WriteText(os.Stdout) }
	if err != nil { t.Error(err) }
}
