package proto

import "fmt"

// names are the words on the wire for the values of a small enumeration, in their order.
type names []string

func (n names) of(value uint8) string {
	if int(value) >= len(n) {
		return "unknown"
	}
	return n[value]
}

func (n names) find(word []byte, value *uint8) error {
	for i, name := range n {
		if name == string(word) {
			*value = uint8(i)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %q", word, []string(n))
}
