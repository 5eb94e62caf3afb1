package scenarios

import (
	"bytes"
	"fmt"
	"strings"
)

// archive is a text file that holds others, each after a line "-- name --" (the
// txtar format). What comes before the first is a comment.
type archive struct {
	comment string
	files   []file
}

type file struct{ name, text string }

func parseArchive(text string) archive {
	var a archive
	body := &a.comment
	for line := range strings.Lines(text) {
		if name, ok := marker(line); ok {
			a.files = append(a.files, file{name: name})
			body = &a.files[len(a.files)-1].text
			continue
		}
		*body += line
	}
	return a
}

func marker(line string) (string, bool) {
	name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "-- ")
	if !ok {
		return "", false
	}
	name, ok = strings.CutSuffix(name, " --")
	return name, ok && name != ""
}

// file returns the text of the file of that name.
func (a *archive) file(name string) (string, bool) {
	for _, f := range a.files {
		if f.name == name {
			return f.text, true
		}
	}
	return "", false
}

// set replaces the file of that name, or adds it at the end. One that is empty
// is removed.
func (a *archive) set(name, text string) {
	var kept []file
	found := false
	for _, f := range a.files {
		if f.name == name {
			found = true
			f.text = text
		}
		if f.name != name || text != "" {
			kept = append(kept, f)
		}
	}
	if !found && text != "" {
		kept = append(kept, file{name, text})
	}
	a.files = kept
}

func (a *archive) bytes() []byte {
	var out bytes.Buffer
	out.WriteString(a.comment)
	for _, f := range a.files {
		fmt.Fprintf(&out, "-- %s --\n%s", f.name, f.text)
	}
	return out.Bytes()
}
