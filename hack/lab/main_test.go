package main

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// call runs the program with the arguments as main does, without its output.
func call(args ...string) error {
	root := newCommand()
	root.SetArgs(args)
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	return root.Execute()
}

func TestMistakesInTheCall(t *testing.T) {
	for _, args := range [][]string{
		{"up", "--wrong"},
		{"up", "--directors", "many"},
		{"up", "--directors", "10"},
		{"up", "--directors", "0", "--workers", "0"},
		{"up", "--accelerator", "steam"},
		{"up", "--pods", "ipvlan"},
		{"up", "--workers", "1", "--pods", "routed,bridge"},
		{"up", "too", "much"},
		{"--name", "A B", "up"},
		{"nonsense"},
		{"exec", "director1"},
		{"kill"},
		{"cut", "director1"},
		{"load"},
		{"tools"},
		{"tools", "--assets", "helm"},
		{"tools", "nothing"},
	} {
		err := call(args...)
		if _, isUsage := errors.AsType[usageError](err); !isUsage {
			t.Errorf("lab %s: %v, want a usage error", strings.Join(args, " "), err)
			continue
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("lab %s: %q, want one line", strings.Join(args, " "), err)
		}
		if code := exitCode(err); code != 2 {
			t.Errorf("lab %s: exit %d, want 2", strings.Join(args, " "), code)
		}
	}
}

func TestHelpEverywhere(t *testing.T) {
	for _, command := range newCommand().Commands() {
		if err := call(command.Name(), "--help"); err != nil {
			t.Errorf("lab %s --help: %v", command.Name(), err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	cases := map[string]struct {
		err  error
		want int
	}{
		"success":            {nil, 0},
		"a fault":            {errors.New("x"), 1},
		"a wrong call":       {usageError{errors.New("x")}, 2},
		"a command's own":    {exitError(7), 7},
		"no lab of the name": {func() error { err := call("--name", "no-such-lab", "status"); return err }(), 1},
	}
	for name, tc := range cases {
		if code := exitCode(tc.err); code != tc.want {
			t.Errorf("%s: exit %d, want %d", name, code, tc.want)
		}
	}
}
