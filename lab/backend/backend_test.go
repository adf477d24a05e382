package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func get(t *testing.T, handler http.Handler, method, path, body string) (int, string) {
	t.Helper()
	recorded := httptest.NewRecorder()
	handler.ServeHTTP(recorded, httptest.NewRequest(method, path, strings.NewReader(body)))
	text, err := io.ReadAll(recorded.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return recorded.Code, string(text)
}

func newApplication(t *testing.T, upstream string) (*application, *metrics) {
	t.Helper()
	state, err := newFaultState("")
	if err != nil {
		t.Fatal(err)
	}
	upstreams, err := parseUpstreams(upstream)
	if err != nil {
		t.Fatal(err)
	}
	return &application{service: "a", version: "v1", pod: "p", faults: state, upstreams: upstreams}, newMetrics()
}

func TestControlChangesOnlyTheNamedFields(t *testing.T) {
	app, _ := newApplication(t, "")
	control := app.faults.routes()
	get(t, control, "POST", "/control", `{"latency_ms": 20, "error_code": 503}`)
	get(t, control, "POST", "/control", `{"error_ratio": 1}`)
	if now := app.faults.current(); now.LatencyMS != 20 || now.ErrorCode != 503 || now.ErrorRatio != 1 {
		t.Fatalf("faults are %+v", now)
	}
	get(t, control, "DELETE", "/control", "")
	if now := app.faults.current(); now != (faults{ErrorCode: 500}) {
		t.Fatalf("after reset faults are %+v", now)
	}
}

func TestControlRefusesWhatItDoesNotKnow(t *testing.T) {
	app, _ := newApplication(t, "")
	for _, body := range []string{`{"latency": 1}`, `{"error_ratio": 2}`, `{"error_code": 200}`, `nonsense`} {
		if code, _ := get(t, app.faults.routes(), "POST", "/control", body); code != http.StatusBadRequest {
			t.Errorf("%s was answered %d", body, code)
		}
	}
	if app.faults.current() != (faults{ErrorCode: 500}) {
		t.Errorf("a refused request changed the faults to %+v", app.faults.current())
	}
}

func TestFailFirstNFailsExactlyN(t *testing.T) {
	app, measured := newApplication(t, "")
	get(t, app.faults.routes(), "POST", "/control", `{"fail_first_n": 2, "error_code": 503}`)
	handler := app.routes(measured)
	for i, want := range []int{503, 503, 200} {
		if code, _ := get(t, handler, "GET", "/x", ""); code != want {
			t.Errorf("request %d was answered %d, not %d", i, code, want)
		}
	}
}

func TestLatencyIsAddedAndMeasured(t *testing.T) {
	app, measured := newApplication(t, "")
	get(t, app.faults.routes(), "POST", "/control", `{"latency_ms": 60}`)
	started := time.Now()
	get(t, app.routes(measured), "GET", "/x", "")
	if took := time.Since(started); took < 60*time.Millisecond {
		t.Errorf("took %s", took)
	}
	_, text := get(t, measured.routes(), "GET", "/metrics", "")
	for _, line := range []string{
		`http_requests_total{code="200",method="GET"} 1`,
		`http_request_duration_seconds_bucket{code="200",method="GET",le="0.05"} 0`,
		`http_request_duration_seconds_bucket{code="200",method="GET",le="+Inf"} 1`,
		`http_request_duration_seconds_count{code="200",method="GET"} 1`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
}

func TestWorkersWorkOffTheLineAlsoForCallersThatLeft(t *testing.T) {
	app, measured := newApplication(t, "")
	get(t, app.faults.routes(), "POST", "/control", `{"workers": 1, "latency_ms": 40}`)
	handler := app.routes(measured)
	left, leave := context.WithCancel(context.Background())
	leave()
	started := time.Now()
	var asked sync.WaitGroup
	for _, ctx := range []context.Context{context.Background(), left, left} {
		asked.Go(func() { handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/x", nil)) })
	}
	asked.Wait()
	if took := time.Since(started); took < 120*time.Millisecond {
		t.Errorf("three requests of 40 ms by one worker took %s", took)
	}
}

func TestProbesSeeNoFaultsAndAreNotCounted(t *testing.T) {
	app, measured := newApplication(t, "")
	get(t, app.faults.routes(), "POST", "/control", `{"error_ratio": 1}`)
	if code, _ := get(t, app.routes(measured), "GET", "/healthz", ""); code != 200 {
		t.Errorf("/healthz was answered %d", code)
	}
	if _, text := get(t, measured.routes(), "GET", "/metrics", ""); strings.Contains(text, "http_requests_total{") {
		t.Errorf("the probe was counted:\n%s", text)
	}
}

func TestUpstreamAnswersPathsBelowItsPrefixWithTheTrace(t *testing.T) {
	var seen *http.Request
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		w.Header().Set("X-Version", "canary")
		w.WriteHeader(http.StatusTeapot)
	}))
	defer behind.Close()
	app, measured := newApplication(t, "/operations="+behind.URL)
	handler := app.routes(measured)
	request := httptest.NewRequest("GET", "/operations/7?full=1", nil)
	request.Header.Set("X-Request-Id", "r-1")
	recorded := httptest.NewRecorder()
	handler.ServeHTTP(recorded, request)
	if recorded.Code != http.StatusTeapot || recorded.Header().Get("X-Upstream-Version") != "canary" {
		t.Errorf("answered %d %v", recorded.Code, recorded.Header())
	}
	if seen.URL.String() != "/operations/7?full=1" || seen.Header.Get("X-Request-Id") != "r-1" {
		t.Errorf("the upstream saw %s %v", seen.URL, seen.Header)
	}
	if code, _ := get(t, handler, "GET", "/operationsX", ""); code != 200 {
		t.Errorf("a path outside the prefix was answered %d", code)
	}
}

func TestEveryTryOfAnUnluckyRequestFails(t *testing.T) {
	failed := 0
	for i := range 2000 {
		id := fmt.Sprintf("request-%d", i)
		first := unlucky(id, 0.3)
		if unlucky(id, 0.3) != first {
			t.Fatalf("%s failed once and not again", id)
		}
		if first {
			failed++
		}
	}
	if failed < 500 || failed > 700 {
		t.Fatalf("%d of 2000 requests failed at a ratio of 0.3", failed)
	}
	if unlucky("x", 0) || !unlucky("x", 1) {
		t.Fatal("ratio 0 must spare every request and ratio 1 none")
	}
}
