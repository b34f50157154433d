package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"tote/server/proto"
)

// worker is an event loop: it connects its players, reads and writes for them, and wakes them.
//
// Owner of every field below the channels: the goroutine in run.
type worker struct {
	orders  chan phase    // from the crew; alarm wakes the loop for them
	tallies chan<- *tally // to the crew; never full, see crew
	spare   <-chan *tally // back from it

	plan   *Plan
	target *target
	doors  []unix.Sockaddr // of the target
	number int
	base   time.Time     // of all instants below: they count from the run's start
	server *atomic.Int64 // the server's clock at base, in µs, as it is known by now; nil: it has this host's clock
	dice   *rand.Rand

	poll  int // epoll
	alarm int // eventfd
	clock int // timerfd: epoll's own timeout knows milliseconds only
	armed time.Duration

	players  []player
	arrived  int // players[:arrived] have begun to connect
	entering int // of them, those who are in no game yet
	timers   timers
	idle     []*player // those who can take the next planned stake
	games    map[proto.GameID]*game

	coarse  bool // one look at the clock for all events of a turn, because it costs as much as a read
	phase   phase
	now     time.Duration
	woke    time.Duration // when this turn of the loop began
	wall    proto.Time
	tick    time.Duration // when the next tally is due
	stakeAt time.Duration // when the next stake or other deed is planned for; only with a StakeRate
	stormAt time.Duration // when the next storm is planned for
	storms  []Storm       // it and those after it
	playAt  time.Duration // when play began
	partAt  time.Duration // when the next player is planned to say goodbye
	parted  int           // players[:parted] have
	tally   *tally
	tail    *tail // from phaseFarewell on

	events [eventsMax]unix.EpollEvent
	in     []byte // what is being read
	clear  []byte // what is decrypted of it
	sealed []byte // what is encrypted, and written next
	out    []byte // the frame being written
	text   []byte // the request in it
	oob    []byte // control messages with time stamps
}

// auditAll is how many players are all audited at the end. Of more, those without a receipt by a sample.
const auditAll = 200_000

// Limits of a turn of the loop.
const (
	// eventsMax bounds the time between two looks at the timers: 128 reads take half a millisecond.
	eventsMax = 128
	// arrivalsMax lets a worker that is behind catch up without neglecting those already there.
	arrivalsMax = 32
	// enteringMax lets nobody new in while a server that is behind has so many at the door: those who wait there lose their patience, or it
	// does. Arrivals keep the times they were planned for.
	enteringMax = 1000

	inSize    = 64 << 10
	inRoom    = 16 << 10 // what is free for a read at least, however much of a frame is kept
	farFuture = time.Duration(1<<63 - 1)
)

const _ = uint(inSize - 2*inRoom) // the buffer need not grow for ordinary messages

func newWorker(plan *Plan, t *target, number int, server *atomic.Int64, tallies chan<- *tally, spare <-chan *tally) (*worker, error) {
	w := &worker{
		orders: make(chan phase, phaseStop+1), tallies: tallies, spare: spare,
		plan: plan, target: t, number: number, server: server,
		dice: rand.New(rand.NewPCG(plan.Seed, ^uint64(number))),
		poll: unset, alarm: unset, clock: unset, armed: farFuture,
		games: map[proto.GameID]*game{},
		in:    make([]byte, inSize), oob: make([]byte, 64),
		tick: plan.patience.tick, stakeAt: farFuture, stormAt: farFuture, partAt: farFuture,
	}
	w.tally = <-spare
	w.doors = t.doors()
	// Players go round: worker w of W, over all hosts, has w, w+W, w+2W, …
	w.players = make([]player, (plan.Users-number+plan.Workers-1)/plan.Workers)
	for i := range w.players {
		w.players[i].init(number+i*plan.Workers, plan)
	}
	if err := w.open(); err != nil {
		w.close()
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	return w, nil
}

func (w *worker) open() (err error) {
	if w.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("create an epoll: %w", err)
	}
	if w.alarm, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("create an eventfd: %w", err)
	}
	if w.clock, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return fmt.Errorf("create a timerfd: %w", err)
	}
	for _, own := range []struct{ fd, name int }{{w.alarm, alarmEvent}, {w.clock, clockEvent}} {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(own.name)}
		if err := unix.EpollCtl(w.poll, unix.EPOLL_CTL_ADD, own.fd, &event); err != nil {
			return fmt.Errorf("watch an own descriptor: %w", err)
		}
	}
	return nil
}

