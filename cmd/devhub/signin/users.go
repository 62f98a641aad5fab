package signin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"companion/adapters/privatefs"
)

// User is one development user. The password is kept in the clear, in a file that only the developer
// can read, because its purpose is to be looked up there.
type User struct {
	Sub      string `json:"sub"`
	Provider string `json:"provider"`
	ID       string `json:"id"`
	Name     string `json:"name"`
	Role     string `json:"role"`
	Password string `json:"password"`
}

// Scopes of the hub (hub.md).
const (
	scopeRead  = "vault:read"
	scopeWrite = "vault:write"
)

// scopes are what a role may have; a role that is not known counts as member (hub.md).
func scopes(role string) []string {
	if role == "reader" {
		return []string{scopeRead}
	}
	return []string{scopeRead, scopeWrite}
}

// loadUsers reads the users, and makes ada (a member) and grace (a reader) where there are none. The
// user named also is added as a member when missing.
func loadUsers(path, also string) ([]User, error) {
	var users []User
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		users = []User{newUser("ada", "Ada Lovelace", "member"), newUser("grace", "Grace Hopper", "reader")}
	case err != nil:
		return nil, fmt.Errorf("reading the users: %w", err)
	default:
		if err := json.Unmarshal(data, &users); err != nil {
			return nil, fmt.Errorf("reading the users: %w", err)
		}
	}
	if also != "" && !slices.ContainsFunc(users, func(u User) bool { return u.ID == also }) {
		users = append(users, newUser(also, also, "member"))
	}
	data, err = json.MarshalIndent(users, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the users: %w", err)
	}
	return users, privatefs.WriteFile(path, data)
}

func newUser(id, name, role string) User {
	return User{Sub: "devhub|" + id, Provider: "devhub", ID: id, Name: name, Role: role, Password: rand.Text()}
}

func find(users []User, id string) (User, bool) {
	i := slices.IndexFunc(users, func(u User) bool { return u.ID == id })
	if i < 0 {
		return User{}, false
	}
	return users[i], true
}

// check compares digests, so that neither content nor length of the password shows in the time taken.
func (u User) check(password string) bool {
	want, got := sha256.Sum256([]byte(u.Password)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}
