package browser

func command(start string) (string, []string) {
	return "rundll32", []string{"url.dll,FileProtocolHandler", start}
}
