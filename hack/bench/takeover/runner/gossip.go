package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// metricsURL is where a director tells its metrics on its own host.
	metricsURL = "http://127.0.0.1:7957/metrics"
	// membersMetric counts the other directors that are alive by gossip.
	membersMetric = "lvs_director_gossip_members"
	metricsLimit  = 5 * time.Second
)

// hearsPeer says whether this host's director hears the other one by gossip.
func hearsPeer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, metricsLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, metricsURL, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("asking the director: %w", err)
	}
	defer response.Body.Close()
	members, err := readMetric(response.Body, membersMetric)
	if err == nil && members < 1 {
		err = errors.New("the director hears nobody by gossip")
	}
	return err
}

// readMetric finds a metric without labels in the text format of Prometheus.
func readMetric(text io.Reader, name string) (float64, error) {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if value, found := strings.CutPrefix(lines.Text(), name+" "); found {
			return strconv.ParseFloat(value, 64)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("reading metrics: %w", err)
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}
