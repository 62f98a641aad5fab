package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// position is the line of a key or table in the file.
type position struct {
	name    string // dotted
	line    int
	isTable bool
}

type positionList []position

// line returns the line of a key, or 0.
func (l positionList) line(name string) int {
	for _, at := range l {
		if at.name == name && !at.isTable {
			return at.line
		}
	}
	return 0
}

// positions parses the document for the lines of its keys, because the decoders report only the line of a syntax error. A
// quoted key that contains a dot keeps its quotes, so that it is not read as a path.
func positions(data []byte) (positionList, error) {
	var list positionList
	var parser unstable.Parser
	parser.Reset(data)
	prefix := ""
	for parser.NextExpression() {
		node := parser.Expression()
		name, line := keyOf(&parser, node, "")
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			prefix = name
			list = append(list, position{name, line, node.Kind == unstable.Table})
		case unstable.KeyValue:
			list = append(list, values(&parser, node, prefix)...)
		}
	}
	if err := parser.Error(); err != nil {
		return nil, fmt.Errorf("finding the keys: %w", err)
	}
	return list, nil
}

func values(parser *unstable.Parser, node *unstable.Node, prefix string) positionList {
	name, line := keyOf(parser, node, prefix)
	if node.Value().Kind != unstable.InlineTable {
		return positionList{{name, line, false}}
	}
	list := positionList{{name, line, true}}
	for children := node.Value().Children(); children.Next(); {
		list = append(list, values(parser, children.Node(), name)...)
	}
	return list
}

func keyOf(parser *unstable.Parser, node *unstable.Node, prefix string) (string, int) {
	line := 0
	var parts []string
	if prefix != "" {
		parts = append(parts, prefix)
	}
	for key := node.Key(); key.Next(); {
		part := string(key.Node().Data)
		if strings.ContainsAny(part, ".\n") {
			part = fmt.Sprintf("%q", part)
		}
		parts = append(parts, part)
		if line == 0 {
			line = parser.Shape(key.Node().Raw).Start.Line
		}
	}
	return strings.Join(parts, "."), line
}

// known reports whether the table of keys has this key, or keys in this TOML table.
func known(name string, isTable bool) bool {
	return slices.ContainsFunc(table, func(k key) bool {
		if isTable {
			return strings.HasPrefix(k.name, name+".")
		}
		return k.name == name
	})
}

// unknown returns the message for an unknown name, with the names that are valid in its place.
func unknown(name string, isTable bool) string {
	if !isTable && known(name, true) {
		return "this is a table, not a value; write [" + name + "]"
	}
	section := ""
	if dot := strings.LastIndex(name, "."); dot >= 0 && known(name[:dot], true) {
		section = name[:dot] + "."
	}
	var names []string
	for _, k := range table {
		if rest, ok := strings.CutPrefix(k.name, section); ok {
			first, _, _ := strings.Cut(rest, ".")
			names = append(names, first)
		}
	}
	return "unknown key; accepted here: " + strings.Join(slices.Compact(names), ", ")
}
