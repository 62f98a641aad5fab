package wire

import (
	"bytes"
	"strconv"
)

// Head is what the raw bytes of a request head say that net/http hides from handlers, or answers
// before any handler runs (L3a).
type Head struct {
	// Malformed: not HTTP/1.1 in origin form, framed in two ways, a path that is encoded or dotted,
	// an upgrade, a byte that does not belong there.
	Malformed bool
	// BadHost: no Host, several, or one with bytes that no host has.
	BadHost bool
	// Length is the announced length of the body in bytes; Chunked says that it has none.
	Length  int64
	Chunked bool
}

// headEnd returns the length of the head at the start of b, or 0 when it is not complete. It looks
// from offset from on. A head ends where net/http would say so, bare line feeds included; inspect
// then refuses those.
func headEnd(b []byte, from int) int {
	for i := from; ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n
		switch rest := b[i+1:]; {
		case len(rest) >= 1 && rest[0] == '\n':
			return i + 2
		case len(rest) >= 2 && rest[0] == '\r' && rest[1] == '\n':
			return i + 3
		}
	}
}

// inspect reads a complete head as RFC 9112 has it, and returns its method. Whatever it does not
// know to be right is malformed.
func inspect(head []byte) (Head, []byte) {
	line, rest, whole := bytes.Cut(head, crlf)
	method, target, ok := requestLine(line)
	if !whole || !ok || !originForm(target) {
		return Head{Malformed: true}, nil
	}
	var h Head
	var hosts, lengths, codings int
	for {
		line, rest, whole = bytes.Cut(rest, crlf)
		if !whole {
			return Head{Malformed: true}, nil
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := fieldLine(line)
		if !ok {
			return Head{Malformed: true}, nil
		}
		switch {
		case is(name, "host"):
			hosts++
			h.BadHost = h.BadHost || !all(value, hostByte) || len(value) == 0
		case is(name, "content-length"):
			lengths++
			n, err := strconv.ParseUint(string(value), 10, 63)
			h.Length, h.Malformed = int64(n), h.Malformed || err != nil || !all(value, digit)
		case is(name, "transfer-encoding"):
			codings++
			h.Chunked, h.Malformed = true, h.Malformed || !is(value, "chunked")
		case is(name, "expect"):
			h.Malformed = h.Malformed || !is(value, "100-continue")
		case is(name, "upgrade"):
			h.Malformed = true
		}
	}
	body := h.Chunked || h.Length > 0
	if len(rest) > 0 || lengths+codings > 1 || body && string(method) == "GET" {
		h.Malformed = true
	}
	h.BadHost = h.BadHost || hosts != 1
	return h, method
}

var crlf = []byte("\r\n")

// requestLine takes "METHOD target HTTP/1.1" apart.
func requestLine(line []byte) (method, target []byte, ok bool) {
	method, rest, found := bytes.Cut(line, []byte(" "))
	target, version, again := bytes.Cut(rest, []byte(" "))
	ok = found && again && string(version) == "HTTP/1.1" &&
		len(method) > 0 && len(method) <= 32 && all(method, tokenByte)
	return method, target, ok
}

// originForm reports whether the target is a plain absolute path with an optional query: no
// percent, no empty or dotted segment.
func originForm(target []byte) bool {
	path, query, _ := bytes.Cut(target, []byte("?"))
	if len(path) == 0 || path[0] != '/' || !all(path, pathByte) || !all(query, queryByte) {
		return false
	}
	for at := 1; at < len(path); {
		segment := path[at:]
		if n := bytes.IndexByte(segment, '/'); n >= 0 {
			segment = segment[:n]
		}
		if len(segment) == 0 || string(segment) == "." || string(segment) == ".." {
			return false
		}
		at += len(segment) + 1
	}
	return true
}

func fieldLine(line []byte) (name, value []byte, ok bool) {
	name, value, found := bytes.Cut(line, []byte(":"))
	ok = found && len(name) > 0 && all(name, tokenByte) && all(value, valueByte)
	return name, bytes.Trim(value, " \t"), ok
}

// is compares without regard to case; want is in lower case.
func is(b []byte, want string) bool {
	if len(b) != len(want) {
		return false
	}
	for i := range b {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

// class is a set of bytes, as bits: one table lookup per byte.
type class uint8

const (
	tokenByte class = 1 << iota // RFC 9110 tchar
	pathByte
	queryByte
	hostByte
	valueByte // RFC 9110 field-content, with blanks
	digit
)

var classes = func() (t [256]class) {
	mark := func(c class, chars string) {
		for i := range len(chars) {
			t[chars[i]] |= c
		}
	}
	const digits, letters = "0123456789", "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	mark(digit, digits)
	mark(tokenByte, digits+letters+"!#$%&'*+-.^_`|~")
	mark(pathByte, digits+letters+"-._~/:@!$&'()*+,=")
	mark(queryByte, digits+letters+"-._~/:@!$&'()*+,=;?%[]")
	mark(hostByte, digits+letters+"-._:[]")
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= valueByte
		}
	}
	return t
}()

func all(b []byte, c class) bool {
	for _, x := range b {
		if classes[x]&c == 0 {
			return false
		}
	}
	return true
}
