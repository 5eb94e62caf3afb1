package cluster

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/lvs-operator/lvs-operator/hack/lab/toolchain"
)

// apiServer is the name of the API server's process.
const apiServer = "kube-apiserver"

// StopAPI ends the API server, for everybody. What it stores stays.
func (l *Lab) StopAPI(ctx context.Context) error {
	return l.alone(ctx, func() error { return l.end(ctx, apiServer) })
}

// StartAPI starts the API server again and returns when it is ready. One that
// runs is left alone.
func (l *Lab) StartAPI(ctx context.Context) error {
	tools, err := toolchain.New(io.Discard)
	if err != nil {
		return err
	}
	path, err := tools.Ensure(ctx, apiServer)
	if err != nil {
		return err
	}
	err = l.alone(ctx, func() error {
		if _, running := l.recorded(apiServer); running {
			return nil
		}
		for _, p := range l.controlPrograms(filepath.Dir(path)) {
			if p.name == apiServer {
				p.host = Control
				return l.launch(p)
			}
		}
		return fmt.Errorf("%s is no program of the control plane", apiServer)
	})
	if err != nil {
		return fmt.Errorf("starting the API server: %w", err)
	}
	return nil
}
