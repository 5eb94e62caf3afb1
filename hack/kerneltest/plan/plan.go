// Package plan is what kerneltest and the runner in its guest tell each other.
package plan

// Names that both sides know.
const (
	// File is where the runner finds the Plan in its initramfs.
	File = "/plan.json"
	// Port is the virtio-serial port to which the runner writes Events, one
	// JSON object a line.
	Port = "tests"
)

// Plan is what the runner has to run, one binary after the other.
type Plan struct {
	Binaries []Binary `json:"binaries"`
}

// Binary is one package's tests.
type Binary struct {
	Package string   `json:"package"`
	Path    string   `json:"path"`
	Dir     string   `json:"dir"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
}

// Event is a piece of output of a binary, or, if Done, its end.
type Event struct {
	Binary  int     `json:"binary"`
	Output  []byte  `json:"output,omitempty"`
	Done    bool    `json:"done,omitempty"`
	Exit    int     `json:"exit,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}
