package http1

import (
	"bytes"
	"strconv"
)

// Head is the result of reading the raw bytes of a request head, besides method, path and fields (L3a).
type Head struct {
	// Malformed means that the head is not HTTP/1.1 in origin form, is framed in two ways, has an encoded or
	// dotted path, asks for an upgrade other than h2c, or holds a byte that RFC 9110 does not allow there.
	Malformed bool
	// BadHost means that there is no Host field, several, or one with bytes that are not allowed in a host.
	BadHost bool
	// Length is the body's Content-Length in bytes. Chunked means that the body has none and is chunked.
	Length  int64
	Chunked bool

	closes    bool // the client closes the connection after this request
	continues bool // the client waits for 100 Continue (RFC 9110, 10.1.1)
}

// kept names the fields that the front door uses, in lower case and in canonical form. All other fields are
// checked and dropped.
var kept = [...]struct{ lower, canonical string }{
	{"authorization", "Authorization"}, {"x-api-key", "X-Api-Key"}, {"origin", "Origin"},
	{"sec-fetch-site", "Sec-Fetch-Site"}, {"content-type", "Content-Type"}, {"content-encoding", "Content-Encoding"},
	{"upgrade", "Upgrade"}, {"http2-settings", "Http2-Settings"},
}

// fields holds the kept fields of the current request. A value that is equal to the one of the previous
// request on the connection is not allocated again.
type fields struct {
	header map[string][]string
	values [len(kept)][]string
	method string
	path   string
	host   string
}

// again returns s if it equals b, and a new string otherwise.
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

// headEnd returns the length of the head at the start of b, or 0 when it is incomplete. It searches from
// offset from. A bare line feed also ends a head here, as in net/http; read refuses such a head.
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

// read parses a complete head as RFC 9112 requires. A head is malformed unless it is known to be valid, and read
// reports nothing else about a malformed head.
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
	if h.Malformed || len(rest) > 0 || lengths+codings > 1 || body && (f.method == "GET" || f.method == "HEAD") || !f.ignoreUpgrade() {
		return Head{Malformed: true}
	}
	if h.BadHost = h.BadHost || hosts != 1; h.BadHost {
		f.host = ""
	}
	return h
}

// ignoreUpgrade drops a request to continue in HTTP/2, which a server may ignore (RFC 9110, 7.8). It returns false
// for any other upgrade. The client announces HTTP/2 in one field of each kind (RFC 7540, 3.2.1).
func (f *fields) ignoreUpgrade() bool {
	upgrade, settings := f.header["Upgrade"], f.header["Http2-Settings"]
	switch {
	case len(upgrade) == 0:
		return len(settings) == 0
	case len(upgrade) > 1 || len(settings) != 1 || !is([]byte(upgrade[0]), "h2c"):
		return false
	}
	delete(f.header, "Upgrade")
	delete(f.header, "Http2-Settings")
	return true
}

// hasToken reports whether a comma-separated list holds want, which must be in lower case.
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

// requestLine splits "METHOD target HTTP/1.1".
func requestLine(line []byte) (method, target []byte, ok bool) {
	method, rest, found := bytes.Cut(line, []byte(" "))
	target, version, again := bytes.Cut(rest, []byte(" "))
	ok = found && again && string(version) == "HTTP/1.1" &&
		len(method) > 0 && len(method) <= 32 && all(method, tokenByte)
	return method, target, ok
}

// originForm reports whether the target is an absolute path with an optional query, without percent-encoding
// and without dot segments. Empty segments are left to the route table, which has none: clients send them whose
// base URL ends in a slash, and their users need an answer that says so.
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
		if string(segment) == "." || string(segment) == ".." {
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

// is compares and ignores ASCII case. want must be in lower case.
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

// class is a set of byte classes as bits, so that a check is one table lookup per byte.
type class uint8

const (
	tokenByte class = 1 << iota // RFC 9110 tchar
	pathByte
	queryByte
	hostByte
	valueByte // RFC 9110 field-content, with spaces
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
