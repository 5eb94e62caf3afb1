package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
)

// constants are a group of constants of the API with its comment.
type constants struct {
	comment string
	values  []constant
}

// constant is a name that objects hold, and what it means.
type constant struct{ value, meaning string }

// readConstants reads the groups of commented text constants of a Go file.
func readConstants(path string) ([]constants, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", path, err)
	}
	var groups []constants
	for _, declaration := range file.Decls {
		general, ok := declaration.(*ast.GenDecl)
		if !ok || general.Tok != token.CONST {
			continue
		}
		group := constants{comment: general.Doc.Text()}
		for _, spec := range general.Specs {
			group.values = append(group.values, valuesOf(spec.(*ast.ValueSpec))...)
		}
		groups = append(groups, group)
	}
	return groups, nil
}

func valuesOf(spec *ast.ValueSpec) []constant {
	var values []constant
	for i, name := range spec.Names {
		if i >= len(spec.Values) {
			break
		}
		literal, ok := spec.Values[i].(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			continue
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			continue
		}
		meaning := strings.TrimPrefix(spec.Doc.Text(), name.Name)
		values = append(values, constant{value, strings.TrimSpace(strings.TrimPrefix(meaning, ":"))})
	}
	return values
}

// render writes the group: its comment, and a row for each name.
func (c constants) render(out *strings.Builder) {
	fmt.Fprintf(out, "\n%s\n\n| name | meaning |\n|---|---|\n", escape(c.comment))
	for _, value := range c.values {
		fmt.Fprintf(out, "| `%s` | %s |\n", value.value, escape(value.meaning))
	}
}