// Names of the events that belong to no player; a player's is its place in players.
const (
	alarmEvent = -1
	clockEvent = -2
)

func (w *worker) close() {
	for i := range w.players {
		if fd := w.players[i].fd; fd != unset {
			unix.Close(int(fd))
		}
	}
	for _, fd := range []int{w.clock, w.alarm, w.poll} {
		if fd != unset {
			unix.Close(fd)
		}
	}
}

// order moves the worker to a phase. It is called once for each phase at most, hence there is room.
func (w *worker) order(p phase) {
	w.orders <- p
	unix.Write(w.alarm, binary.NativeEndian.AppendUint64(nil, 1)) // fails only when the alarm rings already
}

// run turns the loop until phaseStop.
func (w *worker) run(base time.Time) {
	w.base = base
	w.look()
	for range 100 {
		w.look()
	}
	began := w.now
	for range 100 {
		w.look()
	}
	w.coarse = w.now-began > 100*clockMax
	w.woke = w.now
	for w.phase != phaseStop {
		w.obey()
		w.arrive()
		w.storm()
		w.depart()
		w.wake()
		w.stake()
		w.handOver()
		for _, event := range w.wait() {
			w.serve(event)
		}
	}
	if w.tail == nil { // no farewell was ordered
		w.tail = w.sumUp()
	}
	w.tally.tail = w.tail
	w.tally.gauge = w.gauge()
	w.close()
	w.tallies <- w.tally
}

// look reads the clock.
func (w *worker) look() {
	t := time.Now()
	w.now, w.wall = t.Sub(w.base), proto.Time(t.UnixMicro())
	if w.server != nil {
		w.wall = proto.Time(w.server.Load() + w.now.Microseconds())
	}
}

// obey does what Run has ordered.
func (w *worker) obey() {
	for {
		select {
		case w.phase = <-w.orders:
			w.enter()
		default:
			return
		}
	}
}

func (w *worker) enter() {
	switch w.phase {
	case phasePlay:
		if w.plan.StakeRate > 0 && len(w.players) > 0 {
			w.stakeAt = w.now
			w.planStake()
		}
		w.playAt, w.storms = w.now, w.plan.Storms
		w.planStorm()
	case phaseDepart:
		w.playAt, w.stormAt = w.now, farFuture
		w.planPart()
	case phaseQuiet:
		for w.stakeAt <= w.now {
			w.tally.stakes.Planned++
			w.tally.stakes.Missed++
			w.planStake()
		}
		w.stakeAt, w.stormAt, w.partAt = farFuture, farFuture, farFuture
	case phaseAudit:
		// Two requests each; a pace that does not measure the server once more.
		const pace = 5000 // players per second
		turn, idle := 0, 0
		for i := range w.players {
			p := &w.players[i]
			if p.manner != mannerUsual || p.audited {
				p.audited = true
				continue // whoever does not read gets no answers; whoever has departed was audited
			}
			if len(p.tickets) == 0 {
				// Of those with empty books, some are enough.
				if idle++; len(w.players) > auditAll && idle%(len(w.players)/auditAll*4) != 0 {
					p.audited = true
					w.rest(p)
					continue
				}
			}
			w.beginAudit(p, w.now+time.Duration(turn)*time.Second/pace)
			turn++
		}
	case phaseFarewell:
		w.tail = w.sumUp()
		if w.plan.Ending != nil {
			return // the server parts from them
		}
		for i := range w.players {
			w.part(&w.players[i])
		}
	}
}

