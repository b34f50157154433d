package proto

// Codec is how the messages of a session are written: the subprotocol that its handshake settled on.
type Codec uint8

// The codecs. JSON is the default, for a client that asks for none.
const (
	JSON Codec = iota
	Msgpack
)

var subprotocols = names{"tote.json", "tote.msgpack"}

// CodecOf finds the codec of a WebSocket subprotocol; ok is false when there is none.
func CodecOf(subprotocol string) (c Codec, ok bool) {
	for i, name := range subprotocols {
		if name == subprotocol {
			return Codec(i), true
		}
	}
	return JSON, false
}

// Name is the codec's subprotocol.
func (c Codec) Name() string { return subprotocols.of(uint8(c)) }

// Binary says that messages travel in binary frames; else they are text, and UTF-8.
func (c Codec) Binary() bool { return c == Msgpack }

// Append appends the message in this codec.
func (c Codec) Append(b []byte, m Message) []byte {
	if c == Msgpack {
		return m.AppendMsgpack(b)
	}
	return m.AppendJSON(b)
}

// Parse reads a request in this codec: see Request.Parse.
func (c Codec) Parse(r *Request, b []byte) Refusal {
	if c == Msgpack {
		return r.ParseMsgpack(b)
	}
	return r.Parse(b)
}
