package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/lvs-operator/lvs-operator/api/v1alpha1"
	directorcontroller "github.com/lvs-operator/lvs-operator/controllers/director"
)

const (
	// belongingPatience bounds how long a director that ends asks whether its node
	// still belongs to a pool.
	belongingPatience = time.Second
	// cleanupPatience bounds what a director does at its end when its node is no
	// longer a director's.
	cleanupPatience = 15 * time.Second
)

// departing is a director that ends.
type departing interface {
	// Decided says that it is known which pool PoolName is, or that it is none.
	Decided() bool
	PoolName() string
	// Cleanup takes away all that the operator owns on the node.
	Cleanup(context.Context) error
}

// leaveForGood cleans the node up if it is no longer a director's: the director
// was about to leave when it was told to end, or the API server says so. Without
// an answer it still is one.
func leaveForGood(ctx context.Context, d departing, live client.Client, node string, installation directorcontroller.Installation, log *slog.Logger) error {
	if left := d.Decided() && d.PoolName() == ""; !left {
		asking, done := context.WithTimeout(ctx, belongingPatience)
		defer done()
		pool, err := directorcontroller.PoolOf(asking, live, node, installation)
		if err != nil {
			log.Warn("It is not known whether the node still belongs to a pool; everything stays in place", "error", err)
			return nil
		}
		if pool != nil {
			return nil
		}
	}
	log.Info("No DirectorPool selects this node any more; cleaning it up")
	cleaning, done := context.WithTimeout(ctx, cleanupPatience)
	defer done()
	if err := d.Cleanup(cleaning); err != nil {
		return err
	}
	own := &v1alpha1.Director{ObjectMeta: metav1.ObjectMeta{Name: node}}
	if err := live.Delete(cleaning, own); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting Director %s: %w", own.Name, err)
	}
	return nil
}