// arrive connects the players whose time has come.
func (w *worker) arrive() {
	for range arrivalsMax {
		if w.phase >= phaseQuiet || w.arrivalAt() > w.now || w.entering >= enteringMax {
			return
		}
		p := &w.players[w.arrived]
		p.entering = true
		w.entering++
		p.planned = w.arrivalAt()
		w.arrived++
		w.connect(p)
	}
}

func (w *worker) arrivalAt() time.Duration {
	if w.arrived == len(w.players) {
		return farFuture
	}
	return w.plan.arrival(w.players[w.arrived].number)
}

// wake lets the players act whose timers have run out.
func (w *worker) wake() {
	for range eventsMax {
		if len(w.timers) == 0 || w.timers[0].due > w.now {
			return
		}
		p := w.timers[0]
		w.timers.cancel(p)
		w.act(p)
	}
}

// stake gives the planned stakes that are due to idle players, at random. While nobody is idle the
// plan waits but does not change: late stakes keep the times they were planned for.
func (w *worker) stake() {
	for range eventsMax {
		if w.stakeAt > w.now || len(w.idle) == 0 {
			return
		}
		planned := w.stakeAt
		w.planStake()
		w.perform(w.idle[w.dice.IntN(len(w.idle))], planned)
	}
}

// planStake draws the time of the stake after the one at stakeAt. This worker's share of the rate is its share of the players.
func (w *worker) planStake() {
	rate := w.plan.StakeRate * float64(len(w.players)) / float64(w.plan.Users)
	w.stakeAt += time.Duration(w.dice.ExpFloat64() / rate * float64(time.Second))
}

// storm drops the connections that a storm takes, when its time has come.
func (w *worker) storm() {
	if w.stormAt > w.now {
		return
	}
	storm := w.storms[0]
	w.storms = w.storms[1:]
	w.planStorm()
	for i := range w.players {
		p := &w.players[i]
		if p.stage < stageGreeting || p.stage > stagePlaying || p.manner != mannerUsual {
			continue
		}
		if float64(p.below(1<<32)) < storm.Share*(1<<32) {
			w.drop(p, storm.Back)
		}
	}
}

func (w *worker) planStorm() {
	w.stormAt = farFuture
	if len(w.storms) > 0 {
		w.stormAt = w.playAt + w.storms[0].At
	}
}

// drop leaves without a word, as a phone does that loses its network, and comes back within the time given.
func (w *worker) drop(p *player, back time.Duration) {
	w.tally.connections.Dropped++
	w.hangUp(p, stageAway)
	p.due = w.now + backMin + time.Duration(p.below(uint64(max(back-backMin, 1))))
	p.awaited = p.due
	w.timers.set(p)
}

// depart sends home the players whose time has come: each compares its books and says goodbye.
func (w *worker) depart() {
	for w.partAt <= w.now {
		p := &w.players[w.parted]
		w.parted++
		w.planPart()
		p.departing = true
		if p.asked == proto.RequestNone {
			w.goHome(p)
		} // or else its reply sends it home
	}
}

func (w *worker) planPart() {
	w.partAt = farFuture
	if w.parted < len(w.players) {
		w.partAt = w.playAt + time.Duration(float64(w.players[w.parted].number)/w.plan.Depart*float64(time.Second))
	}
}

// goHome begins a departing player's audit, after which it parts.
func (w *worker) goHome(p *player) {
	switch {
	case p.stage != stagePlaying && p.stage != stageLobby:
		w.part(p)
	case p.manner != mannerUsual:
		p.audited = true
		w.part(p)
	default:
		w.beginAudit(p, w.now)
	}
}

// handOver gives the tally to Run when it is time and Run is not behind.
func (w *worker) handOver() {
	if w.now < w.tick {
		return
	}
	w.tick = w.now + w.plan.patience.tick
	select {
	case next := <-w.spare:
		w.tally.gauge = w.gauge()
		w.tallies <- w.tally
		w.tally = next
	default: // counting goes on in the same one
	}
}

