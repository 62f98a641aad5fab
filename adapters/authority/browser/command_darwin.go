package browser

func command(start string) (string, []string) { return "open", []string{start} }
