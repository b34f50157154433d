package market

import "tote/server/proto"

// agenda is what a shard has to look at by a time: a binary min-heap. Entries are never taken back; when
// one comes up, its owner looks whether it still holds.
type agenda []appointment

type appointment struct {
	at   proto.Time
	kind appointmentKind
	game proto.GameID
	pool proto.PoolID
}

type appointmentKind uint8

const (
	publishGame appointmentKind = iota
	lockPool
	voidPool
	settleClaim
	archiveGame
)

func (a *agenda) add(at appointment) {
	h := append(*a, at)
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if h[parent].at <= h[i].at {
			break
		}
		h[parent], h[i] = h[i], h[parent]
		i = parent
	}
	*a = h
}

// due takes the earliest appointment if its time has come.
func (a *agenda) due(now proto.Time) (appointment, bool) {
	h := *a
	if len(h) == 0 || h[0].at > now {
		return appointment{}, false
	}
	first := h[0]
	last := len(h) - 1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h[child+1].at < h[child].at {
			child++
		}
		if h[i].at <= h[child].at {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	*a = h
	return first, true
}
