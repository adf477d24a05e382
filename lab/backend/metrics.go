package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Upper bounds in seconds: the client libraries' defaults, so that 0.1, 0.5 and 1 s are boundaries.
var bounds = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

type series struct{ code, method string }

type histogram struct {
	buckets []uint64 // not cumulative; the last one is +Inf
	sum     float64
}

// metrics counts the application's requests and writes them as Prometheus text; by hand: two series need no client library.
type metrics struct {
	mu      sync.Mutex
	byKind  map[series]*histogram
	started time.Time
}

func newMetrics() *metrics {
	return &metrics{byKind: map[series]*histogram{}, started: time.Now()}
}

type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

func (m *metrics) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		recorded := &recorder{w, http.StatusOK}
		next.ServeHTTP(recorded, r)
		m.add(series{strconv.Itoa(recorded.code), r.Method}, time.Since(started).Seconds())
	})
}

func (m *metrics) add(key series, seconds float64) {
	bucket, _ := slices.BinarySearch(bounds, seconds)
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.byKind[key]
	if found == nil {
		found = &histogram{buckets: make([]uint64, len(bounds)+1)}
		m.byKind[key] = found
	}
	found.buckets[bucket]++
	found.sum += seconds
}

func (m *metrics) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.write(w)
		m.writeProcess(w)
	})
	return mux
}

func (m *metrics) write(w io.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]series, 0, len(m.byKind))
	for key := range m.byKind {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b series) int { return strings.Compare(a.code+a.method, b.code+b.method) })
	fmt.Fprintln(w, "# HELP http_requests_total Requests answered.\n# TYPE http_requests_total counter")
	for _, key := range keys {
		fmt.Fprintf(w, "http_requests_total{code=%q,method=%q} %d\n", key.code, key.method, m.byKind[key].count())
	}
	fmt.Fprintln(w, "# HELP http_request_duration_seconds Time to answer.\n# TYPE http_request_duration_seconds histogram")
	for _, key := range keys {
		m.byKind[key].write(w, fmt.Sprintf("code=%q,method=%q", key.code, key.method))
	}
}

func (h *histogram) count() (total uint64) {
	for _, bucket := range h.buckets {
		total += bucket
	}
	return total
}

func (h *histogram) write(w io.Writer, labels string) {
	var cumulative uint64
	for i, bound := range bounds {
		cumulative += h.buckets[i]
		fmt.Fprintf(w, "http_request_duration_seconds_bucket{%s,le=\"%g\"} %d\n", labels, bound, cumulative)
	}
	fmt.Fprintf(w, "http_request_duration_seconds_bucket{%s,le=\"+Inf\"} %d\n", labels, h.count())
	fmt.Fprintf(w, "http_request_duration_seconds_sum{%s} %g\n", labels, h.sum)
	fmt.Fprintf(w, "http_request_duration_seconds_count{%s} %d\n", labels, h.count())
}

func (m *metrics) writeProcess(w io.Writer) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err == nil {
		seconds := float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
		fmt.Fprintf(w, "# HELP process_cpu_seconds_total User and system CPU time spent.\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %g\n", seconds)
	}
	if pages, ok := residentPages(); ok {
		fmt.Fprintf(w, "# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %d\n", pages*os.Getpagesize())
	}
	fmt.Fprintf(w, "# HELP process_start_time_seconds Start since the epoch.\n# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %.3f\n", float64(m.started.UnixMilli())/1e3)
}

// residentPages reads the second figure of /proc/self/statm.
func residentPages() (int, bool) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.Atoi(fields[1])
	return pages, err == nil
}
