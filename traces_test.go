package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	traced "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	ours "tote/server/proto"
)

// receiver is an OTLP receiver: it takes spans over HTTP and keeps them.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	service string
	spans   []*traced.Span
}

func receive(t *testing.T) *receiver {
	r := new(receiver)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var sent collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &sent)
		}
		if err != nil || request.URL.Path != "/v1/traces" || request.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s: %v", request.URL, request.Header, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, of := range sent.ResourceSpans {
			for _, a := range of.Resource.Attributes {
				if a.Key == "service.name" {
					r.service = a.Value.GetStringValue()
				}
			}
			for _, scope := range of.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(r.Close)
	return r
}

// tree is the spans' names, each behind that of its parent.
func (r *receiver) tree() map[string]*traced.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := map[string]*traced.Span{}
	for _, s := range r.spans {
		path := s.Name
		for _, parent := range r.spans {
			if string(parent.SpanId) == string(s.ParentSpanId) && string(parent.TraceId) == string(s.TraceId) {
				path = parent.Name + " > " + path
				for _, above := range r.spans {
					if string(above.SpanId) == string(parent.ParentSpanId) {
						path = above.Name + " > " + path
					}
				}
			}
		}
		names[path] = s
	}
	return names
}

// What happens seldom is traced from the start to the stop, and an operator's request belongs to the trace that it came with.
func TestTraces(t *testing.T) {
	for _, row := range []struct {
		name, service string
		set           func(t *testing.T, url string) (flags []string)
	}{
		{"asked for by flag", "tote", func(_ *testing.T, url string) []string { return []string{"--otlp-endpoint", url} }},
		{"asked for by OpenTelemetry's variables", "derby", func(t *testing.T, url string) []string {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
			t.Setenv("OTEL_SERVICE_NAME", "derby")
			return nil
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			to := receive(t)
			s := start(t, t.TempDir(), append(row.set(t, to.URL), "--snapshot-at", "5")...)
			game, pools := s.game(1)
			c, account := s.dial("Ada", 1000)
			for i := range 10 {
				ask[*ours.Receipt](t, c, ours.Request{Type: ours.RequestStake, ID: ours.RequestID(100 + i), Pool: pools[0], Amount: 10})
			}
			ask[*ours.History](t, c, ours.Request{Type: ours.RequestHistory, ID: 200})
			const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331" // of the W3C's example
			r := must(http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("%s/v1/accounts/%d/statement", s.desk.Base, account.Account), nil))(t)
			r.Header.Set("Traceparent", "00-"+trace+"-"+parent+"-01")
			must(http.DefaultClient.Do(r))(t).Body.Close()
			if _, err := s.desk.Pools(t.Context(), game+1000); err == nil {
				t.Error("an unknown game has pools")
			}
			s.metrics()
			s.stop()

			tree := to.tree()
			const statement = "GET /v1/accounts/{id}/statement"
			for _, want := range []string{"start", "start > recover", "stop > drain", "stop > close the journal", "snapshot", "answer history",
				statement + " > ask the market > answer statement", "POST /v1/accounts", "POST /v1/games/{id}/pools > ask the market"} {
				if s := tree[want]; s == nil || s.EndTimeUnixNano < s.StartTimeUnixNano || s.StartTimeUnixNano == 0 {
					t.Errorf("no span %q, or it ends before it begins: %v", want, s)
				}
			}
			for path, span := range tree {
				if strings.Contains(path, "stake") || strings.Contains(path, "metrics") {
					t.Errorf("a span %q", path)
				}
				if path == statement && (hex.EncodeToString(span.TraceId) != trace || hex.EncodeToString(span.ParentSpanId) != parent) {
					t.Errorf("the statement is in trace %x below %x", span.TraceId, span.ParentSpanId)
				}
				if path == "GET /v1/games/{id}/pools" && !strings.Contains(fmt.Sprint(span.Attributes), "game_unknown") {
					t.Errorf("a refused request is traced as %v", span)
				}
			}
			if to.service != row.service {
				t.Errorf("the service is %q, want %q", to.service, row.service)
			}
			s.audited()
		})
	}
}

// Nobody is asked where nobody listens, and a server whose receiver is gone serves, says so once, and stops.
func TestTracesWithoutReceiver(t *testing.T) {
	to := receive(t)
	s := start(t, t.TempDir())
	s.game(1)
	s.stop()
	s.exited <- <-s.exited // its log is whole
	if len(to.spans) != 0 || strings.Contains(s.log.String(), "traces") {
		t.Errorf("untraced: %d spans, and the log is\n%s", len(to.spans), s.log)
	}
	to.Close()
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	s = start(t, t.TempDir(), "--otlp-endpoint", to.URL)
	for range 3 {
		s.game(1)
	}
	s.stop()
	s.exited <- <-s.exited
	if n := strings.Count(s.log.String(), "traces are not received"); n != 1 {
		t.Errorf("the log tells it %d times:\n%s", n, s.log)
	}
	s.audited()
}
