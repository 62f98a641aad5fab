package http1

import (
	"bytes"
	"strconv"
)

// Head is what the raw bytes of a request head say beside method, path and fields (L3a).
type Head struct {
	// Malformed: not HTTP/1.1 in origin form, framed in two ways, a path that is encoded or dotted,
	// an upgrade, a byte that does not belong there.
	Malformed bool
	// BadHost: no Host, several, or one with bytes that no host has.
	BadHost bool
	// Length is the announced length of the body in bytes; Chunked says that it has none.
	Length  int64
	Chunked bool

	closes    bool // the client wants the connection to end
	continues bool // the client waits to be told to go on (RFC 9110, 10.1.1)
}

// kept names the fields that the front door asks about, in lower case and as net/http spells them.
// Every other field is checked and forgotten.
var kept = [...]struct{ lower, canonical string }{
	{"authorization", "Authorization"}, {"x-api-key", "X-Api-Key"}, {"origin", "Origin"},
	{"sec-fetch-site", "Sec-Fetch-Site"}, {"content-type", "Content-Type"}, {"content-encoding", "Content-Encoding"},
	{"upgrade", "Upgrade"}, {"http2-settings", "Http2-Settings"},
}

// fields holds the kept fields of one request after another. A value that comes again on the same
// connection costs no allocation.
type fields struct {
	header map[string][]string
	values [len(kept)][]string
	method string
	path   string
	host   string
}

// again returns s when it spells b, and a new string otherwise.
func again(s string, b []byte) string {
	if s == string(b) {
		return s
	}
	return string(b)
}

func (f *fields) reset() {
	if f.header == nil {
		f.header = make(map[string][]string, len(kept))
	}
	clear(f.header)
}

func (f *fields) add(name, value []byte) {
	for i := range kept {
		if !is(name, kept[i].lower) {
			continue
		}
		old, key := f.values[i], kept[i].canonical
		if now := f.header[key]; len(now) > 0 {
			f.values[i] = append(now, string(value))
		} else if len(old) > 0 {
			f.values[i] = append(old[:0], again(old[0], value))
		} else {
			f.values[i] = []string{string(value)}
		}
		f.header[key] = f.values[i]
		return
	}
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

// read judges a complete head as RFC 9112 has it. Whatever it does not know to be right is
// malformed; of a malformed head nothing but that is told.
func (f *fields) read(head []byte) Head {
	f.reset()
	f.host = ""
	line, rest, whole := bytes.Cut(head, crlf)
	method, target, ok := requestLine(line)
	if !whole || !ok || !originForm(target) {
		return Head{Malformed: true}
	}
	path, _, _ := bytes.Cut(target, []byte("?"))
	f.method, f.path = again(f.method, method), again(f.path, path)
	var h Head
	var hosts, lengths, codings int
	for {
		line, rest, whole = bytes.Cut(rest, crlf)
		if !whole {
			return Head{Malformed: true}
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := fieldLine(line)
		if !ok {
			return Head{Malformed: true}
		}
		switch {
		case is(name, "host"):
			hosts++
			h.BadHost = h.BadHost || !all(value, hostByte) || len(value) == 0
			f.host = again(f.host, value)
		case is(name, "content-length"):
			lengths++
			n, err := strconv.ParseUint(string(value), 10, 63)
			h.Length, h.Malformed = int64(n), h.Malformed || err != nil || !all(value, digit)
		case is(name, "transfer-encoding"):
			codings++
			h.Chunked, h.Malformed = true, h.Malformed || !is(value, "chunked")
		case is(name, "expect"):
			h.continues, h.Malformed = true, h.Malformed || !is(value, "100-continue")
		case is(name, "connection"):
			h.closes = h.closes || hasToken(value, "close")
		default:
			f.add(name, value)
		}
	}
	body := h.Chunked || h.Length > 0
	if h.Malformed || len(rest) > 0 || lengths+codings > 1 || body && f.method == "GET" || len(f.header["Upgrade"]) > 0 {
		return Head{Malformed: true}
	}
	if h.BadHost = h.BadHost || hosts != 1; h.BadHost {
		f.host = ""
	}
	return h
}

// hasToken reports whether a comma-separated list holds want, which is in lower case.
func hasToken(list []byte, want string) bool {
	for len(list) > 0 {
		item, rest, _ := bytes.Cut(list, []byte(","))
		if is(bytes.Trim(item, " \t"), want) {
			return true
		}
		list = rest
	}
	return false
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
