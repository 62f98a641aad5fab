package e2e

import (
	"encoding/json"
	"slices"
	"testing"

	"companion/e2e/harness"
)

// L6a: tools work with the real runtime: the model sees them, and a required call comes back with the
// function and with arguments that its schema allows. The model of the other tests has no template for tools;
// this is the same model with such a template.
func TestTools(t *testing.T) {
	t.Parallel()
	parts := harness.Parts(t)
	hub := harness.NewHub(t)
	hub.Publish("model", harness.ModelName, harness.WithTemplate(t, parts.Model.File, harness.ToolTemplate), "--version", "1", "--default")
	hub.Publish("runtime", harness.RuntimeName, parts.Runtime.File, "--version", parts.Runtime.Version, "--default")
	c := hub.Companion("")
	c.Start()
	c.SignIn()
	c.Available()
	door := c.Door()
	const (
		question = `{"messages":[{"role":"user","content":"What is the weather in Lisbon?"}],"max_tokens":80,"temperature":0`
		weather  = `{"type":"function","function":{"name":"weather","description":"The weather of a town.","parameters":{"type":"object",
			"properties":{"town":{"type":"string","enum":["Lisbon","Porto"]}},"required":["town"],"additionalProperties":false}}}`
		clock = `{"type":"function","function":{"name":"clock","description":"The time.","parameters":{"type":"object","properties":{}}}}`
	)
	plain := ask(t, door, chatPath, question+"}")
	offered := ask(t, door, chatPath, question+`,"tools":[`+clock+","+weather+`],"tool_choice":"auto"}`)
	if offered.Usage.PromptTokens < plain.Usage.PromptTokens+50 {
		t.Errorf("got %d prompt tokens with tools, %d without, want at least 50 more", offered.Usage.PromptTokens, plain.Usage.PromptTokens)
	}
	for name, field := range map[string]string{
		"required": `,"tools":[` + weather + `],"tool_choice":"required"}`,
		"named":    `,"tools":[` + clock + "," + weather + `],"tool_choice":{"type":"function","function":{"name":"weather"}}}`,
	} {
		calls := ask(t, door, chatPath, question+field).Choices[0].Message.ToolCalls
		if len(calls) == 0 {
			t.Errorf("%s: no call came back", name)
			continue
		}
		// A model this small continues to call, and the token bound can cut the last call off.
		first := calls[0].Function
		var arguments struct{ Town string }
		err := json.Unmarshal([]byte(first.Arguments), &arguments)
		if err != nil || first.Name != "weather" || !slices.Contains([]string{"Lisbon", "Porto"}, arguments.Town) {
			t.Errorf("%s: got call %+v, want weather in Lisbon or Porto", name, first)
		}
	}
	c.Stop()
}
