package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// qmpLimit is many times what qemu takes to answer.
const qmpLimit = 30 * time.Second

// SetLink plugs a guest's network cable in or out: card counts the NICs of its
// Config from 0, and socket is its Config's Control. The guest's card has a
// carrier or none from then on. A guest that does not run has no socket, which is
// os.ErrNotExist.
func SetLink(ctx context.Context, socket string, card int, up bool) (err error) {
	if _, err := os.Stat(socket); err != nil {
		return fmt.Errorf("plugging a cable: %w", err)
	}
	conn, err := (&net.Dialer{Timeout: qmpLimit}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("plugging a cable: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(qmpLimit)); err != nil {
		return fmt.Errorf("plugging a cable: %w", err)
	}
	q := qmp{json.NewDecoder(conn), json.NewEncoder(conn)}
	// qemu speaks first, and wants to be asked what it can before anything else.
	if err := q.read(&struct{}{}); err != nil {
		return fmt.Errorf("plugging a cable: %w", err)
	}
	if err := q.execute("qmp_capabilities", nil); err != nil {
		return fmt.Errorf("plugging a cable: %w", err)
	}
	if err := q.execute("set_link", map[string]any{"name": nicName(card), "up": up}); err != nil {
		return fmt.Errorf("plugging a cable: %w", err)
	}
	return nil
}

func nicName(card int) string { return fmt.Sprintf("nic%d", card) }

// qmp is a conversation in qemu's machine protocol: JSON objects one after the
// other, answers in the order of the commands, events in between.
type qmp struct {
	in  *json.Decoder
	out *json.Encoder
}

func (q qmp) read(to any) error { return q.in.Decode(to) }

func (q qmp) execute(command string, arguments map[string]any) error {
	message := map[string]any{"execute": command}
	if arguments != nil {
		message["arguments"] = arguments
	}
	if err := q.out.Encode(message); err != nil {
		return err
	}
	for {
		var answer struct {
			Return *json.RawMessage `json:"return"`
			Error  *struct {
				Description string `json:"desc"`
			} `json:"error"`
		}
		if err := q.read(&answer); err != nil {
			return err
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", command, answer.Error.Description)
		case answer.Return != nil:
			return nil
		}
	}
}
