package openai

// part is one piece of multi-part content of a chat. Types of the other formats that mean a text are written as one.
var part = &union{of: map[string]rule{
	"text": textPart("text"), "input_text": textPart("input_text"), "output_text": textPart("output_text"),
	"refusal": newObject(typeAs("refusal", "text"),
		field{name: "refusal", rule: renamed{text{}, "text"}, required: true, doc: "an assistant's earlier refusal, as text"},
	),
	"image_url": newObject(typeField("image_url"),
		field{name: "image_url", rule: either{'"': imageText{}, '{': imageObject}, required: true, note: func(s *seen) { s.images = true }, doc: "a picture, for models that see"},
		field{name: "detail", action: drop, doc: "it belongs into `image_url`"},
		cacheControl, providerFields,
	),
	"input_audio": newObject(typeField("input_audio"),
		field{name: "input_audio", rule: newObject(
			field{name: "data", rule: text{min: 1, only: base64, what: "base64"}, required: true, doc: "the sound"},
			field{name: "format", rule: oneOf("wav", "mp3"), required: true, doc: "its format"},
		), required: true, note: func(s *seen) { s.audio = true }, doc: "sound, for models that hear"},
		cacheControl, providerFields,
	),
}, dropped: map[string]string{
	"thinking": ofAnAnswer, "redacted_thinking": ofAnAnswer, "reasoning": ofAnAnswer,
}, refused: map[string]string{
	"file": noFiles, "input_file": noFiles, "document": noFiles, "video_url": noVideo, "input_video": noVideo,
	"image": "write `image_url` with a `data:` URL", "input_image": "write `image_url` with a `data:` URL",
	"tool_use": "write `tool_calls`; POST /v1/messages has such blocks", "tool_result": "write a message with the role `tool`; POST /v1/messages has such blocks",
}}

// textPart is a text, of whichever type.
func textPart(kind string) *object {
	return newObject(typeAs(kind, "text"),
		field{name: "text", rule: text{prompt: true}, required: true, doc: "text"},
		field{name: "annotations", action: drop, doc: ofAnAnswer}, field{name: "citations", action: drop, doc: ofAnAnswer},
		field{name: "image_url", action: refuse, doc: otherType}, field{name: "input_audio", action: refuse, doc: otherType},
		cacheControl, providerFields,
	)
}

const otherType = "`type` says that this part is a text"

var imageObject = newObject(
	field{name: "url", rule: dataURL{}, required: true, doc: "a `data:` URL; nothing is fetched"},
	field{name: "detail", rule: oneOf("auto", "low", "high"), doc: "how closely to look"},
)

// imageText is the URL of a picture without an object around it.
type imageText struct{}

func (imageText) describe() string { return dataURL{}.describe() }

func (imageText) read(r *reader) *Error {
	r.out = append(r.out, `{"url":`...)
	if err := (dataURL{}).read(r); err != nil {
		return err
	}
	r.out = append(r.out, '}')
	return nil
}

// speaker is the name of a speaker, as OpenAI allows it.
type speaker struct{}

const maxSpeaker = 64 // bytes

func (speaker) describe() string {
	return "a text of at most 64 bytes without blanks, <, >, |, / and \\"
}

func (s speaker) read(r *reader) *Error {
	name := text{max: maxSpeaker, what: s.describe(), only: func(b []byte) bool {
		return each(b, func(c byte) bool {
			return c > ' ' && c != 0x7f && c != '<' && c != '>' && c != '|' && c != '/' && c != '\\'
		})
	}}
	mark := len(r.out)
	if err := name.read(r); err != nil {
		return err
	}
	r.omit = len(r.out)-mark == len(`""`)
	return nil
}
