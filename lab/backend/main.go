// Command backend is the workload the lab's policies are about: an HTTP service whose latency, errors and resource use
// can be changed while it runs, so that a promise can really be broken and really be kept again.
//
// Three ports, so that mTLS and authorization on the application's port can be shown without losing scraping or control:
// the application (PORT, 8080), the faults (CONTROL_PORT, 8081) and the metrics (METRICS_PORT, 9090).
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

// How long requests in flight may still take after SIGTERM.
const shutdownGrace = 10 * time.Second

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
	servers := []*http.Server{
		{Addr: ":" + environment("PORT", "8080"), Handler: app.routes(measured)},
		{Addr: ":" + environment("CONTROL_PORT", "8081"), Handler: faults.routes()},
		{Addr: ":" + environment("METRICS_PORT", "9090"), Handler: measured.routes()},
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log.Printf("%s %s serves %s, control %s, metrics %s", app.service, app.version, servers[0].Addr, servers[1].Addr, servers[2].Addr)
	if err := serve(ctx, servers); err != nil {
		log.Fatal(err)
	}
}

// serve runs all servers until ctx ends, then lets requests in flight finish. The first server that fails ends all.
func serve(ctx context.Context, servers []*http.Server) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, server := range servers {
		server.ReadHeaderTimeout = 10 * time.Second
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
			log.Printf("shutdown of %s: %v", server.Addr, err)
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
