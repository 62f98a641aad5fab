package relay

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
)

// answerHead is the part of an answer's head that the relay uses. The other fields are ignored.
type answerHead struct {
	status  int
	length  int64 // of the body in bytes; -1 if the connection's end ends it
	chunked bool
	close   bool // the connection cannot be used again
	json    bool
	events  bool // text/event-stream
}

var errBadAnswer = errors.New("the runtime's answer cannot be read")

// readHead reads a status line and header. It refuses an answer that is framed in two ways, and a line longer
// than the reader's buffer. http.ReadResponse would do the same with a map and a dozen allocations.
func readHead(in *bufio.Reader) (answerHead, error) {
	h := answerHead{length: -1}
	line, err := readLine(in)
	if err != nil {
		return h, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return h, errBadAnswer
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil || h.status < 100 {
		return h, errBadAnswer
	}
	h.close = line[7] != '1'
	for lines := 0; ; lines++ {
		line, err := readLine(in)
		switch {
		case err != nil:
			return h, err
		case lines > 100:
			return h, errBadAnswer
		case len(line) == 0:
			if h.chunked && h.length >= 0 {
				return h, errBadAnswer
			}
			return h, nil
		}
		if err := h.field(line); err != nil {
			return h, err
		}
	}
}

func (h *answerHead) field(line []byte) error {
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found {
		return errBadAnswer
	}
	value = bytes.TrimSpace(value)
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		n, err := strconv.ParseUint(string(value), 10, 63)
		if err != nil || h.length >= 0 && h.length != int64(n) {
			return errBadAnswer
		}
		h.length = int64(n)
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		if h.chunked || !bytes.EqualFold(value, []byte("chunked")) {
			return errBadAnswer
		}
		h.chunked = true
	case bytes.EqualFold(name, []byte("Connection")):
		h.close = h.close || bytes.EqualFold(value, []byte("close"))
	case bytes.EqualFold(name, []byte("Content-Type")):
		kind, _, _ := bytes.Cut(value, []byte(";"))
		kind = bytes.TrimSpace(kind)
		h.json = bytes.EqualFold(kind, []byte("application/json"))
		h.events = bytes.EqualFold(kind, []byte("text/event-stream"))
	}
	return nil
}

// readLine returns a line without its line end. It is valid until the next read.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		if err == io.EOF && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// body returns a reader of the content that follows the head.
func (h *answerHead) body(in *bufio.Reader) io.Reader {
	switch {
	case h.status == http.StatusNoContent, h.status == http.StatusNotModified:
		return &sizedBody{in, 0} // these have no content, whatever the head says
	case h.chunked:
		return &chunkedBody{in, httputil.NewChunkedReader(in)}
	case h.length >= 0:
		return &sizedBody{in, h.length}
	}
	h.close = true
	return in
}

// sizedBody is a body of known length.
type sizedBody struct {
	in   *bufio.Reader
	left int64
}

func (b *sizedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	if b.left -= int64(n); err == io.EOF && b.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// chunkedBody also reads the trailer after the last chunk, so that the connection can be used again.
type chunkedBody struct {
	in     *bufio.Reader
	chunks io.Reader
}

func (b *chunkedBody) Read(p []byte) (int, error) {
	n, err := b.chunks.Read(p)
	if err != io.EOF {
		return n, err
	}
	for range 100 {
		line, bad := readLine(b.in)
		if bad != nil {
			return n, io.ErrUnexpectedEOF
		}
		if len(line) == 0 {
			return n, io.EOF
		}
	}
	return n, errBadAnswer
}
