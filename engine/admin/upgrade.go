package admin

import (
	"net/http"

	"tote/server/proto"
	"tote/server/proto/control"
)

func (d *Desk) showProcess(w http.ResponseWriter, _ *http.Request) {
	process := d.config.Process()
	reply(w, &process)
}

// upgrade has another process take over.
func (d *Desk) upgrade(w http.ResponseWriter, r *http.Request) {
	var order control.Upgrade
	if !read(w, r, &order) {
		return
	}
	if order.Drain < 0 || order.Spread < 0 {
		malformed(w, "drain and spread are times of 0 or more")
		return
	}
	heir, err := d.config.Upgrade(r.Context(), &order)
	if err != nil {
		fail(w, http.StatusConflict, proto.Problem{Code: "not_upgraded", Reason: "no other process takes over; this one serves as before", Detail: err.Error()})
		return
	}
	reply(w, &heir)
}
