package election

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// server is an API server with one Lease.
type server struct {
	mu      sync.Mutex
	lease   *coordinationv1.Lease
	version int
	streams map[*stream]struct{}
	writes  []string
	gets    int
}

// client is one director's way to the server.
type client struct {
	*server
	mu sync.Mutex
	// away makes every request hang; loseReplies carries requests out and lets
	// their answers hang; delay is that of each request.
	away, loseReplies bool
	delay             time.Duration
}

// stream is a watch of one client.
type stream struct {
	client *client
	events chan watch.Event
	once   sync.Once
}

func (s *stream) ResultChan() <-chan watch.Event { return s.events }

func (s *stream) Stop() {
	s.once.Do(func() {
		s.client.server.mu.Lock()
		defer s.client.server.mu.Unlock()
		delete(s.client.streams, s)
		close(s.events)
	})
}

var resource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

func newServer() *server { return &server{streams: map[*stream]struct{}{}} }

func (c *client) set(away, loseReplies bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away, c.loseReplies = away, loseReplies
}

// isAway says whether events are kept from the client too.
func (c *client) isAway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}

func (c *client) travel(ctx context.Context) error {
	c.mu.Lock()
	away, delay := c.away, c.delay
	c.mu.Unlock()
	if away {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(delay):
		return nil
	}
}

func (c *client) reply(ctx context.Context) error {
	c.mu.Lock()
	lose := c.loseReplies
	c.mu.Unlock()
	if lose {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (c *client) Get(ctx context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	if err := c.travel(ctx); err != nil {
		return nil, err
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.gets++
	if c.lease == nil {
		return nil, apierrors.NewNotFound(resource, name)
	}
	return c.lease.DeepCopy(), nil
}

func (c *client) Create(ctx context.Context, lease *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	if err := c.travel(ctx); err != nil {
		return nil, err
	}
	stored, err := c.store(lease, func() error {
		if c.lease != nil {
			return apierrors.NewAlreadyExists(resource, lease.Name)
		}
		return nil
	})
	if err == nil {
		err = c.reply(ctx)
	}
	return stored, err
}

func (c *client) Update(ctx context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	if err := c.travel(ctx); err != nil {
		return nil, err
	}
	stored, err := c.store(lease, func() error {
		switch {
		case c.lease == nil:
			return apierrors.NewNotFound(resource, lease.Name)
		case c.lease.ResourceVersion != lease.ResourceVersion:
			return apierrors.NewConflict(resource, lease.Name, errors.New("changed"))
		default:
			return nil
		}
	})
	if err == nil {
		err = c.reply(ctx)
	}
	return stored, err
}

func (c *client) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if err := c.travel(ctx); err != nil {
		return nil, err
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	s := &stream{client: c, events: make(chan watch.Event, 100)}
	c.streams[s] = struct{}{}
	if c.lease != nil && options.ResourceVersion != c.lease.ResourceVersion {
		s.events <- watch.Event{Type: watch.Modified, Object: c.lease.DeepCopy()}
	}
	return s, nil
}

func (s *server) store(lease *coordinationv1.Lease, check func() error) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := check(); err != nil {
		return nil, err
	}
	c := claimOf(lease)
	s.writes = append(s.writes, c.holder+"/"+c.instance+"/"+strconv.FormatInt(c.epoch, 10))
	s.put(lease.DeepCopy(), watch.Modified)
	return s.lease.DeepCopy(), nil
}

// put needs s.mu.
func (s *server) put(lease *coordinationv1.Lease, event watch.EventType) {
	s.version++
	lease.ResourceVersion = strconv.Itoa(s.version)
	s.lease = lease
	for open := range s.streams {
		if !open.client.isAway() {
			open.events <- watch.Event{Type: event, Object: lease.DeepCopy()}
		}
	}
	if event == watch.Deleted {
		s.lease = nil
	}
}

func (s *server) edit(change func(*coordinationv1.Lease)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lease := s.lease.DeepCopy()
	change(lease)
	s.put(lease, watch.Modified)
}

func (s *server) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(s.lease.DeepCopy(), watch.Deleted)
}

func (s *server) holder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return "no Lease"
	}
	c := claimOf(s.lease)
	return c.holder + "/" + c.instance + "/" + strconv.FormatInt(c.epoch, 10)
}
