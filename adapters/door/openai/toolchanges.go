package openai

import "slices"

// toolChanges are the changes that blocks of an Anthropic conversation make to the tools. The model is offered those
// that there are after the last message.
type toolChanges struct {
	added   [][]byte // encoded
	names   []string // of added
	removed []string
}

// changedTool is the tool of a tool_addition or tool_removal: a reference to one in `tools`, or a tool itself.
func changedTool(remove bool) rule {
	named := field{name: "name", rule: toolChanged{longToolName, remove}, required: true, doc: "of a tool in `tools`"}
	server := field{name: "server_name", action: drop, doc: "tools of servers are left out"}
	return &union{of: map[string]rule{
		"tool_reference":  newObject(typeField("tool_reference"), named),
		"tool_definition": newObject(typeField("tool_definition"), field{name: "definition", rule: addedTool{}, required: true, doc: "the tool"}),
		"mcp_tool_reference": newObject(typeField("mcp_tool_reference"), server,
			field{name: "name", action: drop, doc: "tools of servers are left out"}),
		"mcp_toolset_reference": newObject(typeField("mcp_toolset_reference"), server),
	}}
}

// toolChanged is the name of a tool that is offered again, or no longer.
type toolChanged struct {
	text
	remove bool
}

func (c toolChanged) read(r *reader) *Error {
	mark := len(r.out)
	if err := c.text.read(r); err != nil {
		return err
	}
	r.toolChange(string(r.out[mark+1:len(r.out)-1]), c.remove)
	return nil
}

func (r *reader) toolChange(name string, remove bool) {
	removed := slices.DeleteFunc(r.changes.removed, func(n string) bool { return n == name })
	if remove {
		removed = append(removed, name)
	}
	r.changes.removed = removed
}

// addedTool is a tool that a message adds. It takes the place of one with the same name.
type addedTool struct{}

func (addedTool) describe() string { return inputTool{}.describe() }

func (addedTool) read(r *reader) *Error {
	if len(r.changes.added) >= maxTools {
		return fault(faultTooMany, "128 tools")
	}
	tools, names := r.tools, r.toolNames
	r.tools, r.toolNames = nil, nil
	err := inputTool{}.read(r)
	added, name := r.tools, r.toolNames
	r.tools, r.toolNames = tools, names
	if err != nil {
		return err
	}
	c := &r.changes
	if i := slices.Index(c.names, name[0]); i >= 0 {
		c.added, c.names = slices.Delete(c.added, i, i+1), slices.Delete(c.names, i, i+1)
	}
	c.added, c.names = append(c.added, added[0]), append(c.names, name[0])
	r.toolChange(name[0], false)
	return nil
}

// changeTools applies the changes.
func (r *reader) changeTools() {
	c := &r.changes
	if len(c.added)+len(c.removed) == 0 {
		return
	}
	var tools [][]byte
	var names []string
	keep := func(tool []byte, name string) {
		if !slices.Contains(c.removed, name) {
			tools, names = append(tools, tool), append(names, name)
		}
	}
	for i, name := range r.toolNames {
		if !slices.Contains(c.names, name) {
			keep(r.tools[i], name)
		}
	}
	for i, name := range c.names {
		keep(c.added[i], name)
	}
	r.tools, r.toolNames = tools, names
}

// leftOut reads a value by the rule and leaves it out: what it says is kept elsewhere.
type leftOut struct{ rule }

func (l leftOut) read(r *reader) *Error {
	mark := len(r.out)
	if err := l.rule.read(r); err != nil {
		return err
	}
	r.out = r.out[:mark]
	r.omit = true
	return nil
}
