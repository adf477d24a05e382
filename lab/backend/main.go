// Command backend is the workload the lab's policies are about: an HTTP service whose latency, errors and resource use
// can be changed while it runs, so that a promise can really be broken and really be kept again.
//
// Three ports, so that mTLS and authorization on the application's port can be shown without losing scraping or control:
// the application (PORT, 8080), the faults (CONTROL_PORT, 8081) and the metrics (METRICS_PORT, 9090). With GRPC_PORT it also
// answers gRPC's health service there, and with ZIPKIN_PORT it takes the spans proxies report.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const (
	// How long requests in flight may still take after SIGTERM.
	shutdownGrace     = 10 * time.Second
	readHeaderTimeout = 10 * time.Second
)

// server is what http.Server can do and serve needs; ListenAndServe ends with http.ErrServerClosed after Shutdown.
type server interface {
	ListenAndServe() error
	Shutdown(ctx context.Context) error
}

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	faults, err := newFaultState(os.Getenv("FAULTS"))
	if err != nil {
		log.Fatalf("FAULTS: %v", err)
	}
	upstreams, err := parseUpstreams(os.Getenv("UPSTREAM"))
	if err != nil {
		log.Fatalf("UPSTREAM: %v", err)
	}
	measured := newMetrics()
	app := &application{
		service:   environment("SERVICE", "backend"),
		version:   environment("VERSION", "stable"),
		pod:       environment("POD_NAME", hostname()),
		faults:    faults,
		upstreams: upstreams,
	}
	application, control, metrics := ":"+environment("PORT", "8080"), ":"+environment("CONTROL_PORT", "8081"), ":"+environment("METRICS_PORT", "9090")
	servers := []server{
		&http.Server{Addr: application, Handler: app.routes(measured), ReadHeaderTimeout: readHeaderTimeout},
		&http.Server{Addr: control, Handler: faults.routes(), ReadHeaderTimeout: readHeaderTimeout},
		&http.Server{Addr: metrics, Handler: measured.routes(), ReadHeaderTimeout: readHeaderTimeout},
	}
	if port := os.Getenv("GRPC_PORT"); port != "" {
		servers = append(servers, newGRPCServer(":"+port, app))
	}
	if port := os.Getenv("ZIPKIN_PORT"); port != "" {
		servers = append(servers, &http.Server{Addr: ":" + port, Handler: (&traces{}).routes(), ReadHeaderTimeout: readHeaderTimeout})
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log.Printf("%s %s serves %s, control %s, metrics %s", app.service, app.version, application, control, metrics)
	if err := serve(ctx, servers); err != nil {
		log.Fatal(err)
	}
}

// serve runs all servers until ctx ends, then lets requests in flight finish. The first server that fails ends all.
func serve(ctx context.Context, servers []server) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, server := range servers {
		running.Go(func() {
			if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	grace, release := context.WithTimeout(context.Background(), shutdownGrace)
	defer release()
	for _, server := range servers {
		if err := server.Shutdown(grace); err != nil {
			log.Printf("shutdown: %v", err)
		}
	}
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
