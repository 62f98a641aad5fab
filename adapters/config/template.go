package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Template returns the commented file that `config init` writes: every key with its default.
func Template() string {
	var b strings.Builder
	b.WriteString("# companion configuration. It holds no secret. Each line shows a default; environment\n" +
		"# variables (COMPANION_SECTION_KEY) and --set SECTION.KEY=VALUE stand above this file.\n")
	section := ""
	for _, k := range table {
		dot := strings.LastIndex(k.name, ".")
		if k.name[:dot] != section {
			section = k.name[:dot]
			fmt.Fprintf(&b, "\n[%s]\n", section)
		}
		fmt.Fprintf(&b, "%-34s # %s\n", k.name[dot+1:]+" = "+Literal(k.initial), k.doc)
	}
	return b.String()
}

// Literal formats a value as a TOML literal.
func Literal(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case layerText:
		return strconv.Quote(string(v))
	case []any:
		all := make([]string, len(v))
		for i, one := range v {
			all[i] = Literal(one)
		}
		return "[" + strings.Join(all, ", ") + "]"
	}
	return fmt.Sprint(v)
}
