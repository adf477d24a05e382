package main

import (
	"fmt"
	"net/http"
	"testing"
)

func TestSpansAreFoundByTheirTrace(t *testing.T) {
	kept := (&traces{}).routes()
	if code, _ := get(t, kept, "POST", "/api/v2/spans", `[{"traceId": "a", "name": "one"}, {"traceId": "b", "name": "two"}]`); code != http.StatusAccepted {
		t.Fatalf("answered %d", code)
	}
	if _, found := get(t, kept, "GET", "/api/v2/trace/b", ""); found != `[{"name":"two","traceId":"b"}]`+"\n" {
		t.Fatalf("found %s", found)
	}
	if _, found := get(t, kept, "GET", "/api/v2/trace/c", ""); found != "[]\n" {
		t.Fatalf("found %s", found)
	}
}

func TestWhatIsNoListOfSpansIsRefused(t *testing.T) {
	if code, _ := get(t, (&traces{}).routes(), "POST", "/api/v2/spans", `{}`); code != http.StatusBadRequest {
		t.Fatalf("answered %d", code)
	}
}

func TestTheOldestSpansGiveWay(t *testing.T) {
	kept := &traces{}
	for number := range keptSpans + 1 {
		get(t, kept.routes(), "POST", "/api/v2/spans", fmt.Sprintf(`[{"traceId": "%d"}]`, number))
	}
	if len(kept.spans) != keptSpans || kept.spans[0]["traceId"] != "1" {
		t.Fatalf("%d spans from %v on", len(kept.spans), kept.spans[0])
	}
}
