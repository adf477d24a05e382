package main

import (
	"encoding/json"
	"net/http"
	"sync"
)

// The spans kept; the oldest give way.
const keptSpans = 10_000

// A batch of spans is no longer than this, in bytes.
const longestBatch = 8 << 20

// traces takes spans as Zipkin does and gives back those of a trace: what proxies report can be looked at.
type traces struct {
	mutex sync.Mutex
	spans []map[string]any
}

func (t *traces) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/spans", t.take)
	mux.HandleFunc("GET /api/v2/trace/{id}", t.give)
	return mux
}

func (t *traces) take(w http.ResponseWriter, r *http.Request) {
	var batch []map[string]any
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, longestBatch)).Decode(&batch); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.spans = append(t.spans, batch...)
	t.spans = t.spans[max(0, len(t.spans)-keptSpans):]
	w.WriteHeader(http.StatusAccepted)
}

func (t *traces) give(w http.ResponseWriter, r *http.Request) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	found := []map[string]any{}
	for _, span := range t.spans {
		if span["traceId"] == r.PathValue("id") {
			found = append(found, span)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(found)
}