// wait sleeps until a socket, a timer or Run wants something.
func (w *worker) wait() []unix.EpollEvent {
	until := w.tick
	if w.entering < enteringMax {
		until = min(until, w.arrivalAt())
	}
	if len(w.timers) > 0 {
		until = min(until, w.timers[0].due)
	}
	if len(w.idle) > 0 {
		until = min(until, w.stakeAt)
	}
	until = min(until, w.stormAt, w.partAt)
	w.look()
	w.tally.busy += w.now - w.woke
	w.tally.turn = max(w.tally.turn, w.now-w.woke)
	timeout := -1
	switch {
	case until <= w.now:
		timeout = 0
	case until != w.armed:
		w.armed = until
		in := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(until - w.now))}
		err := unix.TimerfdSettime(w.clock, 0, &in, nil)
		assert(err == nil, "a positive time sets a timer")
	}
	n, err := unix.EpollWait(w.poll, w.events[:], timeout)
	assert(err == nil || errors.Is(err, unix.EINTR), "epoll_wait on an own epoll succeeds")
	w.look()
	w.woke = w.now
	return w.events[:max(n, 0)]
}

// serve does what one event asks for.
func (w *worker) serve(event unix.EpollEvent) {
	switch event.Fd {
	case alarmEvent:
		var count [8]byte
		unix.Read(w.alarm, count[:]) // resets it; the orders are in the channel
		return
	case clockEvent:
		w.armed = 0 // it has rung, and is set anew before it can ring again
		return
	}
	p := &w.players[event.Fd]
	if p.stage == stageConnecting {
		w.connected(p)
		return
	}
	if event.Events&unix.EPOLLOUT != 0 && p.fd != unset {
		w.flush(p)
	}
	if event.Events&^unix.EPOLLOUT != 0 && p.fd != unset { // also errors and hang-ups: the read tells which
		w.read(p)
	}
}

// connect begins a TCP connection.
func (w *worker) connect(p *player) {
	door := w.door(p.number)
	fd, err := unix.Socket(familyOf(door), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.lose(p, "connect: "+remedy(err), "socket")
		return
	}
	p.fd, p.stage = int32(fd), stageConnecting
	w.tally.connections.Attempts++
	if err := w.dial(p, door); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		w.lose(p, "connect: "+remedy(err), err.Error())
		return
	}
	event := unix.EpollEvent{Events: unix.EPOLLOUT, Fd: w.eventName(p)}
	if err := unix.EpollCtl(w.poll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		w.lose(p, "connect: "+remedy(err), "epoll")
	}
}

// eventName is what events call the player.
func (w *worker) eventName(p *player) int32 {
	return int32((p.number - w.number) / w.plan.Workers)
}

func (w *worker) dial(p *player, door unix.Sockaddr) error {
	fd := int(p.fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if p.stamped() {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return err
		}
	}
	if p.manner != mannerUsual {
		// What the kernel takes for a player who does not read is not the server's any more: as little of it as it lets us.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
			return err
		}
	}
	if from, ok := w.source(p.number); ok {
		// The port is chosen by connect, where it needs to be free for this target only.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, from); err != nil {
			return fmt.Errorf("connect from %s: %w", addressOf(from), err)
		}
	}
	return unix.Connect(fd, door)
}

// door is the address that player i connects to.
func (w *worker) door(i int) unix.Sockaddr { return w.doors[w.here(i)%len(w.doors)] }

// here is player i's place among those of this process, from 0.
func (w *worker) here(i int) int { return w.plan.deal.place(i, w.plan.Workers) }

// source is the address that player i connects from; ok is false where the kernel shall choose.
func (w *worker) source(i int) (from unix.Sockaddr, ok bool) {
	turn := w.here(i) / len(w.doors)
	switch sources := w.plan.Sources; {
	case sources != nil && sources[turn%len(sources)].Is4():
		return &unix.SockaddrInet4{Addr: sources[turn%len(sources)].As4()}, true
	case sources != nil:
		return &unix.SockaddrInet6{Addr: sources[turn%len(sources)].As16()}, true
	case w.target.loopback:
		return &unix.SockaddrInet4{Addr: source(i)}, true
	}
	return nil, false
}

