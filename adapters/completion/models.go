package completion

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// listWithin bounds the question which models a server has.
	listWithin = 10 * time.Second
	// longestList bounds its answer, in bytes. OpenRouter's list has some hundred KiB.
	longestList = 4 << 20
)

// modelFacts is what the servers tell about a model: llama-server and Ollama list capabilities, OpenRouter and
// llama-server's router list modalities.
type modelFacts struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	Capabilities []string `json:"capabilities"`
	Architecture struct {
		Input []string `json:"input_modalities"`
	} `json:"architecture"`
}

// TakesImages asks the server whether the target's model takes images. It is false unless the server says so: an image
// that a model does not take costs a whole prompt, and some servers drop it silently.
func (c *Client) TakesImages(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	var list struct {
		Data   []modelFacts `json:"data"`
		Models []modelFacts `json:"models"`
	}
	if err := c.get(ctx, strings.TrimRight(c.target.BaseURL, "/")+"/models", &list); err != nil {
		return false, err
	}
	for _, m := range append(list.Data, list.Models...) {
		if m.ID != c.target.Model && m.Name != c.target.Model {
			continue
		}
		switch {
		case slices.Contains(m.Architecture.Input, "image"), slices.Contains(m.Capabilities, "vision"):
			return true, nil
		case slices.Contains(m.Capabilities, "multimodal"):
			return c.sees(ctx)
		}
	}
	return false, nil
}

// sees asks llama-server's properties which of image and sound a multimodal model takes.
func (c *Client) sees(ctx context.Context) (bool, error) {
	var properties struct {
		Modalities struct {
			Vision bool `json:"vision"`
		} `json:"modalities"`
	}
	root := strings.TrimSuffix(strings.TrimRight(c.target.BaseURL, "/"), "/v1")
	if err := c.get(ctx, root+"/props", &properties); err != nil {
		return false, err
	}
	return properties.Modalities.Vision, nil
}

// get reads a JSON document of the target's server.
func (c *Client) get(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("asking which models there are: %w", err)
	}
	request.Header.Set("User-Agent", "companion")
	if !c.target.Key.IsZero() {
		request.Header.Set("Authorization", "Bearer "+c.target.Key.Reveal())
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return &Error{Status: answer.StatusCode, Remote: !c.target.Local}
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, longestList+1))
	if err != nil {
		return c.explain(ctx, err)
	}
	if len(body) > longestList || json.Unmarshal(body, into) != nil {
		return c.malformed("the list of models is not in the OpenAI format")
	}
	return nil
}
