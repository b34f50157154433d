package proto

import _ "embed"

// AsyncAPI is the AsyncAPI 3 document of the protocol, in YAML: what this package says, for people and
// tools that do not read Go.
//
//go:embed asyncapi.yaml
var AsyncAPI []byte
