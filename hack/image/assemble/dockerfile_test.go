package assemble

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// stage is one stage of a Dockerfile: its instructions in their order.
type stage struct {
	from         string
	instructions []instruction
}

type instruction struct{ keyword, rest string }

// stages reads the Dockerfile of the repository.
func stages(t *testing.T) []stage {
	t.Helper()
	text, err := os.ReadFile("../../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var found []stage
	for _, read := range instructions(string(text)) {
		switch {
		case read.keyword == "FROM":
			found = append(found, stage{from: read.rest})
		case len(found) == 0:
			t.Fatalf("%s before FROM", read.keyword)
		default:
			last := &found[len(found)-1]
			last.instructions = append(last.instructions, read)
		}
	}
	return found
}

// instructions splits a Dockerfile into its instructions, comments left out
// and continued lines joined.
func instructions(text string) []instruction {
	var found []instruction
	continued := ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if begin, isContinued := strings.CutSuffix(line, `\`); isContinued {
			continued += begin
			continue
		}
		keyword, rest, _ := strings.Cut(continued+line, " ")
		found = append(found, instruction{strings.ToUpper(keyword), strings.TrimSpace(rest)})
		continued = ""
	}
	return found
}

// final is what the last stage makes of an image.
type final struct {
	Files      map[string]string // by path in the image: where it comes from
	User       string
	Entrypoint []string
}

func finalStage(t *testing.T) final {
	t.Helper()
	all := stages(t)
	last := all[len(all)-1]
	if last.from != "scratch" {
		t.Errorf("the final stage is FROM %s, want scratch", last.from)
	}
	made := final{Files: map[string]string{}}
	for _, instruction := range last.instructions {
		switch instruction.keyword {
		case "COPY":
			words := strings.Fields(instruction.rest)
			if len(words) != 3 || words[0] != "--from=build" {
				t.Fatalf("COPY %s: want --from=build SOURCE TARGET", instruction.rest)
			}
			made.Files[words[2]] = words[1]
		case "USER":
			made.User = instruction.rest
		case "ENTRYPOINT":
			if err := json.Unmarshal([]byte(instruction.rest), &made.Entrypoint); err != nil {
				t.Fatalf("ENTRYPOINT %s: %v", instruction.rest, err)
			}
		default:
			t.Errorf("the final stage has %s, which hack/image knows nothing of", instruction.keyword)
		}
	}
	return made
}
