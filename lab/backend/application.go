package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Headers a traced service must hand on for its spans to join the caller's trace.
var traceHeaders = []string{
	"X-Request-Id", "Traceparent", "Tracestate", "B3", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
	"X-Canary",
}

// upstream is another service that answers every path below a prefix.
type upstream struct {
	prefix string
	base   *url.URL
}

// parseUpstreams reads "prefix=url[,prefix=url...]", e.g. "/operations=http://operation-service.ce-hub".
func parseUpstreams(text string) ([]upstream, error) {
	var found []upstream
	for item := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(item) == "" {
			continue
		}
		prefix, target, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok || !strings.HasPrefix(prefix, "/") {
			return nil, fmt.Errorf("%q is not /prefix=http://host", item)
		}
		base, err := url.Parse(target)
		if err != nil || base.Host == "" {
			return nil, fmt.Errorf("%q is not /prefix=http://host", item)
		}
		found = append(found, upstream{prefix, base})
	}
	return found, nil
}

type application struct {
	service, version, pod string
	faults                *faultState
	upstreams             []upstream
}

// The pool is as large as a load test needs: the default of 2 idle connections per host would measure the dialling.
var client = &http.Client{
	Transport: &http.Transport{MaxIdleConns: 512, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute},
	Timeout:   60 * time.Second,
}

func (a *application) routes(measured *metrics) http.Handler {
	mux := http.NewServeMux()
	// Probes see neither faults nor metrics: a slow service must stay slow, not be restarted.
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", a.ready)
	mux.Handle("/", measured.observe(http.HandlerFunc(a.answer)))
	return mux
}

func (a *application) ready(w http.ResponseWriter, _ *http.Request) {
	if a.faults.current().NotReady {
		http.Error(w, "made unready through the control port", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// answer serves any path: first the faults, then the upstream if one owns the path, else who answered and what it saw.
func (a *application) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Service", a.service)
	w.Header().Set("X-Version", a.version)
	w.Header().Set("X-Pod", a.pod)
	if code := a.faults.suffer(r.Context(), r.Header.Get("X-Request-Id")); code != 0 {
		http.Error(w, fmt.Sprintf("injected %d", code), code)
		return
	}
	for _, target := range a.upstreams {
		if r.URL.Path == target.prefix || strings.HasPrefix(r.URL.Path, strings.TrimSuffix(target.prefix, "/")+"/") {
			target.forward(w, r)
			return
		}
	}
	headers := make(map[string]string, len(r.Header))
	for name := range r.Header {
		headers[strings.ToLower(name)] = r.Header.Get(name)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"service": a.service, "version": a.version, "pod": a.pod, "method": r.Method, "host": r.Host, "path": r.URL.Path, "headers": headers,
	})
}

// forward sends the request on, path and all, and relays status and body; 502 when the upstream cannot be reached.
func (u upstream) forward(w http.ResponseWriter, r *http.Request) {
	target := *u.base
	target.Path = r.URL.Path
	target.RawQuery = r.URL.RawQuery
	request, err := http.NewRequestWithContext(r.Context(), r.Method, target.String(), r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	request.ContentLength = r.ContentLength
	for _, name := range traceHeaders {
		if value := r.Header.Get(name); value != "" {
			request.Header.Set(name, value)
		}
	}
	response, err := client.Do(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
	w.Header().Set("X-Upstream-Version", response.Header.Get("X-Version"))
	w.WriteHeader(response.StatusCode)
	io.Copy(w, response.Body)
}
