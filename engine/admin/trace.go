package admin

import (
	"cmp"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"tote/server/market"
	"tote/server/proto/control"
)

// trace makes a span of each request that was let in, below the one that its traceparent names (W3C Trace Context). Scrapes are none: they
// come every few seconds and tell nothing.
func (d *Desk) trace(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == control.PathMetrics {
			next.ServeHTTP(w, r)
			return
		}
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := d.config.Tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		r = r.WithContext(ctx)
		next.ServeHTTP(w, r)
		if !span.IsRecording() {
			return
		}
		if r.Pattern != "" { // the mux has set it; names with ids in them could not be counted
			span.SetName(r.Pattern)
		}
		l := w.(*logged)
		status := cmp.Or(l.status, http.StatusOK)
		span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", r.Pattern), attribute.String("url.path", r.URL.Path),
			attribute.Int("http.response.status_code", status))
		if l.problem != nil {
			span.SetAttributes(attribute.String("tote.refusal", l.problem.Code))
		}
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
	})
}

// SpanOf returns the span of the handler that waits under a session, or none.
func (d *Desk) SpanOf(s market.Session) trace.SpanContext {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting[s].span
}
