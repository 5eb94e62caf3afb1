package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	apiPoll = 300 * time.Millisecond
	// readyLimit is many times what a cluster needs on two slow cores.
	readyLimit = 8 * time.Minute
)

// apiClient asks the API server the two things that the lab wants to know,
// from within Control's namespace and without a client library.
type apiClient struct {
	http  *http.Client
	token string
}

func (l *Lab) newAPIClient(creds *credentials) (*apiClient, error) {
	transport := &http.Transport{DialContext: l.Dial(Control)}
	config, err := clientTLS(creds.ca)
	if err != nil {
		return nil, err
	}
	transport.TLSClientConfig = config
	return &apiClient{
		http:  &http.Client{Transport: transport, Timeout: 10 * time.Second},
		token: creds.tokens[adminUser],
	}, nil
}

func (c *apiClient) get(ctx context.Context, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+controlAddress+":"+apiPort+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", path, response.Status)
	}
	return body, nil
}

// readyNodes counts the nodes that are Ready and take pods: the taint of a new
// node goes a little later.
func (c *apiClient) readyNodes(ctx context.Context) (int, error) {
	body, err := c.get(ctx, "/api/v1/nodes")
	if err != nil {
		return 0, err
	}
	var list struct {
		Items []struct {
			Spec   struct{ Taints []struct{ Key string } }
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return 0, err
	}
	ready := 0
	for _, item := range list.Items {
		for _, condition := range item.Status.Conditions {
			if condition.Type == "Ready" && condition.Status == "True" && len(item.Spec.Taints) == 0 {
				ready++
			}
		}
	}
	return ready, nil
}

// await polls until done says so, or a program of the lab has ended. Errors are
// expected while things start; the last one is told if the time is up.
func (l *Lab) await(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(apiPoll)
	defer tick.Stop()
	var last error
	for {
		ok, err := done(ctx)
		if ok {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		if ended, listErr := l.ended(); listErr != nil || len(ended) > 0 {
			err := fmt.Errorf("these ended: %s", strings.Join(ended, " "))
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(err, listErr, last))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(ctx.Err(), last))
		case <-tick.C:
		}
	}
}
