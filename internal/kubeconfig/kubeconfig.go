// Package kubeconfig finds the API server for the programs that run on nodes.
package kubeconfig

import (
	"fmt"
	"net"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// dialPatience bounds an attempt to connect to the API server. The library would
// wait half a minute for a connection that was tried while the API server was cut
// off.
const dialPatience = 5 * time.Second

// Load reads a kubeconfig file or, with an empty path, the service account of the
// pod. Connections are tried for 5 s, and then anew.
func Load(path string) (*rest.Config, error) {
	config, err := read(path)
	if err != nil {
		return nil, err
	}
	config.Dial = (&net.Dialer{Timeout: dialPatience, KeepAlive: dialPatience}).DialContext
	return config, nil
}

func read(path string) (*rest.Config, error) {
	if path == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("reading the service account (outside a pod give --kubeconfig): %w", err)
		}
		return config, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("reading --kubeconfig: %w", err)
	}
	return config, nil
}
