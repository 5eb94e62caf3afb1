package kernel

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/netstate"
)

func TestSloppySettingsComeAndGo(t *testing.T) {
	type values = map[string]string
	found := func(tcp, sctp, drop string) values { return values{sloppyTCP: tcp, sloppySCTP: sctp, dropEntry: drop} }
	tcp, both, none := &netstate.Sloppy{TCP: true}, &netstate.Sloppy{TCP: true, SCTP: true}, &netstate.Sloppy{}
	cases := map[string]struct {
		found values
		steps []*netstate.Sloppy
		// meanwhile is what somebody, or the kernel, writes before the last step.
		meanwhile values
		want      values
	}{
		"TCP":                          {found("0", "0", "0"), []*netstate.Sloppy{tcp}, nil, found("1", "0", "1")},
		"both":                         {found("0", "0", "0"), []*netstate.Sloppy{both}, nil, found("1", "1", "1")},
		"nothing decided":              {found("0", "1", "0"), []*netstate.Sloppy{nil}, nil, found("0", "1", "0")},
		"none, and nothing was ours":   {found("1", "1", "3"), []*netstate.Sloppy{none}, nil, found("1", "1", "3")},
		"on and off":                   {found("0", "0", "0"), []*netstate.Sloppy{both, none}, nil, found("0", "0", "0")},
		"one of two goes":              {found("0", "0", "0"), []*netstate.Sloppy{both, tcp}, nil, found("1", "0", "1")},
		"on and undecided":             {found("0", "0", "0"), []*netstate.Sloppy{tcp, nil}, nil, found("1", "0", "1")},
		"on, off and on":               {found("0", "0", "0"), []*netstate.Sloppy{tcp, none, tcp}, nil, found("1", "0", "1")},
		"was on before":                {found("1", "0", "2"), []*netstate.Sloppy{tcp, none}, nil, found("1", "0", "2")},
		"a stronger defence stays":     {found("0", "0", "3"), []*netstate.Sloppy{tcp}, nil, found("1", "0", "3")},
		"memory is short when it goes": {found("0", "0", "0"), []*netstate.Sloppy{tcp, none}, values{dropEntry: "2"}, found("0", "0", "0")},
		"memory is short while it is":  {found("0", "0", "0"), []*netstate.Sloppy{tcp, tcp}, values{dropEntry: "2"}, found("1", "0", "2")},
		"somebody changes it":          {found("0", "0", "0"), []*netstate.Sloppy{tcp, none}, values{dropEntry: "3"}, found("0", "0", "3")},
		"drift is repaired":            {found("0", "0", "0"), []*netstate.Sloppy{tcp, tcp}, values{sloppyTCP: "0", dropEntry: "0"}, found("1", "0", "1")},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t, t.TempDir(), tc.found)
			s := sysctls{root: tr.root, record: newRecord(t.TempDir(), directorRecord)}
			for i, step := range tc.steps {
				if i == len(tc.steps)-1 {
					for name, value := range tc.meanwhile {
						tr.set(name, value)
					}
				}
				if err := s.prepareSloppy(step); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tc.want, tr.all(tc.found)); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
			if tc.meanwhile != nil {
				return
			}
			if err := s.restore(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.found, tr.all(tc.found)); diff != "" {
				t.Errorf("settings in the end (-found +left):\n%s", diff)
			}
		})
	}
}
