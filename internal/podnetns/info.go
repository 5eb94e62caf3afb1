package podnetns

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// info is what both runtimes say about a sandbox if they are asked verbosely,
// under the key infoKey: an object that has the OCI configuration of the sandbox's
// container (opencontainers/runtime-spec, config-linux.md) as runtimeSpec.
type info struct {
	RuntimeSpec *struct {
		Linux *struct {
			Namespaces []struct {
				Type string `json:"type"`
				Path string `json:"path"`
			} `json:"namespaces"`
		} `json:"linux"`
	} `json:"runtimeSpec"`
}

const infoKey = "info"

// netns names a network namespace: either by its file in /run/netns or by a
// process of the host.
type netns struct {
	name, pid string
}

// String is the path on the host.
func (n netns) String() string {
	if n.name != "" {
		return DefaultNetNS + "/" + n.name
	}
	return "/proc/" + n.pid + "/ns/net"
}

// decodeInfo finds the network namespace in the info of a sandbox. It is false for
// a sandbox that has the host's, which is what it means if none is listed.
func decodeInfo(text string) (n netns, own bool, err error) {
	var i info
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		return n, false, fmt.Errorf("reading the sandbox's info: %w", err)
	}
	if i.RuntimeSpec == nil || i.RuntimeSpec.Linux == nil {
		return n, false, errors.New("the sandbox's info has no runtimeSpec for Linux")
	}
	for _, ns := range i.RuntimeSpec.Linux.Namespaces {
		if ns.Type != "network" {
			continue
		}
		if own {
			return netns{}, false, errors.New("the sandbox's info lists two network namespaces")
		}
		if n, err = parsePath(ns.Path); err != nil {
			return netns{}, false, err
		}
		own = true
	}
	return n, own, nil
}

// parsePath takes a path only if it is one under which runtimes keep network
// namespaces: what is behind it is entered with all privileges.
func parsePath(path string) (netns, error) {
	for _, root := range []string{"/run/netns/", "/var/run/netns/"} {
		if name, ok := strings.CutPrefix(path, root); ok && isFileName(name) {
			return netns{name: name}, nil
		}
	}
	if rest, ok := strings.CutPrefix(path, "/proc/"); ok {
		if pid, ok := strings.CutSuffix(rest, "/ns/net"); ok && isPID(pid) {
			return netns{pid: pid}, nil
		}
	}
	return netns{}, fmt.Errorf("the sandbox's network namespace %q is at no place for one: "+
		"/run/netns/NAME or /proc/PID/ns/net", path)
}

// isFileName says whether a text is an ordinary name of one file.
func isFileName(name string) bool {
	const longest = 255
	return name != "" && len(name) <= longest && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return !fileRune(r) })
}

func fileRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-'
}

func isPID(text string) bool {
	const longest = 10
	return text != "" && len(text) <= longest && text[0] != '0' && strings.Trim(text, "0123456789") == ""
}
