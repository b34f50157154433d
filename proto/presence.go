package proto

// PeopleMax is how many accounts a room has at most for their names to be told: in a larger one nobody could read them, and
// telling everybody of everybody would be its square.
const PeopleMax = 50

// Person is a player in a game.
type Person struct {
	Account AccountID `json:"account"`
	Name    string    `json:"name"`
	Latency Time      `json:"latency"` // from the server to the player and back, smoothed; 0: not measured yet
}

// Presence says who is in a game: connections at any scale, people while there are at most PeopleMax, by account.
type Presence struct {
	ID      RequestID `json:"id"`
	T       Time      `json:"t"`
	Game    GameID    `json:"game"`
	Present int       `json:"present"`          // connections
	People  []Person  `json:"people,omitempty"` // none: too many
}

// PresenceChanged tells a small room who is in it now, whenever that changes and at most every few seconds. It has no number: a slow
// reader gets only the newest one, and no odds are held up for it. One without people says that the room is no longer small.
type PresenceChanged struct {
	T       Time     `json:"t"`
	Game    GameID   `json:"game"`
	Present int      `json:"present"`
	People  []Person `json:"people,omitempty"`
}

func (*Presence) Type() string        { return "presence" }
func (*PresenceChanged) Type() string { return "presence_changed" }

func appendPerson(w writer, p Person) writer {
	w, outer := w.begin()
	w = num(w.key(`{"account":`), p.Account)
	w = text(w.key(`,"name":`), p.Name)
	w = num(w.key(`,"latency":`), p.Latency)
	return w.end(outer)
}

func (m *Presence) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"id":`), m.ID)
	w = num(w.key(`,"t":`), m.T)
	return crowd(w, m.Game, m.Present, m.People).end(0)
}

func (m *PresenceChanged) append(w writer) writer {
	w = w.open(m.Type())
	w = num(w.key(`,"t":`), m.T)
	return crowd(w, m.Game, m.Present, m.People).end(0)
}

// crowd appends what both messages say of a game.
func crowd(w writer, game GameID, present int, people []Person) writer {
	w = num(w.key(`,"game":`), game)
	w = num(w.key(`,"present":`), present)
	if len(people) > 0 {
		w = list(w.key(`,"people":`), people, appendPerson)
	}
	return w
}

func (m *Presence) AppendJSON(b []byte) []byte           { return m.append(writeJSON(b)).b }
func (m *PresenceChanged) AppendJSON(b []byte) []byte    { return m.append(writeJSON(b)).b }
func (m *Presence) AppendMsgpack(b []byte) []byte        { return m.append(writeMsgpack(b)).b }
func (m *PresenceChanged) AppendMsgpack(b []byte) []byte { return m.append(writeMsgpack(b)).b }
