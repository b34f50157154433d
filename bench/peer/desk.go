package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"tote/server/proto"
)

// Refused is a rule that keeps an operator's deed from being done.
type Refused proto.Refusal

func (r Refused) Error() string { return proto.Refusal(r).Reason() }

// bodyMax bounds what an operator sends.
const bodyMax = 1 << 20

// Deed reads the id in a path of package control and the body, and answers with what becomes of them: a Refused is the operator's to mend, any other
// error is of what lies behind the server.
func Deed[T any](do func(id uint64, body *T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, wrong := uint64(0), error(nil)
		if text := r.PathValue("id"); text != "" {
			id, wrong = strconv.ParseUint(text, 10, 53)
		}
		body := new(T)
		if err := errors.Join(wrong, json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyMax)).Decode(body)); err != nil {
			Fail(w, http.StatusBadRequest, proto.Problem{Code: proto.RefusedMalformed.Code(), Reason: "the request is not what this path takes", Detail: err.Error()})
			return
		}
		answer, err := do(id, body)
		var no Refused
		switch {
		case errors.As(err, &no):
			Fail(w, http.StatusConflict, proto.Problem{Code: proto.Refusal(no).Code(), Reason: no.Error()})
		case err != nil:
			Broken(w, err)
		default:
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(answer)
		}
	}
}

// Broken answers that a database or disk has failed.
func Broken(w http.ResponseWriter, err error) {
	Fail(w, http.StatusInternalServerError, proto.Problem{Code: "internal", Reason: "what keeps the data failed", Detail: err.Error()})
}

// Fail answers with a problem.
func Fail(w http.ResponseWriter, status int, p proto.Problem) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(p)
}

// Money is where it is.
type Money struct{ Accounts, Pools, House, Deposits proto.Amount }

// Write writes it as metrics, under the names of our own server's.
func (m *Money) Write(w io.Writer) {
	for _, place := range []struct {
		name   string
		amount proto.Amount
	}{{"accounts", m.Accounts}, {"pools", m.Pools}, {"house", m.House}, {"deposits", m.Deposits}, {"withdrawals", 0}} {
		fmt.Fprintf(w, "server_money_units{where=%q} %d\n", place.name, place.amount)
	}
}

// Check wants nothing to be missing, and nothing to be there twice.
func (m *Money) Check() error {
	if m.Accounts+m.Pools+m.House != m.Deposits {
		return fmt.Errorf("accounts + pools + house differ from deposits: %+v", *m)
	}
	return nil
}
