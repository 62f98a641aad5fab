package messages

// TargetCustom is the custom object of a TUF target (M2): the kind of the artifact and where it may be
// downloaded from. Length and SHA-256 are fields of the target itself. The TUF path of a target is "model/NAME"
// or "runtime/OS/ARCH/NAME". The development hub writes it; the TUF adapter reads it and refuses unknown keys.
type TargetCustom struct {
	Kind    ArtifactKind `json:"kind"`
	Name    string       `json:"name"`
	Version string       `json:"version"`
	// Default marks the artifact that is used if the configuration names none.
	Default bool `json:"default,omitempty"`
	// URLs to download from, https, in order of preference; each inside one of Origins (M4).
	URLs    []string `json:"urls"`
	Origins []string `json:"origins"`
	// Embedding says that the model computes embeddings (L5).
	Embedding bool `json:"embedding,omitempty"`
	// Platform of a runtime, such as "linux/amd64".
	Platform string `json:"platform,omitempty"`
	// Format of a runtime archive: "tar.gz" or "zip".
	Format string `json:"format,omitempty"`
	// Executable is the archive-relative path of llama-server.
	Executable string `json:"executable,omitempty"`
	// Files lists every regular file and symbolic link of the archive (M12).
	Files []TargetFile `json:"files,omitempty"`
	// Chunks are the SHA-256 digests of the consecutive chunks of the file, in lower-case hex (M14). Each chunk has
	// ChunkSize bytes, except the last, which may be shorter.
	ChunkSize int64    `json:"chunkSize,omitempty"`
	Chunks    []string `json:"chunks,omitempty"`

	// Parts are the files 2 to n of a split model, in order; the target itself is the first. Projector reads pictures or
	// sound for the model, and Draft guesses tokens for it (M17).
	Parts     []TargetPart `json:"parts,omitempty"`
	Projector *TargetPart  `json:"mmproj,omitempty"`
	Draft     *TargetPart  `json:"draft,omitempty"`
	// ModelSettings are how the publisher wants a model to be served.
	ModelSettings
}

// TargetPart is one further file of a model (M17).
type TargetPart struct {
	Name      string   `json:"name"`
	Length    int64    `json:"length"`
	SHA256    string   `json:"sha256"` // lower-case hex
	URLs      []string `json:"urls"`
	Origins   []string `json:"origins"`
	ChunkSize int64    `json:"chunkSize,omitempty"`
	Chunks    []string `json:"chunks,omitempty"`
}

// ModelSettings are how a model is served where neither the configuration nor a request says it.
type ModelSettings struct {
	// Context is the tokens of a request; 0: what the model was trained for.
	Context int `json:"context,omitzero"`
	// ChatTemplate replaces the template of the model's header (Jinja).
	ChatTemplate string `json:"chatTemplate,omitempty"`
	// Sampling has defaults of fields of a request, by the name of the field, such as "top_p". They are decimal numbers as
	// text, such as "0.95": the canonical JSON that TUF signs has no fractions.
	Sampling map[string]string `json:"sampling,omitempty"`
}

// TargetFile is one file or link of a runtime archive. SHA256 is lower-case hex; Link is set for a
// symbolic link, and then SHA256 is empty and Size zero.
type TargetFile struct {
	Path       string `json:"path"`
	SHA256     string `json:"sha256,omitempty"`
	Size       int64  `json:"size,omitempty"`
	Executable bool   `json:"executable,omitempty"`
	Link       string `json:"link,omitempty"`
}