func familyOf(a unix.Sockaddr) int {
	if addressOf(a).Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func addressOf(a unix.Sockaddr) netip.Addr {
	if four, ok := a.(*unix.SockaddrInet4); ok {
		return netip.AddrFrom4(four.Addr)
	}
	return netip.AddrFrom16(a.(*unix.SockaddrInet6).Addr)
}

// What this host may run short of, with the remedies: then the generator is the bottleneck, and not the server.
const (
	shortOfPorts  = "no local port is free, or no such address: widen net.ipv4.ip_local_port_range, or connect from more addresses (--from)"
	shortOfFiles  = "too many open files; raise the limit (ulimit -n)"
	shortOfAll    = "too many open files on this host; raise fs.file-max"
	shortOfMemory = "the kernel is out of socket memory; raise net.ipv4.tcp_mem"
)

var ownShortages = []string{shortOfPorts, shortOfFiles, shortOfAll, shortOfMemory}

// remedy names an error of the kernel, and what to do about it where the cause is on this host.
func remedy(err error) string {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "connection refused; is the server running, is the port right?"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return shortOfPorts
	case errors.Is(err, unix.EMFILE):
		return shortOfFiles
	case errors.Is(err, unix.ENFILE):
		return shortOfAll
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return shortOfMemory
	}
	return err.Error()
}

// connected begins the handshakes once TCP has connected.
func (w *worker) connected(p *player) {
	failed, err := unix.GetsockoptInt(int(p.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && failed != 0 {
		err = unix.Errno(failed)
	}
	if err != nil {
		w.lose(p, "connect: "+remedy(err), err.Error())
		return
	}
	w.watch(p, unix.EPOLLIN)
	if w.target.tls != nil {
		w.secure(p)
		return
	}
	w.upgrade(p)
}

// upgrade sends the opening handshake.
func (w *worker) upgrade(p *player) {
	p.stage = stageUpgrading
	nonce := p.nonce()
	w.out = appendUpgrade(w.out[:0], w.target, nonce)
	w.write(p, w.out)
}

func (w *worker) watch(p *player, events uint32) {
	event := unix.EpollEvent{Events: events, Fd: w.eventName(p)}
	err := unix.EpollCtl(w.poll, unix.EPOLL_CTL_MOD, int(p.fd), &event)
	assert(err == nil, "a watched socket can be watched for something else")
}

// send writes one message as one frame.
func (w *worker) send(p *player, opcode ws.OpCode, payload []byte) {
	w.out = appendFrame(w.out[:0], opcode, uint32(p.dice.Uint64()), payload)
	w.write(p, w.out)
}

// write writes b, encrypted if there is TLS.
func (w *worker) write(p *player, b []byte) {
	if p.tls == nil {
		w.put(p, b)
		return
	}
	_, _ = p.tls.conn.Write(b) // an error says that the connection has ended: so does the next read
	w.writeSealed(p)
}

// put writes b, and keeps what the kernel does not take.
func (w *worker) put(p *player, b []byte) {
	if len(p.unsent) > 0 {
		p.unsent = append(p.unsent, b...)
		return
	}
	n, err := unix.Write(int(p.fd), b)
	if err != nil {
		if !errors.Is(err, unix.EAGAIN) {
			return // the socket is broken: the next read says how, and no sooner, as there may be a close frame to read
		}
		n = 0
	}
	if n < len(b) {
		p.unsent = append(p.unsent, b[n:]...)
		w.watch(p, unix.EPOLLIN|unix.EPOLLOUT)
	}
}

// flush writes what is left from write.
func (w *worker) flush(p *player) {
	n, err := unix.Write(int(p.fd), p.unsent)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return
	case err != nil || n == len(p.unsent):
		p.unsent = nil
		w.watch(p, unix.EPOLLIN)
	default:
		p.unsent = p.unsent[n:]
	}
}

// read reads once and takes in whatever is whole.
func (w *worker) read(p *player) {
	for len(w.in)-len(p.cut) < max(inRoom, w.plan.Slow.Rate) {
		w.in = make([]byte, 2*len(w.in)) // bounded by messageMax, see readFrame
	}
	kept := copy(w.in, p.cut)
	room := w.in[kept:]
	if p.manner == mannerTrickle && p.stage == stagePlaying {
		room = room[:w.plan.Slow.Rate]
		w.watch(p, 0) // until the timer rings
		p.due = w.now + time.Second
		w.timers.set(p)
	}
	n, err := w.receive(p, room)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return
	case err != nil:
		w.lose(p, "connection lost: "+remedy(err), err.Error())
		return
	case n == 0:
		w.lose(p, "connection closed without a close frame", "")
		return
	}
	if !w.coarse {
		w.look()
	}
	w.tally.bytes += uint64(n)
	if p.tls != nil {
		w.decrypt(p, w.in[kept:kept+n])
		return
	}
	w.takeIn(p, w.in[:kept+n])
}

