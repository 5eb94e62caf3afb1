package podnetns

import (
	"context"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A watch that ended is begun again after these times.
const (
	firstWatchPause   = 500 * time.Millisecond
	longestWatchPause = time.Minute
)

// Changes sends a value when sandboxes may have changed; several changes may make
// one value. Not all runtimes tell of changes, and none tells of those while it
// was not watched, so list now and then as well. The channel is closed when ctx
// ends.
func (c *Client) Changes(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		pause := firstWatchPause
		for {
			if told := c.follow(ctx, out); told {
				pause = firstWatchPause
			}
			timer := time.NewTimer(pause)
			pause = min(2*pause, longestWatchPause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
		}
	}()
	return out
}

// follow reports until the stream ends, and says whether it told of anything.
// Why it ended makes no difference: CRI-O without pod events ends it without an
// error.
func (c *Client) follow(ctx context.Context, out chan<- struct{}) (told bool) {
	if !c.hasEvents(ctx) {
		return false
	}
	stream, err := c.runtime.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		return false
	}
	for {
		_, err := stream.Recv()
		if err != nil && !told {
			return false
		}
		// The end of a stream is worth a look too.
		select {
		case out <- struct{}{}:
		default:
		}
		if err != nil {
			return true
		}
		told = true
	}
}

// hasEvents says whether the runtime may be asked for events. containerd before
// 2.0 has one queue for all who ask (containerd issue 7318), so that asking takes
// events from the kubelet.
func (c *Client) hasEvents(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	version, err := c.runtime.Version(ctx, &cri.VersionRequest{})
	if err != nil {
		return false
	}
	old := strings.HasPrefix(version.GetRuntimeVersion(), "1.") || strings.HasPrefix(version.GetRuntimeVersion(), "v1.")
	return version.GetRuntimeName() != "containerd" || !old
}
