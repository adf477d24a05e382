package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// faults is what the control port sets; the zero value (with ErrorCode 500) is a healthy service.
type faults struct {
	LatencyMS       float64 `json:"latency_ms"`        // added to every request
	LatencyJitterMS float64 `json:"latency_jitter_ms"` // up to this much more, evenly distributed
	ErrorRatio      float64 `json:"error_ratio"`       // 0..1 of the requests answer ErrorCode, and so do all retries of each
	ErrorCode       int     `json:"error_code"`
	FailFirstN      int64   `json:"fail_first_n"` // the next N requests answer ErrorCode, then none: retries recover from it
	CPUBurnMS       float64 `json:"cpu_burn_ms"`  // computed on a CPU in every request
	MemoryMiB       int     `json:"memory_mib"`   // held, and touched so that it counts as working set
	NotReady        bool    `json:"not_ready"`    // /readyz answers 503
	Workers         int     `json:"workers"`      // requests worked on at a time, 0 for any number; the others wait in line
}

const (
	maxLatencyMS = 600_000
	maxMemoryMiB = 4096
	maxWorkers   = 1000
)

func (f faults) check() error {
	switch {
	case f.LatencyMS < 0 || f.LatencyMS > maxLatencyMS || f.LatencyJitterMS < 0 || f.LatencyJitterMS > maxLatencyMS:
		return fmt.Errorf("latency_ms and latency_jitter_ms must be 0..%d", maxLatencyMS)
	case f.ErrorRatio < 0 || f.ErrorRatio > 1:
		return fmt.Errorf("error_ratio must be 0..1")
	case f.ErrorCode < 400 || f.ErrorCode > 599:
		return fmt.Errorf("error_code must be 400..599")
	case f.FailFirstN < 0:
		return fmt.Errorf("fail_first_n must not be negative")
	case f.CPUBurnMS < 0 || f.CPUBurnMS > maxLatencyMS:
		return fmt.Errorf("cpu_burn_ms must be 0..%d", maxLatencyMS)
	case f.MemoryMiB < 0 || f.MemoryMiB > maxMemoryMiB:
		return fmt.Errorf("memory_mib must be 0..%d", maxMemoryMiB)
	case f.Workers < 0 || f.Workers > maxWorkers:
		return fmt.Errorf("workers must be 0..%d", maxWorkers)
	}
	return nil
}

type faultState struct {
	mu      sync.Mutex
	initial faults
	now     faults
	held    []byte
	slots   chan struct{} // as many as there are workers; nil without a limit
}

// newFaultState starts with the faults of the JSON text initial; empty means none.
func newFaultState(initial string) (*faultState, error) {
	healthy := faults{ErrorCode: http.StatusInternalServerError}
	state := &faultState{initial: healthy, now: healthy}
	if initial == "" {
		return state, nil
	}
	if err := state.merge(bytes.NewBufferString(initial)); err != nil {
		return nil, err
	}
	state.initial = state.now
	return state, nil
}

func (s *faultState) current() faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// merge sets the fields the JSON object in body names and keeps the others; an unknown field is an error.
func (s *faultState) merge(body io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.now
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&changed); err != nil {
		return err
	}
	if err := changed.check(); err != nil {
		return err
	}
	s.set(changed)
	return nil
}

func (s *faultState) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(s.initial)
}

// set must be called with the lock held.
func (s *faultState) set(changed faults) {
	if size := changed.MemoryMiB << 20; size != len(s.held) {
		s.held = make([]byte, size)
		for page := 0; page < size; page += 4096 {
			s.held[page] = 1
		}
	}
	if changed.Workers != s.now.Workers {
		s.slots = nil
		if changed.Workers > 0 {
			s.slots = make(chan struct{}, changed.Workers)
		}
	}
	s.now = changed
}

// suffer makes the request slow and busy as told and returns the error code to answer, 0 for none. id is its X-Request-ID.
func (s *faultState) suffer(ctx context.Context, id string) int {
	s.mu.Lock()
	now, slots := s.now, s.slots
	failing := now.FailFirstN > 0
	if failing {
		s.now.FailFirstN--
	}
	s.mu.Unlock()
	if slots != nil {
		// As most servers do, it works off the whole line, also for callers that have left.
		ctx = context.WithoutCancel(ctx)
		slots <- struct{}{}
		defer func() { <-slots }()
	}
	if now.CPUBurnMS > 0 {
		burn(milliseconds(now.CPUBurnMS))
	}
	if wait := milliseconds(now.LatencyMS + rand.Float64()*now.LatencyJitterMS); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done(): // the caller left: do not hold its goroutine for the rest of the latency
		}
	}
	if failing || unlucky(id, now.ErrorRatio) {
		return now.ErrorCode
	}
	return 0
}

// unlucky picks that share of the requests. Envoy keeps X-Request-ID across retries, so a request that fails fails on every
// pod and every try: the callers' share of errors is the ratio itself, whatever the retries, and can be compared.
func unlucky(id string, ratio float64) bool {
	if id == "" {
		return rand.Float64() < ratio
	}
	digest := sha256.Sum256([]byte(id))
	return float64(binary.BigEndian.Uint64(digest[:8])) < ratio*math.MaxUint64
}

func burn(length time.Duration) {
	for end := time.Now().Add(length); time.Now().Before(end); {
	}
}

func milliseconds(value float64) time.Duration {
	return time.Duration(value * float64(time.Millisecond))
}

func (s *faultState) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /control", func(w http.ResponseWriter, _ *http.Request) { s.show(w) })
	mux.HandleFunc("POST /control", func(w http.ResponseWriter, r *http.Request) {
		if err := s.merge(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.show(w)
	})
	mux.HandleFunc("DELETE /control", func(w http.ResponseWriter, _ *http.Request) {
		s.reset()
		s.show(w)
	})
	return mux
}

func (s *faultState) show(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.current())
}
