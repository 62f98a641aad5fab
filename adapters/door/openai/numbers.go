package openai

import (
	"fmt"
	"math"
	"strconv"
)

type boolean struct{ note func(*seen, bool) }

func (boolean) describe() string { return "true or false" }

func (b boolean) read(r *reader) *Error {
	k := r.dec.PeekKind()
	if k != 't' && k != 'f' {
		if err := r.syntax(); err != nil {
			return err
		}
		return fault(faultWrongType, b.describe())
	}
	raw, err := r.dec.ReadValue()
	if err != nil {
		return notJSON()
	}
	r.out = append(r.out, raw...)
	if b.note != nil {
		b.note(&r.seen, k == 't')
	}
	return nil
}

// integer is a whole number; 5.0 counts as 5.
type integer struct {
	min, max int64
	note     func(*seen, int64)
}

func (n integer) describe() string { return fmt.Sprintf("a whole number from %d to %d", n.min, n.max) }

func (n integer) read(r *reader) *Error {
	x, err := n.value(r)
	if err != nil {
		return err
	}
	n.write(r, x)
	return nil
}

// value reads the number and checks it.
func (n integer) value(r *reader) (int64, *Error) {
	x, err := r.number(n.describe())
	if err != nil {
		return 0, err
	}
	if x != math.Trunc(x) || x < float64(n.min) || x > float64(n.max) {
		return 0, fault(faultOutOfRange, n.describe())
	}
	return int64(x), nil
}

func (n integer) write(r *reader, x int64) {
	r.out = strconv.AppendInt(r.out, x, 10)
	if n.note != nil {
		n.note(&r.seen, x)
	}
}

// number is a number of a range.
type number struct{ min, max float64 }

func (n number) describe() string {
	return "a number from " + strconv.FormatFloat(n.min, 'g', -1, 64) + " to " + strconv.FormatFloat(n.max, 'g', -1, 64)
}

func (n number) read(r *reader) *Error {
	x, err := r.number(n.describe())
	if err != nil {
		return err
	}
	if !(x >= n.min && x <= n.max) {
		return fault(faultOutOfRange, n.describe())
	}
	r.out = appendNumber(r.out, x)
	return nil
}

func appendNumber(out []byte, x float64) []byte {
	if x == math.Trunc(x) && math.Abs(x) < 1e7 { // larger ones would outgrow what the client wrote
		return strconv.AppendInt(out, int64(x), 10)
	}
	return strconv.AppendFloat(out, x, 'g', -1, 64)
}
