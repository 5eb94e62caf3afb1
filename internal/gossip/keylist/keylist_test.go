package keylist

import (
	"bytes"
	"strings"
	"testing"
)

const (
	first  = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	second = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA="
)

func TestParse(t *testing.T) {
	var many [][]byte
	for range Max + 1 {
		many = append(many, NewKey())
	}
	for name, tc := range map[string]struct {
		text string
		want int
		err  string
	}{
		"one":                             {text: first + "\n", want: 1},
		"two, and the last without end":   {text: first + "\n" + second, want: 2},
		"lines of Windows, and empty":     {text: "\n  " + first + "\r\n\r\n" + second + " \r\n", want: 2},
		"as many as there may be":         {text: string(Format(many[1:])), want: Max},
		"nothing":                         {text: " \n\n", err: "no key"},
		"no base64":                       {text: first + "\nsecret?\n", err: "line 2 is not in base64"},
		"base64 of the web":               {text: strings.Repeat("_", 43) + "=\n", err: "line 1 is not"},
		"a short key":                     {text: "c2hvcnQ=\n", err: "line 1 has 5 bytes, it needs 32"},
		"a key for another cipher":        {text: "AAECAwQFBgcICQoLDA0ODw==", err: "it needs 32"},
		"one twice":                       {text: first + "\n" + first, err: "line 2 is there twice"},
		"more than there may be":          {text: string(Format(many)), err: "more than 8"},
		"a key with bits after its end":   {text: first[:42] + "9=", err: "line 1 is not in base64"},
		"two on a line":                   {text: first + " " + second, err: "line 1 is not in base64"},
		"a word that no error may repeat": {text: "hunter2hunter2", err: "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := Parse([]byte(tc.text))
			if len(list) != tc.want || (err == nil) != (tc.err == "") {
				t.Fatalf("Parse() = %d keys, %v; want %d, %q", len(list), err, tc.want, tc.err)
			}
			if err != nil && (!strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "hunter2")) {
				t.Errorf("Parse() = %v, want it to say %q and nothing of the key", err, tc.err)
			}
		})
	}
}

func TestNewKeysDiffer(t *testing.T) {
	if a, b := NewKey(), NewKey(); len(a) != KeySize || bytes.Equal(a, b) || bytes.Equal(a, make([]byte, KeySize)) {
		t.Errorf("NewKey() = %x, then %x", a, b)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(first + "\n" + second + "\n"))
	f.Add([]byte("\r\n" + first))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(Format(list))
		if err != nil || !Equal(list, again) || len(list) == 0 || len(list) > Max {
			t.Errorf("%d keys become %d, %v", len(list), len(again), err)
		}
	})
}