// takeIn takes in what is whole of b, and keeps the rest.
func (w *worker) takeIn(p *player, b []byte) {
	left := w.take(p, b)
	if p.fd == unset {
		return
	}
	if len(left) == 0 {
		p.cut = nil
	} else {
		p.cut = append(p.cut[:0], left...)
	}
}

// clockMax is what a look at the clock may cost to be taken for each read. It is a hundredth of a read where the clock is read
// without a system call.
const clockMax = 2 * time.Microsecond

// stampEvery is how few players' reads carry the kernel's time stamp, which costs a third of a µs.
const stampEvery = 64

func (p *player) stamped() bool { return p.number%stampEvery == 0 }

// receive reads. For a few players it compares the clock with the time at which the kernel had the
// bytes: that is this generator's own delay.
func (w *worker) receive(p *player, b []byte) (int, error) {
	if !p.stamped() || w.phase > phaseQuiet { // the rush of the audit and of goodbyes is of our own making
		return rawRead(int(p.fd), b)
	}
	n, oobn, _, _, err := unix.Recvmsg(int(p.fd), b, w.oob, 0)
	if err == nil && n > 0 {
		if at, ok := readStamp(w.oob[:oobn]); ok {
			w.tally.record(meterReceiveLag, time.Since(at))
		}
	}
	return n, err
}

// rawRead is read(2) without telling Go's scheduler, since the sockets never block.
func rawRead(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// readStamp finds SCM_TIMESTAMPNS: cmsghdr (length, level, type), then seconds and nanoseconds, 64 bits each.
func readStamp(oob []byte) (at time.Time, ok bool) {
	if len(oob) < unix.SizeofCmsghdr+16 {
		return at, false
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return at, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			seconds, nanoseconds := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return time.Unix(int64(seconds), int64(nanoseconds)), true
		}
	}
	return at, false
}

// take reads the handshake's answer and frames from b and returns the cut one at its end.
func (w *worker) take(p *player, b []byte) []byte {
	if p.stage == stageUpgrading {
		size, err := readUpgrade(b, p.nonce())
		switch {
		case err != nil:
			w.lose(p, "handshake refused", err.Error())
			return nil
		case size == 0:
			return b
		}
		b = b[size:]
		w.tally.record(meterHandshake, w.now-p.planned)
		w.tally.connections.Made++
		w.greet(p)
	}
	for {
		f, size, err := readFrame(b)
		switch {
		case err != nil:
			w.lose(p, "bad frame: "+err.Error(), fmt.Sprintf("% x…", b[:min(len(b), 16)]))
			return nil
		case size == 0:
			return b
		}
		b = b[size:]
		w.frame(p, f)
		if p.fd == unset {
			return nil
		}
	}
}

// frame answers control frames and puts messages together.
func (w *worker) frame(p *player, f frame) {
	switch f.opcode {
	case ws.OpPing:
		w.tally.pings++
		w.send(p, ws.OpPong, f.payload)
		return
	case ws.OpPong:
		return
	case ws.OpClose:
		w.closed(p, f.payload)
		return
	}
	opcode, message, whole, err := p.assembly.add(f)
	switch {
	case err != nil:
		w.lose(p, "bad frame: "+err.Error(), "")
	case whole && opcode != ws.OpText:
		w.lose(p, "bad frame: tote.json has text messages only", "")
	case whole:
		w.message(p, message)
	}
}

