package main

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Upper bounds in seconds: the client libraries' defaults, so that 0.1, 0.5 and 1 s are boundaries.
var bounds = prometheus.DefBuckets

// Neighbouring buckets of the native histogram are at most so far apart: the schema 3 most recommend.
const growth = 1.1

// metrics counts the application's requests. Their durations are a classic and a native histogram of one name: who scrapes says which.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
}

func newMetrics() *metrics {
	labels := []string{"code", "method"}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "Requests answered."}, labels),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_request_duration_seconds", Help: "Time to answer.", Buckets: bounds, NativeHistogramBucketFactor: growth,
		}, labels),
	}
	m.registry.MustRegister(m.requests, m.durations, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
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
		code := strconv.Itoa(recorded.code)
		m.requests.WithLabelValues(code, r.Method).Inc()
		m.durations.WithLabelValues(code, r.Method).Observe(time.Since(started).Seconds())
	})
}

func (m *metrics) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}
