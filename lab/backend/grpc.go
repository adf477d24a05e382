package main

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// grpcServer serves gRPC's standard health service on address, without TLS, with reflection for clients that know no schema.
// Its calls suffer the same faults as HTTP requests do.
type grpcServer struct {
	*grpc.Server
	address string
}

func newGRPCServer(address string, a *application) *grpcServer {
	made := &grpcServer{grpc.NewServer(grpc.UnaryInterceptor(a.call)), address}
	healthpb.RegisterHealthServer(made, health.NewServer())
	reflection.Register(made)
	return made
}

func (s *grpcServer) ListenAndServe() error {
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		return err
	}
	if err := s.Serve(listener); err != nil {
		return err
	}
	return http.ErrServerClosed
}

func (s *grpcServer) Shutdown(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.Stop)()
	s.GracefulStop()
	return ctx.Err()
}

func (a *application) call(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	id := ""
	if values := metadata.ValueFromIncomingContext(ctx, "x-request-id"); len(values) > 0 {
		id = values[0]
	}
	if code := a.faults.suffer(ctx, id); code != 0 {
		// Without headers of its own the answer is its status alone, at once (Trailers-Only): what proxies retry by.
		return nil, status.Errorf(grpcCode(code), "injected %d", code)
	}
	if err := grpc.SetHeader(ctx, metadata.Pairs("x-service", a.service, "x-version", a.version, "x-pod", a.pod)); err != nil {
		return nil, err
	}
	return next(ctx, request)
}

// grpcCode is what a server says in gRPC that would answer code in HTTP.
func grpcCode(code int) codes.Code {
	switch code {
	case http.StatusInternalServerError:
		return codes.Internal
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}
