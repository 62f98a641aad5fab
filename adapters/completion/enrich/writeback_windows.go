package enrich

import "io/fs"

// replaceable reports whether a new file can take the place of this one. NTFS keeps the owner of the folder's files.
func replaceable(fs.FileInfo) bool { return true }
