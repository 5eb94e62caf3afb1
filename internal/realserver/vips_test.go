package realserver_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

func TestParseVIPs(t *testing.T) {
	tests := map[string]struct {
		texts   []string
		want    []netip.Addr
		wantErr string
	}{
		"one":              {texts: []string{"192.168.11.200"}, want: addrs("192.168.11.200")},
		"of both families": {texts: []string{"2001:DB8::1", "192.0.2.1"}, want: addrs("2001:db8::1", "192.0.2.1")},
		"private":          {texts: []string{"fd00::1"}, want: addrs("fd00::1")},
		"none":             {wantErr: "at least one"},
		"empty":            {texts: []string{""}, wantErr: "no IP address"},
		"a name":           {texts: []string{"www"}, wantErr: "no IP address"},
		"a network":        {texts: []string{"192.0.2.1/32"}, wantErr: "no IP address"},
		"unspecified":      {texts: []string{"0.0.0.0"}, wantErr: "unspecified"},
		"unspecified v6":   {texts: []string{"::"}, wantErr: "unspecified"},
		"loopback":         {texts: []string{"127.1.2.3"}, wantErr: "loopback"},
		"loopback v6":      {texts: []string{"::1"}, wantErr: "loopback"},
		"multicast":        {texts: []string{"224.0.0.18"}, wantErr: "multicast"},
		"multicast v6":     {texts: []string{"ff02::12"}, wantErr: "multicast"},
		"broadcast":        {texts: []string{"255.255.255.255"}, wantErr: "broadcast"},
		"link-local":       {texts: []string{"169.254.0.1"}, wantErr: "link-local"},
		"link-local v6":    {texts: []string{"fe80::1%eth0"}, wantErr: "link-local"},
		"with a zone":      {texts: []string{"2001:db8::1%eth0"}, wantErr: "zone"},
		"IPv4-mapped":      {texts: []string{"::ffff:192.0.2.1"}, wantErr: "write 192.0.2.1"},
		"twice":            {texts: []string{"2001:db8::1", "2001:db8:0::1"}, wantErr: "twice"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := realserver.ParseVIPs(tc.texts)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("ParseVIPs() = %v, %v; want one line with %q", got, err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseVIPs(f *testing.F) {
	for _, text := range []string{"192.168.11.200", "2001:db8::1", "::ffff:127.0.0.1", "fe80::1%lo", "0", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		vips, err := realserver.ParseVIPs([]string{text})
		if err != nil {
			return
		}
		again, err := realserver.ParseVIPs([]string{vips[0].String()})
		if err != nil || !slices.Equal(vips, again) {
			t.Errorf("ParseVIPs(%q) = %v, and of that %v, %v", text, vips, again, err)
		}
		if !vips[0].IsGlobalUnicast() || vips[0].IsLoopback() || vips[0].Is4In6() {
			t.Errorf("ParseVIPs(%q) takes %v", text, vips)
		}
	})
}

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}
