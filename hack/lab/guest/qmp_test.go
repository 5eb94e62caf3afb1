package guest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeQemu answers commands, with an event before each answer, and returns what
// it was told.
func fakeQemu(t *testing.T, answer string) (socket string, told <-chan string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "qmp")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	commands := make(chan string, 8)
	go func() {
		defer close(commands)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": []}}`)
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			commands <- lines.Text()
			fmt.Fprintln(conn, `{"event": "NIC_RX_FILTER_CHANGED", "data": {}}`)
			if strings.Contains(lines.Text(), "set_link") {
				fmt.Fprintln(conn, answer)
			} else {
				fmt.Fprintln(conn, `{"return": {}}`)
			}
		}
	}()
	return socket, commands
}

func TestACableIsPluggedOut(t *testing.T) {
	socket, told := fakeQemu(t, `{"return": {}}`)
	if err := SetLink(t.Context(), socket, 1, false); err != nil {
		t.Fatal(err)
	}
	<-told
	var command struct {
		Execute   string
		Arguments struct {
			Name string
			Up   bool
		}
	}
	if err := json.Unmarshal([]byte(<-told), &command); err != nil {
		t.Fatal(err)
	}
	if command.Execute != "set_link" || command.Arguments.Name != "nic1" || command.Arguments.Up {
		t.Errorf("qemu was told %+v", command)
	}
}

func TestWhatQemuRefusesIsAnError(t *testing.T) {
	socket, _ := fakeQemu(t, `{"error": {"class": "DeviceNotFound", "desc": "Device 'nic1' not found"}}`)
	if err := SetLink(t.Context(), socket, 1, false); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("the error is %v", err)
	}
	if err := SetLink(t.Context(), filepath.Join(t.TempDir(), "none"), 1, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a guest that does not run: %v", err)
	}
}
