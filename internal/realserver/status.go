package realserver

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
)

// Status is what there is to say of a host.
type Status struct {
	// VIPs that were set up; none after a set-up that was cut short.
	VIPs []netip.Addr
	// Keeper names the process that keeps them; empty if none does.
	Keeper string
	State  kernel.RealServerState
}

// Complete says whether everything that was set up is as it should be. Nothing
// that was set up is not complete.
func (s Status) Complete() bool {
	return s.recorded() && len(s.VIPs) > 0 && len(s.wrong()) == 0
}

// recorded says whether there is anything to put back.
func (s Status) recorded() bool {
	return len(s.State.Found) > 0 || len(s.State.Recorded) > 0
}

func (s Status) wrong() []string {
	wrong := Obstacles(s.VIPs, s.State)
	for _, d := range Deviations(s.VIPs, s.State) {
		wrong = append(wrong, d.String())
	}
	return wrong
}

// String is a text of some lines for people.
func (s Status) String() string {
	if !s.recorded() {
		return "This host is not set up as a real server.\n"
	}
	var text strings.Builder
	switch {
	case len(s.VIPs) == 0:
		text.WriteString("A set-up as a real server was cut short; realserver stop undoes it.\n")
	case !s.Complete():
		text.WriteString("This host is set up as a real server, but something is wrong.\n")
	default:
		text.WriteString("This host is set up as a real server.\n")
	}
	for _, vip := range s.VIPs {
		if label, found := onLoopback(vip, s.State); found {
			fmt.Fprintf(&text, "  %s on %s\n", vip, label)
		}
	}
	for _, setting := range s.State.Settings {
		if found, ours := s.State.Found[setting.Path()]; ours {
			fmt.Fprintf(&text, "  %s = %s (found %s)\n", sysctl(setting.Path()), strconv.Itoa(setting.Value), found)
		}
	}
	for _, w := range s.wrong() {
		fmt.Fprintf(&text, "  wrong: %s\n", w)
	}
	if s.Keeper == "" {
		text.WriteString("No process keeps it so.\n")
	} else {
		fmt.Fprintf(&text, "Kept so by %s.\n", s.Keeper)
	}
	return text.String()
}
