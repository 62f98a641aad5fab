package openai

// The parts of the oracle of FuzzCheck for what several fields or types say.

// wishesMeant takes out of a request what can be said in several fields, and returns what it means.
func wishesMeant(request map[string]any) map[string]any {
	delete(request, "num_ctx")
	wishes := map[string]any{}
	say := func(name string, value any) {
		if value != nil {
			wishes[name] = value
		}
	}
	object := func(name string) map[string]any { o, _ := request[name].(map[string]any); return o }
	thinks := func(value any) {
		if value != nil {
			wishes["chat_template_kwargs"] = map[string]any{"enable_thinking": value}
		}
	}
	for _, name := range []string{"repeat_penalty", "repetition_penalty"} {
		say("repeat_penalty", request[name])
	}
	for _, name := range []string{"thinking_budget", "thinking_budget_tokens"} {
		say("thinking_budget_tokens", request[name])
	}
	say("reasoning_effort", request["reasoning_effort"])
	say("reasoning_effort", object("reasoning")["effort"])
	if wishes["reasoning_effort"] == "none" {
		thinks(false)
	}
	thinks(object("chat_template_kwargs")["enable_thinking"])
	thinks(object("chat_template_kwargs")["thinking"])
	thinks(request["enable_thinking"])
	thinks(object("reasoning")["enabled"])
	if kind := object("thinking")["type"]; kind == "enabled" || kind == "disabled" {
		thinks(kind == "enabled")
	}
	for _, name := range []string{
		"repeat_penalty", "repetition_penalty", "thinking_budget", "thinking_budget_tokens", "reasoning_effort", "reasoning", "thinking",
		"enable_thinking", "chat_template_kwargs",
	} {
		delete(request, name)
	}
	return wishes
}

// partsMeant are the parts of a content as the runtime reads them.
func partsMeant(parts []any) (meant []any) {
	meant = []any{}
	for _, p := range parts {
		p := p.(map[string]any)
		switch p["type"] {
		case "thinking", "redacted_thinking", "reasoning":
			continue
		case "input_text", "output_text":
			p["type"] = "text"
		case "refusal":
			p = map[string]any{"type": "text", "text": p["refusal"]}
		case "image_url":
			delete(p, "detail")
			if url, ok := p["image_url"].(string); ok {
				p["image_url"] = map[string]any{"url": url}
			}
		}
		meant = append(meant, p)
	}
	return meant
}
