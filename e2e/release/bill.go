package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// The parts of CycloneDX 1.6 that are written here (https://cyclonedx.org/docs/1.6/json/).
type bill struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Timestamp string    `json:"timestamp"`
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// writeBill writes the bill of materials of an archive: the modules that Go recorded in its program.
func (s source) writeBill(file, program, archive string) error {
	packed, err := os.ReadFile(archive)
	if err != nil {
		return fmt.Errorf("reading an archive: %w", err)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("reading the modules of %s: %w", program, err)
	}
	encoded, err := json.MarshalIndent(s.billOf(info, sha256.Sum256(packed)), "", " ")
	if err != nil {
		return fmt.Errorf("encoding a bill of materials: %w", err)
	}
	if err := os.WriteFile(file, append(encoded, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing a bill of materials: %w", err)
	}
	return nil
}

// billOf depends only on its arguments: the serial number is the archive's digest in the form of a UUID.
func (s source) billOf(info *buildinfo.BuildInfo, digest [32]byte) bill {
	root := component{Type: "application", Ref: "companion", Name: "companion", Version: s.version,
		Hashes: []hash{{"SHA-256", fmt.Sprintf("%x", digest)}}, Properties: []property{{"vcs.revision", s.commit}}}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED", "-buildmode", "-ldflags", "-trimpath":
			root.Properties = append(root.Properties, property{"go:build:" + setting.Key, setting.Value})
		}
	}
	std := strings.TrimPrefix(info.GoVersion, "go")
	parts := []component{{Type: "library", Ref: "std", Name: "std", Version: std, PURL: "pkg:golang/std@" + std}}
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		purl := "pkg:golang/" + module.Path + "@" + module.Version
		parts = append(parts, component{Type: "library", Ref: purl, Name: module.Path, Version: module.Version, PURL: purl,
			Properties: []property{{"go:sum", module.Sum}}})
	}
	tree := []dependency{{Ref: root.Ref}}
	for _, part := range parts {
		tree[0].DependsOn = append(tree[0].DependsOn, part.Ref)
		tree = append(tree, dependency{Ref: part.Ref})
	}
	return bill{
		Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		SerialNumber: uuid(digest),
		Metadata:     metadata{Timestamp: s.at.Format(time.RFC3339), Component: root},
		Components:   parts, Dependencies: tree,
	}
}

// uuid is a digest as a UUID of version 8, whose content is the application's own (RFC 9562).
func uuid(digest [32]byte) string {
	b := digest[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
