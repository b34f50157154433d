package bench

import "container/heap"

// timers is a heap of the players that want to be woken, soonest first. A player is in it at most once.
type timers []*player

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due < t[j].due }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timer, t[j].timer = int32(i), int32(j)
}

func (t *timers) Push(x any) {
	p := x.(*player)
	p.timer = int32(len(*t))
	*t = append(*t, p)
}

func (t *timers) Pop() any {
	last := len(*t) - 1
	p := (*t)[last]
	*t = (*t)[:last]
	p.timer = unset
	return p
}

// unset is the place of a player that is not in a list.
const unset = -1

// set wakes the player at p.due, instead of any earlier arrangement.
func (t *timers) set(p *player) {
	if p.timer == unset {
		heap.Push(t, p)
	} else {
		heap.Fix(t, int(p.timer))
	}
}

func (t *timers) cancel(p *player) {
	if p.timer != unset {
		heap.Remove(t, int(p.timer))
	}
}