// closed is told that the server ends the connection, or agrees to its end.
func (w *worker) closed(p *player, payload []byte) {
	if p.stage == stageParting {
		w.hangUp(p, stageGone)
		return
	}
	code, reason, err := readClose(payload)
	if err != nil {
		w.lose(p, "bad frame: "+err.Error(), "")
		return
	}
	w.send(p, ws.OpClose, payload[:min(len(payload), 2)])
	if after, ok := proto.RestartDelay(reason); ok && code == uint16(proto.CloseRestart) {
		w.recall(p, time.Duration(after)*time.Microsecond)
		return
	}
	w.lose(p, fmt.Sprintf("closed by the server: %d %s", code, reason), "")
}

// tokensMax is how many guests keep their tokens in case that the server restarts: 150 bytes each.
const tokensMax = 200_000

// recall is told that the server restarts and when to come back, and does as it is told.
func (w *worker) recall(p *player, after time.Duration) {
	w.tally.connections.Recalled++
	if w.phase > phaseQuiet || p.departing || p.stage >= stageAuditing || p.manner == mannerNever {
		w.hangUp(p, stageGone)
		return
	}
	w.hangUp(p, stageAway)
	p.due, p.told = w.now+after, w.now
	p.awaited = p.due
	w.timers.set(p)
}

// lose ends a connection that should have gone on.
func (w *worker) lose(p *player, fault, example string) {
	if p.stage == stageParting {
		w.hangUp(p, stageGone) // whichever way it ends
		return
	}
	if p.manner != mannerUsual && p.stage == stagePlaying {
		w.tally.connections.Shed++ // what a server may do with those who do not read
		w.hangUp(p, stageGone)
		return
	}
	w.tally.fault(fault, p.says(example))
	if p.stage > stageUpgrading {
		w.tally.connections.Lost++
	}
	if !w.plan.returns() || w.phase >= phaseQuiet || p.departing {
		w.hangUp(p, stageGone)
		return
	}
	w.hangUp(p, stageAway)
	// Half a second, doubled each time up to 8 s, and up to as much again at random: the players
	// of a server that restarts must not come back all at once.
	pause := 500 * time.Millisecond << min(p.attempts, 4)
	p.attempts++
	p.due = w.now + pause + time.Duration(p.below(uint64(pause)))
	w.timers.set(p)
}

// part says goodbye, and leaves it to the server to agree.
func (w *worker) part(p *player) {
	w.timers.cancel(p)
	w.rest(p)
	if p.stage <= stageUpgrading {
		w.hangUp(p, stageGone)
		return
	}
	if p.stage < stageParting {
		p.stage = stageParting
		w.send(p, ws.OpClose, binary.BigEndian.AppendUint16(nil, uint16(proto.CloseNormal)))
	}
}

// entered counts a player no longer among those at the door.
func (w *worker) entered(p *player) {
	if p.entering {
		p.entering = false
		w.entering--
	}
}

// hangUp closes the socket, if there is one, and forgets what belongs to the connection.
func (w *worker) hangUp(p *player, next stage) {
	if p.fd != unset {
		unix.Close(int(p.fd)) // also takes it from the epoll
		p.fd = unset
	}
	if p.tls != nil {
		p.tls.stop()
		p.tls = nil
	}
	p.cut, p.unsent, p.assembly = nil, nil, assembly{}
	p.unsure = p.unsure || p.asked == proto.RequestStake
	p.asked, p.deed, p.watched = proto.RequestNone, false, watched{}
	w.timers.cancel(p)
	w.rest(p)
	w.quit(p)
	w.entered(p)
	p.stage = next
}

// assert stops the process where our own code is wrong.
func assert(ok bool, what string) {
	if !ok {
		panic("bench: " + what)
	}
}
