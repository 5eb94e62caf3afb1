package announce

import (
	"errors"
	"fmt"
)

// ErrBondMode says that the announcement interface is a bond that does not
// leave ARP as it is.
var ErrBondMode = errors.New("bond mode does not go with announcing addresses")

// CheckBondMode says whether VIPs can be announced on a bond of this mode,
// named as the kernel does ("802.3ad", "active-backup", ...; the first word of
// /sys/class/net/BOND/bonding/mode). The empty mode, of what is no bond, is
// fine. An error wraps ErrBondMode.
//
// balance-alb rewrites the answers that it sends, each client being told the
// MAC of another port, and both it and balance-tlb send from the ports' own
// MACs (Linux, drivers/net/bonding/bond_alb.c): neighbours would hear several
// MACs for one VIP, and so would the conflict watch.
func CheckBondMode(mode string) error {
	switch mode {
	case "balance-alb", "balance-tlb":
		return fmt.Errorf("%w: %s sends from the MAC addresses of its ports; use active-backup, 802.3ad or balance-xor", ErrBondMode, mode)
	default:
		return nil
	}
}
