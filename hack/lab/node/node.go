// Package node is what the lab and the agent in a node's guest agree on.
package node

import "strconv"

// Where the agent finds things in its initramfs.
const (
	// BootFile is the Boot, as JSON.
	BootFile = "/node.json"
	// Overlay is a tree that is laid over the node's root.
	Overlay = "/overlay"
)

// Where a started node has things.
const (
	// ImagesDir holds image tars, from the second disk.
	ImagesDir = "/lab/images"
	// LogDir has a file for each service.
	LogDir = "/var/log"
)

// Ports is how many commands can run on a node at a time for callers outside.
const Ports = 6

// PortName is the name of a virtio-serial port that takes commands.
func PortName(index int) string { return "exec" + strconv.Itoa(index) }

// Boot is what a node does when it starts.
type Boot struct {
	Hostname string `json:"hostname"`
	// Setup runs first, each command to its end. One that fails is shown on
	// the console and the rest runs all the same: a node that is half up can be
	// looked at.
	Setup [][]string `json:"setup"`
	// Services start in this order.
	Services []Service `json:"services"`
}

// Service is a program that the agent keeps running.
type Service struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
	// Nice is its niceness, and that of what it starts.
	Nice int `json:"nice,omitempty"`
	// Ready is a unix socket that has to take connections before the next
	// service starts.
	Ready string `json:"ready,omitempty"`
	// Then runs once after that, the first time.
	Then [][]string `json:"then,omitempty"`
}

// HoldFile is a file that keeps a service of the node from being started again
// as long as it exists.
func HoldFile(service string) string { return "/run/hold-" + service }
