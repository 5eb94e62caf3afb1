package cluster

import (
	"context"
	"fmt"
)

// apiServer is the name of the API server's process.
const apiServer = "kube-apiserver"

// StopAPI ends the API server, for everybody. What it stores stays.
func (l *Lab) StopAPI(ctx context.Context) error {
	return l.alone(ctx, func() error { return l.end(ctx, apiServer) })
}

// StartAPI starts the API server again; it takes requests some seconds later.
// One that runs is left alone.
func (l *Lab) StartAPI(ctx context.Context) error {
	return l.alone(ctx, func() error {
		if _, running := l.recorded(apiServer); running {
			return nil
		}
		files, err := l.readGuestFiles()
		if err != nil {
			return fmt.Errorf("starting the API server: %w", err)
		}
		for _, p := range l.apiPrograms(files.Kube) {
			if p.name == apiServer {
				return l.launch(p)
			}
		}
		return fmt.Errorf("%s is no program of the control plane", apiServer)
	})
}
