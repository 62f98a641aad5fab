package spawn

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"companion/messages"
)

// further is a file of the model besides the first (M17), or the chat template of its target.
type further struct {
	role messages.PartRole
	file *os.File
}

// roleTemplate is the role of the chat template, which is part of the signed target.
const roleTemplate messages.PartRole = "template"

// places are where the runtime opens the files of its model; empty: it has none.
type places struct{ model, projector, draft, template string }

// openFurther opens the other files of the model, each as OpenModel does, and keeps those that the runtime gets. The runtime
// finds the parts of a split model by the name of the first one, so their names are links in the folder of this start, in
// which it may write nothing. They lead to the descriptors.
func (p *preparation) openFurther() error {
	m := p.spec.Model
	for _, part := range m.Parts {
		file, err := OpenPart(m, part)
		if err != nil {
			return err
		}
		if part.Role == messages.RoleDraft && !p.spec.UsesDraft() {
			_ = file.Close()
			continue
		}
		p.further = append(p.further, further{part.Role, file})
	}
	if m.Settings.ChatTemplate != "" {
		file, err := written(filepath.Join(p.dir, "chat-template.jinja"), m.Settings.ChatTemplate)
		if err != nil {
			return failed("writing the chat template", err)
		}
		p.further = append(p.further, further{roleTemplate, file})
	}
	weights := p.weights()
	for i, path := range weights {
		if len(weights) > 1 {
			if err := link(path, p.splitName(i, len(weights))); err != nil {
				return failed("naming the parts of the model", err)
			}
		}
	}
	return nil
}

// written writes a file and opens it for reading.
func written(path, text string) (*os.File, error) {
	if err := os.WriteFile(path, []byte(text), 0o400); err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return file, hide(path)
}

// weights are the paths of the parts of the model, in order, as the runtime opens them.
func (p *preparation) weights() []string {
	paths := []string{modelPath(p.model)}
	for i, f := range p.further {
		if f.role == messages.RoleWeights {
			paths = append(paths, furtherPath(i, f.file))
		}
	}
	return paths
}

// splitName is the name by which the runtime finds part i of n (llama_split_path).
func (p *preparation) splitName(i, n int) string {
	return filepath.Join(p.dir, fmt.Sprintf("model-%05d-of-%05d.gguf", i+1, n))
}

func (p *preparation) places() places {
	of := places{model: modelPath(p.model)}
	if n := len(p.weights()); n > 1 {
		of.model = p.splitName(0, n)
	}
	for i, f := range p.further {
		switch path := furtherPath(i, f.file); f.role {
		case messages.RoleProjector:
			of.projector = path
		case messages.RoleDraft:
			of.draft = path
		case roleTemplate:
			of.template = path
		}
	}
	return of
}

// samplingOptions are the options of the runtime for the defaults of a request.
var samplingOptions = map[string]string{
	"temperature": "--temp", "top_p": "--top-p", "top_k": "--top-k", "min_p": "--min-p",
	"repeat_penalty": "--repeat-penalty", "presence_penalty": "--presence-penalty", "frequency_penalty": "--frequency-penalty",
}

// ofModel are the arguments that follow from the target of the model (M17).
func (s Spec) ofModel(of places) []string {
	var args []string
	if of.projector != "" {
		args = append(args, "--mmproj", of.projector)
		if !s.GPU {
			args = append(args, "--no-mmproj-offload")
		}
	}
	if of.template != "" {
		args = append(args, "--jinja", "--chat-template-file", of.template)
	}
	var names []string
	for name := range s.Model.Settings.Sampling {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if option, known := samplingOptions[name]; known {
			args = append(args, option, s.Model.Settings.Sampling[name])
		}
	}
	return args
}
