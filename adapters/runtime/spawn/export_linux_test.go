package spawn

// WriteRecord is writeRecord, for tests from outside.
var WriteRecord = writeRecord

// UseDevice makes a device file stand for a GPU until restore is called.
func UseDevice(path string) (restore func()) {
	before := devicePatterns
	devicePatterns = []string{path}
	return func() { devicePatterns = before }
}
