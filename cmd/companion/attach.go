package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"companion/adapters/completion"
)

const (
	// longestFile bounds one attached text, in bytes; the context is far smaller.
	longestFile = 1 << 20
	// largestImage bounds one attached image, in bytes: base64 and the endpoint's front_door.max_body allow no more.
	largestImage = 8 << 20
	// mostAttached bounds the files of one message.
	mostAttached = 16
)

// attachment is a file that goes with the next message: its text, quoted, or a data: URL.
type attachment struct {
	name  string // for people, in one line
	size  int
	text  string
	image string
}

// images are the formats that vision models take, as http.DetectContentType names them.
var images = []string{"image/png", "image/jpeg", "image/webp", "image/gif"}

// readAttachment reads a file. tokens are control tokens of the model's own vocabulary.
func readAttachment(path string, tokens []string) (attachment, error) {
	name := oneLine(filepath.Base(path))
	refuse := func(what, hint string) (attachment, error) {
		return attachment{}, &failure{code: "attachment", exit: exitUsage, message: name + ": " + what, hint: hint}
	}
	info, err := os.Stat(path) // before the open, which would wait for the writer of a FIFO
	switch {
	case err != nil:
		var at *os.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return refuse(err.Error(), "give the path of a text file or an image")
	case info.IsDir():
		return refuse("is a folder", "attach its files one by one, or use `companion enrich` for a folder of notes")
	case !info.Mode().IsRegular():
		return refuse("is not a regular file", "pipe it instead: standard input is joined to the prompt")
	}
	file, err := os.Open(path)
	if err != nil {
		return attachment{}, fmt.Errorf("attaching a file: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, largestImage+1))
	if err != nil {
		return attachment{}, fmt.Errorf("attaching a file: %w", err)
	}
	kind := http.DetectContentType(data)
	switch {
	case slices.Contains(images, kind) && len(data) > largestImage:
		return refuse(fmt.Sprintf("the image has more than %s", bytesText(largestImage)), "make it smaller; models scale it down in any case")
	case slices.Contains(images, kind):
		url := "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)
		return attachment{name: name, size: len(data), image: url}, nil
	case len(data) > longestFile:
		return refuse(fmt.Sprintf("has more than %s", bytesText(longestFile)), "attach the part that matters; the model's context, model.context, is far smaller")
	case !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0:
		return refuse("is neither UTF-8 text nor an image (PNG, JPEG, WebP, GIF)", "convert it to text first")
	case len(bytes.TrimSpace(data)) == 0:
		return refuse("is empty", "")
	}
	return attachment{name: name, size: len(data), text: quoteFile(name, string(data), tokens)}, nil
}

// spelled matches what a chat template may use as a control token: <|im_end|>, </s>, <start_of_turn>, [INST], [/INST].
var spelled = regexp.MustCompile(`<[^<>\s"'=]{1,48}>|\[/?[A-Za-z_|@]{2,48}\]`)

// quoteFile puts a text between lines of backticks that do not occur in it. It removes what steers a terminal, since a
// model may repeat it, and parts what the runtime would read as a control token: a file is data, and must not be able to
// end the user's turn.
func quoteFile(name, text string, tokens []string) string {
	text = strings.TrimPrefix(text, "\ufeff")
	text = plain(strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n"))
	part := func(token string) string {
		_, first := utf8.DecodeRuneInString(token)
		return token[:first] + " " + token[first:]
	}
	text = spelled.ReplaceAllStringFunc(text, part)
	name = spelled.ReplaceAllStringFunc(name, part)
	for _, token := range tokens {
		if utf8.RuneCountInString(token) > 1 {
			text = strings.ReplaceAll(text, token, part(token))
			name = strings.ReplaceAll(name, token, part(token))
		}
	}
	mark := "```"
	for strings.Contains(text, mark) {
		mark += "`"
	}
	return fmt.Sprintf("File %q:\n%s\n%s\n%s", name, mark, strings.TrimRight(text, "\n"), mark)
}

// attach reads a file for the next message. An image is refused unless the server says that the model takes images.
func (c *conversation) attach(ctx context.Context, path string) error {
	if len(c.attached) == mostAttached {
		return &failure{code: "attachment", exit: exitUsage, message: fmt.Sprintf("a message takes at most %d files", mostAttached), hint: "send this message first"}
	}
	file, err := readAttachment(path, c.control)
	if err != nil {
		return err
	}
	if file.image != "" {
		takes, err := c.client.TakesImages(ctx)
		var answered *completion.Error
		if err != nil && (!errors.As(err, &answered) || answered.Status == 0) {
			return err
		}
		if !takes {
			return &failure{code: "no_vision", exit: exitFailed, message: fmt.Sprintf("%s: %s does not take images", file.name, oneLine(c.model)),
				hint: "attach text, or ask a model with vision; the server must list it among the model's modalities"}
		}
	}
	c.attached = append(c.attached, file)
	return nil
}

// message is the user's turn, with the files that were attached.
func (c *conversation) message(prompt string) completion.Message {
	turn := completion.Message{Role: "user"}
	parts := []string{}
	for _, file := range c.attached {
		if file.image != "" {
			turn.Images = append(turn.Images, file.image)
		} else {
			parts = append(parts, file.text)
		}
	}
	turn.Content = strings.Join(append(parts, prompt), "\n\n")
	return turn
}
