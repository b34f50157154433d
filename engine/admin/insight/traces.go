package insight

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"tote/server/market"
	"tote/server/proto"
)

// Traces are spans of what happens seldom: operators' requests, the start, answers about the past, snapshots, the stop. They are
// sent by OTLP over HTTP, from a goroutine of the SDK; where the receiver is slower than we are, spans are dropped.
// Nothing on the way of a stake makes one: histograms have that.
type Traces struct {
	trace.Tracer
	provider *sdk.TracerProvider // nil: nobody listens
}

// partingTime is how long the last spans may take to get out.
const partingTime = 3 * time.Second

// OpenTraces sends spans to a receiver, given by its base URL. Where it is empty, OTEL_EXPORTER_OTLP_ENDPOINT and
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT may name one; where they do not, all spans are nothing. The SDK's other variables (headers,
// certificates, samplers, the service's name) count too.
func OpenTraces(ctx context.Context, endpoint string, log *slog.Logger) (*Traces, error) {
	var options []otlptracehttp.Option
	switch {
	case endpoint != "":
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("send traces to %q: say its URL, as in http://127.0.0.1:4318", endpoint)
		}
		options = append(options, otlptracehttp.WithEndpointURL(u.JoinPath("v1/traces").String()))
	case os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "":
		return &Traces{Tracer: noop.NewTracerProvider().Tracer("")}, nil
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "tote")), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(&receiver{SpanExporter: exporter, log: log}), sdk.WithResource(about))
	return &Traces{Tracer: provider.Tracer("tote/server"), provider: provider}, nil
}

// Record makes a span of what has happened already.
func (t *Traces) Record(ctx context.Context, name string, began, ended time.Time, about ...attribute.KeyValue) {
	_, span := t.Start(ctx, name, trace.WithTimestamp(began), trace.WithAttributes(about...))
	span.End(trace.WithTimestamp(ended))
}

// Answered records answers about the past; those to operators below the requests that spanOf knows. Nil where nobody listens.
func (t *Traces) Answered(spanOf func(market.Session) trace.SpanContext) func(market.Answered) {
	if t.provider == nil {
		return nil
	}
	return func(a market.Answered) {
		about := []attribute.KeyValue{attribute.Int64("tote.account", int64(a.Account))}
		if a.Refusal != proto.Accepted {
			about = append(about, attribute.String("tote.refusal", a.Refusal.Code()))
		}
		t.Record(trace.ContextWithSpanContext(context.Background(), spanOf(a.To)), "answer "+a.About, time.UnixMicro(int64(a.Came)), time.UnixMicro(int64(a.Ended)), about...)
	}
}

// Snapshotted records a snapshot that has just been taken.
func (t *Traces) Snapshotted(seq, bytes uint64, began time.Time) {
	t.Record(context.Background(), "snapshot", began, time.Now(), attribute.Int64("tote.record", int64(seq)), attribute.Int64("tote.bytes", int64(bytes)))
}

// Close sends what is left, if that does not take long.
func (t *Traces) Close() {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), partingTime)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // receiver has told the log
}

// receiver tells the log of a receiver that is not there, once until it is back.
//
// Owner of failing: the SDK's goroutine, and whoever shuts down after it.
type receiver struct {
	sdk.SpanExporter
	log     *slog.Logger
	failing bool
}

func (r *receiver) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if err != nil && !r.failing {
		r.log.Warn("traces are not received", "error", err)
	}
	r.failing = err != nil
	return nil // or the SDK tells standard error, each time
}
