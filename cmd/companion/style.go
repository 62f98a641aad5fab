package main

// The few colours there are; see colour for when.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	reset  = "\x1b[0m"
)

// paint puts text into a colour where colours are on.
func paint(on bool, with, text string) string {
	if !on || text == "" {
		return text
	}
	return with + text + reset
}
