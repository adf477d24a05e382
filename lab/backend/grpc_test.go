package main

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestCallsSufferTheFaultsAndAnswersSayWhoGaveThem(t *testing.T) {
	app, _ := newApplication(t, "")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newGRPCServer("", app)
	go server.Serve(listener)
	defer server.Stop()
	connection, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	get(t, app.faults.routes(), "POST", "/control", `{"fail_first_n": 1, "error_code": 503}`)
	for i, want := range []codes.Code{codes.Unavailable, codes.OK} {
		var header metadata.MD
		answer, err := healthpb.NewHealthClient(connection).Check(context.Background(), &healthpb.HealthCheckRequest{}, grpc.Header(&header))
		if status.Code(err) != want {
			t.Errorf("call %d was answered %v, not %v", i, err, want)
		}
		if want == codes.OK && answer.Status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("call %d says %v", i, answer.Status)
		}
		if pods := header.Get("x-pod"); (want == codes.OK) != (len(pods) == 1 && pods[0] == "p") {
			t.Errorf("call %d was answered by %v", i, pods)
		}
	}
}
