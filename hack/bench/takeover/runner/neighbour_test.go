package main

import (
	"testing"
	"time"
)

func TestNeighbourReadsTheTable(t *testing.T) {
	const table = `IP address       HW type     Flags       HW address            Mask     Device
192.168.11.21    0x1         0x2         52:54:00:aa:00:15     *        eth0
192.168.11.200   0x1         0x2         52:54:00:aa:00:16     *        eth0
192.168.11.201   0x1         0x0         00:00:00:00:00:00     *        eth0
`
	for address, want := range map[string]string{
		"192.168.11.200": "52:54:00:aa:00:16", "192.168.11.201": "", "192.168.11.20": "",
	} {
		if got := neighbour(table, address); got != want {
			t.Errorf("neighbour(%s) = %q, want %q", address, got, want)
		}
	}
}

func TestAMoveIsAnotherDirectorAndNotAGap(t *testing.T) {
	var m mover
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for i, mac := range []string{"", "a", "a", "", "a", "b", "", "a"} {
		m.note(noon.Add(time.Duration(i)*time.Second), mac)
	}
	for at, want := range map[int][2]int{0: {0, 2}, 5: {0, 2}, 6: {1, 1}, 8: {2, 0}} {
		before, after := m.split(noon.Add(time.Duration(at) * time.Second))
		if got := [2]int{before, after}; got != want {
			t.Errorf("split(%d) = %v, want %v", at, got, want)
		}
	}
}
