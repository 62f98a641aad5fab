package spawn

// WriteRecord is writeRecord, for tests from outside.
var WriteRecord = writeRecord
